"""Data pipeline throughput on a local Flink cluster, with one TaskManager and with two.

    make test-flink                                       # downloads Flink
    .venv/bin/python -m tests.benchmarks.flink --pairs 2000000

The work is that of data.py: ExampleGen and Transform. A TaskManager has one slot, so one worker process. Prints one
line per cluster: the seconds for the file, the seconds for a tiny file on the warm cluster (start-up time), and the
speed-up over one TaskManager, with and without the start-up time.
"""

import argparse
import contextlib
import pathlib
import tempfile
import time

from tests.benchmarks.data import ROOT, grow, pipeline
from tests.runners.flink_cluster import Cluster, process_options

TINY = 2_000  # pairs of the file that measures the start-up time


def seconds(path: str, options: tuple[str, ...]) -> float:
    """Returns how long a cluster takes for a file."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        pipeline(path, folder, options)
        return time.perf_counter() - start


def measure(paths: list[str], task_managers: int) -> list[float]:
    """Returns the seconds of each file on a new cluster."""
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cluster = Cluster(str(ROOT / ".flink"), folder, stack, task_managers, slots=1)
        workers = process_options(folder, str(ROOT / ".runners" / "boot"))
        # Beam's classes are in the cluster, not in the job, so a worker cannot fetch staged files: none are staged.
        nothing_staged = "--experiments=disable_logging_submission_environment"
        return [seconds(path, (*cluster.options, *workers, nothing_staged)) for path in paths]


def main() -> None:
    """Compares the two clusters."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/tiny.tsv", f"{folder}/pairs.tsv"]
        for path, num_pairs in zip(paths, (TINY, arguments.pairs), strict=True):
            grow(path, num_pairs)
        one = None
        for task_managers in (1, 2):
            _, start_up, total = measure([paths[0], *paths], task_managers)
            one = one or (total, total - start_up)
            times = f"{total:7.1f} s ({start_up:.1f} s for {TINY:,} pairs)"
            ratios = f"{one[0] / total:.2f} x one, {one[1] / (total - start_up):.2f} x without start-up"
            rate = f"{arguments.pairs / total:8,.0f} pairs/s"
            print(f"TaskManagers: {task_managers}  {times}  {rate}  {ratios}", flush=True)


if __name__ == "__main__":
    main()
