"""What the Beam components would cost for many pairs, from what they take on one core: the README's table.

    .venv/bin/python -m tests.benchmarks.cost

A pair's share is the slope between two sizes of the demo's corpus, so that what a component needs to start is left out.
Shuffled is what is pickled on its way to a CombineFn, once a shard. Prints a line a component, then hours and dollars.
"""

import argparse
import pathlib
import pickle
import tempfile

from components.artifact import Artifact, Examples
from components.shards import shard_paths
from components.statistics_gen_beam import CountShard
from components.transform_beam import CountWords
from pipeline.config import preset, with_settings
from pipeline.dag import make_pipeline
from pipeline.logs import set_up_logs
from pipeline.runner import Pipeline, Runner
from tests.benchmarks.data import COLUMNS, grow

SIZES = 100_000, 600_000
PAIRS = 10**9
WORKERS, CORES, GB_A_CORE = 40, 4, 4
# Dataflow batch, dollars: usual list prices, which differ from region to region. Look yours up.
CORE_HOUR, GB_HOUR, GB_SHUFFLED = 0.056, 0.0036, 0.011
SETTINGS = ("data.eval_share=0.01", "data.test_share=0.01", "data.max_length=128", "tokenizer.vocab_size=8000")
# Component -> what it writes, and which elements of it are shuffled.
STEPS = {"ExampleGen": "examples", "StatisticsGen": "statistics", "Transform": "transformed_examples"}


def shuffled_bytes(examples: Examples) -> dict[str, int]:
    """Returns component -> bytes of the counts of all shards of the train split."""
    paths = shard_paths(examples, "train")
    counts = {
        "StatisticsGen": (each for path in paths for each in CountShard(list(COLUMNS), ()).process(("train", path))),
        "Transform": (each for path in paths for each in CountWords({"": COLUMNS}).process(path)),
    }
    return {component: sum(len(pickle.dumps(each)) for each in found) for component, found in counts.items()}


def size(artifact: Artifact) -> int:
    """Returns the bytes of an artifact."""
    return sum(path.stat().st_size for path in pathlib.Path(artifact.uri).rglob("*") if path.is_file())


def measure(num_pairs: int) -> dict[str, tuple[float, int, int]]:
    """Returns component -> seconds, bytes written, bytes shuffled of a corpus of so many pairs."""
    config = with_settings(preset("demo", "translation"), SETTINGS)
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/pairs.tsv"
        grow(path, num_pairs)
        whole = make_pipeline(config, path, f"{folder}/runs", f"{folder}/serving")
        last = [node.id for node in whole.nodes].index("Transform")
        result = Runner(Pipeline(whole.name, whole.pipeline_root, whole.nodes[: last + 1])).run()
        shuffled = shuffled_bytes(result.output("ExampleGen", "examples"))
        return {
            step: (result.nodes[step].seconds, size(result.output(step, key)), shuffled.get(step, 0))
            for step, key in STEPS.items()
        }


def main() -> None:
    """Prints the table and what follows from it."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    set_up_logs(verbose=False)
    few, many = map(measure, SIZES)
    slopes = {
        step: [(after - before) / (SIZES[1] - SIZES[0]) for before, after in zip(few[step], many[step], strict=True)]
        for step in STEPS
    }
    slopes["together"] = [sum(column) for column in zip(*slopes.values(), strict=True)]
    print(
        f"| step | µs of a core a pair | {PAIRS:,} pairs, core hours | bytes written a pair | bytes shuffled a pair |"
    )
    print("|---|---|---|---|---|")
    for step, (seconds, written, shuffled) in slopes.items():
        print(f"| {step} | {1e6 * seconds:.1f} | {seconds * PAIRS / 3600:.1f} | {written:.0f} | {shuffled:.1f} |")
    seconds, written, shuffled = slopes["together"]
    hours = seconds * PAIRS / 3600
    costs = hours * CORE_HOUR, hours * GB_A_CORE * GB_HOUR, shuffled * PAIRS / 1e9 * GB_SHUFFLED
    minutes = 60 * hours / WORKERS / CORES
    print(f"{WORKERS} workers of {CORES} cores: {minutes:.0f} minutes, {hours / CORES:.1f} worker hours")
    print(f"cores {costs[0]:.2f} $ + memory {costs[1]:.2f} $ + shuffle {costs[2]:.2f} $ = {sum(costs):.2f} $")
    print(f"kept: {written * PAIRS / 1e9:.0f} GB")


if __name__ == "__main__":
    main()
