"""A program for several machines without TensorFlow: `arguments` has what each machine does, by its index."""

import json
import os
import pathlib
import signal
import time

from seq2serve.components.base import interrupt
from seq2serve.components.base.errors import UserError


def main(inputs, arguments, report):
    index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    action = arguments.get(str(index), "end")
    if action != "hang":
        report(devices=2 if action == "more GPUs" else 1)
    pathlib.Path(os.environ["READY"], str(index)).touch()
    if "joined" in arguments:
        report(joined=True)
    if action == "fail":
        raise UserError("The loss is nan", code="loss-diverged")
    if action == "divide":
        return 1 / 0
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "abort":  # as TensorFlow does if another machine is lost
        os.abort()
    with interrupt.put_off():
        while action in ("wait", "save", "hang", "more GPUs") and not interrupt.pressed():
            time.sleep(0.01)
        if action == "save":
            time.sleep(1)
    if action == "wait":
        interrupt.check()
    if "written" in arguments:
        with open(f"{arguments['written']}-{index}", "w", encoding="utf-8") as file:
            json.dump({key: value.uri for key, value in inputs.items()}, file)
    interrupt.check()
    return None
