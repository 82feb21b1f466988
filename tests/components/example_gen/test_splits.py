"""The keys by which rows are split, rows that are in two splits, and rare labels."""

import json

import pytest

from seq2serve.components.base.artifact import SPLITS, Examples
from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen import text_files
from seq2serve.components.example_gen.config import InputConfig
from seq2serve.components.storage.examples_io import read_batches
from seq2serve.components.storage.shards import shard_paths
from tests.components.example_gen.test_example_gen import digest, generate, rows_of, write_tsv

SUMS = [(f"{a}+{b}", str(a + b)) for a in range(30) for b in range(10)]


def test_arithmetic_is_split_by_its_exact_text_with_a_warning(tmp_path):
    examples = generate(write_tsv(tmp_path / "a.tsv", SUMS), tmp_path / "out")
    splits = rows_of(examples)
    assert sorted(row for rows in splits.values() for row in rows) == sorted(SUMS)
    assert 30 < len(splits["eval"]) < 90
    (warning,) = examples.properties["warnings"]
    assert warning.startswith("rows that differ only in case, digits and spaces share a split by default, but that ")
    assert "set data.split_key=exact to keep this" in warning
    exact = generate(write_tsv(tmp_path / "a.tsv", SUMS), tmp_path / "exact", split_key="exact")
    assert rows_of(exact) == splits
    assert "warnings" not in exact.properties


def test_few_rows_hold_out_larger_shares_with_a_warning(tmp_path):
    rows = [(f"word {chr(97 + i)}", "x") for i in range(24)]
    examples = generate(write_tsv(tmp_path / "a.tsv", rows), tmp_path / "out", eval_share=0.001, test_share=0.001)
    splits = rows_of(examples)
    assert all(splits.values())
    assert sorted(row for kept in splits.values() for row in kept) == sorted(rows)
    (warning,) = examples.properties["warnings"]
    assert warning.startswith(
        "24 rows leave none for eval and test, so the run used data.eval_share=0.2 instead of 0.001"
    )
    kept = generate(write_tsv(tmp_path / "a.tsv", rows), tmp_path / "kept", eval_share=0.2, test_share=0.2)
    assert rows_of(kept) == splits
    assert "warnings" not in kept.properties


def test_a_split_far_from_its_share_is_a_warning_that_names_the_setting(tmp_path):
    words = [(f"word {chr(97 + i // 26)}{chr(97 + i % 26)}", "x") for i in range(150)]
    examples = generate(write_tsv(tmp_path / "a.tsv", [*SUMS * 3, *words]), tmp_path / "out")
    warnings = examples.properties["warnings"]
    assert all("to separate them, set data.split_key=exact" in warning for warning in warnings)
    assert any(warning.startswith("eval has ") for warning in warnings)


def test_rows_with_the_same_value_of_a_column_share_a_split(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "SHARD_BYTES", 900)
    rows = [(f"text {i}", f"Text {i}", f"speaker {i % 40}") for i in range(400)]
    path = write_tsv(tmp_path / "a.tsv", rows, header=("en", "de", "speaker"))
    examples = generate(path, tmp_path / "out", split_key="speaker")
    speakers = {
        split: {int(source.split()[1]) % 40 for source, _ in split_rows}
        for split, split_rows in rows_of(examples).items()
    }
    assert sum(map(len, speakers.values())) == 40
    assert all(speakers.values())
    assert examples.properties["columns"] == ["source", "target"]
    sliced = generate(path, tmp_path / "sliced", split_key="speaker", slice_columns=("speaker",))
    assert rows_of(sliced) == rows_of(examples)


def test_an_unknown_key_column_is_an_error_that_names_the_columns_and_the_setting(tmp_path):
    path = write_tsv(tmp_path / "a.tsv", SUMS)
    with pytest.raises(UserError, match=r"The file has: 'en', 'de'. Set the right name in .*data.split_key") as error:
        generate(path, tmp_path / "out", split_key="speaker")
    assert (error.value.code, error.value.fields["column"]) == ("column-missing", "speaker")


def test_rows_of_train_that_are_in_another_split_can_be_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "SHARD_BYTES", 200)
    train = [(f"row {i}", f"Zeile {i}") for i in range(100)] + [
        ("caf\u00e9", "x"),
        ("caf\u00e9", "y"),
        ("Row 5", "Zeile 5"),
    ]
    write_tsv(tmp_path / "train.tsv", train)
    write_tsv(tmp_path / "dev.tsv", [("row 3", "Zeile 3"), ("other", "andere")])
    write_tsv(tmp_path / "test.tsv", [("row 5", "Zeile 5 "), (" cafe\u0301", "x"), ("row 7", "Zeile 8")])
    roles = ",".join(
        f"{split}={tmp_path}/{name}.tsv" for split, name in (("train",) * 2, ("eval", "dev"), ("test",) * 2)
    )
    examples = generate(roles, tmp_path / "out", drop_overlap=True)
    expected = [row for row in train if row not in [("row 3", "Zeile 3"), ("row 5", "Zeile 5"), ("caf\u00e9", "x")]]
    assert rows_of(examples)["train"] == expected
    properties = examples.properties
    assert properties["num_dropped_by_rule"] == {"data.overlap=drop_from_train": 3}
    assert properties["num_rows"] == len(train) + 5 == sum(properties["num_examples"].values()) + 3
    assert "num_dropped_by_rule" not in generate(roles, tmp_path / "kept").properties


def shards_of(examples: Examples, *splits: str) -> dict[str, str]:
    """Returns path -> hash of the shards of some splits."""
    return {
        path: value for path, value in digest(examples).items() if path.startswith(tuple(f"Split-{s}/" for s in splits))
    }


