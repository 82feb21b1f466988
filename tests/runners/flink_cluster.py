"""A Flink cluster on this machine: its processes, and the Beam options that send jobs to it."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable

from seq2serve.components.infra_validator.client import free_port

REPOSITORY = pathlib.Path(__file__).parents[2]

# Flink's own start scripts derive these values from the machine.
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
# Packages of Java 17 that Flink 1.19 accesses by reflection; its start scripts open more.
OPENED = ("lang", "lang.reflect", "net", "io", "nio", "text", "time", "util", "util.concurrent")


class Cluster:
    """A JobManager and TaskManagers, each a process in a separate process group.

    Args:
        flink: the folder that `make test-flink` downloads.
        folder: for the configuration and the logs.
        stack: kills the processes when it is closed.
        task_managers: their number; a job has as many parallel subtasks.
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
        # Without the cache, workers end after each stage, sometimes while the next stage still uses them.
        parallelism = (f"--parallelism={task_managers}", "--environment_cache_millis=60000")
        self.options = ("--runner=FlinkRunner", f"--flink_master={self._url}", *jar, *parallelism)

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
        """Returns the number of registered TaskManagers; 0 before the JobManager answers."""
        try:
            with urllib.request.urlopen(f"{self._url}/overview", timeout=5) as answer:
                return json.load(answer)["taskmanagers"]
        except OSError:
            return 0


def kill(process: subprocess.Popen) -> None:
    """Kills a process and its children at once, as when a machine is lost."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Waits until a condition holds; fails after some seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def process_options(folder: pathlib.Path, boot: str) -> tuple[str, ...]:
    """Returns Beam options with which `boot`, the entry point of Beam's containers, starts each worker here.

    Args:
        folder: for a script that calls `boot`, and its files.
        boot: path of the program.
    """
    program = folder / "boot"
    # `boot` writes a file to its current folder; Prism 2.77 puts quotes around the id of the worker.
    program.write_text(f'#!/bin/bash\ncd {folder}\nexec {boot} "${{@//\\\'/}}"\n')
    program.chmod(0o755)
    path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT": "1", "PYTHONPATH": str(REPOSITORY)}
    return (
        "--environment_type=PROCESS",
        f"--environment_config={json.dumps({'command': str(program), 'env': environment})}",
    )
