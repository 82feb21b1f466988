"""BulkInferrer: each row becomes a prediction or a failure, in order, for any number of workers."""

import json
import os
import pathlib

import pytest
import tensorflow as tf

from seq2serve.components.base.artifact import InferenceResult, PushedModel
from seq2serve.components.base.component import Context
from seq2serve.components.base.errors import ComponentError
from seq2serve.components.bulk_inferrer.component import BulkInferrer
from seq2serve.components.bulk_inferrer.workers import BATCH_ROWS
from seq2serve.components.storage.beam_files import upload
from seq2serve.components.tasks.translation.task import Translation

BAD = "a text that the model cannot answer"
SHARDS = [
    [(f"{shard} text {row} ä", f"{shard}-{row}") for row in range(rows)] for shard, rows in enumerate((150, 1, 20))
]


@pytest.fixture
def infer(tmp_path):
    """Returns a function that queries a SavedModel and returns the InferenceResult."""

    def infer(examples, saved_model, num_examples=0, beam_options=()):
        result = InferenceResult(str(tmp_path / f"result-{len(list(tmp_path.glob('result-*')))}"))
        os.makedirs(result.uri)
        BulkInferrer.function(
            examples=examples,
            pushed_model=PushedModel("", {"pushed_destination": os.path.join(saved_model, "Format-Serving")}),
            inference_result=result,
            task=Translation(),
            split="test",
            num_examples=num_examples,
            context=Context(tuple(beam_options)),
        )
        return result

    return infer


def answers(shards):
    """Returns the predictions for shards of rows by a model that converts text to upper case."""
    return [[answer(key, *row) for key, row in enumerate(rows)] for rows in shards]


def answer(key, source, target):
    score = float(len(source.encode()))
    return {"key": key, "source": source, "target": target, "translation": source.upper(), "score": score}


def lines(result, kind):
    """Returns the objects in each file of a kind, in the order of the file names."""
    paths = sorted(pathlib.Path(result.uri).glob(f"{kind}-*.jsonl"))
    assert [path.name for path in paths] == [f"{kind}-{i:05d}-of-{len(paths):05d}.jsonl" for i in range(len(paths))]
    return [[json.loads(line) for line in path.read_text("utf-8").splitlines()] for path in paths]


def contents(result):
    return {path.name: path.read_bytes() for path in pathlib.Path(result.uri).iterdir()}


def upper(text):
    return tf.strings.upper(text, encoding="utf-8")


def upper_if_good(text):
    good = tf.reduce_all(text != BAD)
    with tf.control_dependencies([tf.debugging.Assert(good, ["cannot answer that"])]):
        return upper(text)


def test_predictions_are_in_the_order_of_the_rows_and_have_their_keys(infer, make_saved_model, write_examples):
    result = infer(write_examples(*SHARDS), make_saved_model(upper))
    assert lines(result, "predictions") == answers(SHARDS)
    assert lines(result, "failures") == [[], [], []]
    assert result.properties == {"num_predictions": 171, "num_failures": 0}


def test_a_model_on_an_object_store_answers_like_one_on_a_disk(infer, make_saved_model, write_examples, blobs):
    url = "memory://bucket/model"
    upload(make_saved_model(upper), url)
    assert lines(infer(write_examples(*SHARDS), url), "predictions") == answers(SHARDS)


def test_results_and_batches_do_not_depend_on_the_number_of_workers(infer, make_saved_model, write_examples):
    """Each answer contains the texts of the whole batch."""
    examples = write_examples(*SHARDS)
    model = make_saved_model(lambda text: tf.strings.join([text, tf.strings.reduce_join(text)]))
    several = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")
    assert contents(infer(examples, model, beam_options=several)) == contents(infer(examples, model))


def test_a_failing_row_is_written_with_its_reason_and_other_rows_are_answered(infer, make_saved_model, write_examples):
    shards = [[*SHARDS[0][:70], (BAD, "?"), *SHARDS[0][70:]], SHARDS[1]]
    assert 70 % BATCH_ROWS
    result = infer(write_examples(*shards), make_saved_model(upper_if_good))
    expected = answers(shards)
    del expected[0][70]
    assert lines(result, "predictions") == expected
    (failure,), failures_of_second_shard = lines(result, "failures")
    assert (failure["key"], failure["source"], failure["target"]) == (70, BAD, "?")
    assert "cannot answer that" in failure["reason"]
    assert failures_of_second_shard == []
    assert result.properties == {"num_predictions": 151, "num_failures": 1}


def test_a_row_that_exhausts_memory_fails_alone(infer, make_saved_model, write_examples):
    def upper_if_small(text):
        size = tf.where(tf.reduce_any(text == BAD), tf.constant(2**60, tf.int64), 0)
        empty = tf.strings.substr("", 0, tf.cast(tf.reduce_sum(tf.zeros(size[None], tf.uint8)), tf.int32))
        return tf.strings.join([upper(text), empty])

    result = infer(write_examples([*SHARDS[0][:3], (BAD, "?")]), make_saved_model(upper_if_small))
    assert lines(result, "predictions") == answers([SHARDS[0][:3]])
    ((failure,),) = lines(result, "failures")
    assert (failure["key"], failure["source"]) == (3, BAD)
    assert "OOM" in failure["reason"]


def test_num_examples_selects_the_first_rows_of_each_shard(infer, make_saved_model, write_examples):
    result = infer(write_examples(*SHARDS), make_saved_model(upper), num_examples=2)
    assert lines(result, "predictions") == answers([rows[:2] for rows in SHARDS])


def test_an_error_is_raised_if_every_row_fails(infer, make_saved_model, write_examples):
    examples = write_examples([], [(BAD, "?")] * 3)  # the first shard has no reason to report
    with pytest.raises(ComponentError, match=r"^every row of split 'test' failed: .*cannot answer that") as error:
        infer(examples, make_saved_model(upper_if_good))
    assert error.value.code == "rows-failed"
    assert error.value.fields == {"split": "test"}


def test_a_missing_model_is_a_one_line_error_that_names_the_folder(infer, write_examples, tmp_path):
    with pytest.raises(ValueError, match=f"no SavedModel: {tmp_path}/nowhere/") as error:
        infer(write_examples(*SHARDS), str(tmp_path / "nowhere"))
    assert len(str(error.value).splitlines()) == 1
    assert not list(tmp_path.glob("result-*/predictions-*"))
