"""Times decoding with and without each function of models/decoding/tuning.py, alternately; prints the gain of each.

The sizes are those of decode.py. A gain of 1.2 means that decoding takes 1.2 times as long without the function.
"""

import argparse
import contextlib
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
import unittest.mock

import decode
import tensorflow as tf

from seq2serve.models.runtime.runtime import SavedModelRuntime

_TUNING, _SEARCH = "seq2serve.models.decoding.tuning", "seq2serve.models.decoding.beam_search"


def _plain_log_sum_exp(logits: tf.Tensor, highest: tf.Tensor) -> tf.Tensor:
    return tf.reduce_logsumexp(logits, -1, keepdims=True)


# function -> what replaces it, and the options of decode.py with which it counts most
CASES = {
    "in_halves": ((f"{_TUNING}.MIN_SPLIT_BATCH", 10**9), ["--batch=32", "--beam=1", "--threads=2"]),
    "log_sum_exp": ((f"{_SEARCH}.log_sum_exp", _plain_log_sum_exp), ["--batch=32", "--beam=4"]),
    "top_k": ((f"{_SEARCH}.top_k", tf.math.top_k), ["--batch=32", "--beam=4"]),
}


def measure(name: str, repeat: int) -> list[float]:
    """Returns the ratios of `repeat` pairs of batches: the time without the function by the time with it."""
    replacement, options = CASES[name]
    sys.argv = ["decode.py", *options]
    arguments = decode.parse(__doc__)
    inputs = {"source": decode.sources(arguments)}
    runtimes = []
    for patch in (contextlib.nullcontext(), unittest.mock.patch(*replacement)):
        with patch, tempfile.TemporaryDirectory() as directory:
            decode.export(arguments, directory)
            runtimes.append(SavedModelRuntime(directory))
    seconds: list[list[float]] = [[], []]
    for index, number in itertools.product(range(repeat + 1), range(2)):
        begin = time.perf_counter()
        runtimes[number].run("serving_default", inputs)
        if index:  # the first batch warms up
            seconds[number].append(time.perf_counter() - begin)
    return [without / tuned for tuned, without in zip(*seconds, strict=True)]


def main() -> None:
    """Measures one function in this process, or each in a process of its own, because each has other threads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?", choices=CASES)
    parser.add_argument("--repeat", type=int, default=31)
    arguments = parser.parse_args()
    if not arguments.name:
        for name in CASES:
            subprocess.run([sys.executable, __file__, name, f"--repeat={arguments.repeat}"], check=True)
        return
    ratios = measure(arguments.name, arguments.repeat)
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"{arguments.name}: {middle:.2f} (quartiles {low:.2f} and {high:.2f}; {' '.join(CASES[arguments.name][1])})")


if __name__ == "__main__":
    main()
