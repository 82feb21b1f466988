"""`versions` and `rollback` list and change a serving folder; `serve` checks its arguments."""

import pytest

from seq2serve.components.base.errors import UserError
from seq2serve.components.pusher.versions import publish, read_versions, versions


@pytest.fixture
def serving(tmp_path):
    """A serving folder, and the numbers of its two versions."""
    folder = tmp_path / "serving"
    numbers = []
    for number in (1, 2):
        model = tmp_path / f"model-{number}"
        model.mkdir()
        (model / "saved_model.pb").write_text(str(number), encoding="utf-8")
        evaluation = {"reason": f"BLEU {number}"}
        record = {"task": "translation", "model_fingerprint": f"{number}" * 64, "evaluation": evaluation}
        numbers.append(publish(str(folder), str(model), record, 5))
    return folder, *numbers


def test_versions_lists_each_version_with_its_labels(invoke, serving):
    folder, first, second = serving
    lines = [line.split() for line in invoke("versions", folder).stdout.splitlines()]
    assert lines == [
        ["VERSION", "LABELS", "TASK", "MODEL", "EVALUATION"],
        [str(first), "translation", "1" * 12, "BLEU", "1"],
        [str(second), "stable,", "canary", "translation", "2" * 12, "BLEU", "2"],
    ]


def test_rollback_publishes_an_earlier_version_again_and_versions_shows_it(invoke, serving):
    folder, first, second = serving
    copy = second + 1
    assert invoke("rollback", folder).stdout == f"Version {copy} is a copy of version {first}.\n"
    lines = [line.split() for line in invoke("versions", folder).stdout.splitlines()]
    assert lines[2][:2] == [str(second), "canary"]
    assert lines[3] == [str(copy), "stable", "translation", "1" * 12, "rolled", "back", "to", f"{first};", "BLEU", "1"]
    assert invoke("rollback", folder, second).exit_code == 0
    assert read_versions(folder)[-1].copy_of == second


def test_rollback_to_a_missing_version_changes_nothing(invoke, serving):
    folder, first, second = serving
    outcome = invoke("rollback", folder, 7)
    assert (outcome.exit_code, type(outcome.error)) == (2, UserError)
    assert versions(folder) == [first, second]


@pytest.mark.parametrize("name", ["rollback", "versions"])
def test_a_folder_without_versions_is_an_error_and_is_not_created(invoke, tmp_path, name):
    outcome = invoke(name, tmp_path / "none")
    assert (outcome.exit_code, type(outcome.error)) == (2, UserError)
    assert "no versions in" in outcome.stderr
    assert not (tmp_path / "none").exists()


def test_the_message_of_a_folder_without_versions_names_an_example(invoke, tmp_path):
    outcome = invoke("versions", tmp_path)
    assert (outcome.error.code, outcome.error.fields) == ("versions-missing", {"path": str(tmp_path)})
    message = f"no versions in {tmp_path}; name a serving folder, such as serving/translation"
    assert outcome.stderr == f"seq2serve: {message}\n"


def test_a_rollback_that_cannot_be_written_is_an_error(invoke, serving, monkeypatch):
    folder, first, second = serving

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copytree", full)
    outcome = invoke("rollback", folder)
    assert (outcome.exit_code, outcome.error.code) == (2, "rollback-failed")
    assert outcome.error.fields == {"path": str(folder)}
    assert outcome.stderr.startswith(f"seq2serve: cannot roll back {folder}: ")
    assert outcome.stderr.endswith("; nothing was changed\n")
    assert versions(folder) == [first, second]


def test_versions_on_an_object_store_are_listed(invoke, text_model, tmp_path):
    """TensorFlow's file system in memory stands in for an object store."""
    url = f"ram://{tmp_path.name}/shout"
    number = publish(url, text_model, {"evaluation": {"reason": "loud enough"}}, 3)
    listed = invoke("versions", url).stdout
    assert f"{number}  stable, canary" in listed
    assert "loud enough" in listed


def test_an_object_store_that_cannot_be_reached_is_an_error(invoke):
    outcome = invoke("versions", "nowhere://bucket")
    assert (outcome.exit_code, outcome.error.code) == (2, "folder-unreadable")
    assert outcome.error.fields == {"path": "nowhere://bucket"}
    assert outcome.stderr.startswith("seq2serve: cannot read nowhere://bucket: ")


def test_serve_needs_a_local_folder(invoke):
    outcome = invoke("serve", "gs://bucket/model")
    assert (outcome.exit_code, outcome.error.code) == (2, "folder-remote")
    assert outcome.error.fields == {"path": "gs://bucket/model"}
    message = "gs://bucket/model is not a local folder: copy it to this machine, or serve it with TensorFlow Serving"
    assert outcome.stderr == f"seq2serve: {message}\n"


@pytest.mark.parametrize("option", ["--port", "--grpc-port"])
@pytest.mark.parametrize("port", ["-1", "65536"])
def test_an_invalid_port_is_a_usage_error(invoke, tmp_path, option, port):
    outcome = invoke("serve", tmp_path, option, port)
    assert (outcome.exit_code, outcome.error) == (2, None)
    assert f"Invalid value for '{option}'" in outcome.message
