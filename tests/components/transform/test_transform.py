"""Transform: ids equal those of the exported graph, learning uses only the train split, and runs are reproducible."""

import dataclasses
import functools
import hashlib
import pathlib
import re

import pytest
import tensorflow as tf

from seq2serve.components.base.artifact import Examples, Schema, Tokenizer, TokenizerFiles, TransformedExamples
from seq2serve.components.base.component import Context
from seq2serve.components.base.errors import UserError
from seq2serve.components.storage.data_records import read_record
from seq2serve.components.transform.component import Transform, TransformByTokenizer
from seq2serve.components.transform.preprocessing import Preprocessing
from seq2serve.models.config import DecodingConfig, TokenizerConfig
from seq2serve.models.export.translation import TranslationServingModule
from seq2serve.models.tokenizers.tokenizer import load_tokenizer, load_tokenizers, same_vocabulary

COLORS = ["red", "green", "blue", "grün", "m²", "a\u0323\u0302", "שלום", "👩\u200d👧", "<s>", "line\u2028break"]
HOSTILE = [b" x", b"nul\0l", b"\xff\xfe\xed\xa0\x80", "\ufeffbom \u0301".encode(), b"</s><unk><0x41>", b"long " * 900]
TRAIN = [(f"the {a} lamp is {b}".encode(), f"Lampe {b} {a}".encode()) for a in COLORS for b in COLORS]
SPLITS = {
    "train": [TRAIN[:70], TRAIN[70:]],
    "eval": [[(b"unseen zebra", b"Zebra")]],
    "test": [[(t, t) for t in HOSTILE]],
}
SCHEMA = 'feature { name: "source" type: BYTES } feature { name: "target" type: BYTES } feature { name: "n" type: INT }'
CONFIG = TokenizerConfig(vocab_size=400)
MAX_LENGTH = 50


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict:
    return write_inputs(tmp_path_factory.mktemp("inputs"), SPLITS)


def write_inputs(folder, splits) -> dict:
    for split, parts in splits.items():
        (folder / f"Split-{split}").mkdir()
        for index, rows in enumerate(parts):
            name = f"Split-{split}/data_tfrecord-{index:05d}-of-{len(parts):05d}"
            with tf.io.TFRecordWriter(str(folder / name)) as writer:
                for source, target in rows:
                    example = tf.train.Example()
                    example.features.feature["source"].bytes_list.value.append(source)
                    example.features.feature["target"].bytes_list.value.append(target)
                    writer.write(example.SerializeToString())
    (folder / "schema.pbtxt").write_text(SCHEMA)
    properties = {"splits": list(splits), "files_read": [{"name": "a.tsv", "bytes": 9, "sha256": "ab"}], "num_rows": 9}
    return {"examples": Examples(str(folder), properties), "schema": Schema(str(folder))}


def transform(inputs, folder, *flags, **changes) -> tuple[TransformedExamples, Tokenizer]:
    outputs = {
        "transformed_examples": TransformedExamples(str(folder / "ids")),
        "tokenizer": Tokenizer(str(folder / "t")),
    }
    for artifact in outputs.values():
        pathlib.Path(artifact.uri).mkdir(parents=True)
    tokenizer_config = changes.pop("tokenizer_config", CONFIG)
    preprocessing = Preprocessing(**{"columns": ("source", "target"), "max_length": MAX_LENGTH} | changes)
    context = Context(beam_options=flags)
    Transform.function(
        **inputs, **outputs, preprocessing=preprocessing, tokenizer_config=tokenizer_config, context=context
    )
    return tuple(outputs.values())


@pytest.fixture(scope="module")
def transformed(inputs, tmp_path_factory) -> tuple[TransformedExamples, Tokenizer]:
    return transform(inputs, tmp_path_factory.mktemp("transformed"))


def read_ids(artifact: TransformedExamples, split: str, total: int) -> list[tuple[list[int], list[int]]]:
    folder = pathlib.Path(artifact.uri, f"Split-{split}")
    paths = [str(folder / f"transformed_examples-{index:05d}-of-{total:05d}") for index in range(total)]
    assert sorted(map(str, folder.iterdir())) == paths
    records = [tf.train.Example.FromString(r) for r in tf.data.TFRecordDataset(paths).as_numpy_iterator()]
    return [tuple(list(r.features.feature[f"{c}_ids"].int64_list.value) for c in ("source", "target")) for r in records]


