"""BulkInferrer: rows in are predictions and failures out, in order, however many workers there are."""

import json
import os
import pathlib

import pytest
import tensorflow as tf

from components.artifact import InferenceResult, PushedModel
from components.bulk_inferrer import BulkInferrer
from components.bulk_inferrer_beam import BATCH_ROWS
from components.component import Context
from components.errors import ComponentError

BAD = "a text that the model cannot answer"
SHARDS = [
    [(f"{shard} text {row} ä", f"{shard}-{row}") for row in range(rows)] for shard, rows in enumerate((150, 1, 20))
]


@pytest.fixture
def infer(tmp_path):
    """Returns a function that asks a planted model and returns the InferenceResult."""

    def infer(examples, saved_model, num_examples=0, beam_options=()):
        result = InferenceResult(str(tmp_path / f"result-{len(list(tmp_path.glob('result-*')))}"))
        os.makedirs(result.uri)
        BulkInferrer.function(
            examples=examples,
            pushed_model=PushedModel("", {"pushed_destination": os.path.join(saved_model, "Format-Serving")}),
            inference_result=result,
            task="translation",
            split="test",
            num_examples=num_examples,
            context=Context(tuple(beam_options)),
        )
        return result

    return infer


def answers(shards):
    """Returns what a model that upper-cases makes of shards of rows."""
    return [[answer(key, *row) for key, row in enumerate(rows)] for rows in shards]


def answer(key, source, target):
    score = float(len(source.encode()))
    return {"key": key, "source": source, "target": target, "translation": source.upper(), "score": score}


def lines(result, kind):
    """Returns the objects in each file of a kind, in order of the files' names."""
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


def test_every_row_has_its_prediction_and_key_in_order(infer, plant, write_examples):
    result = infer(write_examples(*SHARDS), plant(upper))
    assert lines(result, "predictions") == answers(SHARDS)
    assert lines(result, "failures") == [[], [], []]
    assert result.properties == {"num_predictions": 171, "num_failures": 0}


def test_a_model_on_an_object_store_is_asked_like_one_on_a_disk(infer, plant, write_examples, tmp_path):
    there = f"ram://{tmp_path.name}"
    for path in pathlib.Path(plant(upper)).rglob("*"):
        if path.is_file():
            target = f"{there}/{path.relative_to(tmp_path / 'planted-0')}"
            tf.io.gfile.makedirs(os.path.dirname(target))
            tf.io.gfile.copy(str(path), target)
    assert lines(infer(write_examples(*SHARDS), there), "predictions") == answers(SHARDS)


def test_workers_change_nothing(infer, plant, write_examples):
    """Not even who is asked together with whom, which the answers show here."""
    examples, model = write_examples(*SHARDS), plant(lambda text: tf.strings.join([text, tf.strings.reduce_join(text)]))
    several = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")
    assert contents(infer(examples, model, beam_options=several)) == contents(infer(examples, model))


def test_a_row_that_fails_is_told_with_its_reason_and_takes_none_with_it(infer, plant, write_examples):
    shards = [[*SHARDS[0][:70], (BAD, "?"), *SHARDS[0][70:]], SHARDS[1]]
    assert 70 % BATCH_ROWS
    result = infer(write_examples(*shards), plant(upper_if_good))
    expected = answers(shards)
    del expected[0][70]
    assert lines(result, "predictions") == expected
    (failure,), none = lines(result, "failures")
    assert (failure["key"], failure["source"], failure["target"]) == (70, BAD, "?")
    assert "cannot answer that" in failure["reason"]
    assert none == []
    assert result.properties == {"num_predictions": 151, "num_failures": 1}


def test_a_row_that_needs_more_memory_than_there_is_fails_by_name(infer, plant, write_examples):
    def upper_if_small(text):
        size = tf.where(tf.reduce_any(text == BAD), tf.constant(2**60, tf.int64), 0)
        nothing = tf.strings.substr("", 0, tf.cast(tf.reduce_sum(tf.zeros(size[None], tf.uint8)), tf.int32))
        return tf.strings.join([upper(text), nothing])

    result = infer(write_examples([*SHARDS[0][:3], (BAD, "?")]), plant(upper_if_small))
    assert lines(result, "predictions") == answers([SHARDS[0][:3]])
    ((failure,),) = lines(result, "failures")
    assert (failure["key"], failure["source"]) == (3, BAD)
    assert "OOM" in failure["reason"]


def test_it_may_ask_the_first_rows_of_each_shard_only(infer, plant, write_examples):
    result = infer(write_examples(*SHARDS), plant(upper), num_examples=2)
    assert lines(result, "predictions") == answers([rows[:2] for rows in SHARDS])


def test_no_answer_at_all_is_an_error(infer, plant, write_examples):
    with pytest.raises(ComponentError, match=r"no row of split 'test' could be answered: .*cannot answer that"):
        infer(write_examples([(BAD, "?")] * 3), plant(upper_if_good))


def test_a_missing_model_is_an_error_that_names_its_folder(infer, write_examples, tmp_path):
    with pytest.raises(ValueError, match=f"no SavedModel: {tmp_path}/nowhere/") as failure:
        infer(write_examples(*SHARDS), str(tmp_path / "nowhere"))
    assert len(str(failure.value).splitlines()) == 1
    assert not list(tmp_path.glob("result-*/predictions-*"))
