"""Beam pipelines run with the user's options, and failures have short messages."""

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.utils import interactive_utils

from seq2serve.components.base.artifact import Examples
from seq2serve.components.base.component import Context
from seq2serve.components.base.errors import UserError
from seq2serve.components.storage.beam_files import write_file
from seq2serve.components.storage.beam_runner import WriteJsonLines, beam_pipeline, read_json_lines
from seq2serve.components.storage.shards import shard_paths


class Fail(beam.DoFn):
    def process(self, element):
        raise OSError(28, "No space left on device", "/full")


def test_the_local_runner_is_the_default_and_gets_the_options(tmp_path):
    flags = ("--direct_num_workers=2", "--direct_running_mode=multi_threading")
    with beam_pipeline(Context(beam_options=flags)) as pipeline:
        pipeline | beam.Create(range(5)) | beam.Reshuffle() | WriteJsonLines(f"{tmp_path}/numbers.jsonl")
    assert isinstance(pipeline.runner, FnApiRunner)
    assert pipeline.runner._num_workers == 2
    assert sorted(read_json_lines(f"{tmp_path}/numbers.jsonl")) == list(range(5))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_name_is_never_a_pattern(tmp_path):
    for folder in ("a", "[a]*?"):
        (tmp_path / folder / "Split-train").mkdir(parents=True)
        write_file(f"{tmp_path}/{folder}/Split-train/data-00000-of-00001", b"")
        write_file(f"{tmp_path}/{folder}/numbers.jsonl", b"1\n")
    assert read_json_lines(f"{tmp_path}/[a]*?/numbers.jsonl") == [1]
    assert [path.parent.name for path in tmp_path.glob("*/numbers.jsonl")] == ["a"]
    (shard,) = shard_paths(Examples(f"{tmp_path}/[a]*?"), "train")
    assert shard == f"{tmp_path}/[a]*?/Split-train/data-00000-of-00001"


def test_repeated_work_leaves_only_the_file(tmp_path):
    with beam_pipeline(Context(beam_options=("--direct_runner_bundle_repeat=1",))) as pipeline:
        pipeline | beam.Create(range(5)) | beam.Reshuffle() | WriteJsonLines(f"{tmp_path}/numbers.jsonl")
    assert sorted(read_json_lines(f"{tmp_path}/numbers.jsonl")) == list(range(5))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flag", "code", "fields", "message"),
    [
        (
            "--direct_num_worker=2",
            "beam-option-unknown",
            {"options": ["--direct_num_worker"]},
            "unknown Beam option --direct_num_worker; Beam's options are those after the bare --",
        ),
        (
            "--direct_num_workers=two",
            "beam-option-invalid",
            {},
            "invalid Beam option: argument --direct_num_workers: invalid int value: 'two'; Beam's options are those "
            "after the bare --",
        ),
    ],
)
def test_an_invalid_beam_option_is_a_user_error(flag, code, fields, message, capfd):
    with pytest.raises(UserError) as error, beam_pipeline(Context(beam_options=(flag,))):
        pass
    assert (error.value.code, error.value.fields, str(error.value)) == (code, fields, message)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("mode", ["in_memory", "multi_threading"])
def test_the_error_of_a_worker_is_one_line(mode):
    message = r"^OSError: \[Errno 28\] No space left on device: '/full' \[while running 'ParDo\(Fail\)'\]$"
    context = Context(beam_options=(f"--direct_running_mode={mode}",))
    with pytest.raises(RuntimeError, match=message), beam_pipeline(context) as pipeline:
        pipeline | beam.Create([1]) | beam.ParDo(Fail())


def test_beam_prints_nothing(capfd):
    with pytest.raises(RuntimeError), beam_pipeline(Context()) as pipeline:
        pipeline | beam.Create([1]) | beam.ParDo(Fail())
    assert capfd.readouterr() == ("", "")


def test_pipelines_run_in_a_notebook_as_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setattr(interactive_utils, "is_in_ipython", lambda: True)
    with beam_pipeline(Context()) as pipeline:
        pipeline | beam.Create([1]) | WriteJsonLines(f"{tmp_path}/numbers.jsonl")
        assert not interactive_utils.is_in_ipython()
    assert read_json_lines(f"{tmp_path}/numbers.jsonl") == [1]
    assert interactive_utils.is_in_ipython()
