"""Data pipeline throughput, compared with a plain Python loop that does the same: read, count, learn, tokenise, write.

    .venv/bin/python tests/benchmarks/data.py --pairs 2000000 --workers 1 2

The text is the demo corpus, repeated; each copy of a row has another number appended. Prints one line per program:
pairs per second, peak memory of its largest process, and the ratio to the loop. Each runs in a separate process; the
times include the start of Python and its imports.
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
    """Writes a file of `num_pairs` pairs: the demo corpus, repeated."""
    from seq2serve.components.tasks.translation.demo import fetch_pairs

    header, *rows = pathlib.Path(fetch_pairs("de")).read_text(encoding="utf-8").splitlines()
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"{header}\n")
        for number in range(num_pairs):
            source, target = rows[number % len(rows)].split("\t")
            copy = f" {number // len(rows)}" if number >= len(rows) else ""
            file.write(f"{source}{copy}\t{target}{copy}\n")


def loop(path: str, folder: str) -> None:
    """Does the work of ExampleGen and Transform as a plain script would."""
    import tensorflow as tf

    from seq2serve.components.example_gen.workers import Splitter
    from seq2serve.models.config import TokenizerConfig
    from seq2serve.models.tokenizers.tokenizer import learn_tokenizer, load_tokenizer

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
    """Runs ExampleGen and Transform with Beam options."""
    from seq2serve.components.base.artifact import Examples, RawFiles, Schema, Tokenizer, TransformedExamples
    from seq2serve.components.base.component import Context
    from seq2serve.components.example_gen.component import ExampleGen
    from seq2serve.components.example_gen.config import InputConfig, SplitConfig
    from seq2serve.components.transform.component import Transform
    from seq2serve.components.transform.preprocessing import Preprocessing
    from seq2serve.models.config import TokenizerConfig

    context = Context(beam_options)
    outputs = {name: f"{folder}/{name}" for name in ("examples", "ids", "tokenizer")}
    for output in outputs.values():
        os.mkdir(output)
    pathlib.Path(folder, "schema.pbtxt").write_text("".join(f'feature {{ name: "{c}" type: BYTES }}' for c in COLUMNS))
    examples, file = Examples(outputs["examples"]), {"path": path, "bytes": os.path.getsize(path), "sha256": ""}
    ExampleGen.function(
        files=RawFiles(path, {"files": [file]}),
        examples=examples,
        columns={column: column for column in COLUMNS},
        input_config=InputConfig(),
        split_config=SplitConfig(0.01, 0.01),
        max_reject_share=0.01,
        context=context,
    )
    Transform.function(
        examples=examples,
        schema=Schema(folder),
        transformed_examples=TransformedExamples(outputs["ids"]),
        tokenizer=Tokenizer(outputs["tokenizer"]),
        preprocessing=Preprocessing(COLUMNS, MAX_LENGTH),
        tokenizer_config=TokenizerConfig(vocab_size=VOCAB_SIZE),
        context=context,
    )


def measure(path: str, workers: int) -> tuple[float, float]:
    """Returns the seconds that a program takes (0 workers: the loop) and the peak GiB of its largest process."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--child", json.dumps([path, folder, workers])]
        start = time.perf_counter()
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        return time.perf_counter() - start, float(done.stdout.split()[-1])


def child(path: str, folder: str, workers: int) -> None:
    """Runs a program and prints the peak GiB of the largest process: this one or a child."""
    if workers:
        parallel = (f"--direct_num_workers={workers}", "--direct_running_mode=multi_processing")
        pipeline(path, folder, parallel if workers > 1 else ())
    else:
        loop(path, folder)
    scopes = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    print(max(resource.getrusage(scope).ru_maxrss for scope in scopes) / 2**20)


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
        loop_seconds = None
        for workers in (0, *arguments.workers):
            seconds, peak = measure(path, workers)
            loop_seconds = loop_seconds or seconds
            name = f"pipeline, {workers} worker{'s' * (workers > 1)}" if workers else "loop"
            rate, ratio = arguments.pairs / seconds, loop_seconds / seconds
            values = f"{seconds:7.1f} s  {rate:8,.0f} pairs/s  {peak:.2f} GiB  {ratio:.2f} x the loop"
            print(f"{name:20} {values}", flush=True)


if __name__ == "__main__":
    main()
