"""How fast a SavedModel loads, answers and is served, and whether a server stands load while versions change.

    python -m tests.benchmarks.serve serving/en-de/1795352227

Prints one JSON object: what the issue asks for beside what was measured.
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

import numpy as np

from components.serving_client import ServingClient, free_port
from components.serving_folder import publish, rollback
from models.runtime import SavedModelRuntime
from models.warmup import read_warmup_requests

CLIENTS = 32
SENTENCES = ["Turn on the light", "The device could not be found", "Open", "Enter the code that is shown in the app"]


def milliseconds(action) -> float:
    start = time.perf_counter()
    action()
    return 1000 * (time.perf_counter() - start)


def request(text: str) -> dict[str, np.ndarray]:
    return {"text": np.array([text.encode()], object)}


def measure_runtime(directory: str, repeat: int) -> tuple[dict[str, float], SavedModelRuntime]:
    """Returns times of the C++ runtime alone, and the runtime."""
    start = time.perf_counter()
    model = SavedModelRuntime(directory)
    load = time.perf_counter() - start
    for warm in read_warmup_requests(directory):
        model.run(warm.signature, warm.inputs)
    warmup = time.perf_counter() - start - load

    def ask():
        model.run("serving_default", request(SENTENCES[0]))

    first = milliseconds(ask)
    median = statistics.median(milliseconds(ask) for _ in range(repeat))
    times = {"load_s": load, "warmup_s": warmup, "first_ms": first, "median_ms": median, "first/median": first / median}
    return times, model


@contextlib.contextmanager
def serving(folder: str):
    """Runs `seq2serve serve`; yields its client and its process."""
    rest, rpc = free_port(), free_port()
    command = [sys.executable, "-m", "pipeline", "serve", folder, "--name", "m", "--port", str(rest)]
    process = subprocess.Popen([*command, "--grpc-port", str(rpc)], stdout=subprocess.DEVNULL)
    try:
        with ServingClient("m", rest, rpc) as client:
            assert client.wait_until_ready(120, lambda: process.poll() is None)
            yield client, process
    finally:
        process.terminate()
        process.wait()


def measure_latency(model: SavedModelRuntime, client: ServingClient, repeat: int) -> dict[str, float]:
    """Returns the medians of one sentence asked for again and again: the runtime here and the server, in turn."""
    asks = {
        "alone_ms": lambda: model.run("serving_default", request(SENTENCES[0])),
        "rest_ms": lambda: client.predict_by_rest("serving_default", request(SENTENCES[0]), ["translation"]),
        "grpc_ms": lambda: client.predict_by_grpc("serving_default", request(SENTENCES[0])),
    }
    rounds = [{name: milliseconds(ask) for name, ask in asks.items()} for _ in range(repeat)]
    times = {name: statistics.median(each[name] for each in rounds) for name in asks}
    return {**times, "rest_adds_ms": times["rest_ms"] - times["alone_ms"]}


def measure_load(client: ServingClient, process, folder: str, source: str, answers, seconds: float) -> dict[str, float]:
    """Lets many clients ask at once while versions are pushed and rolled back."""
    end, memory = time.monotonic() + seconds, []

    def ask(number: int) -> tuple[int, int, int]:
        asked = failed = wrong = 0
        while time.monotonic() < end:
            text = SENTENCES[asked % len(SENTENCES)]
            try:
                if number % 2:
                    answer = client.predict_by_rest("serving_default", request(text), ["translation"])
                else:
                    answer = client.predict_by_grpc("serving_default", request(text))
                wrong += answer["translation"][0] != answers[text]
            except Exception:  # whatever it is, a request failed
                failed += 1
            asked += 1
        return asked, failed, wrong

    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(ask, number) for number in range(CLIENTS)]
        for number in range(10**6):
            if time.monotonic() > end:
                break
            memory.append(_most_memory(process.pid, seconds / 12))
            # The same graph with another file beside it is another version.
            pathlib.Path(source, "assets.extra", "note").write_text(str(number))
            publish(folder, source, {}, 3) if number % 2 else rollback(folder)
    asked, failed, wrong = (sum(counts) for counts in zip(*(client.result() for client in clients), strict=True))
    return {"asked": asked, "failed": failed, "wrong": wrong, "per_second": asked / seconds, "memory_mib": memory}


def _most_memory(pid: int, seconds: float) -> int:
    """Returns the most MiB that a process has while so many seconds pass."""
    end, most = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
        most = max(most, round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20))
        time.sleep(0.1)
    return most


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
    wanted = {"load_s": "< 2", "first/median": "< 1.5", "median_ms": "< 50", "rest_adds_ms": "< 3", "failed": 0}
    report = {"wanted": wanted, "runtime": runtime, "served": latency, "under_load": load}
    print(json.dumps(report, indent=2, default=lambda value: round(float(value), 3)))


if __name__ == "__main__":
    main()
