"""SchemaGen and ExampleValidator: data like the training data passes; damage is named and stops the run."""

import itertools
import pathlib

import pytest
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from components.artifact import ExampleAnomalies, ExampleStatistics, Schema, SchemaFile
from components.errors import UserError
from components.example_validator import ExampleValidator
from components.schema_gen import ImportSchemaGen, SchemaGen, label_domain, read_schema
from components.statistics_protos import split_statistics, write_source, write_statistics
from components.text_counts import count_batch

NAMES = ["".join(letters) for letters in itertools.product("abcdef", repeat=3)]
TRAIN = {"source": [f"the {name} is on" for name in NAMES], "target": [f"{name} ist an" for name in NAMES]}
EVAL = {"source": [f"an {name} is off" for name in NAMES], "target": [f"{name} ist aus" for name in NAMES]}


@pytest.fixture
def make(tmp_path):
    def make_statistics(name="statistics", labels=(), **splits: dict[str, list[str | None]]) -> ExampleStatistics:
        batches = {
            split: {c: [[] if t is None else [t.encode()] for t in texts] for c, texts in columns.items()}
            for split, columns in splits.items()
        }
        counts = {split: count_batch(batch, labels) for split, batch in batches.items()}
        for split in counts:
            write_statistics(str(tmp_path / name), split, split_statistics(split, counts))
        return ExampleStatistics(str(tmp_path / name), {"splits": list(counts)})

    return make_statistics


@pytest.fixture
def schema(tmp_path, make) -> Schema:
    (tmp_path / "schema").mkdir()
    schema = Schema(str(tmp_path / "schema"))
    SchemaGen.function(statistics=make(train=TRAIN, eval=EVAL), schema=schema)
    return schema


def validate(statistics, schema, folder) -> ExampleAnomalies:
    anomalies = ExampleAnomalies(str(folder))
    ExampleValidator.function(statistics=statistics, schema=schema, anomalies=anomalies)
    return anomalies


def read_anomalies(anomalies, split) -> anomalies_pb2.Anomalies:
    with open(anomalies.path(f"Split-{split}", "SchemaDiff.pb"), "rb") as file:
        return anomalies_pb2.Anomalies.FromString(file.read())


def test_the_schema_says_what_training_data_looks_like(schema):
    features = {feature.name: feature for feature in read_schema(schema).feature}
    assert list(features) == ["source", "target"]
    assert features["target"].type == schema_pb2.BYTES
    assert features["target"].presence.min_fraction == 1
    limits = features["target"].natural_language_domain.sequence_length_constraints
    assert (limits.min_sequence_length, limits.max_sequence_length) == (3 // 2, 3 * 2)


def test_data_that_fits_has_no_anomalies(make, schema, tmp_path):
    anomalies = validate(make(train=TRAIN, eval=EVAL), schema, tmp_path / "out")
    assert anomalies.properties["num_anomalies"] == {"train": 0, "eval": 0}
    assert not read_anomalies(anomalies, "eval").anomaly_info


def test_a_text_a_little_longer_than_all_in_training_is_no_news(make, schema, tmp_path):
    longer = EVAL | {"target": [*EVAL["target"][1:], "ein ganzer Satz mehr"]}
    assert validate(make(train=TRAIN, eval=longer), schema, tmp_path / "out").properties["warnings"] == []


def test_a_schema_kept_by_hand_is_held_to_the_word(make, schema, tmp_path):
    path = pathlib.Path(schema.path("schema.pbtxt"))
    path.write_text(path.read_text().replace("max_sequence_length: 6", "max_sequence_length: 3"))
    longer = EVAL | {"target": [*EVAL["target"][1:], "ein ganzer Satz mehr"]}
    (warning,) = validate(make(train=TRAIN, eval=longer), schema, tmp_path / "out").properties["warnings"]
    assert "a text has 4 words, the schema's longest 3" in warning


def test_other_lengths_are_a_warning_that_is_kept(make, schema, tmp_path):
    longer = EVAL | {"target": [*EVAL["target"][1:], "ein ganzer Satz mehr als in jeder Zeile"]}
    anomalies = validate(make(train=TRAIN, eval=longer), schema, tmp_path / "out")
    assert anomalies.properties["num_anomalies"] == {"train": 0, "eval": 1}
    info = read_anomalies(anomalies, "eval").anomaly_info["target"]
    assert info.severity == anomalies_pb2.AnomalyInfo.WARNING
    assert "a text has 8 words" in info.description


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"source": EVAL["source"]}, "eval target: the column is in the schema and not in the data"),
        (EVAL | {"label": EVAL["target"]}, "eval label: the column is in the data and not in the schema"),
        (EVAL | {"target": [None, *EVAL["target"][1:]]}, "eval target: present in 215 of 216 rows"),
        (EVAL | {"target": ["", "\t", " ", *EVAL["target"][3:]]}, "eval target: empty in 3 of 216 rows"),
        ({c: [*TRAIN[c][:5], *EVAL[c][5:]] for c in EVAL}, r"eval row: 2\.3% of the rows are in the train split"),
        ({"source": [], "target": []}, "eval split: 0 examples"),
    ],
)
def test_damage_stops_the_run_and_is_named(make, schema, tmp_path, damage, message):
    statistics = make(train={c: TRAIN.get(c, TRAIN["target"]) for c in damage}, eval=damage)
    with pytest.raises(UserError, match=message):
        validate(statistics, schema, tmp_path / "out")


