"""A Flink cluster on this machine: its processes, and the Beam options that send jobs to it.

Comes in: the folder that `make test-flink` brings. Goes out: a Cluster.
Read next: test_flink.py, and benchmarks/flink.py.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.request

from components.serving_client import free_port

REPOSITORY = pathlib.Path(__file__).parents[2]

# What Flink's own start scripts would work out from the machine.
CONFIG = """
jobmanager.rpc.address: localhost
jobmanager.rpc.port: {rpc_port}
rest.address: localhost
rest.port: {rest_port}
jobmanager.memory.process.size: 900m
taskmanager.host: localhost
taskmanager.cpu.cores: 1
taskmanager.numberOfTaskSlots: {slots}
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
restart-strategy.fixed-delay.attempts: 30
restart-strategy.fixed-delay.delay: 1 s
"""
# Flink 1.19 looks into these on Java 17; its start scripts open more.
OPENED = ("lang", "lang.reflect", "net", "io", "nio", "text", "time", "util", "util.concurrent")


class Cluster:
    """A JobManager and TaskManagers, each a process in a group of its own.

    Args:
        flink: the folder that `make test-flink` brings.
        folder: for the configuration and the logs.
        stack: kills all of it when it is closed.
        task_managers: how many; a job has as many parallel subtasks.
        slots: of each TaskManager.
    """

    def __init__(
        self, flink: str, folder: pathlib.Path, stack: contextlib.ExitStack, task_managers: int = 2, slots: int = 2
    ):
        self._flink, self._folder, self._stack, rest_port = flink, folder, stack, free_port()
        config = CONFIG.format(rpc_port=free_port(), rest_port=rest_port, slots=slots)
        (folder / "config.yaml").write_text(config, encoding="utf-8")
        self._url = f"http://localhost:{rest_port}"
        self._start("jobmanager", "entrypoint.StandaloneSessionClusterEntrypoint")
        manager = "taskexecutor.TaskManagerRunner"
        self.task_managers = [self._start(f"taskmanager-{number}", manager) for number in range(task_managers)]
        wait_for(lambda: self.count() == task_managers)
        jar = ("--flink_submit_uber_jar", f"--flink_job_server_jar={flink}/job.jar")
        # Without the cache a job's workers end after each stage, now and then before the next has let go of them.
        shared = (f"--parallelism={task_managers}", "--environment_cache_millis=60000")
        self.options = ("--runner=FlinkRunner", f"--flink_master={self._url}", *jar, *shared)

    def _start(self, name: str, program: str) -> subprocess.Popen:
        opens = [f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in OPENED]
        libraries, program = f"{self._flink}/job.jar:{self._flink}/lib/*", f"org.apache.flink.runtime.{program}"
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


def process_options(folder: pathlib.Path, boot: str) -> tuple[str, ...]:
    """Returns Beam options: what starts a worker in Beam's containers, `boot`, starts each here."""
    program = folder / "boot"
    # It leaves a file where it is started; Prism 2.77 puts quotes around the worker's id.
    program.write_text(f'#!/bin/bash\ncd {folder}\nexec {boot} "${{@//\\\'/}}"\n')
    program.chmod(0o755)
    path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    here = {"PATH": path, "RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT": "1", "PYTHONPATH": str(REPOSITORY)}
    return "--environment_type=PROCESS", f"--environment_config={json.dumps({'command': str(program), 'env': here})}"
