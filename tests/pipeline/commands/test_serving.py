"""`versions` and `rollback` list and change a serving folder; `serve` checks its arguments."""

import pytest

from seq2serve.components.base.errors import UserError
from seq2serve.components.pusher.versions import publish, versions


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


def test_versions_lists_each_version_with_its_state_and_labels(invoke, serving):
    folder, first, second = serving
    lines = [line.split() for line in invoke("versions", folder).stdout.splitlines()]
    assert lines == [
        ["VERSION", "STATE", "LABELS", "TASK", "MODEL", "EVALUATION"],
        [str(first), "translation", "1" * 12, "BLEU", "1"],
        [str(second), "served", "stable", "translation", "2" * 12, "BLEU", "2"],
    ]


def test_rollback_withdraws_newer_versions_and_versions_shows_it(invoke, serving):
    folder, first, second = serving
    assert invoke("rollback", folder).stdout == f"Version {first} is the newest. Withdrawn: {second}.\n"
    lines = [line.split() for line in invoke("versions", folder).stdout.splitlines()]
    assert lines[1][:3] == [str(first), "served", "stable"]
    assert lines[2] == [str(second), "withdrawn", "translation", "2" * 12, "BLEU", "2"]
    assert invoke("rollback", folder, second).stdout == f"Version {second} is the newest. Withdrawn: none.\n"
    assert versions(folder) == [first, second]


def test_a_version_that_servers_do_not_load_is_reported(invoke, serving):
    folder, first, second = serving
    model = "base_path: '/serving' model_platform: 'tensorflow' model_version_policy { specific { versions: %d } }"
    config = f"model_config_list {{ config {{ {model} }} }}"
    (folder / "models.config").write_text(config % first, encoding="utf-8")
    lines = invoke("versions", folder).stdout.splitlines()
    assert [line.split()[1] for line in lines[1:3]] == ["served", "stable"]
    warning = f"model servers do not load version {second}: {folder / 'models.config'} lists other versions; "
    assert lines[3].startswith(warning)
    (folder / "models.config").write_text(config % 7, encoding="utf-8")
    assert f"model servers do not load version {first}: " in invoke("rollback", folder).stdout


@pytest.mark.parametrize("fault", ["cut off", "missing"])
def test_a_version_that_no_server_can_load_is_shown_as_damaged(invoke, serving, fault):
    folder, first, second = serving
    graph = folder / str(second) / "saved_model.pb"
    graph.write_text("", encoding="utf-8") if fault == "cut off" else graph.unlink()
    lines = invoke("versions", folder).stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [[str(first), "translation"], [str(second), "damaged"]]
    assert lines[3].startswith(f"version {second} is damaged: ")
    assert invoke("rollback", folder).exit_code == 0
    assert "damaged" not in invoke("versions", folder).stdout


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


def test_a_rollback_that_cannot_be_written_is_an_error(invoke, serving):
    folder, first, second = serving
    (folder / f"withdrawn-{second}" / "assets.extra").mkdir(parents=True)  # a rename cannot replace it
    outcome = invoke("rollback", folder)
    assert (outcome.exit_code, outcome.error.code) == (2, "rollback-failed")
    assert outcome.error.fields == {"path": str(folder)}
    assert outcome.stderr.startswith(f"seq2serve: cannot roll back {folder}: ")
    assert outcome.stderr.endswith("; fix this and run the command again, which finishes the rollback\n")
    assert versions(folder) == [first, second]


def test_versions_on_an_object_store_are_listed(invoke, text_model, blobs):
    url = "memory://bucket/shout"
    number = publish(url, text_model, {"evaluation": {"reason": "loud enough"}}, 3)
    listed = invoke("versions", url).stdout
    assert f"{number}  served     stable " in listed
    assert "loud enough" in listed


def test_an_object_store_that_cannot_be_reached_is_an_error(invoke):
    outcome = invoke("versions", "nowhere://bucket")
    assert (outcome.exit_code, outcome.error.code) == (2, "url-unsupported")
    assert outcome.error.fields == {"path": "nowhere://bucket"}
    reason = "Beam has no file system for it; gs:// needs the extra gcp: pip install 'seq2serve[gcp]'"
    assert outcome.stderr == f"seq2serve: the folder nowhere://bucket cannot be reached: {reason}\n"


def test_a_rollback_of_a_url_that_is_a_pattern_touches_no_other_folder(invoke, text_model, blobs):
    publish("memory://bucket/a", text_model, {}, 3)
    before = dict(blobs)
    outcome = invoke("rollback", "memory://bucket/?", "7")
    assert (outcome.exit_code, outcome.error.code) == (2, "url-is-pattern")
    assert blobs == before


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