def test_every_error_has_its_line(make, schema, tmp_path):
    damage = {"source": [*TRAIN["source"][:9], *EVAL["source"][9:]], "target": [None] * 9 + EVAL["target"][9:]}
    with pytest.raises(UserError) as error:
        validate(make(train=TRAIN, eval=damage, test=damage), schema, tmp_path / "out")
    assert [line.split(":")[0].strip() for line in str(error.value).splitlines()[1:]] == ["eval target", "test target"]


def test_another_type_is_an_error(make, schema, tmp_path):
    with open(schema.path("schema.pbtxt")) as file:
        text = file.read()
    with open(schema.path("schema.pbtxt"), "w") as file:
        file.write(text.replace("BYTES", "FLOAT", 1))
    with pytest.raises(UserError, match="train source: the schema says FLOAT and the data holds STRING"):
        validate(make(train=TRAIN), schema, tmp_path / "out")


def test_a_schema_broken_by_hand_is_named_with_its_line(make, schema, tmp_path):
    with open(schema.path("schema.pbtxt"), "a") as file:
        file.write("feature { nam: 'x' }\n")
    with pytest.raises(UserError, match=r"schema\.pbtxt: not a schema .*\d+:11"):
        validate(make(train=TRAIN), schema, tmp_path / "out")


LABELLED = {"text": TRAIN["source"], "label": ["good", "bad", "indifferent"] * 72}
LABELLED_EVAL = {"text": EVAL["source"], "label": ["good", "bad", "indifferent"] * 72}


def infer(statistics, folder, **parameters) -> Schema:
    folder.mkdir()
    schema = Schema(str(folder))
    SchemaGen.function(statistics=statistics, schema=schema, **parameters)
    return schema


def validate_labels(make, tmp_path, train, evaluation) -> ExampleAnomalies:
    statistics = make(labels=("label",), train=train, eval=evaluation)
    schema = infer(statistics, tmp_path / "labels", label_columns=("label",))
    assert label_domain(read_schema(schema), "text") == []
    return validate(statistics, schema, tmp_path / "out")


def test_labels_seen_in_training_are_the_domain(make, tmp_path):
    anomalies = validate_labels(make, tmp_path, LABELLED, LABELLED_EVAL)
    assert anomalies.properties["warnings"] == []
    assert label_domain(read_schema(Schema(str(tmp_path / "labels"))), "label") == ["bad", "good", "indifferent"]


def test_a_label_only_in_the_test_split_is_an_error(make, tmp_path):
    damage = LABELLED_EVAL | {"label": ["good", "bad", "god"] * 72}
    with pytest.raises(UserError, match=r"eval label: not in the schema's domain: 'god' \(72 rows\)"):
        validate_labels(make, tmp_path, LABELLED, damage)


def test_imbalance_and_lone_labels_are_warnings(make, tmp_path):
    lopsided = LABELLED | {"label": ["good"] * 214 + ["bad", "indifferent"]}
    warnings = validate_labels(make, tmp_path, lopsided, LABELLED_EVAL).properties["warnings"]
    assert warnings[0].startswith("train label: 99.1% of the rows are 'good'")
    assert warnings[1].startswith("train label: 2 labels have one row only: 'bad', 'indifferent'")
    (tmp_path / "lonely").mkdir()
    lonely = LABELLED | {"label": ["good", "bad"] * 107 + ["good", "indifferent"]}
    (warning,) = validate_labels(make, tmp_path / "lonely", lonely, LABELLED_EVAL).properties["warnings"]
    assert warning.startswith("train label: 1 label has one row only: 'indifferent'")


