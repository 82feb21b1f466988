"""StatisticsGen: counts are correct, can be merged in any order, and measure the overlap of splits."""

import itertools
import random

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2serve.components.base.artifact import Examples, ExampleStatistics
from seq2serve.components.base.component import Context
from seq2serve.components.statistics_gen import conflicts
from seq2serve.components.statistics_gen import counts as text_counts
from seq2serve.components.statistics_gen import hashes as text_hashes
from seq2serve.components.statistics_gen.component import StatisticsGen
from seq2serve.components.statistics_gen.conflicts import LabelSample
from seq2serve.components.statistics_gen.counts import count_batch, merge_counts, without_rare_words
from seq2serve.components.statistics_gen.hashes import HashSample
from seq2serve.components.statistics_gen.languages import languages
from seq2serve.components.statistics_gen.protos import split_statistics
from seq2serve.components.statistics_gen.statistics_file import (
    ROW,
    custom_numbers,
    features_by_name,
    label_counts,
    natural_language,
    read_statistics,
)
from seq2serve.models.tokenizers.scripts import script

TRAIN = [
    {"source": "Turn the light on", "target": "Licht an"},
    {"source": "turn the LIGHT on", "target": "Licht an"},
    {"source": "Room 1", "target": "Raum 1"},
    {"source": "The end", "target": "Das Ende"},
    {"source": "OK then"},
]
EVAL = [{"source": "Room 27", "target": "Zimmer 27"}, {"source": "No", "target": "no"}]
TEST = [{"source": "ROOM 3", "target": "raum 3"}]
NAMES = ("ball", "dog", "red kite", "small boat", "drum", "rope", "stick", "doll", "wooden horse", "hoop")


def write_examples(folder, shards: dict[str, list[list[dict]]]) -> Examples:
    for split, parts in shards.items():
        (folder / f"Split-{split}").mkdir(parents=True)
        for index, rows in enumerate(parts):
            path = folder / f"Split-{split}" / f"data_tfrecord-{index:05d}-of-{len(parts):05d}"
            with tf.io.TFRecordWriter(str(path)) as writer:
                for row in rows:
                    example = tf.train.Example()
                    for column, text in row.items():
                        example.features.feature[column].bytes_list.value.append(text.encode())
                    writer.write(example.SerializeToString())
    return Examples(str(folder), {"splits": list(shards), "columns": ["source", "target"]})


def statistics_of(examples: Examples, folder, *flags: str, **parameters) -> ExampleStatistics:
    folder.mkdir()
    statistics = ExampleStatistics(str(folder))
    StatisticsGen.function(examples=examples, statistics=statistics, context=Context(beam_options=flags), **parameters)
    return statistics


@pytest.fixture(scope="module")
def statistics(tmp_path_factory):
    folder = tmp_path_factory.mktemp("statistics")
    examples = write_examples(folder / "examples", {"train": [TRAIN[:3], TRAIN[3:]], "eval": [EVAL], "test": [TEST]})
    return statistics_of(examples, folder / "out")


def test_the_statistics_of_a_column_are_correct(statistics):
    dataset = read_statistics(statistics, "train")
    target = features_by_name(dataset)["target"]
    assert dataset.num_examples == 5
    assert target.string_stats.common_stats.num_missing == 1
    assert target.string_stats.common_stats.num_non_missing == 4
    assert target.string_stats.unique == 3
    assert target.string_stats.avg_length == pytest.approx((8 + 8 + 6 + 8) / 4)
    assert custom_numbers(target)["num_repeated"] == 1
    words = natural_language(target)
    assert (words.min_sequence_length, words.max_sequence_length) == (2, 2)
    assert words.avg_token_length == pytest.approx((5 + 2 + 5 + 2 + 4 + 1 + 3 + 4) / 8)
    top = [(bucket.label, bucket.sample_count) for bucket in words.rank_histogram.buckets]
    assert top[:3] == [("Licht", 2), ("an", 2), ("1", 1)]


def test_overlap_ignores_case_and_digits(statistics):
    test, evaluation = (features_by_name(read_statistics(statistics, split)) for split in ("test", "eval"))
    assert custom_numbers(test[ROW])["share_in_train"] == 1
    assert custom_numbers(evaluation[ROW])["share_in_train"] == 0
    assert custom_numbers(evaluation["source"])["share_in_train"] == 0.5
    assert custom_numbers(evaluation["target"])["share_in_train"] == 0
    assert custom_numbers(test["source"])["share_in_eval"] == 1


