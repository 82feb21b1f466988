"""A push makes a complete version visible or none, whatever happens, and version numbers only grow."""

import concurrent.futures
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import threading
import time

import pytest

from seq2serve.components.base.artifact import InfraBlessing, Model, ModelBlessing, PushedModel
from seq2serve.components.base.errors import NotBlessedError, UserError
from seq2serve.components.pusher.component import Pusher
from seq2serve.components.pusher.store import version_path
from seq2serve.components.pusher.versions import rollback, versions
from seq2serve.components.storage.files import local_copy
from seq2serve.pipeline.running.integrity import is_present

FILES = ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001", "assets/spm.model")


def make_model(folder, content, size=1000):
    """Writes the files of an export; the Pusher does not read their contents."""
    for name in FILES:
        path = folder / "Format-Serving" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() * size)
    (folder / "Format-Serving" / "empty").mkdir()
    return Model(str(folder), fingerprint=content)


def bless(artifact, name, reason="good enough"):
    os.makedirs(artifact.uri)
    pathlib.Path(artifact.path(name)).write_text("{}", encoding="utf-8")
    artifact.properties["reason"] = reason
    return artifact


@pytest.fixture
def push(tmp_path):
    """Returns a function that pushes a model with both blessings and returns the PushedModel."""
    model_blessing = bless(ModelBlessing(str(tmp_path / "model_blessing")), "BLESSED")
    infra_blessing = bless(InfraBlessing(str(tmp_path / "infra_blessing")), "INFRA_BLESSED")
    numbers = iter(range(1000))

    def push(model, destination=tmp_path / "serving", **blessings):
        pushed = PushedModel(str(tmp_path / f"pushed-{next(numbers)}"))
        os.makedirs(pushed.uri)
        blessings = {"model_blessing": model_blessing, "infra_blessing": infra_blessing, **blessings}
        Pusher.function(model=model, pushed_model=pushed, destination=str(destination), task="translation", **blessings)
        return pushed

    return push


def contents(folder):
    return {name: (pathlib.Path(folder) / name).read_bytes() for name in FILES}


def test_a_pushed_version_is_the_complete_export_and_is_recorded(push, tmp_path):
    model = make_model(tmp_path / "model", "a")
    before = time.time()
    pushed = push(model)
    version, folder = pushed.properties["pushed_version"], pushed.properties["pushed_destination"]
    assert contents(folder) == contents(model.path("Format-Serving"))
    assert os.path.isdir(os.path.join(folder, "empty"))
    assert before - 1 < version < time.time() + 1
    assert folder == str(tmp_path / "serving" / str(version))
    record = json.loads(pathlib.Path(pushed.path("pushed.json")).read_text(encoding="utf-8"))
    assert record == {"destination": folder, "version": version}
    assert is_present(pushed)


def test_metrics_and_lineage_are_stored_with_the_version(push, tmp_path):
    model = make_model(tmp_path / "model", "a")
    model.id, model.properties["steps"] = 7, 3000
    evaluation = {"metrics": {"model": {"bleu": 32.2}}}
    infrastructure = {"checks": [{"name": "load"}], "load_seconds": 0.7}
    blessings = {
        "model_blessing": bless(ModelBlessing(str(tmp_path / "evaluation")), "BLESSED"),
        "infra_blessing": bless(InfraBlessing(str(tmp_path / "infrastructure")), "INFRA_BLESSED"),
    }
    pathlib.Path(blessings["model_blessing"].path("BLESSED")).write_text(json.dumps(evaluation))
    pathlib.Path(blessings["infra_blessing"].path("INFRA_BLESSED")).write_text(json.dumps(infrastructure))
    folder = push(model, **blessings).properties["pushed_destination"]
    record = json.loads(pathlib.Path(folder, "assets.extra", "seq2serve.json").read_text(encoding="utf-8"))
    assert (record["model_id"], record["model_fingerprint"], record["model"]) == (7, "a", {"steps": 3000})
    assert (record["evaluation"], record["infrastructure"]) == (evaluation, {"load_seconds": 0.7})


