"""The toy pipeline, a program: Count -> Train (checkpoints in scratch, two outputs) -> Judge.

The fixture `make_toy` copies it to a folder and runs it there. Every execution adds a line to calls.txt. The argument
is a JSON object of settings: `crash` is the point where the process kills itself, `slow` the seconds that Train takes,
`machine` the host name.
"""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import helper

from seq2serve.components.base.artifact import Examples, Model, ModelEvaluation, ModelRun, RawFiles
from seq2serve.components.base.component import Context, Input, Output, component, raw_files
from seq2serve.pipeline.metadata.store import MetadataStore
from seq2serve.pipeline.running import artifact_store
from seq2serve.pipeline.running.pipeline import Pipeline
from seq2serve.pipeline.running.runner import Runner

HERE = Path(__file__).parent
DEFAULTS = {"root": str(HERE / "root"), "metadata": "", "machine": "", "crash": "", "slow": 0.0, "steps": 3}
SETTINGS = {**DEFAULTS, **json.loads(sys.argv[1])}


def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)


def record_call(name):
    with (HERE / "calls.txt").open("a") as file:
        file.write(f"{name}\n")


@component
def Count(files: Input[RawFiles], examples: Output[Examples], context: Context) -> None:
    record_call("Count")
    Path(examples.path("half")).write_text("half")
    if SETTINGS["crash"] == "in Count":
        kill_self()
    Path(examples.path("count.txt")).write_text(str(helper.count(files)))


@component
def Train(
    examples: Input[Examples], model: Output[Model], model_run: Output[ModelRun], steps: int, context: Context
) -> None:
    checkpoint = Path(context.scratch, "step")
    start = int(checkpoint.read_text()) if checkpoint.exists() else 0
    record_call(f"Train from {start}")
    for step in range(start, steps):
        checkpoint.write_text(str(step + 1))
        time.sleep(SETTINGS["slow"] / steps)
        if SETTINGS["crash"] == "in Train" and step == 1:
            kill_self()
    Path(model.path("model.txt")).write_text(Path(examples.path("count.txt")).read_text() + f" x {steps}")
    Path(model_run.path("log.txt")).write_text("log")


@component
def Judge(model: Input[Model], evaluation: Output[ModelEvaluation]) -> None:
    record_call("Judge")
    Path(evaluation.path("metrics.json")).write_text(Path(model.path("model.txt")).read_text())


def crash_at(module, name, wanted, before):
    """Kills the process just before or after a call of module.name; `wanted` is its number, from 1."""
    original, calls = getattr(module, name), []

    def replacement(*arguments, **keywords):
        calls.append(name)
        if len(calls) == wanted and before:
            kill_self()
        result = original(*arguments, **keywords)
        if len(calls) == wanted:
            kill_self()
        return result

    setattr(module, name, replacement)


# Calls are counted over the whole run: first the one output of Count, then the two of Train.
if SETTINGS["crash"] == "before Train is renamed":
    crash_at(artifact_store.os, "rename", 2, before=True)
elif SETTINGS["crash"] == "between Train's renames":
    crash_at(artifact_store.os, "rename", 3, before=True)
elif SETTINGS["crash"] == "before Train is committed":
    crash_at(MetadataStore, "publish", 2, before=True)
elif SETTINGS["crash"] == "after Train is committed":
    crash_at(MetadataStore, "publish", 2, before=False)
elif SETTINGS["crash"] == "before Train begins":
    crash_at(MetadataStore, "begin_execution", 2, before=False)

if SETTINGS["machine"]:
    socket.gethostname = lambda: SETTINGS["machine"]

files = raw_files(str(HERE / "data.tsv"))
count = Count(files=files)
train = Train(examples=count.outputs["examples"], steps=SETTINGS["steps"])
judge = Judge(model=train.outputs["model"])
pipeline = Pipeline("toy", SETTINGS["root"], (files.node, count, train, judge))
result = Runner(pipeline, metadata_url=SETTINGS["metadata"]).run()
heavy = sorted({"tensorflow", "apache_beam", "keras", "numpy"} & set(sys.modules))
outputs = {f"{name}/{key}": made.uri for name, node in result.nodes.items() for key, made in node.outputs.items()}
print(json.dumps({"heavy": heavy, "outputs": outputs, "seconds": result.seconds}))
