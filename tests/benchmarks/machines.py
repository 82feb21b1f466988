"""Compares training in two processes of one core each with one of one core; prints rates and the cost of exchanges.

    .venv/bin/python tests/benchmarks/machines.py

The model is that of the translation demo; batches are random ids of its batch size. The two processes find each other
on loopback. Each case is measured `--rounds` times, in turn; nothing else should run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import keras
import numpy as np
import tensorflow as tf

from seq2serve.components.infra_validator.client import free_port
from seq2serve.models.training.loss import MaskedCrossEntropy
from seq2serve.models.training.optimizer import make_optimizer
from seq2serve.models.training.replicas import shared_batches
from seq2serve.models.transformer.models import Transformer
from seq2serve.pipeline.config import preset

CONFIG = preset("demo", "translation")
LIMIT = 1200  # seconds for a case
VOCAB_SIZE, BATCH_TOKENS = CONFIG.tokenizer.vocab_size, CONFIG.training.batch_tokens
# Case -> processes, batch size in multiples of the demo's, changes to the model. Half a batch in one process is what
# each of two processes computes. Large batches are split so that each process computes parts of the demo's size.
CASES = {
    "one process": (1, 1, {}),
    "two processes": (2, 1, {}),
    "two processes, bfloat16 gradients": (2, 1, {"gradient_dtype": "bfloat16"}),
    "one process, batches of eight": (1, 8, {"batch_parts": 8}),
    "two processes, batches of eight": (2, 8, {"batch_parts": 4}),
    "one process, batches of sixteen": (1, 16, {"batch_parts": 16}),
    "two processes, batches of sixteen": (2, 16, {"batch_parts": 8}),
    "half a batch in one process": (1, 0.5, {}),
}


def batches(multiple: float):
    """Yields endless batches of 6 to 30 tokens, a tenth of them padding."""
    rng = np.random.default_rng(0)
    while True:
        width = 2 * rng.integers(3, 16)
        ids = rng.integers(4, VOCAB_SIZE, (max(1, int(multiple * BATCH_TOKENS / width)), width)).astype(np.int32)
        labels = np.where(np.arange(width) < rng.integers(0.8 * width, width + 1, (len(ids), 1)), ids, 0)
        yield {"source": labels, "target": np.pad(labels[:, :-1], [(0, 0), (1, 0)], constant_values=2)}, labels


class Clock(keras.callbacks.Callback):
    """Counts target tokens, seconds and seconds of the CPU after some steps of warm-up."""

    def __init__(self, warmup: int):
        super().__init__()
        self._warmup, self.tokens, self.seconds, self.cpu_seconds, self._step = warmup, 0.0, 0.0, 0.0, 0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Adds a step."""
        self._step += 1
        if self._step > self._warmup:
            self.tokens += float(logs["labels"])
            self.seconds = time.perf_counter() - self._start
            self.cpu_seconds = time.process_time() - self._cpu_start
        else:
            self._start, self._cpu_start = time.perf_counter(), time.process_time()


def train(case: str, core: int, steps: int, warmup: int) -> None:
    """Trains in this process, on one core, and prints a line of JSON."""
    os.sched_setaffinity(0, {core})
    processes, multiple, changes = CASES[case]
    strategy = tf.distribute.MultiWorkerMirroredStrategy() if processes > 1 else tf.distribute.get_strategy()
    keras.utils.set_random_seed(1)
    with strategy.scope():
        model = Transformer(CONFIG.model, VOCAB_SIZE)
        model.build()
        model.compile(make_optimizer(CONFIG.training), MaskedCrossEntropy(0.1), jit_compile=False)
        model.optimizer.build(model.trainable_variables)
    for name, value in changes.items():
        setattr(model, name, value)
    ids = tf.TensorSpec([None, None], tf.int32)
    signature = ({"source": ids, "target": ids}, ids)
    data = tf.data.Dataset.from_generator(lambda: batches(multiple), output_signature=signature).prefetch(2)
    clock = Clock(warmup)
    model.fit(shared_batches(data, strategy), steps_per_epoch=steps + warmup, callbacks=[clock], verbose=0)
    results = {
        "tokens_per_second": clock.tokens / clock.seconds,
        "step_ms": 1000 * clock.seconds / steps,
        "cpu_ms": 1000 * clock.cpu_seconds / steps,
        "gradient_mb": 4 * model.count_params() / 1e6,
    }
    print(json.dumps(results), flush=True)
    os._exit(0)


def measure(case: str, steps: int, warmup: int) -> dict[str, float]:
    """Runs the processes of a case and returns the numbers of the first."""
    workers = [f"127.0.0.1:{free_port()}" for _ in range(CASES[case][0])]
    cores, processes = sorted(os.sched_getaffinity(0)), []
    for index in range(len(workers)):
        task = {"type": "worker", "index": index}
        environment = {
            **os.environ,
            "TF_CONFIG": json.dumps({"cluster": {"worker": workers}, "task": task}),
            "TF_NUM_INTRAOP_THREADS": "1",
            "TF_NUM_INTEROP_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "-1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        command = [sys.executable, __file__, "--case", case, "--core", str(cores[index])]
        command += ["--steps", str(steps), "--warmup", str(warmup)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(command, env=environment, **pipes))
    try:
        outputs = [process.communicate(timeout=LIMIT) for process in processes]
    finally:
        for process in processes:
            process.kill()
    if failed := [stderr for process, (_, stderr) in zip(processes, outputs, strict=True) if process.returncode]:
        sys.exit(failed[0])
    return json.loads(outputs[0][0].splitlines()[-1])


def main() -> None:
    """Measures all cases and prints medians, ratios and the cost of an exchange."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--warmup", type=int, default=15)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="measure only these")
    parser.add_argument("--case", choices=CASES, help="train in this process")
    parser.add_argument("--core", type=int)
    arguments = parser.parse_args()
    if arguments.case:
        train(arguments.case, arguments.core, arguments.steps, arguments.warmup)
    rounds = [
        {case: measure(case, arguments.steps, arguments.warmup) for case in arguments.cases}
        for _ in range(arguments.rounds)
    ]
    medians = {
        case: {name: statistics.median(done[case][name] for done in rounds) for name in rounds[0][case]}
        for case in arguments.cases
    }
    for case, values in medians.items():
        rates = [done[case]["tokens_per_second"] for done in rounds]
        print(
            f"{case:36s} {values['tokens_per_second']:7.0f} tokens/s ({min(rates):.0f} to {max(rates):.0f}), "
            f"{values['step_ms']:6.1f} ms per step, {values['cpu_ms']:6.1f} of the CPU"
        )
    for suffix in ("", ", batches of eight", ", batches of sixteen"):
        pair = [f"two processes{suffix}", f"one process{suffix}"]
        if set(pair) <= set(medians):
            two, one = (medians[case]["tokens_per_second"] for case in pair)
            print(f"{pair[0]} / {pair[1]}: {two / one:.2f}")
    if {"two processes", "half a batch in one process"} <= set(medians):
        cost = medians["two processes"]["step_ms"] - medians["half a batch in one process"]["step_ms"]
        size = medians["two processes"]["gradient_mb"]
        print(
            f"a step exchanges {size:.1f} MB of gradients and takes {cost:.0f} ms more than half a batch in one process"
        )


if __name__ == "__main__":
    main()