def test_a_push_to_an_object_store_is_complete_and_not_present_once_deleted(push, tmp_path, blobs):
    model, destination = make_model(tmp_path / "model", "a"), "memory://bucket/models/en_de/"
    pushed = push(model, destination)
    folder = pushed.properties["pushed_destination"]
    assert folder == f"{destination}{pushed.properties['pushed_version']}"
    with local_copy(folder) as copy:
        assert contents(copy) == contents(model.path("Format-Serving"))
        assert (pathlib.Path(copy) / "assets.extra" / "seq2serve.json").is_file()
    assert not os.path.exists(copy)
    assert is_present(pushed)
    blobs.clear()
    assert not is_present(pushed)


@pytest.mark.parametrize("missing", [("model",), ("infra",), ("model", "infra")])
def test_without_both_blessings_nothing_is_written(push, tmp_path, missing):
    not_blessed = {
        "model": bless(ModelBlessing(str(tmp_path / "no_1")), "NOT_BLESSED", "BLEU 3 is below the baseline's 5"),
        "infra": bless(InfraBlessing(str(tmp_path / "no_2")), "INFRA_NOT_BLESSED", "ops: uses EagerPyFunc"),
    }
    blessings = {f"{name}_blessing": not_blessed[name] for name in missing}
    with pytest.raises(NotBlessedError) as error:
        push(make_model(tmp_path / "model", "a"), **blessings)
    components = {"model": "Evaluator", "infra": "InfraValidator"}
    assert error.value.code == "not-blessed"
    assert error.value.fields == {"components": [components[name] for name in missing]}
    assert error.value.exit_code == 3
    reasons = [f"not blessed by {components[name]}: {not_blessed[name].properties['reason']}" for name in missing]
    assert str(error.value) == "; ".join(["the model was not pushed", *reasons])
    assert not (tmp_path / "serving").exists()


def test_version_numbers_only_grow(push, tmp_path):
    serving = tmp_path / "serving"
    models = [make_model(tmp_path / content, content) for content in "abc"]
    first = push(models[0]).properties["pushed_version"]
    assert push(models[1]).properties["pushed_version"] > first
    far_ahead = serving / str(10**12)  # pushed from a machine with a wrong clock
    far_ahead.mkdir()
    assert push(models[2]).properties["pushed_version"] == 10**12 + 1


def test_a_model_is_not_pushed_twice(push, tmp_path, capsys):
    """Also if its evaluation is another one, and if it is not the newest; but a push that was killed is repeated."""
    old, new = (make_model(tmp_path / content, content) for content in ("old", "new"))
    first = push(old)
    again = push(old)  # as when the first push was killed before the runner published it
    assert again.properties == first.properties
    assert first.properties["pushed"]
    evaluation = bless(ModelBlessing(str(tmp_path / "evaluation")), "BLESSED")
    pathlib.Path(evaluation.path("BLESSED")).write_text('{"reason": "on another test file"}')
    assert capsys.readouterr().err == ""
    assert push(old, model_blessing=evaluation).properties == {**first.properties, "pushed": False}
    number = first.properties["pushed_version"]
    assert capsys.readouterr().err.startswith(f"Pusher: version {number} already has this model")
    push(new)
    assert push(old, model_blessing=evaluation).properties == {**first.properties, "pushed": False}
    pushed = versions(tmp_path / "serving")
    models = [contents(tmp_path / "serving" / str(version))["saved_model.pb"][:3] for version in pushed]
    assert models == [b"old", b"new"]


def test_a_version_that_was_withdrawn_is_present_so_that_a_rerun_does_not_push_it_again(push, tmp_path):
    push(make_model(tmp_path / "old", "old"))
    pushed = push(make_model(tmp_path / "new", "new"))
    rollback(str(tmp_path / "serving"))
    assert not os.path.exists(pushed.properties["pushed_destination"])
    assert is_present(pushed)
    shutil.rmtree(version_path(pushed.properties["pushed_destination"]))
    assert not is_present(pushed)


def test_concurrent_pushes_publish_one_version_each(push, tmp_path):
    models = [make_model(tmp_path / content, content) for content in "abcdefgh"]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        pushed = list(pool.map(push, models))
    assert len({artifact.properties["pushed_version"] for artifact in pushed}) == 8
    for artifact, model in zip(pushed, models, strict=True):
        assert contents(artifact.properties["pushed_destination"]) == contents(model.path("Format-Serving"))


