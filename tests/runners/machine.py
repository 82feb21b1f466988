"""One of several machines that train together, in a process: `python machine.py FOLDER`; TF_CONFIG says which one.

The folder has training.json: the input artifacts, the recipe, and optionally `killed`: {"machine", "parent", "step"},
the process that is killed after a step, with "signal" if it is not SIGKILL, and with "delay" that many seconds later,
in the middle of something; or {"machine", "step", "damaged"}: a weight changes instead, as if memory had failed. The
chief leaves its outputs and its scratch folder there.
"""

import json
import os
import pathlib
import signal
import sys
import threading

from seq2serve.components.base import interrupt
from seq2serve.components.base.artifact import Model, ModelRun, Tokenizer, TransformedExamples
from seq2serve.components.base.component import Context, Node
from seq2serve.components.tasks.translation.task import Translation
from seq2serve.components.trainer.component import Trainer
from seq2serve.components.trainer.job import recipe_of
from seq2serve.pipeline.commands.exits import explained
from seq2serve.pipeline.commands.logs import set_up_logs
from seq2serve.pipeline.running.machines.chief import led_machines
from seq2serve.pipeline.running.machines.worker import work, worker_cluster


def read(folder: pathlib.Path) -> dict:
    return json.loads((folder / "training.json").read_text())


def kill_after_step(killed: dict) -> None:
    """Kills a process of a machine, sends it Ctrl-C or changes its weights when all machines have agreed on a step."""
    from seq2serve.components.trainer.agreement import Agreement
    from seq2serve.components.trainer.callbacks import steps_done

    agree = Agreement.on_train_batch_end

    def agree_and_kill(self, batch, logs=None):
        agree(self, batch, logs)
        if "step" not in killed or steps_done(self.model.optimizer) < killed["step"]:
            return
        del killed["step"]
        if "damaged" in killed:
            bias = self.model.trainable_variables[-1]
            bias.assign(bias + 1e-6)
        else:
            number = getattr(signal, killed.get("signal", "SIGKILL"))
            process = os.getppid() if killed["parent"] else os.getpid()
            if "delay" in killed:
                threading.Timer(killed["delay"], os.kill, (process, number)).start()
            else:
                os.kill(process, number)

    Agreement.on_train_batch_end = agree_and_kill


class NotExported(Translation):
    """Translation without the export, which is slow. Every training process makes one; it may have to be killed."""

    name = "translation without export"

    def implementation(self):
        from seq2serve.components.tasks.translation.implementation import TranslationImplementation

        class Implementation(TranslationImplementation):
            def export(self, *_):
                pass

        killed = read(pathlib.Path(os.environ["TRAINING"])).get("killed")
        index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
        is_child = os.getpid() != int(os.environ["MACHINE"])
        if killed and is_child and killed["machine"] == index:
            kill_after_step(killed)
        return Implementation(self)


def lead(folder: pathlib.Path) -> None:
    """Trains as the chief."""
    from machine import NotExported as Task  # by the name under which other processes import it

    training = read(folder)
    inputs = training["inputs"]
    outputs = {"model": Model(str(folder / "model")), "model_run": ModelRun(str(folder / "model_run"))}
    for path in (*(output.uri for output in outputs.values()), folder / "scratch"):
        os.makedirs(path, exist_ok=True)
    root = pathlib.Path(training["root"])
    with interrupt.listening(), led_machines([Node(Trainer, {}, {"task": Task()})], root) as machines:
        Trainer.function(
            TransformedExamples(**inputs["transformed_examples"]),
            Tokenizer(**inputs["tokenizer"]),
            **outputs,
            task=Task(),
            recipe=recipe_of(training["recipe"]),
            context=Context(scratch=str(folder / "scratch"), machines=machines),
        )
    (folder / "properties.json").write_text(json.dumps(outputs["model"].properties))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    set_up_logs(verbose=False)
    folder = pathlib.Path(sys.argv[1])
    os.environ |= {"TRAINING": str(folder), "MACHINE": str(os.getpid())}
    try:
        with explained():
            if json.loads(os.environ["TF_CONFIG"])["task"]["type"] == "worker":
                print(work(worker_cluster(os.environ), read(folder)["root"]))
            else:
                lead(folder)
    except Exception as error:
        sys.exit(getattr(error, "exit_code", 1))
