"""Rows keep their corpus from the files to the ids, and statistics have a slice for each corpus."""

import collections

import pytest
import tensorflow as tf

from seq2serve.components.base.artifact import Examples, ExampleStatistics, RawFiles, Schema, Tokenizer
from seq2serve.components.base.artifact import TransformedExamples as Transformed
from seq2serve.components.base.component import Context
from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen.component import ExampleGen
from seq2serve.components.example_gen.config import InputConfig, SplitConfig
from seq2serve.components.schema_gen.component import SchemaGen
from seq2serve.components.statistics_gen.component import StatisticsGen
from seq2serve.components.statistics_gen.statistics_file import ROW, features_by_name, read_corpora, read_statistics
from seq2serve.components.transform.component import Transform
from seq2serve.components.transform.preprocessing import Preprocessing
from seq2serve.models.config import TokenizerConfig
from seq2serve.models.training.pools import read_pools
from seq2serve.pipeline.running.raw_files import resolve_raw_files

OWN = [(f"my {colour} lamp {letter}", "good") for colour in ("red", "blue") for letter in "abcdefghijklmnop"]
GENERAL = [
    (f"a door of {letter}{other}", "bad" if letter < "f" else "good") for letter in "abcdefghij" for other in "klmno"
]
SHARED = ("the same text in both", "good")
NAMES = ("own", "general")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpora")
    for name, rows in (("own", [*OWN, SHARED]), ("general", [*GENERAL, SHARED])):
        lines = ["text\tlabel\tcorpus", *("\t".join([*row, "mine"]) for row in rows)]
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def raw_files(folder, text="{0}/own.tsv:3,{0}/general.tsv:1"):
    return resolve_raw_files(RawFiles(text.format(folder)))


def generate(files, folder, **changes) -> Examples:
    folder.mkdir()
    settings = {
        "columns": {"text": "text", "label": "label"},
        "input_config": InputConfig(label_columns=("label",)),
        "split_config": SplitConfig(0.2, 0.2),
        "max_reject_share": 0.0,
        "context": Context(),
    }
    examples = Examples(str(folder))
    ExampleGen.function(files=files, examples=examples, **settings | changes)
    return examples


@pytest.fixture(scope="module")
def outputs(folder):
    """The outputs of the components up to Transform."""
    examples = generate(raw_files(folder), folder / "examples")
    made = {"statistics": ExampleStatistics, "schema": Schema, "ids": Transformed, "tokenizer": Tokenizer}
    artifacts = {}
    for name, kind in made.items():
        (folder / name).mkdir()
        artifacts[name] = kind(str(folder / name))
    statistics, schema = artifacts["statistics"], artifacts["schema"]
    context = Context()
    StatisticsGen.function(examples=examples, statistics=statistics, context=context, label_columns=("label",))
    SchemaGen.function(statistics=statistics, schema=schema, label_columns=("label",))
    Transform.function(
        examples=examples,
        schema=schema,
        transformed_examples=artifacts["ids"],
        tokenizer=artifacts["tokenizer"],
        preprocessing=Preprocessing(("text",), 50, ("label",)),
        tokenizer_config=TokenizerConfig(vocab_size=400),
        context=context,
    )
    return artifacts | {"examples": examples}


def rows_of(examples, split) -> list[tuple[str, str, str]]:
    paths = sorted(tf.io.gfile.glob(examples.path(f"Split-{split}", "*")))
    records = [tf.train.Example.FromString(r) for r in tf.data.TFRecordDataset(paths).as_numpy_iterator()]
    return [
        tuple(record.features.feature[column].bytes_list.value[0].decode() for column in ("text", "label", "corpus"))
        for record in records
    ]


def test_every_row_of_every_split_has_its_corpus(outputs):
    rows = {split: rows_of(outputs["examples"], split) for split in ("train", "eval", "test")}
    expected = [(*row, "own") for row in [*OWN, SHARED]] + [(*row, "general") for row in [*GENERAL, SHARED]]
    assert sorted(row for part in rows.values() for row in part) == sorted(expected)
    counts = {name: {split: sum(row[2] == name for row in part) for split, part in rows.items()} for name in NAMES}
    assert outputs["examples"].properties["corpora"] == counts
    # Equal texts of two corpora share a split.
    assert sorted(sum(row[0] == SHARED[0] for row in part) for part in rows.values()) == [0, 0, 2]


