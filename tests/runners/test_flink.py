"""Flink, a JobManager and two TaskManagers: the same bytes as on the local runner, also when one is killed at work.

Beam's runner for Flink is 2.70, the newest that Maven Central has as reached from here, under Beam 2.77 for Python.
Its job server is not to be had there, so jobs go as a jar to the JobManager (--flink_submit_uber_jar), and three
classes that belong to the job server have stand-ins in flink/. Beam's classes are the cluster's own, not the job's, so
that a worker may outlive a stage.
"""

import contextlib
import os
import threading
import time

import pytest

from tests.runners.flink_cluster import Cluster, kill, wait_for

FLINK = os.environ.get("SEQ2SERVE_FLINK", "")
pytestmark = [pytest.mark.runners, pytest.mark.skipif(not FLINK, reason="make test-flink brings Flink")]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with contextlib.ExitStack() as stack:
        yield Cluster(FLINK, tmp_path_factory.mktemp("flink"), stack)


def test_processes(run_components, cluster, process_workers):
    # A worker cannot fetch files from a job whose Beam classes are the cluster's, and so is given none.
    nothing_staged = "--experiments=disable_logging_submission_environment"
    assert run_components(*cluster.options, *process_workers, nothing_staged) == run_components()


def test_a_task_manager_killed_at_work_changes_nothing(run_components, cluster, monkeypatch):
    """The workers are threads of this process (LOOPBACK), so that the test sees what they do."""
    from components.transform_beam import WriteIds

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
    assert len(calls) > len(set(calls)), "some of the work was done twice"
    wait_for(lambda: cluster.count() == 1)
