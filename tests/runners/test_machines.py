"""Training on several machines, each a process here: the weights of one machine, also after any of them was killed."""

import contextlib
import dataclasses
import json
import os
import pathlib
import random
import re
import socket
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import seq2serve
from seq2serve.components.base.artifact import ModelRun
from seq2serve.components.infra_validator.client import free_port
from seq2serve.models.config import DecodingConfig, ModelConfig, Recipe, TrainingConfig
from seq2serve.models.training.saving import load_model

pytestmark = pytest.mark.runners
PROGRAM = pathlib.Path(__file__).with_name("machine.py")
LIMIT = 240  # seconds for one training
# Dropout and averages are on, so that the weights depend on every part of a checkpoint.
TINY = Recipe(
    ModelConfig(num_encoder_layers=1, num_decoder_layers=1, d_model=8, num_heads=2, dff=16, dropout=0.3),
    TrainingConfig(
        steps=11,
        batch_tokens=512,
        learning_rate=0.01,
        warmup_steps=2,
        average_decay=0.25,
        checkpoint_steps=3,
        eval_examples=0,
        clip_norm=0.5,
    ),
    DecodingConfig(),
)
DETERMINISTIC = dataclasses.replace(TINY, model=dataclasses.replace(TINY.model, dropout=0.0))
# The processes that are killed in turn: (machine, whether the command is killed or the process that it starts).
KILLED = [(0, True), (1, True), (0, False), (1, False), (2, True)]
# Of the training that is killed. After a step, a process lives for up to MAX_DELAY seconds, about three steps.
STEPS, MAX_DELAY = 80, 0.2


def with_training(recipe, **changes):
    return dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, **changes))


def free_ports(number):
    """Returns free ports; the one after the first is free, too."""
    while True:
        first = free_port()
        # While the second one is taken, it is none of the others.
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", first + 1)):
            return [first, *(free_port() for _ in range(number - 1))]


def environment_of(index, ports):
    """Returns the environment of a machine; number 0 is the chief."""
    addresses = [f"127.0.0.1:{port}" for port in ports]
    task = {"type": "worker", "index": index - 1} if index else {"type": "chief", "index": 0}
    config = {"cluster": {"chief": addresses[:1], "worker": addresses[1:]}, "task": task}
    values = {"TF_CONFIG": json.dumps(config), "CUDA_VISIBLE_DEVICES": "-1", "TF_NUM_INTRAOP_THREADS": "1"}
    return {**os.environ, **values}


class Machines:
    """Trains on several machines in a folder; `lines` are what each machine prints, the chief first."""

    def __init__(self, run, folder):
        self.folder, self.lines, self.codes = folder, [], []
        keys = ("transformed_examples", "tokenizer")
        inputs = {key: run.output("Transform", key) for key in keys}
        self._training = {
            "root": str(run.folder / run.root),
            "inputs": {key: {"uri": value.uri, "properties": value.properties} for key, value in inputs.items()},
        }

    def train(self, recipe, number, **more):
        """Trains to the end, or until it fails."""
        training = {**self._training, "recipe": dataclasses.asdict(recipe), **more}
        (self.folder / "training.json").write_text(json.dumps(training))
        ports, processes = free_ports(number), []
        for index in range(number):
            environment = {**environment_of(index, ports), "PYTHONPATH": str(PROGRAM.parent)}
            command = [sys.executable, str(PROGRAM), str(self.folder)]
            processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
        try:
            self.lines = [process.communicate(timeout=LIMIT)[1] for process in processes]
        finally:
            for process in processes:
                process.kill()
        self.codes = [process.returncode for process in processes]
        return self

    def checkpoint(self, step):
        """Returns the variables of the checkpoint of a step, with those of the optimizer."""
        reader = tf.train.load_checkpoint(str(self.folder / "scratch" / "checkpoints" / f"ckpt-{step}"))
        names = [name for name in reader.get_variable_to_shape_map() if name.startswith(("state", "moments", "iter"))]
        return {name: reader.get_tensor(name) for name in names}

    def logits(self, random_ids):
        """Returns the exported model's logits of some texts.

        Not its weights: biases of keys change no answer, so Adam drives them by rounding errors.
        """
        ids = random_ids([7, 2, 5, 3])
        return load_model(str(self.folder / "model" / "Format-Keras"))({"source": ids, "target": ids}).numpy()

    @property
    def properties(self):
        return json.loads((self.folder / "properties.json").read_text())


@pytest.fixture(scope="module")
def machines(finished_run, tmp_path_factory):
    """Returns a function that makes Machines."""
    return lambda: Machines(finished_run, tmp_path_factory.mktemp("machines"))


@pytest.fixture(scope="module")
def one(machines):
    """A training without dropout on one machine, by the same program."""
    return machines().train(DETERMINISTIC, 1)


@pytest.mark.parametrize("number", [2, 3], ids=["two", "three"])
def test_machines_have_the_curves_and_the_model_of_one(one, machines, curves, random_ids, number):
    several = machines().train(DETERMINISTIC, number)
    assert several.codes == [0] * number, several.lines
    expected, actual = (curves(ModelRun(str(trained.folder / "model_run"))) for trained in (one, several))
    assert actual.keys() == expected.keys()
    for key, points in expected.items():
        np.testing.assert_allclose(actual[key], points, rtol=1e-4, err_msg=str(key))
    np.testing.assert_allclose(several.logits(random_ids), one.logits(random_ids), atol=1e-4)
    assert several.properties["exported_steps"] == one.properties["exported_steps"]


