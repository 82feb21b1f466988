"""Beam options follow a bare --; Dataflow's workers reach only object stores."""

import pytest

from seq2serve.components.base.errors import UserError
from seq2serve.pipeline.commands.beam_options import checked_beam_options

DATAFLOW = ["--project=p", "--runner=DataflowRunner"]


def test_options_are_returned_unchanged():
    assert checked_beam_options(["--runner=FlinkRunner", "x"], "a.tsv", "runs", "serving") == (
        "--runner=FlinkRunner",
        "x",
    )
    assert checked_beam_options(None, "a.tsv", "runs") == ()


def test_an_argument_without_a_dash_is_an_error():
    with pytest.raises(UserError, match=r"^unexpected argument 'b\.tsv': pass several files as one quoted") as error:
        checked_beam_options(["b.tsv"], "a.tsv", "runs")
    assert (error.value.code, error.value.fields) == ("beam-option-malformed", {"argument": "b.tsv"})


@pytest.mark.parametrize(
    ("file", "root", "serving_dir", "path"),
    [
        ("gs://b/a.tsv", "runs", "gs://b/models", "runs"),
        ("train=gs://b/a.tsv,test=data.tsv", "gs://b/runs", "gs://b/models", "data.tsv"),
        ("gs://b/a.tsv", "gs://b/runs", "serving", "serving"),
    ],
)
def test_a_local_path_is_an_error_on_dataflow(file, root, serving_dir, path):
    with pytest.raises(UserError) as error:
        checked_beam_options(DATAFLOW, file, root, serving_dir)
    assert (error.value.code, error.value.fields) == ("path-unreachable", {"path": path})


def test_the_message_of_a_local_path_names_its_role_and_two_ways_out():
    message = "reach only object stores, but the pipeline root is local: runs; use a URL .*, or .* --runner=FlinkRunner"
    with pytest.raises(UserError, match=message):
        checked_beam_options(DATAFLOW, "gs://b/a.tsv", "runs")


def test_a_local_path_is_an_error_before_anything_runs(command, tmp_path):
    outcome = command("run", "data.tsv", "--", *DATAFLOW)
    assert (outcome.exit_code, outcome.error.code) == (2, "path-unreachable")
    assert [path.name for path in tmp_path.iterdir()] == ["data.tsv"]


def test_urls_are_allowed_on_dataflow(command, toy, tmp_path, blobs):
    blobs["memory://bucket/a.tsv"] = b"source\ttarget\n"
    locations = ["--pipeline-root", "memory://bucket/runs/", "--serving-dir", "memory://bucket/models"]
    outcome = command("run", "memory://bucket/a.tsv", *locations, "--", "--runner=DataflowRunner")
    assert outcome.exit_code == 0, outcome.stderr
    assert toy.beam_options == ("--runner=DataflowRunner",)
    assert (tmp_path / "runs-memory-bucket-runs" / "metadata.sqlite").is_file()
