"""Times the data road beside a plain Python loop that does the same work: read, count, learn, tokenise, write.

    .venv/bin/python tests/benchmarks/data.py --pairs 2000000 --workers 1 2

The text is the demo's corpus, grown: every further copy of a row has a number more. Prints one line a program: pairs a
second, peak memory of its largest process, and how many times as fast as the loop it is. Each runs in a process of its
own; what Python needs to start and import is in the times of all.
"""

import argparse
import collections
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[2]
VOCAB_SIZE, MAX_LENGTH, BATCH_ROWS = 8000, 128, 1024
COLUMNS = ("source", "target")


def grow(path: str, num_pairs: int) -> None:
    """Writes the demo's corpus over and over until it has so many pairs."""
    from pipeline.corpora import fetch_translation

    header, *rows = pathlib.Path(fetch_translation("de")).read_text(encoding="utf-8").splitlines()
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"{header}\n")
        for number in range(num_pairs):
            source, target = rows[number % len(rows)].split("\t")
            copy = f" {number // len(rows)}" if number >= len(rows) else ""
            file.write(f"{source}{copy}\t{target}{copy}\n")


def loop(path: str, folder: str) -> None:
    """Does the work of ExampleGen and Transform as one would in a script of one's own."""
    import tensorflow as tf

    from components.example_gen_beam import Splitter
    from models.config import TokenizerConfig
    from models.tokenizer import learn_tokenizer, load_tokenizer

    splitter, words = Splitter(0.01, 0.01, 1), collections.Counter()
    writers = {split: tf.io.TFRecordWriter(f"{folder}/{split}.text") for split in ("train", "eval", "test")}
    with open(path, encoding="utf-8") as file:
        next(file)
        for line in file:
            row = line.rstrip("\n").split("\t")
            if len(row) != 2 or not all(map(str.strip, row)):
                continue
            split = splitter.split(row[0])
            example = tf.train.Example()
            for column, text in zip(COLUMNS, row, strict=True):
                example.features.feature[column].bytes_list.value.append(text.encode())
            writers[split].write(example.SerializeToString())
            if split == "train":
                for text in row:
                    words.update(text.split())
    for writer in writers.values():
        writer.close()
    learn_tokenizer(words.items(), TokenizerConfig(vocab_size=VOCAB_SIZE), folder)
    tokenizer = load_tokenizer(folder)
    features = {column: tf.io.FixedLenFeature([], tf.string) for column in COLUMNS}
    for split in writers:
        with tf.io.TFRecordWriter(f"{folder}/{split}.ids") as writer:
            for records in tf.data.TFRecordDataset(f"{folder}/{split}.text").batch(BATCH_ROWS):
                texts = tf.io.parse_example(records, features)
                ids = [tokenizer.tokenize(texts[column]).to_list() for column in COLUMNS]
                for row in zip(*ids, strict=True):
                    example = tf.train.Example()
                    for column, values in zip(COLUMNS, row, strict=True):
                        example.features.feature[f"{column}_ids"].int64_list.value.extend(values[:MAX_LENGTH])
                    writer.write(example.SerializeToString())


def pipeline(path: str, folder: str, beam_options: tuple[str, ...]) -> None:
    """Runs ExampleGen and Transform as Beam options say."""
    from components.artifact import Examples, RawFiles, Schema, Tokenizer, TransformedExamples
    from components.component import Context
    from components.example_gen import ExampleGen, Splitting
    from components.file_formats import Reading
    from components.transform import Preprocessing, Transform
    from models.config import TokenizerConfig

    context = Context(beam_options)
    made = {name: f"{folder}/{name}" for name in ("examples", "ids", "tokenizer")}
    for name in made.values():
        os.mkdir(name)
    pathlib.Path(folder, "schema.pbtxt").write_text("".join(f'feature {{ name: "{c}" type: BYTES }}' for c in COLUMNS))
    examples, file = Examples(made["examples"]), {"path": path, "bytes": os.path.getsize(path), "sha256": ""}
    ExampleGen.function(
        files=RawFiles(path, {"files": [file]}),
        examples=examples,
        columns={column: column for column in COLUMNS},
        reading=Reading(),
        splitting=Splitting(0.01, 0.01),
        max_reject_share=0.01,
        context=context,
    )
    Transform.function(
        examples=examples,
        schema=Schema(folder),
        transformed_examples=TransformedExamples(made["ids"]),
        tokenizer=Tokenizer(made["tokenizer"]),
        preprocessing=Preprocessing(COLUMNS, MAX_LENGTH),
        tokenizer_config=TokenizerConfig(vocab_size=VOCAB_SIZE),
        context=context,
    )


def measure(path: str, workers: int) -> tuple[float, float]:
    """Returns the seconds that a program takes, 0 workers for the loop, and the GiB of its largest process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--child", json.dumps([path, folder, workers])]
        start = time.perf_counter()
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        return time.perf_counter() - start, float(done.stdout.split()[-1])


def child(path: str, folder: str, workers: int) -> None:
    """Runs a program and prints the GiB of the largest process, this or one it has waited for."""
    if workers:
        parallel = (f"--direct_num_workers={workers}", "--direct_running_mode=multi_processing")
        pipeline(path, folder, parallel if workers > 1 else ())
    else:
        loop(path, folder)
    peaks = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(max(peaks) / 2**20)


def main() -> None:
    """Compares the pipeline with the loop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200_000)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/pairs.tsv"
        grow(path, arguments.pairs)
        print(f"{arguments.pairs:,} pairs, {os.path.getsize(path) / 2**20:.0f} MiB")
        alone = None
        for workers in (0, *arguments.workers):
            seconds, peak = measure(path, workers)
            alone = alone or seconds
            name = f"pipeline, {workers} worker{'s' * (workers > 1)}" if workers else "loop"
            speed = f"{arguments.pairs / seconds:8,.0f} pairs/s  {peak:.2f} GiB  {alone / seconds:.2f} x the loop"
            print(f"{name:20} {seconds:7.1f} s  {speed}", flush=True)


if __name__ == "__main__":
    main()
