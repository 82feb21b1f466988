"""Compares the speed of seq2serve with its alternatives, run alternately (A B A B); prints ratios of medians.

    make .peers/installed
    .venv/bin/python tests/benchmarks/speed.py --peers ../shared/peers

--peers is the folder of the peers' scripts. Prints the rate of each program, and the ratio ours / theirs.
"""

import argparse
import collections
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import numpy as np

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
RATE, SHARE = "target_tokens_per_second", "share_of_ceiling"
LENGTHS = (25, 50, 100, 200)


def run_program(command: list[str]) -> dict[str, float]:
    """Runs a program in the repository and returns its line of JSON."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    return json.loads(done.stdout.strip().splitlines()[-1])


def with_threads(programs: dict[str, list[str]]) -> dict[str, list[str]]:
    """Returns two programs for each, with one and two threads; the faster one counts."""
    return {
        f"{name}, {threads} threads": [*command, f"--threads={threads}"]
        for name, command in programs.items()
        for threads in (1, 2)
    }


def compare(title: str, programs: dict[str, list[str]], rounds: int) -> None:
    """Runs the programs alternately, `rounds` times, and prints the medians; the first program is ours."""
    rates, shares = collections.defaultdict(list), []
    for _ in range(rounds):
        for name, command in programs.items():
            answer = run_program(command)
            rates[name].append(answer[RATE])
            shares += [answer[SHARE]] if SHARE in answer else []
    best = {}
    print(f"{title}, tokens/s:")
    for name, values in rates.items():
        print(f"    {name:24s} {statistics.median(values):8.0f}   ({min(values):.0f} to {max(values):.0f})")
        program = name.split(", ")[0]
        best[program] = max(best.get(program, 0), statistics.median(values))
    (name, rate), *peers = best.items()
    ratios = ", ".join(f"{peer} {rate / value:.2f}" for peer, value in peers)
    print(f"    {name} / peer: {ratios}", flush=True)
    if shares:
        print(f"    {name}: {statistics.median(shares):.0%} of the rate of one large matrix product", flush=True)


def compare_lengths(beam: int, rounds: int) -> None:
    """Prints the time of one sentence for several lengths (source and target the same), and how it grows."""
    rates = collections.defaultdict(list)
    for _ in range(rounds):
        for length in LENGTHS:
            lengths = [f"--source-length={length}", f"--target-length={length}"]
            rates[length].append(
                run_program([sys.executable, str(HERE / "decode.py"), "--batch=1", f"--beam={beam}", *lengths])[RATE]
            )
    print(f"one sentence, beam {beam}, by length in tokens:")
    seconds = {length: length / statistics.median(values) for length, values in rates.items()}
    shortest = LENGTHS[0]
    for length, value in seconds.items():
        growth = value / seconds[shortest] / (length / shortest)
        print(f"    {length:4d} tokens  {value * 1e3:7.1f} ms   {growth:.2f} x linear growth", flush=True)


def write_batches(path: str) -> None:
    """Writes batches of random ids: 64 rows of 26 to 32 tokens, about a tenth of the positions padding."""
    generator, arrays = np.random.default_rng(0), {}
    for number in range(4):
        for side in ("src", "tgt"):
            ids = generator.integers(4, 8000, (64, 32)).astype(np.int32)
            lengths = generator.integers(26, 33, (64, 1))
            arrays[f"{side}_{number}"] = np.where(np.arange(32) < lengths, ids, 0)
    np.savez(path, **arrays)


def main() -> None:
    """Compares training and decoding with the peers, and long sentences with short ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=pathlib.Path, required=True)
    parser.add_argument("--peer-python", default=str(ROOT / ".peers/bin/python"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["training", "decoding", "lengths"])
    arguments = parser.parse_args()
    peer = [arguments.peer_python]
    if arguments.only in (None, "training"):
        with tempfile.TemporaryDirectory() as folder:
            write_batches(f"{folder}/batches.npz")
            torch = [*peer, str(arguments.peers / "train_torch.py"), "--batches", f"{folder}/batches.npz"]
            ours = [sys.executable, str(HERE / "train.py"), "--batches", f"{folder}/batches.npz"]
            programs = {"seq2serve": ours, "torch eager": torch, "torch.compile": [*torch, "--compile"]}
            compare("training", programs, arguments.rounds)
    if arguments.only in (None, "decoding"):
        for batch, beam in ((32, 1), (32, 4), (1, 1), (1, 4)):
            cell = [f"--batch={batch}", f"--beam={beam}"]
            programs = {
                "seq2serve": [sys.executable, str(HERE / "decode.py"), *cell],
                "CTranslate2": [*peer, str(arguments.peers / "decode_ctranslate2.py"), *cell],
                "transformers": [*peer, str(arguments.peers / "decode_transformers.py"), *cell],
            }
            compare(f"decoding, batch {batch}, beam {beam}", with_threads(programs), arguments.rounds)
    if arguments.only in (None, "lengths"):
        for beam in (1, 4):
            compare_lengths(beam, arguments.rounds)


if __name__ == "__main__":
    main()
