"""Times the data road on a Flink cluster of this machine, with one TaskManager and with two.

    make test-flink                                       # brings Flink
    .venv/bin/python -m tests.benchmarks.flink --pairs 2000000

The work is that of data.py, ExampleGen and Transform; a TaskManager has one slot, so one worker process. Prints a line
a cluster: seconds, those of a file of hardly any rows once the cluster is warm, and how many times as fast it is as
one, in all and in what the rows take beyond that.
"""

import argparse
import contextlib
import pathlib
import tempfile
import time

from tests.benchmarks.data import ROOT, grow, pipeline
from tests.runners.flink_cluster import Cluster, process_options

FEW = 2_000


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
        # A worker cannot fetch files from a job whose Beam classes are the cluster's, and so is given none.
        nothing_staged = "--experiments=disable_logging_submission_environment"
        return [seconds(path, (*cluster.options, *workers, nothing_staged)) for path in paths]


def main() -> None:
    """Compares the two clusters."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/few.tsv", f"{folder}/pairs.tsv"]
        for path, num_pairs in zip(paths, (FEW, arguments.pairs), strict=True):
            grow(path, num_pairs)
        one = None
        for task_managers in (1, 2):
            _, few, many = measure([paths[0], *paths], task_managers)
            one = one or (many, many - few)
            times = f"{many:7.1f} s ({few:.1f} s for {FEW:,} pairs)"
            ratios = f"{one[0] / many:.2f} x one, {one[1] / (many - few):.2f} x beyond those"
            rate = f"{arguments.pairs / many:8,.0f} pairs/s"
            print(f"TaskManagers: {task_managers}  {times}  {rate}  {ratios}", flush=True)


if __name__ == "__main__":
    main()
