"""Estimates the cost of the Beam components for a large corpus from their time on one core; prints the README's table.

    .venv/bin/python -m tests.benchmarks.cost

The cost per pair is the slope between two sizes of the demo corpus, so the start-up time of a component is excluded.
The bytes shuffled are those that are pickled for a CombineFn, once per shard. Prints one line per component, then
hours and dollars.
"""

import argparse
import pathlib
import pickle
import tempfile

from seq2serve.components.base.artifact import Artifact, Examples
from seq2serve.components.statistics_gen.workers import CountShard
from seq2serve.components.storage.shards import shard_paths
from seq2serve.components.transform.workers import CountWords
from seq2serve.pipeline.commands.logs import set_up_logs
from seq2serve.pipeline.config import preset, with_settings
from seq2serve.pipeline.dag import make_pipeline
from seq2serve.pipeline.running.pipeline import Pipeline
from seq2serve.pipeline.running.runner import Runner
from tests.benchmarks.data import COLUMNS, grow

SIZES = 100_000, 600_000
PAIRS = 10**9
WORKERS, CORES, GB_PER_CORE = 40, 4, 4
# Dollars of Dataflow batch jobs: typical list prices; they depend on the region.
CORE_HOUR, GB_HOUR, GB_SHUFFLED = 0.056, 0.0036, 0.011
SETTINGS = ("data.eval_share=0.01", "data.test_share=0.01", "data.max_length=128", "tokenizer.vocab_size=8000")
# Component -> the output whose bytes are counted.
STEPS = {"ExampleGen": "examples", "StatisticsGen": "statistics", "Transform": "transformed_examples"}


def shuffled_bytes(examples: Examples) -> dict[str, int]:
    """Returns component -> pickled bytes of the counts of all shards of the train split."""
    paths = shard_paths(examples, "train")
    counts = {
        "StatisticsGen": (each for path in paths for each in CountShard(list(COLUMNS), ()).process(("train", path))),
        "Transform": (each for path in paths for each in CountWords({"": COLUMNS}).process(path)),
    }
    return {component: sum(len(pickle.dumps(each)) for each in elements) for component, elements in counts.items()}


def size(artifact: Artifact) -> int:
    """Returns the bytes of an artifact."""
    return sum(path.stat().st_size for path in pathlib.Path(artifact.uri).rglob("*") if path.is_file())


def measure(num_pairs: int) -> dict[str, tuple[float, int, int]]:
    """Returns component -> (seconds, bytes written, bytes shuffled) for a corpus of that many pairs."""
    config = with_settings(preset("demo", "translation"), SETTINGS)
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/pairs.tsv"
        grow(path, num_pairs)
        pipeline = make_pipeline(config, path, f"{folder}/runs", f"{folder}/serving")
        last = [node.id for node in pipeline.nodes].index("Transform")
        result = Runner(Pipeline(pipeline.name, pipeline.pipeline_root, pipeline.nodes[: last + 1])).run()
        shuffled = shuffled_bytes(result.output("ExampleGen", "examples"))
        return {
            step: (result.nodes[step].seconds, size(result.output(step, key)), shuffled.get(step, 0))
            for step, key in STEPS.items()
        }


def main() -> None:
    """Prints the table and the cost."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    set_up_logs(verbose=False)
    small, large = map(measure, SIZES)
    slopes = {
        step: [(after - before) / (SIZES[1] - SIZES[0]) for before, after in zip(small[step], large[step], strict=True)]
        for step in STEPS
    }
    slopes["total"] = [sum(column) for column in zip(*slopes.values(), strict=True)]
    print(f"| step | core µs per pair | core hours for {PAIRS:,} pairs | bytes written per pair | shuffled per pair |")
    print("|---|---|---|---|---|")
    for step, (seconds, written, shuffled) in slopes.items():
        print(f"| {step} | {1e6 * seconds:.1f} | {seconds * PAIRS / 3600:.1f} | {written:.0f} | {shuffled:.1f} |")
    seconds, written, shuffled = slopes["total"]
    hours = seconds * PAIRS / 3600
    costs = hours * CORE_HOUR, hours * GB_PER_CORE * GB_HOUR, shuffled * PAIRS / 1e9 * GB_SHUFFLED
    minutes = 60 * hours / WORKERS / CORES
    print(f"{WORKERS} workers of {CORES} cores: {minutes:.0f} minutes, {hours / CORES:.1f} worker hours")
    print(f"cores {costs[0]:.2f} $ + memory {costs[1]:.2f} $ + shuffle {costs[2]:.2f} $ = {sum(costs):.2f} $")
    print(f"stored: {written * PAIRS / 1e9:.0f} GB")


if __name__ == "__main__":
    main()
