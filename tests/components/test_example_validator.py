"""SchemaGen and ExampleValidator: data like the training data passes; damage is named and stops the run."""

import itertools

import pytest
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from components.artifact import ExampleAnomalies, ExampleStatistics, Schema
from components.errors import UserError
from components.example_validator import ExampleValidator
from components.schema_gen import SchemaGen, read_schema
from components.statistics_protos import split_statistics, write_statistics
from components.text_counts import count_batch

NAMES = ["".join(letters) for letters in itertools.product("abcdef", repeat=3)]
TRAIN = {"source": [f"the {name} is on" for name in NAMES], "target": [f"{name} ist an" for name in NAMES]}
EVAL = {"source": [f"an {name} is off" for name in NAMES], "target": [f"{name} ist aus" for name in NAMES]}


@pytest.fixture
def make(tmp_path):
    def make_statistics(**splits: dict[str, list[str | None]]) -> ExampleStatistics:
        counts = {
            split: count_batch({c: [[] if t is None else [t.encode()] for t in texts] for c, texts in columns.items()})
            for split, columns in splits.items()
        }
        for split in counts:
            write_statistics(str(tmp_path / "statistics"), split, split_statistics(split, counts))
        return ExampleStatistics(str(tmp_path / "statistics"), {"splits": list(counts)})

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
    assert (limits.min_sequence_length, limits.max_sequence_length) == (3, 3)


def test_data_that_fits_has_no_anomalies(make, schema, tmp_path):
    anomalies = validate(make(train=TRAIN, eval=EVAL), schema, tmp_path / "out")
    assert anomalies.properties["num_anomalies"] == {"train": 0, "eval": 0}
    assert not read_anomalies(anomalies, "eval").anomaly_info


def test_other_lengths_are_a_warning_that_is_kept(make, schema, tmp_path):
    longer = EVAL | {"target": [*EVAL["target"][1:], "ein ganzer Satz mehr"]}
    anomalies = validate(make(train=TRAIN, eval=longer), schema, tmp_path / "out")
    assert anomalies.properties["num_anomalies"] == {"train": 0, "eval": 1}
    info = read_anomalies(anomalies, "eval").anomaly_info["target"]
    assert info.severity == anomalies_pb2.AnomalyInfo.WARNING
    assert "a text has 4 words" in info.description


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