def test_untranslated_rows_are_counted(statistics):
    shares = [
        custom_numbers(features_by_name(read_statistics(statistics, split))[ROW])["share_untranslated"]
        for split in ("train", "eval", "test")
    ]
    assert shares == [0, 0.5, 0]


def test_histograms_count_every_text_once(statistics):
    source = features_by_name(read_statistics(statistics, "train"))["source"]
    histogram = natural_language(source).sequence_length_histogram
    assert [(b.low_value, b.high_value, b.sample_count) for b in histogram.buckets] == [(2, 2, 3), (4, 4, 2)]


def test_the_bytes_do_not_depend_on_shards_and_workers(tmp_path):
    rows = [{"source": f"word{i % 37} and {i % 11}", "target": f"Wort{i % 31}"} for i in range(3000)]
    one = write_examples(tmp_path / "a", {"train": [rows], "test": [rows[:9]]})
    many = write_examples(tmp_path / "b", {"train": [rows[:100], [], rows[100:2000], rows[2000:]], "test": [rows[:9]]})
    flags = ("--direct_num_workers=2", "--direct_running_mode=multi_threading")
    from_one, from_many = statistics_of(one, tmp_path / "c"), statistics_of(many, tmp_path / "d", *flags)
    assert read_statistics(from_one, "train") == read_statistics(from_many, "train")
    for split in ("train", "test"):
        assert (tmp_path / "c" / f"Split-{split}" / "FeatureStats.pb").read_bytes() == (
            tmp_path / "d" / f"Split-{split}" / "FeatureStats.pb"
        ).read_bytes()


@settings(deadline=None)
@given(st.lists(st.lists(st.text("abcd ", max_size=4), min_size=1), min_size=1, max_size=6), st.randoms())
def test_counts_can_be_merged_in_any_order(parts, random_):
    def batch(texts):
        return {"text": [[text.encode()] for text in texts]}

    whole = count_batch(batch(itertools.chain.from_iterable(parts)))
    random_.shuffle(parts)
    merged = merge_counts([count_batch(batch(texts)) for texts in parts])
    assert merged.num_rows == whole.num_rows
    assert merged.columns["text"].word_counts == whole.columns["text"].word_counts
    assert merged.columns["text"].words == whole.columns["text"].words
    assert merged.rows.counts.tolist() == whole.rows.counts.tolist()
    assert merged.rows.hashes.tolist() == whole.rows.hashes.tolist()