def test_ids_equal_those_of_a_saved_graph_truncated_and_in_the_order_of_the_examples(transformed, tmp_path):
    ids, tokenizer = transformed

    class Tokenize(tf.Module):
        def __init__(self):
            super().__init__()
            self.tokenizer = load_tokenizer(tokenizer.uri)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
        def __call__(self, text):
            return {"ids": self.tokenizer.tokenize(text).to_tensor(-1)}

    module = Tokenize()
    tf.saved_model.save(module, str(tmp_path), signatures=module.__call__)
    served = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
    for split, parts in SPLITS.items():
        rows = [row for part in parts for row in part]
        in_graph = [served(tf.constant(column))["ids"].numpy() for column in zip(*rows, strict=True)]
        truncated = [
            tuple([i for i in row.tolist() if i >= 0][:MAX_LENGTH] for row in pair)
            for pair in zip(*in_graph, strict=True)
        ]
        assert read_ids(ids, split, len(parts)) == truncated


def test_size_and_limit_that_are_not_set_follow_from_the_texts_and_are_recorded(inputs, tmp_path, capsys):
    config = dataclasses.replace(CONFIG, vocab_size=0)
    ids, tokenizer = transform(inputs, tmp_path, tokenizer_config=config, max_length=0)
    chosen = ids.properties["settings"]
    assert list(chosen) == ["tokenizer.vocab_size", "data.max_length"]
    longest = max(lengths["max"] for lengths in ids.properties["token_lengths"].values())
    assert ids.properties["max_length"] == chosen["data.max_length"] == 1024 > MAX_LENGTH
    assert longest > 1024
    assert sum(ids.properties["num_truncated"].values()) > 0
    assert f"data.max_length={chosen['data.max_length']:,} from the texts" in capsys.readouterr().err
    size, limit = chosen.values()
    again, again_tokenizer = transform(
        inputs, tmp_path / "again", tokenizer_config=dataclasses.replace(CONFIG, vocab_size=size), max_length=limit
    )
    assert "settings" not in again.properties
    assert again_tokenizer.properties == tokenizer.properties
    for split, parts in SPLITS.items():
        assert read_ids(again, split, len(parts)) == read_ids(ids, split, len(parts))


def test_a_chosen_limit_fits_the_learned_positions_and_the_line_says_so(inputs, tmp_path, capsys):
    ids, _ = transform(inputs, tmp_path, max_length=0, longest_limit=MAX_LENGTH)
    assert ids.properties["settings"] == {"data.max_length": MAX_LENGTH}
    assert (
        max(len(row) for split, parts in SPLITS.items() for pair in read_ids(ids, split, len(parts)) for row in pair)
        == 50
    )
    line = f"data.max_length={MAX_LENGTH} from the texts, at most model.max_positions={MAX_LENGTH}"
    assert ids.properties["reason"] == line
    assert f"Transform chose {line}\n" in capsys.readouterr().err


def test_spans_of_pairs_become_the_placeholders_of_the_served_graph(tmp_path, make_transformer, inputs):
    """Ids equal those of the module that is exported: of every source, and of a target given its source."""
    pairs = [("turn {x} on 5", "5 {x} an"), ("open", "auf 7"), ("3 of 4", "4 von 3,5")]
    folder = tmp_path / "pairs"
    for split in SPLITS:
        (folder / f"Split-{split}").mkdir(parents=True)
        with tf.io.TFRecordWriter(str(folder / f"Split-{split}/data_tfrecord-00000-of-00001")) as writer:
            for source, target in pairs:
                example = tf.train.Example()
                example.features.feature["source"].bytes_list.value.append(source.encode())
                example.features.feature["target"].bytes_list.value.append(target.encode())
                writer.write(example.SerializeToString())
    inputs = {**inputs, "examples": Examples(str(folder), {"splits": list(SPLITS)})}
    config = dataclasses.replace(CONFIG, placeholders=3)
    ids, tokenizer = transform(inputs, tmp_path, tokenizer_config=config)
    model = make_transformer(vocab_size=tokenizer.properties["vocab_size"])
    module = TranslationServingModule(model, load_tokenizer(tokenizer.uri), DecodingConfig(), MAX_LENGTH)
    served = [texts.numpy() for texts in module.pair_ids(*map(list, zip(*pairs, strict=True)))]
    without_end = [[[i for i in row.tolist() if i not in (0, 3)] for row in texts] for texts in served]
    assert read_ids(ids, "train", 1) == list(zip(*without_end, strict=True))
    assert load_tokenizer(tokenizer.uri).num_placeholders == 3


