"""Flink with a JobManager and two TaskManagers: the same bytes as on the local runner, also if one is killed.

Beam's runner for Flink is 2.70, the newest one that we could get from Maven Central, with Beam 2.77 for Python. The job
server is not available there, so jobs are submitted to the JobManager as a jar (--flink_submit_uber_jar), and flink/
has stubs for three classes of the job server. Beam's classes are in the cluster, not in the job, so that a worker can
outlive a stage.
"""

import contextlib
import os
import threading
import time

import pytest

from tests.runners.flink_cluster import Cluster, kill, wait_for

FLINK = os.environ.get("SEQ2SERVE_FLINK", "")
pytestmark = [pytest.mark.runners, pytest.mark.skipif(not FLINK, reason="make test-flink downloads Flink")]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with contextlib.ExitStack() as stack:
        yield Cluster(FLINK, tmp_path_factory.mktemp("flink"), stack)


def test_workers_in_processes_write_the_same_bytes(run_components, cluster, process_workers):
    # Beam's classes are in the cluster, not in the job, so a worker cannot fetch staged files: none are staged.
    nothing_staged = "--experiments=disable_logging_submission_environment"
    assert run_components(*cluster.options, *process_workers, nothing_staged) == run_components()


def test_killing_a_task_manager_does_not_change_the_result(run_components, cluster, monkeypatch):
    """The workers are threads of this process (LOOPBACK), so that the test can slow them down and count their work."""
    from seq2serve.components.transform.workers import WriteIds

    expected, process = run_components(), WriteIds.process
    started, calls = threading.Event(), []

    def slow(self, element, learned=()):
        calls.append(element)
        started.set()
        time.sleep(2)
        yield from process(self, element, learned)

    def kill_one() -> None:
        started.wait()
        kill(cluster.task_managers[0])

    monkeypatch.setattr(WriteIds, "process", slow)
    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    assert run_components(*cluster.options, "--environment_type=LOOPBACK") == expected
    killer.join()
    assert len(calls) > len(set(calls)), "no work was repeated"
    wait_for(lambda: cluster.count() == 1)
