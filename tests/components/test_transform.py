"""Transform: ids that the exported graph would make, learned from the train split alone, the same every time."""

import functools
import hashlib
import pathlib

import pytest
import tensorflow as tf

from components.artifact import Examples, Schema, Tokenizer, TokenizerFiles, TransformedExamples
from components.component import Context
from components.errors import UserError
from components.transform import Preprocessing, Transform, TransformByTokenizer
from models.config import TokenizerConfig
from models.tokenizer import load_tokenizer, load_tokenizers, same_vocabulary

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
    folder = tmp_path_factory.mktemp("inputs")
    for split, parts in SPLITS.items():
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
    return {"examples": Examples(str(folder), {"splits": list(SPLITS)}), "schema": Schema(str(folder))}


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


def test_ids_are_those_of_the_saved_graph_cut_to_the_limit_in_the_order_of_the_examples(transformed, tmp_path):
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
        cut = [
            tuple([i for i in row.tolist() if i >= 0][:MAX_LENGTH] for row in pair)
            for pair in zip(*in_graph, strict=True)
        ]
        assert read_ids(ids, split, len(parts)) == cut


def test_properties_count_examples_and_cut_texts(transformed):
    ids, tokenizer = transformed
    lengths = ids.properties.pop("token_lengths")
    assert ids.properties == {
        "splits": ["train", "eval", "test"],
        "num_examples": {"train": 100, "eval": 1, "test": 6},
        "num_truncated": {"source": 1, "target": 1},
        "num_dropped": 0,
        "max_length": MAX_LENGTH,
    }
    ids.properties["token_lengths"] = lengths
    tokenizer_ = load_tokenizer(tokenizer.uri)
    sources = [source for parts in SPLITS.values() for part in parts for source, _ in part]
    counted = sorted(tokenizer_.tokenize(tf.constant(sources)).row_lengths().numpy().tolist())
    assert lengths["source"] == {"median": counted[53], "p99": counted[105], "max": counted[-1], "total": sum(counted)}
    pieces = pathlib.Path(tokenizer.uri, "vocabulary.tsv").read_text().splitlines()
    assert tokenizer.properties == {"kind": "sentencepiece", "vocab_size": len(pieces)}


def test_the_vocabulary_knows_nothing_of_eval_and_test(transformed):
    _, tokenizer = transformed
    vocabulary = pathlib.Path(tokenizer.uri, "vocabulary.tsv").read_text()
    letters = {line.split("\t")[0] for line in vocabulary.splitlines()}
    assert {"r", "ü", "L"} <= letters
    assert not {"z", "Z", "x"} & letters


def test_two_runs_and_other_workers_write_the_same_bytes(inputs, transformed, tmp_path):
    flags = ("--direct_num_workers=2", "--direct_running_mode=multi_threading")
    again = transform(inputs, tmp_path, *flags)
    for one, two in zip(transformed, again, strict=True):
        assert one.properties == two.properties
        assert digest(one) == digest(two)