@pytest.mark.parametrize("eval_file", [True, False], ids=["eval from a file", "eval by hash"])
def test_another_test_file_changes_nothing_about_the_other_splits(tmp_path, monkeypatch, eval_file):
    """Whatever its size; also if its contents sort before or after those of the other files."""
    monkeypatch.setattr(text_files, "SHARD_BYTES", 700)
    for name in ("a", "b"):
        write_tsv(tmp_path / f"train-{name}.tsv", [(f"text {name} {chr(97 + i)}", f"Text {i}") for i in range(26)])
    write_tsv(tmp_path / "eval.tsv", SUMS[:20])
    roles = f"train={tmp_path}/train-*.tsv,test={tmp_path}/test.tsv" + f",eval={tmp_path}/eval.tsv" * eval_file
    results = []
    for number in (1, 5, 250):
        write_tsv(tmp_path / "test.tsv", SUMS[-number:])
        results.append(generate(roles, tmp_path / f"out-{number}"))
    assert all(shards_of(r, "train", "eval") == shards_of(results[0], "train", "eval") for r in results)
    prints = [result.properties["split_fingerprints"] for result in results]
    assert len({(p["train"], p["eval"]) for p in prints}) == 1
    assert len({p["test"] for p in prints}) == 3
    assert [result.properties["num_examples"]["test"] for result in results] == [1, 5, 250]


def test_fingerprints_of_splits_change_with_rows_their_order_and_their_shards_only(tmp_path, monkeypatch):
    rows = [(f"text {chr(97 + i // 26)}{chr(97 + i % 26)}", "x") for i in range(100)]
    before = generate(write_tsv(tmp_path / "a.tsv", rows), tmp_path / "out")
    tested = rows_of(before)["test"][0]

    def changed(new_rows, name, **settings):
        after = generate(write_tsv(tmp_path / f"{name}.tsv", new_rows), tmp_path / name, **settings)
        old, new = (examples.properties["split_fingerprints"] for examples in (before, after))
        return {split for split in SPLITS if old[split] != new[split]}

    assert changed(rows, "same", max_reject_share=0.5) == set()
    assert changed([(s, "y") if (s, t) == tested else (s, t) for s, t in rows], "one") == {"test"}
    assert changed(rows[::-1], "reversed") == {"train", "eval", "test"}
    monkeypatch.setattr(text_files, "SHARD_BYTES", 300)
    assert "train" in changed(rows, "shards")


def test_slice_columns_are_only_in_the_test_split_so_that_another_one_does_not_retrain(tmp_path):
    rows = [(f"text {chr(97 + i // 26)}{chr(97 + i % 26)}", "x", f"d{i % 3}") for i in range(100)]
    path = write_tsv(tmp_path / "a.tsv", rows, header=("en", "de", "domain"))
    plain, sliced = generate(path, tmp_path / "plain"), generate(path, tmp_path / "sliced", slice_columns=("domain",))
    assert shards_of(plain, "train", "eval") == shards_of(sliced, "train", "eval")
    (shard,) = shard_paths(sliced, "test")
    values = [value for batch in read_batches(shard, ["domain"]) for (value,) in batch["domain"]]
    domains = {row[:2]: row[2] for row in rows}
    assert [value.decode() for value in values] == [domains[row] for row in rows_of(sliced)["test"]]


def test_numbers_as_labels_are_an_error_that_names_the_column(tmp_path):
    rows = [(f"text {chr(97 + i // 26)}{chr(97 + i % 26)}", f"0.{i}") for i in range(300)]
    path = write_tsv(tmp_path / "a.tsv", rows, header=("text", "score"))
    columns = {"text": "text", "label": "score"}
    with pytest.raises(UserError, match=r"in the column .label. are so rare .* --label if these are no") as error:
        generate(path, tmp_path / "out", columns=columns, input_config=InputConfig(label_columns=("label",)))
    assert (error.value.code, error.value.fields["split"]) == ("labels-too-rare", "eval")


@pytest.mark.parametrize("split_key", ["loose", "exact", "group"])
def test_a_rare_label_has_rows_in_train_and_rows_that_share_a_split_stay_together(tmp_path, split_key):
    rows = [(f"text {chr(97 + i // 26)}{chr(97 + i % 26)}", ("up", "down")[i % 2], f"g{i // 4}") for i in range(400)]
    rows += [(f"rare text {chr(97 + i)}", f"rare {i}", f"g{i}") for i in range(20)]
    path = write_tsv(tmp_path / "a.tsv", rows, header=("text", "label", "group"))
    columns = {"columns": {"text": "text", "label": "label"}, "input_config": InputConfig(label_columns=("label",))}
    examples = generate(path, tmp_path / "out", split_key=split_key, **columns)
    splits = rows_of(examples)
    labels = {split: {label for _, label in split_rows} for split, split_rows in splits.items()}
    assert labels["train"] == {"up", "down", *(f"rare {i}" for i in range(20))}
    assert labels["eval"] == labels["test"] == {"up", "down"}
    assert sum(map(len, splits.values())) == len(rows)
    if split_key == "group":
        groups = {row[:2]: row[2] for row in rows}
        in_splits = [{groups[row] for row in split_rows} for split_rows in splits.values()]
        assert sum(map(len, in_splits)) == len(set.union(*in_splits))
    (warning,) = [line for line in examples.properties["warnings"] if "rare" in line]
    assert warning.startswith("label: the hash put no row of ")
    assert json.dumps(examples.properties)