@pytest.mark.parametrize(
    ("destination", "code"),
    [
        ("file/below", "serving-dir-unwritable"),
        ("file", "serving-dir-unwritable"),
        ("nowhere://bucket/model", "url-unsupported"),
    ],
)
def test_a_destination_that_cannot_be_written_is_a_user_error(push, tmp_path, monkeypatch, destination, code):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError) as error:
        push(make_model(tmp_path / "model", "a"), destination)
    assert error.value.code == code
    assert error.value.fields == {"path": destination}
    assert not (tmp_path / "nowhere:").exists()


def test_a_full_disk_leaves_no_files(push, tmp_path):
    model = make_model(tmp_path / "model", "a", size=100_000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))  # larger writes fail, as on a full disk
    try:
        message = "^cannot push to .* File too large.*; no incomplete version is visible; free disk space, or name "
        with pytest.raises(UserError, match=message) as error:
            push(model)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (error.value.code, error.value.fields) == ("push-failed", {"path": str(tmp_path / "serving")})
    assert [entry.name for entry in (tmp_path / "serving").iterdir()] == [".pushing.lock"]
    assert is_present(push(model))


# Fifty pushes, each in a process that is killed at a random time during the push or just after it.
PUSHES = """
import os, random, signal, sys, time
from seq2serve.components.base.artifact import InfraBlessing, Model, ModelBlessing, PushedModel
from seq2serve.components.pusher.component import Pusher

folder, destination, seed, *uris = sys.argv[1:]
blessings = {
    "model_blessing": ModelBlessing(folder + "/model_blessing"),
    "infra_blessing": InfraBlessing(folder + "/infra_blessing"),
}
generator, killed = random.Random(int(seed)), 0
import seq2serve.models.runtime.protos  # imported once here rather than in every child
for number in range(50):
    known = set(os.listdir(destination))
    with open(uris[number % len(uris)] + "/Format-Serving/assets/number", "w") as file:
        file.write(str(number))  # a new model: one that a version has is not pushed again
    child = os.fork()
    if not child:
        model = Model(uris[number % len(uris)])
        pushed = PushedModel(folder)
        Pusher.function(model=model, pushed_model=pushed, destination=destination, task="translation", **blessings)
        os._exit(0)
    ended = os.WEXITED | os.WNOHANG | os.WNOWAIT  # a push of the newest model ends without a change
    while set(os.listdir(destination)) <= known | {".pushing.lock"} and not os.waitid(os.P_PID, child, ended):
        time.sleep(0.0005)
    time.sleep(generator.uniform(0, 0.03))
    os.kill(child, signal.SIGKILL)
    killed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
print(killed)
"""


def size_of(path):
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


class Reader(threading.Thread):
    """Lists a serving folder in a loop, as the model server does, and records incomplete versions."""

    def __init__(self, serving, size):
        super().__init__(daemon=True)
        self.serving, self.size, self.done = serving, size, threading.Event()
        self.num_scans, self.incomplete = 0, []

    def run(self):
        while not self.done.is_set():
            self.num_scans += 1
            for version in versions(self.serving):
                folder = self.serving / str(version)
                is_complete = all(size_of(folder / name) == self.size for name in FILES)
                if not is_complete and folder.exists():  # a missing folder was removed as an old version
                    self.incomplete.append(version)
            time.sleep(0.001)


@pytest.mark.parametrize("seed", [1], ids=lambda seed: f"seed={seed}")
def test_readers_never_see_an_incomplete_version_while_pushes_are_killed(push, tmp_path, seed):
    serving, size = tmp_path / "serving", 2_000_000
    serving.mkdir()
    models = [make_model(tmp_path / f"model-{number}", str(number), size) for number in range(8)]
    reader = Reader(serving, size)
    reader.start()
    command = [sys.executable, "-c", PUSHES, str(tmp_path), str(serving), str(seed), *(model.uri for model in models)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for model in models[:2]:  # whatever the killed pushes have left, both are versions in the end
        push(model)
    reader.done.set()
    reader.join()
    assert reader.num_scans > 100
    assert reader.incomplete == []
    assert int(done.stdout) > 10
    assert not list(serving.glob(".pushing-*"))
    assert len(versions(serving)) > 1