def digest(artifact) -> dict[str, str]:
    files = [path for path in pathlib.Path(artifact.uri).rglob("*") if path.is_file()]
    return {str(path.relative_to(artifact.uri)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("column", ["text", "n"])
def test_a_column_that_is_no_text_is_refused(inputs, tmp_path, column):
    with pytest.raises(UserError, match=f"no text column '{column}'; it has: source, target"):
        transform(inputs, tmp_path, columns=("source", column))


def test_a_vocabulary_too_small_for_its_characters_is_explained(inputs, tmp_path):
    with pytest.raises(UserError, match=r"no tokenizer can be learned from the train split: .* 265 pieces"):
        transform(inputs, tmp_path, tokenizer_config=TokenizerConfig(vocab_size=265))


# Labels.


@pytest.fixture
def labelled(tmp_path):
    """Returns a function that writes rows of each split, (text, label), as Examples with a schema."""

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


def test_a_label_becomes_its_place_among_the_labels(labelled, tmp_path):
    ids, tokenizer = transform(labelled(train=WORDS, test=[("x", "so so")]), tmp_path / "out", **LABELLED)
    assert label_ids(ids, "train") == [[1], [0], [1], [2]]
    assert label_ids(ids, "test") == [[2]]
    assert ids.properties["label_counts"] == {"label": {"bad": 1, "good": 2, "so so": 1}}
    assert list(ids.properties["label_counts"]["label"]) == ["bad", "good", "so so"]
    assert "so" not in pathlib.Path(tokenizer.uri, "vocabulary.tsv").read_text().replace("</s>", "")


def test_the_schemas_domain_decides_the_order(labelled, tmp_path):
    domain = 'string_domain { name: "label" value: "so so" value: "good" value: "bad" value: "never seen" }'
    ids, _ = transform(labelled(domain, train=WORDS), tmp_path / "out", **LABELLED)
    assert label_ids(ids, "train") == [[1], [2], [1], [0]]
    assert ids.properties["label_counts"]["label"] == {"so so": 1, "good": 2, "bad": 1, "never seen": 0}


def test_a_label_that_training_has_not_is_named(labelled, tmp_path):
    inputs = labelled(train=WORDS, test=[("x", "awful"), ("y", "awful")])
    with pytest.raises(UserError, match=r"the label 'awful' 2 times in the test split, .* 'bad', 'good', 'so so'"):
        transform(inputs, tmp_path / "out", **LABELLED)


def test_one_label_is_nothing_to_tell_apart(labelled, tmp_path):
    with pytest.raises(UserError, match="one label only, 'good'"):
        transform(labelled(train=[("a", "good"), ("b", "good")]), tmp_path / "out", **LABELLED)


def test_lower_case_is_part_of_the_tokenizer(labelled, tmp_path):
    config = TokenizerConfig(vocab_size=300, lowercase=True)
    inputs = labelled(train=[*WORDS, ("ÄRGER İs Good", "bad")])
    _, tokenizer = transform(inputs, tmp_path / "out", **LABELLED | {"tokenizer_config": config})
    loaded = load_tokenizer(tokenizer.uri)
    shouted, said = (loaded.tokenize(tf.constant([text])).to_list() for text in ("GOOD ÄRGER A\u0308", "good ärger ä"))
    assert shouted == said


def test_rows_too_long_may_be_dropped_and_are_counted(inputs, transformed, tmp_path):
    ids, _ = transform(inputs, tmp_path, too_long="drop")
    assert ids.properties["num_dropped"] == 1
    assert ids.properties["num_truncated"] == {"source": 0, "target": 0}
    assert ids.properties["num_examples"] == {"train": 100, "eval": 1, "test": 5}
    assert read_ids(ids, "test", 1) == read_ids(transformed[0], "test", 1)[:-1]
    with pytest.raises(UserError, match=r"every row of the train split has more than data\.max_length=1 tokens"):
        transform(inputs, tmp_path / "again", too_long="drop", max_length=1)


def test_a_tokenizer_brought_along_gives_the_ids_that_it_gave(inputs, transformed, tmp_path):
    files = [{"path": str(path)} for path in pathlib.Path(transformed[1].uri).iterdir()]
    outputs = {
        "transformed_examples": TransformedExamples(str(tmp_path / "i")),
        "tokenizer": Tokenizer(str(tmp_path / "t")),
    }
    for artifact in outputs.values():
        pathlib.Path(artifact.uri).mkdir()
    settings = {"preprocessing": Preprocessing(("source", "target"), MAX_LENGTH), "context": Context()}
    TransformByTokenizer.function(**inputs, **outputs, files=TokenizerFiles("t", {"files": files}), **settings)
    for one, two in zip(transformed, outputs.values(), strict=True):
        assert (digest(one), one.properties) == (digest(two), two.properties)
    with pytest.raises(UserError, match=r"^t: neither a tokenizer's folder nor a SentencePiece model: .*; give a"):
        TransformByTokenizer.function(**inputs, **outputs, files=TokenizerFiles("t", {"files": files[:1]}), **settings)


@pytest.mark.parametrize("kind", ["wordpiece", "characters", "bytes"])
def test_every_kind_of_tokenizer_can_be_learned(inputs, tmp_path, kind):
    ids, tokenizer = transform(inputs, tmp_path, tokenizer_config=TokenizerConfig(vocab_size=400, kind=kind))
    assert tokenizer.properties["kind"] == kind
    expected = load_tokenizer(tokenizer.uri).tokenize(tf.constant(HOSTILE))[:, :MAX_LENGTH].to_list()
    assert [source for source, _ in read_ids(ids, "test", 1)] == expected


# A tokenizer for each column.


@pytest.fixture(scope="module")
def apart(inputs, tmp_path_factory):
    config = TokenizerConfig(vocab_size=400, shared=False)
    return transform(inputs, tmp_path_factory.mktemp("apart"), tokenizer_config=config)


def test_apart_each_column_has_the_ids_of_its_own_tokenizer(apart):
    ids, tokenizer = apart
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


def test_apart_a_vocabulary_that_cannot_be_learned_is_named(inputs, tmp_path):
    with pytest.raises(UserError, match="no tokenizer of source can be learned from the train split"):
        transform(inputs, tmp_path, tokenizer_config=TokenizerConfig(vocab_size=265, shared=False))


def test_tokenizers_brought_for_each_column_give_the_ids_that_they_gave(inputs, apart, tmp_path):
    paths = sorted(path for path in pathlib.Path(apart[1].uri).rglob("*") if path.is_file())
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
    with pytest.raises(UserError, match="t: tokenizers for source; give one for all, or source=DIR,target=DIR"):
        adopt(files=TokenizerFiles("t", {"files": files[:3]}))
    adopt(files=TokenizerFiles("t", {"files": files}))
    for one, two in zip(apart, outputs, strict=True):
        assert (digest(one), one.properties) == (digest(two), two.properties)
    assert same_vocabulary(apart[1].uri, outputs[1].uri)
    (pathlib.Path(outputs[1].uri) / "source" / "spm.model").write_bytes(b"another")
    assert not same_vocabulary(apart[1].uri, outputs[1].uri)
