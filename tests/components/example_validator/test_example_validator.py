"""SchemaGen and ExampleValidator: data similar to the training data passes; other data is reported."""

import functools
import itertools
import pathlib

import pytest
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from seq2serve.components.base.artifact import ExampleAnomalies, ExampleStatistics, Schema, SchemaFile
from seq2serve.components.base.component import Earlier
from seq2serve.components.base.errors import UserError
from seq2serve.components.example_validator.component import ExampleValidator
from seq2serve.components.schema_gen.component import ImportSchemaGen, SchemaGen
from seq2serve.components.schema_gen.schema_file import label_domain, read_schema
from seq2serve.components.statistics_gen.counts import count_batch
from seq2serve.components.statistics_gen.protos import split_statistics
from seq2serve.components.statistics_gen.statistics_file import write_statistics

Type = anomalies_pb2.AnomalyInfo.Type

NAMES = ["".join(letters) for letters in itertools.product("abcdef", repeat=3)]
TRAIN = {"source": [f"the {name} is on" for name in NAMES], "target": [f"{name} ist an" for name in NAMES]}
EVAL = {"source": [f"an {name} is off" for name in NAMES], "target": [f"{name} ist aus" for name in NAMES]}


@pytest.fixture
def make(tmp_path):
    """Returns a function that writes the statistics of rows in memory."""

    def make_statistics(
        name="statistics", labels=(), number=0, source="a.tsv", **splits: dict[str, list[str | None]]
    ) -> ExampleStatistics:
        batches = {
            split: {c: [[] if t is None else [t.encode()] for t in texts] for c, texts in columns.items()}
            for split, columns in splits.items()
        }
        counts = {split: count_batch(batch, labels) for split, batch in batches.items()}
        for split in counts:
            write_statistics(str(tmp_path / name), split, split_statistics(split, counts))
        return ExampleStatistics(str(tmp_path / name), {"splits": list(counts), "source": source}, id=number)

    return make_statistics


@pytest.fixture
def schema(tmp_path, make) -> Schema:
    (tmp_path / "schema").mkdir()
    schema = Schema(str(tmp_path / "schema"))
    SchemaGen.function(statistics=make(train=TRAIN, eval=EVAL), schema=schema)
    return schema


def validate(statistics, schema, folder, earlier=()) -> ExampleAnomalies:
    """Validates statistics; `earlier` has those of all runs, oldest first."""
    anomalies = ExampleAnomalies(str(folder))
    history = tuple(Earlier(old, old.id, functools.partial(lambda old: old, old)) for old in reversed(earlier))
    ExampleValidator.function(statistics=statistics, schema=schema, anomalies=anomalies, earlier_statistics=history)
    return anomalies


def read_anomalies(anomalies, split) -> anomalies_pb2.Anomalies:
    with open(anomalies.path(f"Split-{split}", "SchemaDiff.pb"), "rb") as file:
        return anomalies_pb2.Anomalies.FromString(file.read())