def test_statistics_have_a_slice_for_each_corpus_beside_all_rows(outputs):
    for split, rows in ((split, rows_of(outputs["examples"], split)) for split in ("train", "eval", "test")):
        whole, slices = read_statistics(outputs["statistics"], split), read_corpora(outputs["statistics"], split)
        assert (whole.name, whole.num_examples) == ("All Examples", len(rows))
        assert [dataset.name for dataset in slices.values()] == ["corpus_own", "corpus_general"]
        for name, dataset in slices.items():
            texts = [text for text, _, corpus in rows if corpus == name]
            labels = collections.Counter(label for _, label, corpus in rows if corpus == name)
            assert dataset.num_examples == len(texts)
            assert list(features_by_name(dataset)) == ["text", "label", ROW]
            values = outputs["statistics"].properties["corpora"][name][split]
            assert (values["rows"], values["labels"]["label"]) == (len(texts), labels)
            assert values["mean_characters"] == {"text": pytest.approx(sum(map(len, texts)) / len(texts))}
    labels = [label for split in ("train", "eval", "test") for _, label, _ in rows_of(outputs["examples"], split)]
    totals = outputs["statistics"].properties["label_counts"]["label"].values()
    assert sum(map(collections.Counter, totals), collections.Counter()) == collections.Counter(labels)


def test_ids_have_the_number_of_the_corpus(outputs):
    rows = rows_of(outputs["examples"], "train")
    paths = sorted(tf.io.gfile.glob(outputs["ids"].path("Split-train", "*")))
    numbers = [NAMES.index(corpus) for *_, corpus in rows]
    (pool,) = read_pools(paths, ["corpus"])
    assert pool.ids["corpus"].tolist() == numbers
    (own,) = read_pools(paths, ["text"], corpus=0)
    assert own.num_examples == numbers.count(0)
    assert outputs["ids"].properties["corpora"] == {name: numbers.count(i) for i, name in enumerate(NAMES)}
    assert list(outputs["ids"].properties["corpora"]) == list(NAMES)


def test_weights_do_not_change_what_is_read_and_names_do(folder):
    first, other = raw_files(folder), raw_files(folder, "train={0}/own.tsv:1,train={0}/general.tsv")
    assert first.fingerprint == other.fingerprint == raw_files(folder, "{0}/own.tsv,{0}/general.tsv").fingerprint
    (folder / "renamed.tsv").write_bytes((folder / "own.tsv").read_bytes())
    assert raw_files(folder, "{0}/renamed.tsv:3,{0}/general.tsv:1").fingerprint != first.fingerprint


@pytest.mark.parametrize(
    "changes",
    [
        {"slice_columns": ("corpus",)},
        {"split_config": SplitConfig(0.2, 0.2, split_key="corpus")},
        {"columns": {"text": "text", "corpus": "corpus"}, "input_config": InputConfig()},
    ],
    ids=["to slice by", "to split by", "of the task"],
)
def test_a_column_of_the_user_with_the_reserved_name_is_refused(folder, tmp_path, changes):
    with pytest.raises(UserError, match=r"several corpora, the column 'corpus' has the name.*; rename it in the files"):
        generate(raw_files(folder), tmp_path / "examples", **changes)


def test_one_corpus_keeps_a_column_of_that_name(folder, tmp_path):
    examples = generate(raw_files(folder, "{0}/own.tsv"), tmp_path / "examples", slice_columns=("corpus",))
    assert "corpora" not in examples.properties
    assert {row[2] for row in rows_of(examples, "test")} == {"mine"}


def test_parallel_files_of_different_corpora_are_refused(tmp_path):
    for name in ("own-1.en", "own-2.en", "own.de", "web.en", "web-1.de", "web-2.de"):
        (tmp_path / name).write_text(f"a line of {name}\n" * 5)
    text = "source={0}/own-*.en,target={0}/own.de,source={0}/web.en,target={0}/web-*.de"
    with pytest.raises(
        UserError, match=r"parallel files of different corpora: .*own-2.en \(own\) and .*web-1.de \(web\)"
    ):
        generate(raw_files(tmp_path, text), tmp_path / "examples", columns={"source": "source", "target": "target"})
