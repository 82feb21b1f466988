"""Measures the load time and latency of a SavedModel, alone and served, and a server under load while versions change.

    python -m tests.benchmarks.serve serving/en-de/1795352227

Prints one JSON object with the targets and the measurements. The exit code is 1 if an answer fails or is wrong, or if
the memory grows, while ten versions are pushed and three are rolled back.
"""

import argparse
import concurrent.futures
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np

from seq2serve.components.infra_validator.client import ServingClient, free_port
from seq2serve.components.pusher.versions import publish, rollback
from seq2serve.models.export.warmup import read_warmup_requests
from seq2serve.models.runtime.runtime import SavedModelRuntime

CLIENTS = 32
CHANGES = "pppprppprpppr"  # p: a version is pushed, r: the newest is rolled back; at even intervals
MAX_GROWTH = 1.1  # peak memory in the last third of the time, relative to the first third
SENTENCES = ["Turn on the light", "The device could not be found", "Open", "Enter the code that is shown in the app"]


def milliseconds(action: Callable[[], object]) -> float:
    """Returns how long an action takes."""
    start = time.perf_counter()
    action()
    return 1000 * (time.perf_counter() - start)


def request(text: str) -> dict[str, np.ndarray]:
    """Returns the inputs of serving_default for one text."""
    return {"text": np.array([text.encode()], object)}


def measure_runtime(directory: str, repeat: int) -> tuple[dict[str, float], SavedModelRuntime]:
    """Returns the times of the C++ runtime without a server, and the runtime."""
    start = time.perf_counter()
    model = SavedModelRuntime(directory)
    load = time.perf_counter() - start
    for warmup_request in read_warmup_requests(directory):
        model.run(warmup_request.signature, warmup_request.inputs)
    warmup = time.perf_counter() - start - load

    def query():
        model.run("serving_default", request(SENTENCES[0]))

    first = milliseconds(query)
    median = statistics.median(milliseconds(query) for _ in range(repeat))
    times = {"load_s": load, "warmup_s": warmup, "first_ms": first, "median_ms": median, "first/median": first / median}
    return times, model


@contextlib.contextmanager
def serving(folder: str):
    """Runs `seq2serve serve`; yields its client and its process."""
    rest, rpc = free_port(), free_port()
    command = [sys.executable, "-m", "seq2serve", "serve", folder, "--name", "m", "--port", str(rest)]
    process = subprocess.Popen([*command, "--grpc-port", str(rpc)], stdout=subprocess.DEVNULL)
    try:
        with ServingClient("m", rest, rpc) as client:
            assert client.wait_until_ready(120, lambda: process.poll() is None)
            yield client, process
    finally:
        process.terminate()
        process.wait()


def measure_latency(model: SavedModelRuntime, client: ServingClient, repeat: int) -> dict[str, float]:
    """Returns the median latencies of one sentence, sent alternately to the runtime and to the server."""
    queries = {
        "alone_ms": lambda: model.run("serving_default", request(SENTENCES[0])),
        "rest_ms": lambda: client.predict_by_rest("serving_default", request(SENTENCES[0]), ["translation"]),
        "grpc_ms": lambda: client.predict_by_grpc("serving_default", request(SENTENCES[0])),
    }
    rounds = [{name: milliseconds(query) for name, query in queries.items()} for _ in range(repeat)]
    times = {name: statistics.median(each[name] for each in rounds) for name in queries}
    return {**times, "rest_adds_ms": times["rest_ms"] - times["alone_ms"]}


def measure_load(client: ServingClient, process, folder: str, source: str, answers, seconds: float) -> dict[str, float]:
    """Sends requests from CLIENTS clients at once while versions are pushed and rolled back."""
    end, memory = time.monotonic() + seconds, []

    def send(client_number: int) -> tuple[int, int, int]:
        requests = failed = wrong = 0
        while time.monotonic() < end:
            text = SENTENCES[requests % len(SENTENCES)]
            try:
                if client_number % 2:
                    answer = client.predict_by_rest("serving_default", request(text), ["translation"])
                else:
                    answer = client.predict_by_grpc("serving_default", request(text))
                wrong += answer["translation"][0] != answers[text]
            except Exception:  # any exception is a failed request
                failed += 1
            requests += 1
        return requests, failed, wrong

    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(send, number) for number in range(CLIENTS)]
        for number, change in enumerate(CHANGES):
            memory.append(_peak_memory(process.pid, seconds / (len(CHANGES) + 1)))
            # The same graph with a changed extra file is a new version.
            pathlib.Path(source, "assets.extra", "note").write_text(str(number))
            publish(folder, source, {}, 3) if change == "p" else rollback(folder)
        memory.append(_peak_memory(process.pid, max(0, end - time.monotonic())))
    requests, failed, wrong = (sum(counts) for counts in zip(*(client.result() for client in clients), strict=True))
    third = len(memory) // 3
    growth = max(memory[-third:]) / max(memory[:third])
    return {
        "requests": requests,
        "failed": failed,
        "wrong": wrong,
        "per_second": requests / seconds,
        "memory_mib": memory,
        "memory_growth": growth,
    }


def _peak_memory(pid: int, seconds: float) -> int:
    """Returns the peak memory of a process over a number of seconds, in MiB."""
    end, peak = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
        peak = max(peak, round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20))
        time.sleep(0.1)
    return peak


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the folder of a translation SavedModel")
    parser.add_argument("--repeat", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60)
    arguments = parser.parse_args()
    runtime, model = measure_runtime(arguments.model, arguments.repeat)
    answers = {text: model.run("serving_default", request(text))["translation"][0] for text in SENTENCES}
    with tempfile.TemporaryDirectory() as scratch:
        folder, source = f"{scratch}/m", f"{scratch}/source"
        subprocess.run(["cp", "-r", arguments.model, source], check=True)
        publish(folder, source, {}, 3)
        pathlib.Path(source, "assets.extra", "note").write_text("second")
        publish(folder, source, {}, 3)
        with serving(folder) as (client, process):
            latency = measure_latency(model, client, arguments.repeat)
            load = measure_load(client, process, folder, source, answers, arguments.seconds)
    targets = {"load_s": "< 2", "first/median": "< 1.5", "median_ms": "< 50", "rest_adds_ms": "< 3"}
    targets |= {"failed": 0, "wrong": 0, "memory_growth": f"< {MAX_GROWTH}"}
    report = {"targets": targets, "runtime": runtime, "served": latency, "under_load": load}
    print(json.dumps(report, indent=2, default=lambda value: round(float(value), 3)))
    if load["failed"] or load["wrong"] or load["memory_growth"] > MAX_GROWTH:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
