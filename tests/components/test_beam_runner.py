"""Beam: options are the user's own, failures read as what they are."""

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.utils import interactive_utils

from components.artifact import Examples
from components.beam_runner import WriteJsonLines, beam_pipeline, read_json_lines
from components.component import Context
from components.errors import UserError
from components.remote_files import write_file
from components.shards import shard_paths


class Fail(beam.DoFn):
    def process(self, element):
        raise OSError(28, "No space left on device", "/full")


def test_the_local_runner_is_the_default_and_options_reach_it(tmp_path):
    flags = ("--direct_num_workers=2", "--direct_running_mode=multi_threading")
    with beam_pipeline(Context(beam_options=flags)) as pipeline:
        pipeline | beam.Create(range(5)) | beam.Reshuffle() | WriteJsonLines(f"{tmp_path}/numbers.jsonl")
    assert isinstance(pipeline.runner, FnApiRunner)
    assert pipeline.runner._num_workers == 2
    assert sorted(read_json_lines(f"{tmp_path}/numbers.jsonl")) == list(range(5))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_may_have_any_name(tmp_path):
    for folder in ("a", "[a]*?"):
        (tmp_path / folder / "Split-train").mkdir(parents=True)
        write_file(f"{tmp_path}/{folder}/Split-train/data-00000-of-00001", b"")
        write_file(f"{tmp_path}/{folder}/numbers.jsonl", b"1\n")
    assert read_json_lines(f"{tmp_path}/[a]*?/numbers.jsonl") == [1]
    assert [path.parent.name for path in tmp_path.glob("*/numbers.jsonl")] == ["a"]
    (shard,) = shard_paths(Examples(f"{tmp_path}/[a]*?"), "train")
    assert shard == f"{tmp_path}/[a]*?/Split-train/data-00000-of-00001"


def test_work_that_is_done_twice_leaves_nothing_but_the_file(tmp_path):
    with beam_pipeline(Context(beam_options=("--direct_runner_bundle_repeat=1",))) as pipeline:
        pipeline | beam.Create(range(5)) | beam.Reshuffle() | WriteJsonLines(f"{tmp_path}/numbers.jsonl")
    assert sorted(read_json_lines(f"{tmp_path}/numbers.jsonl")) == list(range(5))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--direct_num_worker=2", "Beam has no option --direct_num_worker"),
        ("--direct_num_workers=two", "Beam cannot read its options: .*invalid int value: 'two'"),
    ],
)
def test_an_option_beam_does_not_know_is_the_users_error(flag, message, capfd):
    with pytest.raises(UserError, match=message), beam_pipeline(Context(beam_options=(flag,))):
        pass
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("mode", ["in_memory", "multi_threading"])
def test_a_workers_failure_is_told_in_one_line(mode):
    message = r"^OSError: \[Errno 28\] No space left on device: '/full' \[while running 'ParDo\(Fail\)'\]$"
    context = Context(beam_options=(f"--direct_running_mode={mode}",))
    with pytest.raises(RuntimeError, match=message), beam_pipeline(context) as pipeline:
        pipeline | beam.Create([1]) | beam.ParDo(Fail())


def test_nothing_is_printed_over_the_users_shoulder(capfd):
    with pytest.raises(RuntimeError), beam_pipeline(Context()) as pipeline:
        pipeline | beam.Create([1]) | beam.ParDo(Fail())
    assert capfd.readouterr() == ("", "")


def test_a_notebook_is_a_place_like_any_other(monkeypatch, tmp_path):
    monkeypatch.setattr(interactive_utils, "is_in_ipython", lambda: True)
    with beam_pipeline(Context()) as pipeline:
        pipeline | beam.Create([1]) | WriteJsonLines(f"{tmp_path}/numbers.jsonl")
        assert not interactive_utils.is_in_ipython()
    assert read_json_lines(f"{tmp_path}/numbers.jsonl") == [1]
    assert interactive_utils.is_in_ipython()
