"""Versions, labels, rollbacks and what servers load, on a local disk and in an object store."""

import contextlib
import itertools
import os
import pathlib
import subprocess

import pytest

from seq2serve.components.base.errors import UserError
from seq2serve.components.pusher.store import open_store, version_path
from seq2serve.components.pusher.versions import (
    RECORD_FILE,
    Served,
    check_destination,
    labels,
    publish,
    pushed_path,
    read_versions,
    rollback,
    served,
    unserved_reason,
    versions,
)
from seq2serve.components.storage.files import write_file

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
def destination(request, tmp_path, blobs):
    return str(tmp_path / "serving" / "en_de") if request.param == "disk" else "memory://bucket/en_de"


def push(destination, model, keep=5):
    return publish(destination, model, {"note": "a test"}, keep)


def contents(destination):
    """Returns the content of each version, oldest first; all files of a version must have the same content."""
    store, result = open_store(destination), []
    for version in versions(destination):
        (content,) = {store.read(f"{version}/{name}").decode() for name in FILES}
        result.append(content)
    return result


def write_config(destination, settings, other=""):
    """Writes a models.config with settings of the model, as an operator does."""
    model = f"name: 'en_de' base_path: '/serving' model_platform: 'tensorflow' {settings}"
    open_store(destination).write("models.config", f"model_config_list {{ config {{ {model} }} {other} }}".encode())


def test_a_version_is_the_complete_model_and_its_record(destination, model):
    number = push(destination, model("a"))
    (version,) = read_versions(destination)
    assert (version.number, version.record["note"], len(version.record["sha256"])) == (number, "a test", 64)
    assert contents(destination) == ["a"]
    assert push(destination, model("a")) == number  # it is already the newest
    newer = push(destination, model("b"))
    assert newer > number
    assert push(destination, model("a")) == number
    assert versions(destination) == [number, newer]


def test_the_last_versions_are_kept(destination, model):
    numbers = [push(destination, model(content), keep=3) for content in "abcde"]
    assert versions(destination) == numbers[-3:]
    assert contents(destination) == ["c", "d", "e"]


def test_old_versions_are_kept_if_servers_need_them(destination, model):
    """The two newest, those that models.config names, and withdrawn ones as long as they are among the last `keep`."""
    first, second, third = (push(destination, model(content), keep=1) for content in "abc")
    assert versions(destination) == [second, third]
    write_config(destination, f"model_version_policy {{ specific {{ versions: {second} }} }}")
    fourth, fifth = (push(destination, model(content), keep=1) for content in "de")
    assert versions(destination) == [second, fourth, fifth]
    write_config(destination, "")
    rollback(destination)
    sixth = push(destination, model("f"), keep=2)
    assert [(v.number, v.withdrawn) for v in read_versions(destination)] == [
        *((fourth, False), (fifth, True), (sixth, False))
    ]
    seventh = push(destination, model("g"), keep=2)
    assert [v.number for v in read_versions(destination)] == [sixth, seventh]
    assert first not in versions(destination)


def test_a_damaged_version_is_pushed_again(destination, model):
    number = push(destination, model("a"))
    write_file(open_store(destination).path(f"{number}/{FILES[0]}"), b"b")
    assert push(destination, model("a")) > number
    assert open_store(destination).read(f"{versions(destination)[-1]}/{FILES[0]}") == b"a"


def test_a_rollback_withdraws_newer_versions_and_a_withdrawn_version_can_be_served_again(destination, model):
    first, second, third = (push(destination, model(content)) for content in "abc")
    assert rollback(destination) == (second, [third])
    assert rollback(destination) == (first, [second])  # a second rollback goes one version further back
    assert contents(destination) == ["a"]
    assert rollback(destination, third) == (third, [])
    assert contents(destination) == ["a", "c"]
    assert [(v.number, v.withdrawn) for v in read_versions(destination)] == [
        *((first, False), (second, True), (third, False))
    ]
    assert rollback(destination, second) == (second, [third])
    assert rollback(destination, first) == (first, [second])
    assert push(destination, model("c")) == third  # its model is not pushed again, which would undo the rollback
    assert contents(destination) == ["a"]
    fourth = push(destination, model("d"))
    assert fourth > third
    assert contents(destination) == ["a", "d"]
    assert rollback(destination, first) == (first, [fourth])


def test_a_version_that_the_configuration_names_is_not_withdrawn(destination, model):
    first, second = (push(destination, model(content)) for content in "ab")
    for settings in (
        f"model_version_policy {{ specific {{ versions: {second} }} }}",
        f"model_version_policy {{ all {{}} }} version_labels {{ key: 'de' value: {second} }}",
    ):
        write_config(destination, settings)
        with pytest.raises(UserError, match=f"^cannot withdraw version {second}: .*models.config names it") as error:
            rollback(destination)
        assert error.value.code == "version-named"
        assert error.value.fields == {"path": open_store(destination).path("models.config"), "version": second}
    assert versions(destination) == [first, second]


