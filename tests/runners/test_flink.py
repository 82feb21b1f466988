"""Flink, a JobManager and two TaskManagers: the same bytes as on the local runner, also when one is killed at work.

Beam's runner for Flink is 2.70, the newest that Maven Central has as reached from here, under Beam 2.77 for Python.
Its job server is not to be had there, so jobs go as a jar to the JobManager (--flink_submit_uber_jar), and three
classes that belong to the job server have stand-ins in flink/. Beam's classes are the cluster's own, not the job's, so
that a worker may outlive a stage.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import threading
import time
import urllib.request

import pytest

from components.serving_client import free_port

FLINK = os.environ.get("SEQ2SERVE_FLINK", "")
pytestmark = [pytest.mark.runners, pytest.mark.skipif(not FLINK, reason="make test-flink brings Flink")]

# What Flink's own start scripts would work out from the machine.
CONFIG = """
jobmanager.rpc.address: localhost
jobmanager.rpc.port: {rpc_port}
rest.address: localhost
rest.port: {rest_port}
jobmanager.memory.process.size: 900m
taskmanager.host: localhost
taskmanager.cpu.cores: 1
taskmanager.numberOfTaskSlots: 2
taskmanager.memory.framework.heap.size: 128m
taskmanager.memory.framework.off-heap.size: 128m
taskmanager.memory.task.heap.size: 256m
taskmanager.memory.task.off-heap.size: 64m
taskmanager.memory.managed.size: 128m
taskmanager.memory.network.min: 128m
taskmanager.memory.network.max: 128m
taskmanager.memory.jvm-metaspace.size: 256m
taskmanager.memory.jvm-overhead.min: 128m
taskmanager.memory.jvm-overhead.max: 128m
taskmanager.network.sort-shuffle.min-buffers: 64
taskmanager.load-balance.mode: slots
heartbeat.interval: 1000
heartbeat.timeout: 10000
slot.request.timeout: 60000
classloader.resolve-order: parent-first
restart-strategy.type: fixed-delay
restart-strategy.fixed-delay.attempts: 5
restart-strategy.fixed-delay.delay: 1 s
"""
# Flink 1.19 looks into these on Java 17; its start scripts open more.
OPENED = ("lang", "lang.reflect", "net", "io", "nio", "text", "time", "util", "util.concurrent")


class Cluster:
    """A JobManager and two TaskManagers, each a process in a group of its own."""

    def __init__(self, folder: pathlib.Path, stack: contextlib.ExitStack):
        self._folder, self._stack, rest_port = folder, stack, free_port()
        config = CONFIG.format(rpc_port=free_port(), rest_port=rest_port)
        (folder / "config.yaml").write_text(config, encoding="utf-8")
        self._url = f"http://localhost:{rest_port}"
        self._start("jobmanager", "entrypoint.StandaloneSessionClusterEntrypoint")
        manager = "taskexecutor.TaskManagerRunner"
        self.task_managers = [self._start(f"taskmanager-{number}", manager) for number in range(2)]
        wait_for(lambda: self.count() == 2)
        jar = ("--flink_submit_uber_jar", f"--flink_job_server_jar={FLINK}/job.jar")
        # Without the cache a job's workers end after each stage, now and then before the next has let go of them.
        shared = ("--parallelism=2", "--environment_cache_millis=60000")
        self.options = ("--runner=FlinkRunner", f"--flink_master={self._url}", *jar, *shared)

    def _start(self, name: str, program: str) -> subprocess.Popen:
        opens = [f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in OPENED]
        libraries, program = f"{FLINK}/job.jar:{FLINK}/lib/*", f"org.apache.flink.runtime.{program}"
        command = ["java", *opens, "-Xmx500m", "-cp", libraries, program, "--configDir", str(self._folder)]
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=self._folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._stack.callback(kill, process)
        return process

    def count(self) -> int:
        """Returns how many TaskManagers the JobManager knows; none before it answers."""
        try:
            with urllib.request.urlopen(f"{self._url}/overview", timeout=5) as answer:
                return json.load(answer)["taskmanagers"]
        except OSError:
            return 0


def kill(process: subprocess.Popen) -> None:
    """Ends a process and all that it has started, as a machine that is lost does."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(condition, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with contextlib.ExitStack() as stack:
        yield Cluster(tmp_path_factory.mktemp("flink"), stack)


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
