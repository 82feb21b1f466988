"""Versions, labels, rollbacks and the server's settings, on a local disk and where there is no rename."""

import json
import pathlib

import pytest
from google.protobuf import text_format

from components.errors import UserError
from components.serving_folder import (
    RECORD_FILE,
    check_destination,
    labels,
    publish,
    pushed_path,
    read_versions,
    rollback,
    versions,
)
from components.serving_store import open_store
from models.serving_protos import model_server_config_pb2

# No "assets/": TensorFlow's file system in memory takes "assets.extra" for something in it.
FILES = ("variables/variables.index", "vocabulary/spm.model", "saved_model.pb")


@pytest.fixture
def model(tmp_path):
    """Returns a function that writes a SavedModel; what is in its files does not matter here."""

    def make(content: str) -> str:
        folder = tmp_path / f"model-{content}"
        for name in FILES:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content, encoding="utf-8")
        return str(folder)

    return make


@pytest.fixture(params=["disk", "object store"])
def destination(request, tmp_path):
    return str(tmp_path / "serving" / "en_de") if request.param == "disk" else f"ram://{tmp_path.name}/en_de"


def push(destination, model, keep=5):
    return publish(destination, model, {"note": "ours"}, keep)


def contents(destination):
    """Returns what each version holds, oldest first; every file of it must say the same."""
    store, result = open_store(destination), []
    for version in versions(destination):
        (content,) = {store.read(f"{version}/{name}").decode() for name in FILES}
        result.append(content)
    return result


def config(destination):
    server = model_server_config_pb2.ModelServerConfig()
    text_format.Parse(open_store(destination).read("models.config"), server)
    (model,) = server.model_config_list.config
    return model


def test_a_version_is_the_whole_model_and_its_record(destination, model):
    number = push(destination, model("a"))
    (version,) = read_versions(destination)
    assert (version.number, version.record["note"], len(version.record["sha256"])) == (number, "ours", 64)
    assert contents(destination) == ["a"]
    assert push(destination, model("a")) == number  # it is the newest already
    assert push(destination, model("b")) > number


def test_the_last_versions_are_kept(destination, model):
    numbers = [push(destination, model(content), keep=3) for content in "abcde"]
    assert versions(destination) == numbers[-3:]
    assert contents(destination) == ["c", "d", "e"]


def test_a_rollback_is_a_new_version_with_the_old_content(destination, model):
    first, second, third = (push(destination, model(content)) for content in "abc")
    assert labels(read_versions(destination)) == {"stable": third, "canary": third}
    origin, copy = rollback(destination)
    assert origin == second
    assert copy > third
    assert labels(read_versions(destination)) == {"stable": copy, "canary": third}
    assert rollback(destination)[0] == first  # once more is one step further back
    assert rollback(destination, third)[0] == third
    assert contents(destination) == ["a", "b", "c", "b", "a", "c"]
    newest = push(destination, model("d"))
    assert labels(read_versions(destination)) == {"stable": newest, "canary": newest}


@pytest.mark.parametrize(
    ("pushes", "number", "message"),
    [
        ("", None, "there are no versions in .*en_de; is it a serving folder"),
        ("a", None, "serves version .*, and none that was pushed before it is left; there are "),
        ("ab", 7, "there is no version 7 in .*; there are "),
        ("ab", "newest", "serves already"),
    ],
)
def test_a_rollback_that_cannot_be_says_why(destination, model, pushes, number, message):
    pushed = [push(destination, model(content)) for content in pushes]
    with pytest.raises(UserError, match=message):
        rollback(destination, pushed[-1] if number == "newest" else number)
    assert versions(destination) == pushed


def test_a_copy_leads_back_to_what_was_pushed(tmp_path, model):
    destination = str(tmp_path / "serving")
    first, second = (push(destination, model(content)) for content in "ab")
    _, copy = rollback(destination)
    assert pushed_path(f"{destination}/{copy}") == f"{destination}/{first}"
    assert pushed_path(f"{destination}/{second}/") == f"{destination}/{second}"
    assert [pushed_path(name) for name in ("7", "runs/Trainer/model/7x")] == ["7", "runs/Trainer/model/7x"]