@pytest.mark.parametrize(
    ("pushes", "number", "code", "message"),
    [
        ("", None, "versions-missing", "^no versions in .*en_de; is it a serving folder"),
        ("a", None, "version-missing", "has no version before the one that it serves; versions: [0-9]+; choose one "),
        ("ab", 7, "version-missing", "^no version 7 in .*; versions: "),
        ("ab", "newest", "version-served", "already serves version [0-9]+; versions: "),
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


def test_a_withdrawn_version_has_one_pushed_path_and_its_files_are_found(destination, model):
    first, second = (push(destination, model(content)) for content in "ab")
    rollback(destination)
    paths = [f"{destination}/{number}" for number in (first, second)]
    withdrawn = f"{destination}/withdrawn-{second}"
    assert [pushed_path(path) for path in (*paths, withdrawn, f"{withdrawn}/")] == [*paths, paths[1], paths[1]]
    assert [version_path(path) for path in paths] == [paths[0], withdrawn]
    names = ("7", "withdrawn-7", "runs/Trainer/model/withdrawn-x", f"{destination}/17")
    assert [pushed_path(name) for name in names] == list(names)
    assert [version_path(name) for name in names] == list(names)


class KilledError(BaseException):
    """Ends a call as if its process had been killed."""


class MortalBlobs(dict):
    """The objects of a store; the process is killed before it writes or deletes the one after `left` others."""

    def __init__(self, blobs, left):
        super().__init__(blobs)
        self._left = left

    def _count(self):
        self._left -= 1
        if self._left < 0:
            raise KilledError

    def __setitem__(self, name, content):
        self._count()
        super().__setitem__(name, content)

    def __delitem__(self, name):
        self._count()
        super().__delitem__(name)


def test_a_rollback_in_an_object_store_that_is_killed_is_finished_by_a_second_one(
    memory_file_system, blobs, model, monkeypatch
):
    """Killed before each single copy and deletion: a complete version is always left, and a second call finishes."""
    for step in itertools.count():
        destination = f"memory://bucket/en_de-{step}"
        first, second = (push(destination, model(content)) for content in "ab")
        mortal = MortalBlobs(blobs, step)
        with monkeypatch.context() as patch:
            patch.setattr(memory_file_system, "BLOBS", mortal)
            try:
                rollback(destination)
                break
            except KilledError:
                blobs.clear()
                blobs.update(mortal)
        store = open_store(destination)
        assert any(store.has(f"{name}/saved_model.pb") for name in (second, f"withdrawn-{second}"))
        assert store.has(f"{first}/saved_model.pb")
        assert rollback(destination) == (first, [second])
        assert contents(destination) == ["a"]
        assert rollback(destination, second) == (second, [])
        assert contents(destination) == ["a", "b"]
    assert step > len(FILES)


@pytest.fixture
def full_disk(tmp_path):
    """A file system of 2 MiB, and a function that fills it to the last byte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m,nr_inodes=200", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")

    def fill():
        with contextlib.suppress(OSError), open(folder / "filler", "wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        with contextlib.suppress(OSError):
            for number in range(1000):
                (folder / f"inode-{number}").touch()

    yield folder / "serving", fill
    subprocess.run(["umount", str(folder)], check=True)


def test_a_rollback_works_on_a_full_disk(full_disk, model):
    folder, fill = full_disk
    destination = str(folder)
    first, second, third = (push(destination, model(content)) for content in "abc")
    fill()
    with pytest.raises(OSError, match="No space left"):
        push(destination, model("d"))
    assert contents(destination) == ["a", "b", "c"]
    assert rollback(destination, first) == (first, [second, third])
    assert contents(destination) == ["a"]
    assert rollback(destination, third) == (third, [])
    assert contents(destination) == ["a", "c"]


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


def test_what_servers_load_follows_the_configuration(destination, model):
    first, second, third = (push(destination, model(content)) for content in "abc")
    assert served(destination) == Served("latest", (third,), {})
    assert labels(destination) == {"stable": third}
    write_config(destination, "model_version_policy { latest { num_versions: 2 } }")
    assert served(destination) == Served("latest", (second, third), {})
    write_config(destination, "model_version_policy { all {} } version_labels { key: 'de' value: 7 }")
    assert served(destination) == Served("all", (first, second, third), {"de": 7})
    assert labels(destination) == {"stable": third}  # there is no version 7
    write_config(
        destination,
        f"model_version_policy {{ specific {{ versions: [{first}, {second}, 7] }} }}"
        f"version_labels {{ key: 'stable' value: {first} }} version_labels {{ key: 'de' value: {second} }}",
    )
    assert served(destination) == Served("specific", (first, second), {"stable": first, "de": second})
    assert labels(destination) == {"stable": first, "de": second}
    rollback(destination)
    assert served(destination).numbers == (first, second)


def test_why_servers_do_not_load_a_version_is_said(destination, model):
    first, second = (push(destination, model(content)) for content in "ab")
    assert [unserved_reason(destination, number) for number in (second, 7)] == ["", ""]
    assert unserved_reason(destination, first) == (
        f"model servers do not load version {first}, because version {second} is newer; `seq2serve rollback "
        f"{destination} {first}` serves it again"
    )
    rollback(destination)
    expected = f"version {second} is withdrawn; `seq2serve rollback {destination} {second}` serves it again"
    assert unserved_reason(destination, second) == expected
    write_config(destination, f"model_version_policy {{ specific {{ versions: {first} }} }}")
    third = push(destination, model("c"))
    assert unserved_reason(destination, third).startswith(f"model servers do not load version {third}: ")
    assert unserved_reason(destination, first) == ""


@pytest.mark.parametrize("text", ["model_config_list {", "modelconfiglist {}", b"\xff"], ids=["open", "field", "bytes"])
def test_a_configuration_that_servers_cannot_read_is_an_error_and_nothing_is_pushed(destination, model, text):
    first = push(destination, model("a"))
    store = open_store(destination)
    store.write("models.config", text if isinstance(text, bytes) else text.encode())
    path = store.path("models.config")
    for call in (
        lambda: push(destination, model("b")),
        lambda: check_destination(destination, "translation"),
        lambda: served(destination),
    ):
        with pytest.raises(
            UserError, match=r"models.config is not a model server's configuration: .*; fix it"
        ) as error:
            call()
        assert (error.value.code, error.value.fields) == ("server-config-invalid", {"path": path})
    assert versions(destination) == [first]


@pytest.mark.parametrize(
    ("model_config", "message"),
    [
        ("base_path: 'serving' model_platform: 'tensorflow'", "base_path 'serving' is neither an absolute path nor"),
        ("model_platform: 'tensorflow'", "base_path '' is neither"),
        ("base_path: '/serving'", "a model needs model_platform"),
        ("base_path: '/serving' model_platform: 'tensorflow' model_type: TENSORFLOW", "no model_type beside it"),
    ],
)
def test_a_model_that_servers_refuse_is_an_error_and_nothing_is_pushed(destination, model, model_config, message):
    first = push(destination, model("a"))
    text = f"model_config_list {{ config {{ name: 'en_de' {model_config} }} }}"
    open_store(destination).write("models.config", text.encode())
    with pytest.raises(UserError, match=message) as error:
        push(destination, model("b"))
    assert error.value.code == "server-config-invalid"
    assert versions(destination) == [first]


def test_the_model_of_the_folder_is_found_among_several(destination, model):
    first, second = (push(destination, model(content)) for content in "ab")
    path, policy = (
        open_store(destination).path("models.config"),
        f"model_version_policy {{ specific {{ versions: {first} }} }}",
    )
    write_config(destination, policy, "config { name: 'other' base_path: '/other' model_platform: 'tensorflow' }")
    assert served(destination).numbers == (first,)
    renamed = b"config { name: 'renamed' base_path: '/serving' model_platform: 'tensorflow' }"
    open_store(destination).write("models.config", b"model_config_list { " + renamed + b" }")
    assert served(destination).numbers == (second,)
    open_store(destination).write("models.config", b"model_config_list { config { name: 'b' } config { name: 'c' } }")
    with pytest.raises(UserError, match="lists 2 models, and not exactly one of them has the name en_de") as error:
        served(destination)
    assert (error.value.code, error.value.fields) == ("server-config-foreign", {"path": path})


def test_a_version_published_by_another_program_is_a_version(tmp_path, model):
    destination = tmp_path / "en_de"
    destination.mkdir()
    pathlib.Path(model("foreign")).rename(destination / "7")
    (destination / "7" / RECORD_FILE).parent.mkdir()
    (destination / "7" / RECORD_FILE).write_text("[]", encoding="utf-8")
    pushed = push(str(destination), model("pushed"))
    assert rollback(str(destination)) == (7, [pushed])


def test_saved_model_pb_is_the_last_file_of_a_version_in_an_object_store(model, blobs):
    number = push("memory://bucket/en_de", model("a"))
    written = [name.removeprefix(f"memory://bucket/en_de/{number}/") for name in blobs if f"/{number}/" in name]
    assert written[-1] == "saved_model.pb"
    assert set(written) == {*FILES, RECORD_FILE}