def test_properties_count_examples_and_truncated_texts(transformed):
    ids, tokenizer = transformed
    lengths, num_tokens = (ids.properties.pop(name) for name in ("token_lengths", "num_tokens"))
    assert ids.properties == {
        "splits": ["train", "eval", "test"],
        "num_examples": {"train": 100, "eval": 1, "test": 6},
        "num_truncated": {"source": 1, "target": 1},
        "num_long": {"source": 1, "target": 1},
        "num_dropped": 0,
        "max_length": MAX_LENGTH,
        "data": {"files_read": [{"name": "a.tsv", "bytes": 9, "sha256": "ab"}], "num_rows": 9},
    }
    ids.properties.update(token_lengths=lengths, num_tokens=num_tokens)
    for column in ("source", "target"):
        assert sum(tokens[column] for tokens in num_tokens.values()) == lengths[column]["total"]
    train = load_tokenizer(tokenizer.uri).tokenize(tf.constant([source for source, _ in TRAIN]))
    assert num_tokens["train"]["source"] == len(train.flat_values)
    sources = [source for parts in SPLITS.values() for part in parts for source, _ in part]
    tokenized = load_tokenizer(tokenizer.uri).tokenize(tf.constant(sources))
    ranked = sorted(tokenized.row_lengths().numpy().tolist())
    assert lengths["source"] == {"median": ranked[53], "p99": ranked[105], "max": ranked[-1], "total": sum(ranked)}
    pieces = pathlib.Path(tokenizer.uri, "vocabulary.tsv").read_text().splitlines()
    assert tokenizer.properties == {"kind": "sentencepiece", "vocab_size": len(pieces)}


def test_the_vocabulary_is_learned_only_from_the_train_split(transformed):
    _, tokenizer = transformed
    vocabulary = pathlib.Path(tokenizer.uri, "vocabulary.tsv").read_text()
    letters = {line.split("\t")[0] for line in vocabulary.splitlines()}
    assert {"r", "ü", "L"} <= letters
    assert not {"z", "Z", "x"} & letters


def test_a_second_run_with_more_workers_writes_the_same_bytes(inputs, transformed, tmp_path):
    flags = ("--direct_num_workers=2", "--direct_running_mode=multi_threading")
    second = transform(inputs, tmp_path, *flags)
    for artifact, artifact_of_second in zip(transformed, second, strict=True):
        assert artifact.properties == artifact_of_second.properties
        assert digest(artifact) == digest(artifact_of_second)