def test_a_second_rollback_with_nothing_left_says_what_is_served(destination, model):
    first, second = (push(destination, model(content)) for content in "ab")
    _, copy = rollback(destination)
    with pytest.raises(
        UserError, match=f"serves version {first}, as {copy}, and none .*there are {first}, {second}, {copy}"
    ):
        rollback(destination)


def test_a_folder_takes_models_of_one_task(destination, model):
    check_destination(destination, "translation")  # it need not be there
    assert versions(destination) == []
    publish(destination, model("a"), {"task": "translation"}, 5)
    check_destination(destination, "translation")
    with pytest.raises(
        UserError, match=r"en_de serves models of the task translation.*another folder for classification"
    ):
        check_destination(destination, "classification")


def test_a_folder_of_other_things_is_no_serving_folder(tmp_path):
    (tmp_path / "README.md").write_text("a repository", encoding="utf-8")
    with pytest.raises(UserError, match=r"is no serving folder, for it holds README\.md; name an empty"):
        check_destination(str(tmp_path), "translation")
    with pytest.raises(UserError, match=r"cannot push to .*README\.md/models: Not a directory"):
        check_destination(str(tmp_path / "README.md" / "models"), "translation")


def test_the_server_is_told_which_versions_to_serve(destination, model):
    first, second = (push(destination, model(content)) for content in "ab")
    assert list(config(destination).model_version_policy.specific.versions) == [second]
    assert (config(destination).name, config(destination).base_path) == ("en_de", "/models/en_de")
    _, copy = rollback(destination, first)
    assert list(config(destination).model_version_policy.specific.versions) == [second, copy]
    assert dict(config(destination).version_labels) == {"stable": copy, "canary": second}


def test_the_other_settings_are_written_once_and_then_yours(destination, model):
    push(destination, model("a"))
    store = open_store(destination)
    batching = store.read("batching_parameters.txt").decode()
    assert "max_batch_size { value: 32 }" in batching
    sizes = [int(line.split()[1]) for line in batching.splitlines() if line.startswith("allowed_batch_sizes")]
    assert sizes == sorted(sizes)
    assert sizes[-1] == 32
    assert "enable: true" in store.read("monitoring.config").decode()
    assert "--model_config_file=/models/en_de/models.config" in store.read("compose.yaml").decode()
    store.write("compose.yaml", b"mine")
    push(destination, model("b"))
    assert store.read("compose.yaml") == b"mine"


def test_a_version_that_someone_else_put_there_is_a_version(tmp_path, model):
    destination = tmp_path / "en_de"
    theirs = pathlib.Path(model("theirs")).rename(tmp_path / "7")
    destination.mkdir()
    theirs.rename(destination / "7")
    (destination / "7" / RECORD_FILE).parent.mkdir()
    (destination / "7" / RECORD_FILE).write_text("[]", encoding="utf-8")
    push(str(destination), model("ours"))
    origin, copy = rollback(str(destination))
    assert origin == 7
    record = json.loads((destination / str(copy) / RECORD_FILE).read_text(encoding="utf-8"))
    assert record == {"copy_of": 7}


def test_saved_model_pb_comes_last_where_there_is_no_rename(model, tmp_path, monkeypatch):
    import tensorflow as tf

    destination, copy, seen = f"ram://{tmp_path.name}/en_de", tf.io.gfile.copy, []

    def copy_and_look(source, target, overwrite=False):
        copy(source, target, overwrite)
        paths = [f"{folder}/{name}" for folder, _, names in tf.io.gfile.walk(destination) for name in names]
        seen.append({path.removeprefix(f"{destination}/").partition("/")[2] for path in paths})

    monkeypatch.setattr(tf.io.gfile, "copy", copy_and_look)
    push(destination, model("a"))
    assert len(seen) == len(FILES)
    assert all("saved_model.pb" not in files for files in seen[:-1])
    assert {*FILES, RECORD_FILE} <= seen[-1]