def test_a_text_is_no_label(make, tmp_path):
    many = {"text": ["x"] * 1001, "label": [str(number) for number in range(1001)]}
    statistics = make(labels=("label",), train=many)
    with pytest.raises(
        UserError, match=r"the column named with --label has more than 1,000 different values, .*; name another"
    ):
        infer(statistics, tmp_path / "labels", label_columns=("label",))


def test_rows_in_another_script_or_of_another_length_are_warnings(make, schema, tmp_path):
    target = [
        *EVAL["target"][:190],
        *["дом ист ан"] * 20,
        *["immer und immer und immer und immer wieder das gleiche" * 4] * 6,
    ]
    warnings = validate(make(train=TRAIN, eval=EVAL | {"target": target}), schema, tmp_path / "out").properties[
        "warnings"
    ]
    assert "eval target: 9.3% of the texts are not in the Latin script but in Cyrillic: another language?" in warnings
    assert "eval row: in 2.8% of the rows one text is many times as long as the other: not each other's?" in warnings


def test_drift_since_the_last_run_is_a_warning(make, schema, tmp_path):
    before, same, after = (
        make(name=f"runs/{number}", train=train)
        for number, train in ((3, TRAIN), (5, TRAIN), (12, TRAIN | {"target": ["ganz anders"] * 216}))
    )
    found = [validate(statistics, schema, tmp_path / statistics.uri[-1]) for statistics in (before, same, after)]
    assert [anomalies.properties["num_anomalies"]["train"] for anomalies in found[:2]] == [0, 0]
    (drift,) = [warning for warning in found[2].properties["warnings"] if "last run" in warning]
    assert drift == "train target: 'anders' was 0.0% of it in the last run and is 50.0%, a drift of more than 2%"


def test_a_schema_kept_by_hand_is_taken_as_it_is(make, schema, tmp_path):
    kept = tmp_path / "kept.pbtxt"
    text = pathlib.Path(schema.path("schema.pbtxt")).read_text()
    kept.write_text("# ours\n" + text.replace("min_examples_count: 1", "min_examples_count: 300"))
    (tmp_path / "imported").mkdir()
    imported = Schema(str(tmp_path / "imported"))
    ImportSchemaGen.function(file=SchemaFile("kept", {"files": [{"path": str(kept)}]}), schema=imported)
    with pytest.raises(UserError, match="216 examples, fewer than the 300 the schema asks for"):
        validate(make(train=TRAIN), imported, tmp_path / "out")
    kept.write_text("no schema")
    with pytest.raises(UserError, match=r"kept\.pbtxt: not a schema"):
        ImportSchemaGen.function(file=SchemaFile("kept", {"files": [{"path": str(kept)}]}), schema=imported)


def test_texts_in_the_other_columns_language_are_a_warning(make, schema, tmp_path):
    def sentences(numbers, german):
        words = (
            ("Die Kinder spielen mit", "vor dem alten Haus")
            if german
            else ("The children play with", "near my old house")
        )
        return [f"{words[0]} {NAMES[number]} {words[1]}." for number in numbers]

    train = {"source": sentences(range(216), False), "target": sentences(range(216), True)}
    mixed = train | {"target": sentences(range(150), True) + sentences(range(150, 216), False)}
    for data, found in ((train, []), (mixed, ["train target"])):
        folder = tmp_path / f"schema-{len(found)}"
        statistics = make(name=f"s{len(found)}", train=data)
        warnings = validate(statistics, infer(statistics, folder), folder / "out").properties["warnings"]
        told = [warning for warning in warnings if "whose language can be told" in warning]
        assert [warning.partition(":")[0] for warning in told] == found
    assert "most are 'de', but 30% en" in told[0]


def test_another_corpus_in_the_same_root_is_no_drift(make, schema, tmp_path):
    other = TRAIN | {"target": ["ganz anders"] * 216}
    runs = [make(name=f"runs/{number}", train=train) for number, train in ((3, TRAIN), (5, other), (8, TRAIN))]
    for statistics, source in zip(runs, ("a.tsv", "b.tsv", "a.tsv"), strict=True):
        write_source(statistics.uri, source)
    warnings = [validate(found, schema, tmp_path / found.uri[-1]).properties["warnings"] for found in runs]
    assert not [warning for found in warnings for warning in found if "last run" in warning]