def test_the_schema_describes_the_training_data(schema):
    features = {feature.name: feature for feature in read_schema(schema).feature}
    assert list(features) == ["source", "target"]
    assert features["target"].type == schema_pb2.BYTES
    assert features["target"].presence.min_fraction == 1
    limits = features["target"].natural_language_domain.sequence_length_constraints
    assert (limits.min_sequence_length, limits.max_sequence_length) == (3 // 2, 3 * 2)


def test_similar_data_has_no_anomalies(make, schema, tmp_path):
    anomalies = validate(make(train=TRAIN, eval=EVAL), schema, tmp_path / "out")
    assert anomalies.properties["num_anomalies"] == {"train": 0, "eval": 0}
    assert not read_anomalies(anomalies, "eval").anomaly_info


def test_slightly_longer_texts_are_not_anomalies(make, schema, tmp_path):
    longer = EVAL | {"target": [*EVAL["target"][1:], "ein ganzer Satz mehr"]}
    assert validate(make(train=TRAIN, eval=longer), schema, tmp_path / "out").properties["warnings"] == []


def test_an_edited_schema_is_enforced(make, schema, tmp_path):
    path = pathlib.Path(schema.path("schema.pbtxt"))
    path.write_text(path.read_text().replace("max_sequence_length: 6", "max_sequence_length: 3"))
    longer = EVAL | {"target": [*EVAL["target"][1:], "ein ganzer Satz mehr"]}
    (warning,) = validate(make(train=TRAIN, eval=longer), schema, tmp_path / "out").properties["warnings"]
    assert warning == "eval target: the longest text has 4 words; the schema allows 3"


def test_unusual_lengths_are_warnings(make, schema, tmp_path):
    longer = EVAL | {"target": [*EVAL["target"][1:], "ein ganzer Satz mehr als in jeder Zeile"]}
    anomalies = validate(make(train=TRAIN, eval=longer), schema, tmp_path / "out")
    assert anomalies.properties["num_anomalies"] == {"train": 0, "eval": 1}
    info = read_anomalies(anomalies, "eval").anomaly_info["target"]
    assert info.severity == anomalies_pb2.AnomalyInfo.WARNING
    assert [reason.type for reason in info.reason] == [Type.SEQUENCE_VALUE_TOO_MANY_OCCURRENCES]


@pytest.mark.parametrize(
    ("damage", "kind", "message"),
    [
        (
            {"source": EVAL["source"]},
            Type.SCHEMA_MISSING_COLUMN,
            "eval target: the column is in the schema but not in the data; add it, or remove it from the schema",
        ),
        (
            EVAL | {"label": EVAL["target"]},
            Type.SCHEMA_NEW_COLUMN,
            "eval label: the column is in the data but not in the schema; add it to the schema, or do not import it",
        ),
        (
            EVAL | {"target": [None, *EVAL["target"][1:]]},
            Type.FEATURE_TYPE_LOW_FRACTION_PRESENT,
            "eval target: present in 215 of 216 rows; the schema requires 100.0%; fill in the missing values",
        ),
        (
            EVAL | {"target": ["", "\t", " ", *EVAL["target"][3:]]},
            Type.FEATURE_TYPE_NO_VALUES,
            "eval target: empty in 3 of 216 rows, more than 1%; fill in or remove those rows",
        ),
        (
            {c: [*TRAIN[c][:5], *EVAL[c][5:]] for c in EVAL},
            Type.CUSTOM_VALIDATION,
            "eval row: 5 of 216 rows (2.3%) are also in the train split, so metrics would be too optimistic; remove "
            "them from one of the splits, or set data.overlap=drop_from_train, or data.overlap=warn to keep them",
        ),
        (
            {"source": [], "target": []},
            Type.DATASET_LOW_NUM_EXAMPLES,
            "eval split: 0 examples, fewer than the 1 that the schema requires; add rows",
        ),
    ],
)
def test_an_error_stops_the_run_and_states_split_and_column(make, schema, tmp_path, damage, kind, message):
    statistics = make(train={c: TRAIN.get(c, TRAIN["target"]) for c in damage}, eval=damage)
    with pytest.raises(UserError) as error:
        validate(statistics, schema, tmp_path / "out")
    assert error.value.code == "examples-anomalous"
    assert message in error.value.fields["errors"]
    diff = read_anomalies(ExampleAnomalies(str(tmp_path / "out")), "eval")
    column = message.split(":")[0].removeprefix("eval ")
    info = diff.dataset_anomaly_info if column == "split" else diff.anomaly_info[column]
    assert kind in [reason.type for reason in info.reason]


SUMS = [f"{a} + {b}" for a in range(10, 20) for b in range(10, 20)]


def test_rows_that_differ_in_digits_or_case_are_not_the_same_row(make, tmp_path):
    train = {"source": [f"{text} = " for text in SUMS], "target": ["NaCl"] * 100}
    evaluation = {"source": [f"{text} = " for text in reversed(SUMS)], "target": ["nacl"] * 100}
    statistics = make(train=train, eval=evaluation)
    schema = infer(statistics, tmp_path / "schema")
    (warning,) = validate(statistics, schema, tmp_path / "out").properties["warnings"]
    assert warning == (
        "eval row: 100 of 100 rows (100.0%) differ from a row of the train split only in case, digits or spaces; if "
        "the model can guess them from that row, remove them from one of the splits, or let data.split_key=loose "
        "make the splits"
    )


@pytest.mark.parametrize("row", [("caf\u00e9", "x y"), (" cafe\u0301", "x y "), ("cafe\u0301\n", "x y")])
def test_rows_are_equal_after_nfc_and_trimming_and_may_be_kept(make, tmp_path, row):
    train = {"source": [*SUMS, "caf\u00e9"], "target": [*SUMS, "x y"]}
    statistics = make(train=train, eval={"source": [row[0]], "target": [row[1]]})
    schema = infer(statistics, tmp_path / "schema")
    with pytest.raises(UserError) as error:
        validate(statistics, schema, tmp_path / "out")
    assert error.value.code == "examples-anomalous"
    anomalies = ExampleAnomalies(str(tmp_path / "kept"))
    ExampleValidator.function(statistics=statistics, schema=schema, anomalies=anomalies, overlap="warn")
    assert [line for line in anomalies.properties["warnings"] if "1 of 1 rows (100.0%) are also in" in line]


def test_every_error_has_a_line(make, schema, tmp_path):
    damage = {"source": [*TRAIN["source"][:9], *EVAL["source"][9:]], "target": [None] * 9 + EVAL["target"][9:]}
    with pytest.raises(UserError) as error:
        validate(make(train=TRAIN, eval=damage, test=damage), schema, tmp_path / "out")
    title, *lines = str(error.value).splitlines()
    assert title == "the examples do not match the schema:"
    assert [line.strip() for line in lines] == error.value.fields["errors"]
    assert [line.split(":")[0].strip() for line in lines] == ["eval target", "test target"]


def test_a_wrong_type_is_an_error(make, schema, tmp_path):
    path = pathlib.Path(schema.path("schema.pbtxt"))
    path.write_text(path.read_text().replace("BYTES", "FLOAT", 1))
    with pytest.raises(UserError) as error:
        validate(make(train=TRAIN), schema, tmp_path / "out")
    assert error.value.fields["errors"] == [
        "train source: the type is FLOAT in the schema and STRING in the data; text is BYTES in a schema and STRING in "
        "statistics"
    ]


def test_an_invalid_schema_is_reported_with_its_line(make, schema, tmp_path):
    path = pathlib.Path(schema.path("schema.pbtxt"))
    num_lines = len(path.read_text().splitlines())
    with path.open("a") as file:
        file.write("feature { nam: 'x' }\n")
    with pytest.raises(UserError, match=rf"schema\.pbtxt is not a schema; fix .*: {num_lines + 1}:11 : ") as error:
        validate(make(train=TRAIN), schema, tmp_path / "out")
    assert error.value.code == "schema-invalid"
    assert error.value.fields == {"path": str(path), "line": num_lines + 1}


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


def test_the_labels_of_the_train_split_are_the_domain(make, tmp_path):
    anomalies = validate_labels(make, tmp_path, LABELLED, LABELLED_EVAL)
    assert anomalies.properties["warnings"] == []
    assert label_domain(read_schema(Schema(str(tmp_path / "labels"))), "label") == ["bad", "good", "indifferent"]


def test_a_label_only_in_the_test_split_is_an_error(make, tmp_path):
    damage = LABELLED_EVAL | {"label": ["good", "bad", "god"] * 72}
    with pytest.raises(UserError) as error:
        validate_labels(make, tmp_path, LABELLED, damage)
    assert error.value.fields["errors"] == [
        "eval label: not in the schema: 'god' (72 rows), 33.3% of the rows; more than 5% is an error; fix the rows or "
        "the schema"
    ]


def test_a_few_rows_with_a_label_only_in_the_test_split_are_a_warning(make, tmp_path):
    few = LABELLED_EVAL | {"label": ["god", *LABELLED_EVAL["label"][1:]]}
    assert validate_labels(make, tmp_path, LABELLED, few).properties["warnings"] == [
        "eval label: not in the schema: 'god' (1 rows), 0.5% of the rows; up to 5% count as errors of the model; fix "
        "the rows or the schema"
    ]


def test_imbalance_and_rare_labels_are_warnings(make, tmp_path):
    imbalanced = LABELLED | {"label": ["good"] * 214 + ["bad", "indifferent"]}
    warnings = validate_labels(make, tmp_path, imbalanced, LABELLED_EVAL).properties["warnings"]
    assert warnings == [
        "label: 2 labels have fewer than 10 rows in the train split: 'bad' (1), 'indifferent' (1); add rows, or merge "
        "labels",
        "train label: 99.1% of the rows are 'good', so always predicting it gives a high accuracy; add rows with other "
        "labels",
    ]
    (tmp_path / "rare").mkdir()
    rare = LABELLED | {"label": ["good", "bad"] * 107 + ["good", "indifferent"]}
    (warning,) = validate_labels(make, tmp_path / "rare", rare, LABELLED_EVAL).properties["warnings"]
    assert warning.startswith("label: 1 label has fewer than 10 rows in the train split: 'indifferent' (1)")


@pytest.mark.parametrize(
    ("label", "twin", "wording"),
    [
        ("good", "Good", "'Good' (72 rows) and 'good' (108 rows)"),
        ("so so", "so  so", "'so  so' (72 rows) and 'so so' (108 rows)"),
        ("so so", "soso", "'so so' (108 rows) and 'soso' (72 rows)"),
        ("caf\u00e9", "cafe\u0301", r"'cafe\u0301' (72 rows) and 'caf\xe9' (108 rows)"),
        ("good", "go\u200bod", r"'good' (108 rows) and 'go\u200bod' (72 rows)"),
        ("A1", "\uff21\uff11", "'A1' (108 rows) and '\uff21\uff11' (72 rows)"),
        ("1", "1.0", "'1' (108 rows) and '1.0' (72 rows)"),
        ("1", "01", "'01' (72 rows) and '1' (108 rows)"),
        ("0.5", "0,50", "'0,50' (72 rows) and '0.5' (108 rows)"),
        ("100", "1e2", "'100' (108 rows) and '1e2' (72 rows)"),
        ("-1", "\u22121", None),  # a minus sign is another character than a hyphen
        ("1", "-1", None),
        ("C", "C++", None),
        ("1.5", "15", None),
    ],
)
def test_labels_that_differ_only_in_their_spelling_are_a_warning(make, tmp_path, label, twin, wording):
    train = LABELLED | {"label": [label] * 108 + [twin] * 72 + ["other"] * 36}
    evaluation = LABELLED_EVAL | {"label": ["other"] * 216}
    warnings = validate_labels(make, tmp_path, train, evaluation).properties["warnings"]
    expected = [
        "label: 1 group of labels that differ only in case, spaces, Unicode form or number form: "
        f"{wording}; each counts as a label of its own; make them equal in the file if they mean the same"
    ]
    assert [line for line in warnings if "differ only" in line] == (expected if wording else [])


@pytest.mark.parametrize(
    "label", ["nan", "NaN", "N/A", "n/a", "NA", "None", "null", "<NA>", "#N/A", "#DIV/0!", "-", "?"]
)
def test_a_label_that_looks_like_a_missing_value_is_a_warning(make, tmp_path, label):
    labels = {"label": ["good", "bad", label] * 72}
    warnings = validate_labels(make, tmp_path, LABELLED | labels, LABELLED_EVAL | labels).properties["warnings"]
    assert warnings == [
        f"label: labels that look like a missing value: {label!r} (144 rows); remove these rows, or rename the label "
        "if it is meant"
    ]


@pytest.mark.parametrize("label", ["nano", "Nancy", "no", "unknown", "0", "A/B"])
def test_other_labels_do_not_look_like_a_missing_value(make, tmp_path, label):
    labels = {"label": ["good", "bad", label] * 72}
    assert validate_labels(make, tmp_path, LABELLED | labels, LABELLED_EVAL | labels).properties["warnings"] == []


def test_a_single_label_is_a_warning(make, tmp_path):
    labels = {"label": ["good"] * 216}
    (warning,) = validate_labels(make, tmp_path, LABELLED | labels, LABELLED_EVAL | labels).properties["warnings"]
    assert warning == (
        "label: all rows have the label 'good', so there is nothing to learn; add rows with other labels"
    )


def test_equal_texts_with_different_labels_are_a_warning(make, tmp_path):
    statistics = make(labels=("label",), train=LABELLED, eval=LABELLED_EVAL)
    examples = {"so it goes": {"bad": 1, "good": 2}, "well": {"bad": 3, "indifferent": 1}, "hm": {"bad": 1, "good": 1}}
    statistics.properties["label_conflicts"] = {"label": {"num_texts": 1234, "examples": examples}}
    schema = infer(statistics, tmp_path / "labels", label_columns=("label",))
    assert validate(statistics, schema, tmp_path / "out").properties["warnings"] == [
        "label: 1,234 texts occur with different labels: 'so it goes' is 'bad' (1 row) and 'good' (2 rows); 'well' is "
        "'bad' (3 rows) and 'indifferent' (1 row); 'hm' is 'bad' (1 row) and 'good' (1 row), ...; correct or remove "
        "these rows"
    ]


def test_a_column_with_too_many_values_is_not_a_label_column(make, tmp_path):
    many = {"text": ["x"] * 1001, "label": [str(number) for number in range(1001)]}
    statistics = make(labels=("label",), train=many)
    message = (
        "the column of --label has more than 1,000 distinct values, .*; name another column with --label, or merge"
    )
    with pytest.raises(UserError, match=message) as error:
        infer(statistics, tmp_path / "labels", label_columns=("label",))
    assert (error.value.code, error.value.fields) == ("labels-too-many", {"column": "label"})


def test_other_scripts_and_misaligned_rows_are_warnings(make, schema, tmp_path):
    target = [
        *EVAL["target"][:190],
        *["дом ист ан"] * 20,
        *["immer und immer und immer und immer wieder das gleiche" * 4] * 6,
    ]
    statistics = make(train=TRAIN, eval=EVAL | {"target": target})
    warnings = validate(statistics, schema, tmp_path / "out").properties["warnings"]
    assert "eval target: 9.3% of the texts are in Cyrillic script, not Latin; check for other languages" in warnings
    misaligned = "eval row: in 2.8% of the rows one text is many times longer than the other"
    assert f"{misaligned}; check the alignment of the columns" in warnings


def num_drifts(anomalies, split):
    """Returns the number of columns with drift."""
    infos = read_anomalies(anomalies, split).anomaly_info.values()
    return sum(Type.COMPARATOR_L_INFTY_HIGH in [reason.type for reason in info.reason] for info in infos)


def test_drift_since_the_last_run_is_a_warning(make, schema, tmp_path):
    before, same, after = (
        make(name=f"runs/{number}", number=number, train=train)
        for number, train in ((3, TRAIN), (5, TRAIN), (12, TRAIN | {"target": ["ganz anders"] * 216}))
    )
    runs = (before, same, after)
    results = [validate(statistics, schema, tmp_path / statistics.uri[-1], runs) for statistics in runs]
    assert [anomalies.properties["num_anomalies"]["train"] for anomalies in results[:2]] == [0, 0]
    assert num_drifts(results[2], "train") == 1
    (drift,) = [warning for warning in results[2].properties["warnings"] if "last run" in warning]
    assert (
        drift
        == "train target: the share of 'anders' changed from 0.0% in the last run to 50.0%, a drift of more than 2%"
    )


def test_an_imported_schema_is_used_unchanged(make, schema, tmp_path):
    edited = tmp_path / "edited.pbtxt"
    text = pathlib.Path(schema.path("schema.pbtxt")).read_text()
    edited.write_text("# a comment\n" + text.replace("min_examples_count: 1", "min_examples_count: 300"))
    (tmp_path / "imported").mkdir()
    imported = Schema(str(tmp_path / "imported"))
    ImportSchemaGen.function(file=SchemaFile("edited", {"files": [{"path": str(edited)}]}), schema=imported)
    assert read_schema(imported).dataset_constraints.min_examples_count == 300
    with pytest.raises(UserError) as error:
        validate(make(train=TRAIN), imported, tmp_path / "out")
    assert error.value.code == "examples-anomalous"
    info = read_anomalies(ExampleAnomalies(str(tmp_path / "out")), "train").dataset_anomaly_info
    assert [reason.type for reason in info.reason] == [Type.DATASET_LOW_NUM_EXAMPLES]


def test_importing_an_invalid_schema_is_an_error(tmp_path):
    file = tmp_path / "invalid.pbtxt"
    file.write_text("not a schema")
    with pytest.raises(UserError) as error:
        ImportSchemaGen.function(
            file=SchemaFile("invalid", {"files": [{"path": str(file)}]}), schema=Schema(str(tmp_path))
        )
    assert (error.value.code, error.value.fields) == ("schema-invalid", {"path": str(file), "line": 1})


def test_importing_several_files_is_an_error(tmp_path):
    files = {"files": [{"path": f"{name}.pbtxt"} for name in "ab"]}
    with pytest.raises(UserError, match=r"^\*\.pbtxt: 2 files, but a schema is a single file; pass one with ") as error:
        ImportSchemaGen.function(file=SchemaFile("*.pbtxt", files), schema=Schema(str(tmp_path)))
    assert (error.value.code, error.value.fields) == ("schema-ambiguous", {"path": "*.pbtxt"})


def test_texts_in_another_language_are_a_warning(make, schema, tmp_path):
    def sentences(numbers, german):
        words = (
            ("Die Kinder spielen mit", "vor dem alten Haus")
            if german
            else ("The children play with", "near my old house")
        )
        return [f"{words[0]} {NAMES[number]} {words[1]}." for number in numbers]

    train = {"source": sentences(range(216), False), "target": sentences(range(216), True)}
    mixed = train | {"target": sentences(range(150), True) + sentences(range(150, 216), False)}
    for data, columns in ((train, []), (mixed, ["train target"])):
        folder = tmp_path / f"schema-{len(columns)}"
        statistics = make(name=f"s{len(columns)}", train=data)
        warnings = validate(statistics, infer(statistics, folder), folder / "out").properties["warnings"]
        language_warnings = [warning for warning in warnings if "identified language" in warning]
        assert [warning.partition(":")[0] for warning in language_warnings] == columns
    assert language_warnings[0] == (
        "train target: most texts with an identified language are in 'de', but 30% in 'en'; "
        "check for untranslated rows or swapped columns"
    )


def test_another_corpus_in_the_same_root_is_not_drift(make, schema, tmp_path):
    other = TRAIN | {"target": ["ganz anders"] * 216}
    runs = [
        make(name=f"runs/{number}", number=number, source=source, train=train)
        for number, source, train in ((3, "a.tsv", TRAIN), (5, "b.tsv", other), (8, "a.tsv", TRAIN))
    ]
    results = [validate(statistics, schema, tmp_path / statistics.uri[-1], runs) for statistics in runs]
    assert [num_drifts(anomalies, "train") for anomalies in results] == [0, 0, 0]
