"""Beam options follow a bare --; Dataflow's workers reach only object stores; a serving folder takes one task."""

import re

import pytest

from seq2serve.components.base.errors import UserError
from seq2serve.pipeline.running.preflight import check_serving_dir, checked_beam_options

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


def test_a_serving_folder_may_be_new_or_a_url(tmp_path, blobs):
    check_serving_dir(str(tmp_path / "new"), "translation")
    check_serving_dir("memory://bucket/models", "translation")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("url", "code"), [("nowhere://models", "url-unsupported"), ("memory://a*", "url-is-pattern")])
def test_a_url_that_cannot_be_a_serving_folder_is_an_error(blobs, url, code):
    with pytest.raises(UserError, match=rf"^the folder {re.escape(url)} ") as error:
        check_serving_dir(url, "translation")
    assert (error.value.code, error.value.fields) == (code, {"path": url})


@pytest.mark.parametrize(("name", "code"), [("file", "serving-dir-unwritable"), ("x" * 300, "serving-dir-unreadable")])
def test_what_cannot_be_a_serving_folder_is_an_error(tmp_path, name, code):
    (tmp_path / "file").touch()
    path = str(tmp_path / name)
    with pytest.raises(UserError, match=r"^cannot push to .*; name another folder with --serving-dir$") as error:
        check_serving_dir(path, "translation")
    assert (error.value.code, error.value.fields) == (code, {"path": path})
