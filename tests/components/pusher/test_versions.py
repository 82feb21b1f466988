"""Versions, labels, rollbacks and the server's settings, on a local disk and in an object store."""

import json
import pathlib

import pytest
from google.protobuf import text_format

from seq2serve.components.base.errors import UserError
from seq2serve.components.pusher.store import open_store
from seq2serve.components.pusher.versions import (
    RECORD_FILE,
    check_destination,
    labels,
    publish,
    pushed_path,
    read_versions,
    rollback,
    versions,
)
from seq2serve.models.runtime.protos import model_server_config_pb2

# Without assets/: TensorFlow's in-memory file system confuses it with assets.extra.
FILES = ("variables/variables.index", "vocabulary/spm.model", "saved_model.pb")


@pytest.fixture
def model(tmp_path):
    """Returns a function that writes a SavedModel; the contents of its files do not matter here."""

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
    return publish(destination, model, {"note": "a test"}, keep)


def contents(destination):
    """Returns the content of each version, oldest first; all files of a version must have the same content."""
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


def test_a_version_is_the_complete_model_and_its_record(destination, model):
    number = push(destination, model("a"))
    (version,) = read_versions(destination)
    assert (version.number, version.record["note"], len(version.record["sha256"])) == (number, "a test", 64)
    assert contents(destination) == ["a"]
    assert push(destination, model("a")) == number  # it is already the newest
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
    assert rollback(destination)[0] == first  # a second rollback goes one version further back
    assert rollback(destination, third)[0] == third
    assert contents(destination) == ["a", "b", "c", "b", "a", "c"]
    newest = push(destination, model("d"))
    assert labels(read_versions(destination)) == {"stable": newest, "canary": newest}


@pytest.mark.parametrize(
    ("pushes", "number", "code", "message"),
    [
        ("", None, "versions-missing", "^no versions in .*en_de; is it a serving folder"),
        ("a", None, "version-missing", "serves version [0-9]+, and no version pushed before it is left; available "),
        ("ab", 7, "version-missing", "^no version 7 in .*; available versions: "),
        ("ab", "newest", "version-served", "already serves version [0-9]+; available versions: "),
    ],
)
def test_an_impossible_rollback_is_an_error(destination, model, pushes, number, code, message):
    pushed = [push(destination, model(content)) for content in pushes]
    number = pushed[-1] if number == "newest" else number
    with pytest.raises(UserError, match=message) as error:
        rollback(destination, number)
    assert error.value.code == code
    assert error.value.fields == {"path": destination} | ({"version": number} if number else {})
    assert versions(destination) == pushed


def test_the_pushed_path_of_a_copy_is_that_of_the_original_version(tmp_path, model):
    destination = str(tmp_path / "serving")
    first, second = (push(destination, model(content)) for content in "ab")
    _, copy = rollback(destination)
    assert pushed_path(f"{destination}/{copy}") == f"{destination}/{first}"
    assert pushed_path(f"{destination}/{second}/") == f"{destination}/{second}"
    assert [pushed_path(name) for name in ("7", "runs/Trainer/model/7x")] == ["7", "runs/Trainer/model/7x"]


def test_the_error_for_no_earlier_version_has_the_served_version_and_its_copy(destination, model):
    first, second = (push(destination, model(content)) for content in "ab")
    _, copy = rollback(destination)
    message = f"serves version {first}, as {copy}, and no version .*available versions: {first}, {second}, {copy}; "
    with pytest.raises(UserError, match=message):
        rollback(destination)


def test_a_serving_folder_accepts_models_of_one_task(destination, model):
    check_destination(destination, "translation")  # it need not exist
    assert versions(destination) == []
    publish(destination, model("a"), {"task": "translation"}, 5)
    check_destination(destination, "translation")
    message = "en_de serves models of the task translation; name another folder for classification with --serving-dir"
    with pytest.raises(UserError, match=message) as error:
        check_destination(destination, "classification")
    assert error.value.code == "serving-dir-task"
    assert error.value.fields == {"path": destination, "task": "classification"}


def test_a_folder_with_other_files_is_not_a_serving_folder(tmp_path):
    (tmp_path / "README.md").write_text("a repository", encoding="utf-8")
    with pytest.raises(UserError, match=r"is not a serving folder: it contains README\.md; name an empty") as error:
        check_destination(str(tmp_path), "translation")
    assert (error.value.code, error.value.fields) == ("serving-dir-foreign", {"path": str(tmp_path)})


def test_a_destination_below_a_file_is_an_error(tmp_path):
    (tmp_path / "README.md").write_text("a repository", encoding="utf-8")
    destination = str(tmp_path / "README.md" / "models")
    with pytest.raises(
        UserError, match=r"^cannot push to .*README\.md/models: Not a directory .*--serving-dir"
    ) as error:
        check_destination(destination, "translation")
    assert (error.value.code, error.value.fields) == ("serving-dir-unwritable", {"path": destination})


def test_the_server_configuration_lists_the_labelled_versions(destination, model):
    first, second = (push(destination, model(content)) for content in "ab")
    assert list(config(destination).model_version_policy.specific.versions) == [second]
    assert (config(destination).name, config(destination).base_path) == ("en_de", "/models/en_de")
    _, copy = rollback(destination, first)
    assert list(config(destination).model_version_policy.specific.versions) == [second, copy]
    assert dict(config(destination).version_labels) == {"stable": copy, "canary": second}


def test_the_other_settings_are_written_once_so_that_edits_stay(destination, model):
    push(destination, model("a"))
    store = open_store(destination)
    batching = store.read("batching_parameters.txt").decode()
    assert "max_batch_size { value: 32 }" in batching
    sizes = [int(line.split()[1]) for line in batching.splitlines() if line.startswith("allowed_batch_sizes")]
    assert sizes == sorted(sizes)
    assert sizes[-1] == 32
    assert "enable: true" in store.read("monitoring.config").decode()
    assert "--model_config_file=/models/en_de/models.config" in store.read("compose.yaml").decode()
    store.write("compose.yaml", b"edited")
    push(destination, model("b"))
    assert store.read("compose.yaml") == b"edited"


def test_a_version_published_by_another_program_is_a_version(tmp_path, model):
    destination = tmp_path / "en_de"
    destination.mkdir()
    pathlib.Path(model("foreign")).rename(destination / "7")
    (destination / "7" / RECORD_FILE).parent.mkdir()
    (destination / "7" / RECORD_FILE).write_text("[]", encoding="utf-8")
    push(str(destination), model("pushed"))
    origin, copy = rollback(str(destination))
    assert origin == 7
    record = json.loads((destination / str(copy) / RECORD_FILE).read_text(encoding="utf-8"))
    assert record == {"copy_of": 7}


def test_saved_model_pb_is_copied_last_to_an_object_store(model, tmp_path, monkeypatch):
    import tensorflow as tf

    destination, copy, snapshots = f"ram://{tmp_path.name}/en_de", tf.io.gfile.copy, []

    def copy_and_list(source, target, overwrite=False):
        copy(source, target, overwrite)
        paths = [f"{folder}/{name}" for folder, _, names in tf.io.gfile.walk(destination) for name in names]
        snapshots.append({path.removeprefix(f"{destination}/").partition("/")[2] for path in paths})

    monkeypatch.setattr(tf.io.gfile, "copy", copy_and_list)
    push(destination, model("a"))
    assert len(snapshots) == len(FILES)
    assert all("saved_model.pb" not in files for files in snapshots[:-1])
    assert {*FILES, RECORD_FILE} <= snapshots[-1]
