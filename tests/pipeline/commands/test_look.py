"""runs, report, lineage and tensorboard show past runs, and report what they do not find."""

import pytest

from seq2serve.components.base.errors import UserError


def test_runs_lists_every_run_with_its_state(command, toy):
    command("run", "data.tsv")
    toy.error = UserError("bad row")
    command("run", "data.tsv")
    command("run", "data.tsv", "--pipeline-root", "other")

    heading, *rows = command("runs").stdout.splitlines()
    assert heading.split() == ["RUN", "PIPELINE", "STARTED", "SECONDS", "STATE", "RAN", "REUSED", "MESSAGE"]
    assert [(row.split()[0], row.split()[1], *row.split()[5:]) for row in rows] == [
        ("1", "toy", "COMPLETE", "1", "0"),
        ("2", "toy", "COMPLETE", "0", "1"),
    ]
    failed = command("runs", "--pipeline-root", "other").stdout.splitlines()[1]
    assert failed.split()[5:] == ["FAILED", "0", "0", "Toy:", "bad", "row"], "a failed component counts as neither"


def test_runs_of_one_run_lists_its_artifacts(command):
    command("run", "data.tsv")
    command("run", "data.tsv")
    assert "2 model" in command("runs", "1").stdout
    assert "2 model" in command("runs", "2").stdout, "a reused component has the artifacts that it reuses"


def test_lineage_takes_an_id_or_a_path(command):
    command("run", "data.tsv")
    lineage = command("lineage", "runs/Toy/model/1").stdout
    assert lineage == command("lineage", "2").stdout
    assert "Toy, run 1" in lineage
    assert "Made from\nnone" in lineage


@pytest.mark.parametrize(
    ("arguments", "code", "fields"),
    [
        (["runs", "9"], "run-missing", {"run": 9}),
        (["runs", "9" * 23], "run-missing", {"run": int("9" * 23)}),
        (["lineage", "9"], "artifact-unknown", {"name": "9"}),
        (["lineage", "9" * 23], "artifact-unknown", {"name": "9" * 23}),
        (["lineage", "nowhere"], "artifact-unknown", {"name": "nowhere"}),
        (["report", "1", "1", "1"], "runs-too-many", {"runs": [1, 1, 1]}),
    ],
)
def test_an_unknown_run_or_artifact_is_an_error(command, arguments, code, fields):
    command("run", "data.tsv")
    outcome = command(*arguments)
    assert (outcome.exit_code, outcome.error.code, outcome.error.fields) == (2, code, fields)


def test_the_message_of_an_unknown_run_names_the_command_that_lists_them(command):
    command("run", "data.tsv")
    assert command("runs", "9").stderr == "seq2serve: no run 9 here; `seq2serve runs` lists all runs\n"


def test_the_message_of_too_many_runs_names_the_limit(command):
    command("run", "data.tsv")
    message = "seq2serve: a report shows one run or two, not 3; `seq2serve runs` lists all runs\n"
    assert command("report", "1", "1", "1").stderr == message


@pytest.mark.parametrize(
    ("arguments", "code", "path"),
    [
        (["runs"], "metadata-store-missing", "runs/metadata.sqlite"),
        (["lineage", "1", "--pipeline-root", "nowhere"], "metadata-store-missing", "nowhere/metadata.sqlite"),
        (["report"], "metadata-store-missing", "runs/metadata.sqlite"),
        (
            ["runs", "--pipeline-root", "nowhere://bucket/runs"],
            "metadata-store-missing",
            "runs-nowhere-bucket-runs/metadata.sqlite",
        ),
        (["tensorboard"], "pipeline-root-missing", "runs"),
        (
            ["tensorboard", "--pipeline-root", "nowhere://bucket/runs"],
            "pipeline-root-missing",
            "runs-nowhere-bucket-runs",
        ),
    ],
)
def test_a_missing_pipeline_root_is_an_error_and_is_not_created(command, tmp_path, arguments, code, path):
    outcome = command(*arguments)
    assert (outcome.exit_code, outcome.error.code) == (2, code)
    assert outcome.error.fields == {"path": str(tmp_path / path)}
    assert [path.name for path in tmp_path.iterdir()] == ["data.tsv"]


def test_the_messages_of_a_missing_pipeline_root_name_the_options(command, tmp_path):
    store, folder = command("runs").message, command("tensorboard").message
    assert store.startswith(f"seq2serve: no runs in runs: file not found: {tmp_path}/runs/metadata.sqlite; pass ")
    assert "--pipeline-root" in store
    assert "--metadata" in store
    assert folder.startswith(f"seq2serve: no runs in runs: folder not found: {tmp_path}/runs; ")
    assert "--pipeline-root" in folder


def test_a_report_of_a_store_without_runs_is_an_error(command, tmp_path):
    outcome = command("report", "--metadata", f"sqlite:///{tmp_path}/shared.sqlite")
    assert (outcome.exit_code, outcome.error.code, outcome.error.fields) == (2, "runs-missing", {"path": "runs"})
    assert outcome.stderr == "seq2serve: no runs in runs yet; start one with `seq2serve run`\n"


def test_a_shared_store_is_set_by_an_option_or_an_environment_variable(command, tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path}/shared.sqlite"
    assert command("run", "data.tsv", "--metadata", url).exit_code == 0
    assert not (tmp_path / "runs" / "metadata.sqlite").exists()
    assert command("run", "data.tsv").error.code == "metadata-store-shared"
    assert command("runs").error.code == "metadata-store-missing"
    monkeypatch.setenv("SEQ2SERVE_METADATA", url)
    assert "reused" in command("run", "data.tsv").stdout
    assert command("runs").stdout.count("COMPLETE") == 2
    assert "Toy" in command("runs", "2").stdout
    assert "Artifact" in command("lineage", "1").stdout