def test_the_commands_on_two_machines_push_a_model_with_the_answers_of_one(build_run, tmp_path):
    """`seq2serve run` and `seq2serve train-worker`, which joins before the data are prepared."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = (build_run(tmp_path / name, "classification") for name in ("one", "two"))
    setting, ports = "model.dropout=0.0", free_ports(2)
    worker = [sys.executable, "-m", "seq2serve", "train-worker", "--pipeline-root", two.root]
    commands = (
        (two, two.command(setting), environment_of(0, ports)),
        (two, worker, environment_of(1, ports)),
        (one, one.command(setting), one.environment),
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [
        subprocess.Popen(command, cwd=run.folder, env=environment, **pipes) for run, command, environment in commands
    ]
    try:
        outputs = [process.communicate(timeout=LIMIT) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert outputs[1][0] == "training is complete; the chief evaluates and exports the model\n"
    models = [seq2serve.load(run.folder / run.serving) for run in (one, two)]
    texts = ["Turn on the light in the hall now.", "Open the door in the garden please.", "Check"]
    assert models[1](texts) == models[0](texts)


@pytest.mark.parametrize("seed", [7], ids="seed-{}".format)
def test_a_training_whose_machines_are_killed_resumes_to_the_weights_of_an_uninterrupted_one(machines, seed):
    """Five times, a process of the chief or of a worker, at random moments.

    The message names the machine, on the others, too.
    """
    rng, recipe = random.Random(seed), with_training(TINY, steps=STEPS, checkpoint_steps=10)
    killed, step = machines(), 0
    for number, (machine, parent) in enumerate(KILLED):
        step = rng.randrange(10 * number + 1, 10 * number + 11)
        moment = {"step": step, "delay": rng.uniform(0, MAX_DELAY)}
        killed.train(recipe, 3, killed={"machine": machine, "parent": parent, **moment})
        name = "chief (127.0.0.1:" if machine == 0 else f"worker {machine - 1} (127.0.0.1:"
        survivors = [index for index in range(3) if not (parent and index == machine)]
        for index in survivors:
            assert killed.codes[index] == 1, (machine, parent, killed.codes, killed.lines)
            (message,) = [line for line in killed.lines[index].splitlines() if " has stopped: " in line]
            assert f"{name}" in message, (machine, parent, index, killed.lines)
    last = killed.train(recipe, 3)
    assert last.codes == [0, 0, 0], last.lines
    (resumed,) = re.findall(r"^Trainer resumes from step (\d+)$", last.lines[0], re.MULTILINE)
    # Machines have agreed on the step, so the checkpoint before it is saved; a later one may be.
    assert int(resumed) >= (step - 1) // 10 * 10, last.lines
    whole = machines().train(recipe, 3)
    assert whole.codes == [0, 0, 0], whole.lines
    expected = whole.checkpoint(STEPS)
    for name, values in last.checkpoint(STEPS).items():
        assert values.tobytes() == expected[name].tobytes(), name
    assert last.properties == whole.properties


@pytest.mark.parametrize("machine", [0, 1])
def test_ctrl_c_on_any_machine_saves_the_step_and_stops_all(machines, machine):
    recipe = with_training(TINY, steps=1000)  # more than it makes until the signal arrives
    stopped = machines().train(recipe, 2, killed={"machine": machine, "parent": True, "step": 4, "signal": "SIGINT"})
    assert stopped.codes == [130, 130], stopped.lines
    (step,) = re.findall(r"^Trainer saves step (\d+) and stops$", stopped.lines[0], re.MULTILINE)
    assert stopped.checkpoint(step)


def test_two_machines_whose_weights_differ_stop_before_a_checkpoint_and_resume_from_the_last(machines):
    """The weight changes after step 4, and the checkpoint of step 6 is not saved."""
    damaged = machines().train(TINY, 2, killed={"machine": 1, "step": 4, "damaged": True})
    assert damaged.codes == [1, 1], damaged.lines
    for lines in damaged.lines:
        assert re.search(r"the weights of worker 0 \(127.*\) differ from those of chief \(127.*\) after step 6", lines)
    again = damaged.train(TINY, 2)
    assert again.codes == [0, 0], again.lines
    assert "Trainer resumes from step 3\n" in again.lines[0]


def test_early_stopping_ends_all_machines_after_the_same_step(machines):
    recipe = with_training(TINY, patience=1, learning_rate=0.3, warmup_steps=0, steps=100)
    stopped = machines().train(recipe, 2)
    assert stopped.codes == [0, 0], stopped.lines
    assert "Trainer stops early at step " in stopped.lines[0]
    assert stopped.properties["steps"] < 100


def test_a_time_limit_ends_all_machines_and_their_schedule(machines, curves):
    limited = machines().train(with_training(TINY, minutes=0.05, schedule="cosine", steps=10_000), 2)
    assert limited.codes == [0, 0], limited.lines
    assert curves(ModelRun(str(limited.folder / "model_run")))["train", "learning_rate"][-1][1] == pytest.approx(
        0, abs=1e-4
    )


def test_a_loss_that_is_nan_ends_all_machines_with_the_step(machines):
    diverged = machines().train(with_training(TINY, learning_rate=1e38, warmup_steps=0), 2)
    assert diverged.codes == [2, 2], diverged.lines
    for lines in diverged.lines:
        assert "The loss is nan at step 2" in lines