def test_a_full_sample_estimates_counts_and_does_not_depend_on_the_order(monkeypatch):
    monkeypatch.setattr(text_hashes, "SAMPLE_CAPACITY", 1000)
    texts = [f"text {i}" for i in range(20_000) for _ in range(1 + i % 2)]
    parts = [HashSample.of(texts[i : i + 500]) for i in range(0, len(texts), 500)]
    left = HashSample.merged(parts)
    random.Random(1).shuffle(parts)
    right = HashSample.merged([HashSample.merged(parts[:7]), HashSample.merged(parts[7:])])
    assert left.hashes.tolist() == right.hashes.tolist()
    assert left.counts.tolist() == right.counts.tolist()
    assert len(left.hashes) <= 1000
    assert left.num_unique == pytest.approx(20_000, rel=0.15)
    assert left.num_repeated == pytest.approx(10_000, rel=0.2)
    half = HashSample.merged([HashSample.of(texts[: len(texts) // 2])])
    assert left.share_in(half) == pytest.approx(0.5, abs=0.08)
    assert half.share_in(left) == 1


def test_label_columns_have_label_counts_and_no_word_counts():
    rows = {"text": [[b"a fine day"], [b"awful"], [b"so so"], [b"meh"]], "label": [[b"up"], [b"down"], [b"up"], []]}
    parts = [count_batch({c: values[i : i + 2] for c, values in rows.items()}, ("label",)) for i in (0, 2)]
    (dataset,) = split_statistics("train", {"train": merge_counts(parts)}).datasets
    features = features_by_name(dataset)
    assert label_counts(features["label"]) == {"up": 2, "down": 1}
    assert label_counts(features["text"]) == {}
    assert not natural_language(features["label"]).rank_histogram.buckets


def test_label_counts_and_conflicting_labels_are_properties(tmp_path):
    rows = [("caf\u00e9", "up"), (" cafe\u0301 ", "down"), ("Caf\u00e9", "down"), ("twice", "up"), ("twice", "up")]
    train = [[{"text": text, "label": label} for text, label in rows], [{"text": "twice", "label": "down"}]]
    test = [[{"text": "caf\u00e9", "label": "up"}, {"text": "hm"}]]
    examples = write_examples(tmp_path / "examples", {"train": train, "test": test})
    examples.properties["columns"] = ["text", "label"]
    properties = statistics_of(examples, tmp_path / "out", label_columns=("label",)).properties
    assert properties["label_counts"] == {"label": {"train": {"down": 3, "up": 3}, "test": {"up": 1}}}
    texts = {"caf\u00e9": {"down": 1, "up": 2}, "twice": {"down": 1, "up": 2}}
    assert properties["label_conflicts"] == {"label": {"num_texts": 2, "examples": texts}}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["Split-test", "Split-train"]


def test_conflicting_labels_are_counted_in_any_order_and_estimated_for_many_texts(monkeypatch):
    monkeypatch.setattr(conflicts, "SAMPLE_CAPACITY", 1000)
    rows = [(f"text {number}", str(copy % 2)) for number in range(20_000) for copy in range(1 + number % 2)]
    parts = [LabelSample.of(rows[i : i + 500]) for i in range(0, len(rows), 500)]
    left = LabelSample.merged(parts)
    random.Random(1).shuffle(parts)
    right = LabelSample.merged([LabelSample.merged(parts[:7]), LabelSample.merged(parts[7:])])
    assert left.conflicts() == right.conflicts()
    assert left.conflicts()[0] == pytest.approx(10_000, rel=0.2)
    assert LabelSample.merged([LabelSample.of([])]).conflicts() == (0, [])


def test_a_column_with_too_many_distinct_values_has_no_label_counts(monkeypatch):
    monkeypatch.setattr(text_counts, "MAX_LABELS", 3)
    parts = [
        count_batch({"label": [[bytes([letter])] for letter in letters]}, ("label",)) for letters in (b"ab", b"bcd")
    ]
    assert merge_counts(parts[:1] * 2).columns["label"].labels == {"a": 2, "b": 2}
    assert merge_counts(parts).columns["label"].labels is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Hello", "Latin"),
        ("Größe 12", "Latin"),
        ("12:30 !", ""),
        ("", ""),
        ("Привет, John", "Cyrillic"),
        ("こんにちは", "Chinese or Japanese"),
        ("안녕하세요", "Hangul"),
        ("مرحبا", "Arabic"),
        ("שלום", "Hebrew"),
        ("นี่คือ", "Thai"),
        ("नमस्ते", "Devanagari"),
        ("👍🏽 ok", "Latin"),
    ],
)
def test_the_script_of_a_text_is_that_of_its_letters(text, name):
    assert script(text) == name


ENGLISH = [f"The children are playing with a {thing} in front of the old house." for thing in NAMES]
GERMAN = [f"Die Kinder spielen mit einem {thing} vor dem alten Haus auf der Straße." for thing in NAMES]


def test_languages_with_the_same_script_are_distinguished():
    counts = languages([*ENGLISH, *GERMAN[:9], "OK", "12:30", "", "Добрый день, дорогие друзья, как ваши дела?"])
    assert counts["en"] == len(ENGLISH)
    assert counts["de"] == 9
    assert counts["ru"] == 1
    assert counts.total() == len(ENGLISH) + 10


def test_the_sampled_rows_do_not_depend_on_the_order_of_rows(monkeypatch):
    monkeypatch.setattr(text_counts, "SAMPLED_ROWS", 20)
    texts = [f"Text {number % 70}" if number % 3 else f"TEXT {number % 70}" for number in range(300)]
    parts = [{"text": [[text.encode()] for text in texts[i : i + 50]]} for i in range(0, 300, 50)]
    left = merge_counts([count_batch(part) for part in parts]).sample
    right = merge_counts([merge_counts([count_batch(p) for p in parts[3:]]), *map(count_batch, parts[2::-1])]).sample
    assert left == right
    assert len(left) == 1  # the texts differ only in digits and case
    words = {"text": [[f"word {'ab' * number}".encode()] for number in range(100)]}
    assert len(count_batch(words).sample) == 20


def test_only_the_most_frequent_words_are_kept_but_all_word_lengths(monkeypatch):
    monkeypatch.setattr(text_counts, "MAX_WORDS", 3)
    rows = {"text": [[b"a a a bb bb ccc dddd e"]], "label": [[b"x"]]}
    column = without_rare_words(count_batch(rows, ("label",))).columns["text"]
    assert column.word_counts == {"a": 3, "bb": 2, "ccc": 1}
    assert column.word_lengths == {1: 4, 2: 2, 3: 1, 4: 1}