def digest(artifact) -> dict[str, str]:
    files = [path for path in pathlib.Path(artifact.uri).rglob("*") if path.is_file()]
    return {str(path.relative_to(artifact.uri)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("column", ["text", "n"])
def test_a_column_that_is_missing_or_not_text_is_an_error(inputs, tmp_path, column):
    with pytest.raises(UserError) as error:
        transform(inputs, tmp_path, columns=("source", column))
    path = inputs["schema"].path("schema.pbtxt")
    assert error.value.code == "column-missing"
    assert error.value.fields == {"path": path, "column": column}
    assert str(error.value) == f"{path}: no text column '{column}'; the text columns are source, target"


@pytest.mark.parametrize(
    ("settings", "notices"),
    [
        ({"vocab_size": 270}, [r"tokenizer: \d+ of \d+ different characters .* are written as bytes"]),
        (
            {"vocab_size": 265, "shared": False},
            ["tokenizer of source: the vocabulary grew", "tokenizer of target: the vocabulary grew"],
        ),
    ],
)
def test_a_vocabulary_too_small_for_the_characters_has_bytes_or_grows_and_says_so(
    inputs, tmp_path, settings, notices, capsys
):
    _, tokenizer = transform(inputs, tmp_path, tokenizer_config=TokenizerConfig(**settings))
    size, errors = tokenizer.properties["vocab_size"], capsys.readouterr().err
    assert size <= 270 if len(notices) == 1 else min(size.values()) > 265
    for notice, pattern in zip(tokenizer.properties["notices"], notices, strict=True):
        assert re.match(pattern, notice)
        assert f"Transform: warning: {notice}\n" in errors


def test_text_without_words_has_no_vocabulary(tmp_path):
    (tmp_path / "inputs").mkdir()
    without_words = write_inputs(tmp_path / "inputs", {"train": [[(b"\x01", "\ufeff".encode())]]})
    with pytest.raises(UserError, match=r"^cannot learn a tokenizer from the train split: the text has no w") as error:
        transform(without_words, tmp_path)
    assert error.value.code == "tokenizer-unlearnable"
    assert error.value.fields == {"column": ""}


# Labels.


@pytest.fixture
def labelled(tmp_path):
    """Returns a function that writes (text, label) rows of each split as Examples with a schema."""

    def write(schema="", **splits) -> dict:
        for split, rows in splits.items():
            (tmp_path / f"Split-{split}").mkdir()
            with tf.io.TFRecordWriter(str(tmp_path / f"Split-{split}/data_tfrecord-00000-of-00001")) as writer:
                for text, label in rows:
                    example = tf.train.Example()
                    example.features.feature["text"].bytes_list.value.append(text.encode())
                    example.features.feature["label"].bytes_list.value.append(label.encode())
                    writer.write(example.SerializeToString())
        text = 'feature { name: "text" type: BYTES } feature { name: "label" type: BYTES ' + schema + "}"
        (tmp_path / "schema.pbtxt").write_text(text)
        return {"examples": Examples(str(tmp_path), {"splits": list(splits)}), "schema": Schema(str(tmp_path))}

    return write


def label_ids(artifact, split):
    (path,) = pathlib.Path(artifact.uri, f"Split-{split}").iterdir()
    records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    return [list(tf.train.Example.FromString(r).features.feature["label_ids"].int64_list.value) for r in records]


LABELLED = {"columns": ("text",), "label_columns": ("label",), "tokenizer_config": TokenizerConfig(vocab_size=300)}
WORDS = [("good day", "good"), ("bad day", "bad"), ("a day", "good"), ("no day", "so so")]


def test_a_label_becomes_its_index_among_the_sorted_labels(labelled, tmp_path):
    ids, tokenizer = transform(labelled(train=WORDS, test=[("x", "so so")]), tmp_path / "out", **LABELLED)
    assert label_ids(ids, "train") == [[1], [0], [1], [2]]
    assert label_ids(ids, "test") == [[2]]
    assert ids.properties["label_counts"] == {"label": {"bad": 1, "good": 2, "so so": 1}}
    assert list(ids.properties["label_counts"]["label"]) == ["bad", "good", "so so"]
    assert "so" not in pathlib.Path(tokenizer.uri, "vocabulary.tsv").read_text().replace("</s>", "")


def test_the_domain_of_the_schema_determines_the_label_ids(labelled, tmp_path):
    domain = 'string_domain { name: "label" value: "so so" value: "good" value: "bad" value: "never seen" }'
    ids, _ = transform(labelled(domain, train=WORDS), tmp_path / "out", **LABELLED)
    assert label_ids(ids, "train") == [[1], [2], [1], [0]]
    assert ids.properties["label_counts"]["label"] == {"so so": 1, "good": 2, "bad": 1, "never seen": 0}


def test_a_label_that_the_train_split_lacks_is_an_error(labelled, tmp_path):
    inputs = labelled(train=WORDS, test=[("x", "awful"), ("y", "awful")])
    message = r"^column 'label': unknown label 'awful' in 2 rows of the test split; .* 'bad', 'good', 'so so'\. Fix "
    with pytest.raises(UserError, match=message) as error:
        transform(inputs, tmp_path / "out", **LABELLED)
    assert error.value.code == "label-unknown"
    assert error.value.fields == {"column": "label", "label": "awful", "split": "test", "rows": 2}


def test_a_column_with_only_one_label_is_an_error(labelled, tmp_path):
    with pytest.raises(UserError, match=r"^column 'label' has only the label 'good'; .* at least two\. Add ") as error:
        transform(labelled(train=[("a", "good"), ("b", "good")]), tmp_path / "out", **LABELLED)
    assert error.value.code == "labels-too-few"
    assert error.value.fields == {"column": "label"}


def test_lowercasing_is_part_of_the_tokenizer(labelled, tmp_path):
    config = TokenizerConfig(vocab_size=300, lowercase=True)
    inputs = labelled(train=[*WORDS, ("ÄRGER İs Good", "bad")])
    _, tokenizer = transform(inputs, tmp_path / "out", **LABELLED | {"tokenizer_config": config})
    loaded = load_tokenizer(tokenizer.uri)
    upper, lower = (loaded.tokenize(tf.constant([text])).to_list() for text in ("GOOD ÄRGER A\u0308", "good ärger ä"))
    assert upper == lower


def test_rows_with_too_long_texts_can_be_dropped_and_are_counted(inputs, transformed, tmp_path, capsys):
    ids, _ = transform(inputs, tmp_path, too_long="drop")
    assert ids.properties["num_dropped"] == 1
    assert ids.properties["num_truncated"] == {"source": 0, "target": 0}
    assert ids.properties["num_long"] == {"source": 1, "target": 1}
    assert "Transform: warning: 1 of 107 rows (0.9 %) were dropped" in capsys.readouterr().err
    assert ids.properties["num_examples"] == {"train": 100, "eval": 1, "test": 5}
    assert read_ids(ids, "test", 1) == read_ids(transformed[0], "test", 1)[:-1]


def test_a_split_that_loses_all_its_rows_is_an_error(inputs, tmp_path):
    message = r"^every row of the train split has more than data\.max_length=1 tokens .*; increase data\.max_length, or"
    with pytest.raises(UserError, match=message) as error:
        transform(inputs, tmp_path, too_long="drop", max_length=1)
    assert error.value.code == "rows-too-long"
    assert error.value.fields == {"setting": "data.max_length", "split": "train"}


def test_a_tokenizer_of_the_user_makes_the_same_ids_as_when_it_was_learned(inputs, transformed, tmp_path):
    files = [{"path": str(path)} for path in pathlib.Path(transformed[1].uri).iterdir()]
    outputs = {
        "transformed_examples": TransformedExamples(str(tmp_path / "i")),
        "tokenizer": Tokenizer(str(tmp_path / "t")),
    }
    for artifact in outputs.values():
        pathlib.Path(artifact.uri).mkdir()
    settings = {"preprocessing": Preprocessing(("source", "target"), MAX_LENGTH), "context": Context()}
    TransformByTokenizer.function(**inputs, **outputs, files=TokenizerFiles("t", {"files": files}), **settings)
    for learned, adopted in zip(transformed, outputs.values(), strict=True):
        assert (digest(learned), learned.properties) == (digest(adopted), adopted.properties)
    assert read_record(outputs["tokenizer"].uri)["files_read"] == inputs["examples"].properties["files_read"]
    message = r"^t: neither a tokenizer folder nor one SentencePiece model: .*; pass the folder of a tokenizer or "
    with pytest.raises(UserError, match=message) as error:
        TransformByTokenizer.function(**inputs, **outputs, files=TokenizerFiles("t", {"files": files[:1]}), **settings)
    assert error.value.code == "tokenizer-invalid"
    assert error.value.fields == {"path": "t"}


@pytest.mark.parametrize("kind", ["wordpiece", "characters", "bytes"])
def test_every_kind_of_tokenizer_can_be_learned(inputs, tmp_path, kind):
    ids, tokenizer = transform(inputs, tmp_path, tokenizer_config=TokenizerConfig(vocab_size=400, kind=kind))
    assert tokenizer.properties["kind"] == kind
    expected = load_tokenizer(tokenizer.uri).tokenize(tf.constant(HOSTILE))[:, :MAX_LENGTH].to_list()
    assert [source for source, _ in read_ids(ids, "test", 1)] == expected


@pytest.mark.parametrize("kind", ["sentencepiece", "wordpiece"])
def test_ids_contain_line_ends_tabs_and_indentation_if_white_space_is_kept(labelled, tmp_path, kind):
    texts = ["def f(x):\n\treturn x\n", "  a  b \n\n    c", "\n\tx\t"]
    inputs = labelled(train=[(text, "code") for text in texts * 20])
    config = TokenizerConfig(kind=kind, vocab_size=300, whitespace="keep")
    ids, tokenizer = transform(inputs, tmp_path / "out", columns=("text",), tokenizer_config=config)
    (path,) = pathlib.Path(ids.uri, "Split-train").iterdir()
    records = [tf.train.Example.FromString(record) for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()]
    rows = tf.ragged.constant([list(record.features.feature["text_ids"].int64_list.value) for record in records])
    read = load_tokenizer(tokenizer.uri).detokenize(tf.cast(rows, tf.int32)).numpy()
    assert [text.decode() for text in read] == texts * 20


# A tokenizer for each column.


@pytest.fixture(scope="module")
def transformed_separately(inputs, tmp_path_factory):
    """The outputs with a separate tokenizer for each column."""
    config = TokenizerConfig(vocab_size=400, shared=False)
    return transform(inputs, tmp_path_factory.mktemp("separate"), tokenizer_config=config)


def test_each_column_has_the_ids_of_its_separate_tokenizer(transformed_separately):
    ids, tokenizer = transformed_separately
    loaded = load_tokenizers(tokenizer.uri, ("source", "target"))
    assert tokenizer.properties["vocab_size"] == {column: loaded[column].vocab_size for column in loaded}
    files = {column: pathlib.Path(tokenizer.uri, column, "vocabulary.tsv") for column in loaded}
    pieces = {column: {line.split("\t")[0] for line in path.read_text().splitlines()} for column, path in files.items()}
    assert "L" in pieces["target"] - pieces["source"]
    assert "t" in pieces["source"] - pieces["target"]
    for split, parts in SPLITS.items():
        columns = zip(*(row for part in parts for row in part), strict=True)
        expected = [
            loaded[name].tokenize(tf.constant(column))[:, :MAX_LENGTH].to_list()
            for name, column in zip(loaded, columns, strict=True)
        ]
        assert read_ids(ids, split, len(parts)) == list(zip(*expected, strict=True))


def test_separate_tokenizers_of_the_user_make_the_same_ids_as_when_they_were_learned(
    inputs, transformed_separately, tmp_path
):
    paths = sorted(pathlib.Path(transformed_separately[1].uri).glob("*/*"))
    files = [{"path": str(path), "column": path.parent.name} for path in paths]
    outputs = TransformedExamples(str(tmp_path / "i")), Tokenizer(str(tmp_path / "t"))
    for artifact in outputs:
        pathlib.Path(artifact.uri).mkdir()
    adopt = functools.partial(
        TransformByTokenizer.function,
        **inputs,
        transformed_examples=outputs[0],
        tokenizer=outputs[1],
        preprocessing=Preprocessing(("source", "target"), MAX_LENGTH),
        context=Context(),
    )
    message = "^t: tokenizers for source; pass one for all columns, or source=DIR,target=DIR$"
    with pytest.raises(UserError, match=message) as error:
        adopt(files=TokenizerFiles("t", {"files": files[:3]}))
    assert error.value.code == "tokenizer-columns"
    assert error.value.fields == {"path": "t", "columns": ["source"]}
    adopt(files=TokenizerFiles("t", {"files": files}))
    for learned, adopted in zip(transformed_separately, outputs, strict=True):
        assert (digest(learned), learned.properties) == (digest(adopted), adopted.properties)
    assert same_vocabulary(transformed_separately[1].uri, outputs[1].uri)
    (pathlib.Path(outputs[1].uri) / "source" / "spm.model").write_bytes(b"another")
    assert not same_vocabulary(transformed_separately[1].uri, outputs[1].uri)
