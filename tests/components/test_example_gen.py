"""ExampleGen: rows in = examples + rejects; splits and bytes depend on the rows alone."""

import collections
import csv
import gzip
import hashlib
import json
import pathlib
import random
import re

import pyarrow
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from components import text_files
from components.artifact import SPLITS, Examples, RawFiles
from components.component import Context
from components.errors import UserError
from components.example_gen import ExampleGen, Splitting
from components.example_gen_beam import Splitter
from components.file_formats import Reading
from components.row_readers import Layout, RejectedRowError, parse_row
from pipeline.fingerprint import resolve_raw_files

ROWS = [(f"House number {'abcdefghij'[i % 10]} {chr(97 + i // 10)}", f"Haus {i}") for i in range(250)]
COLUMNS = {"source": "en", "target": "de"}
PAIR = Layout({"source": 0, "target": 1}, 2)


def write_tsv(path: pathlib.Path, rows, header=("en", "de"), end="\n") -> pathlib.Path:
    path.write_bytes("".join("\t".join(row) + end for row in [header, *rows]).encode())
    return path


def raw_files(pattern: pathlib.Path | str) -> RawFiles:
    return resolve_raw_files(RawFiles(str(pattern)))


def generate(path: pathlib.Path | str | RawFiles, folder: pathlib.Path, *flags: str, **settings) -> Examples:
    folder.mkdir()
    examples = Examples(str(folder))
    splitting = Splitting(settings.pop("eval_share", 0.2), settings.pop("test_share", 0.2), seed=1)
    parameters = {"columns": COLUMNS, "reading": Reading(), "splitting": splitting, "max_reject_share": 0.0}
    context = Context(beam_options=flags)
    files = path if isinstance(path, RawFiles) else raw_files(path)
    ExampleGen.function(files=files, examples=examples, context=context, **(parameters | settings))
    return examples


def rows_of(examples: Examples) -> dict[str, list[tuple[str, ...]]]:
    result = {}
    for split in SPLITS:
        paths = sorted(tf.io.gfile.glob(examples.path(f"Split-{split}", "data_tfrecord-?????-of-?????")))
        records = [tf.train.Example.FromString(r) for r in tf.data.TFRecordDataset(paths).as_numpy_iterator()]
        columns = examples.properties["columns"]
        result[split] = [
            tuple(record.features.feature[column].bytes_list.value[0].decode() for column in columns)
            for record in records
        ]
    return result


def digest(examples: Examples) -> dict[str, str]:
    files = [path for path in sorted(pathlib.Path(examples.uri).rglob("*")) if path.is_file()]
    return {str(path.relative_to(examples.uri)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_every_row_is_in_one_split_in_the_order_of_the_file(tmp_path):
    examples = generate(write_tsv(tmp_path / "a.tsv", ROWS), tmp_path / "out")
    found = rows_of(examples)
    assert sorted(row for rows in found.values() for row in rows) == sorted(ROWS)
    assert all(rows == sorted(rows, key=ROWS.index) for rows in found.values())
    assert examples.properties["num_examples"] == {split: len(rows) for split, rows in found.items()}
    assert examples.properties["num_rows"] == 250
    assert 20 < len(found["eval"]) < 80


def test_two_runs_and_other_workers_write_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "SHARD_BYTES", 700)
    path = write_tsv(tmp_path / "a.tsv", ROWS)
    first = generate(path, tmp_path / "one")
    again = generate(path, tmp_path / "two")
    parallel = generate(path, tmp_path / "three", "--direct_num_workers=3", "--direct_running_mode=multi_threading")
    assert len(digest(first)) > 4 * 5
    assert digest(first) == digest(again) == digest(parallel)
    assert first.properties == again.properties == parallel.properties


def test_files_renamed_change_nothing(tmp_path):
    (tmp_path / "parts").mkdir()
    one, two = (write_tsv(tmp_path / "parts" / name, rows) for name, rows in (("a", ROWS[:100]), ("b", ROWS[100:])))
    before = digest(generate(tmp_path / "parts" / "*", tmp_path / "one"))
    one.rename(tmp_path / "parts" / "c")
    assert two.exists()
    assert digest(generate(tmp_path / "parts" / "*", tmp_path / "two")) == before


def test_a_row_keeps_its_split_wherever_it_stands(tmp_path, monkeypatch):
    straight = rows_of(generate(write_tsv(tmp_path / "a.tsv", ROWS), tmp_path / "one"))
    shuffled = random.Random(1).sample(ROWS, len(ROWS))
    monkeypatch.setattr(text_files, "SHARD_BYTES", 900)
    (tmp_path / "parts").mkdir()
    write_tsv(tmp_path / "parts" / "x.tsv", shuffled[:99])
    write_tsv(tmp_path / "parts" / "y.tsv", [row[::-1] for row in shuffled[99:]], header=("de", "en"))
    crooked = rows_of(generate(tmp_path / "parts" / "*.tsv", tmp_path / "two"))
    assert {split: set(rows) for split, rows in straight.items()} == {
        split: set(rows) for split, rows in crooked.items()
    }


@pytest.mark.parametrize("shard_bytes", [300, 1 << 20])
def test_every_damaged_row_is_rejected_with_its_line_and_reason(tmp_path, monkeypatch, shard_bytes):
    monkeypatch.setattr(text_files, "SHARD_BYTES", shard_bytes)
    damage = {
        10: (b"one cell", "wrong number of columns"),
        11: (b"one\ttwo\tthree", "wrong number of columns"),
        57: (b"", "wrong number of columns"),
        99: (b" \ttarget", "empty source"),
        100: (b"source\t", "empty target"),
        200: (b"caf\xe9\tcaf\xe9", "not valid UTF-8"),
        251: (b"lone \xed\xa0\x80\tsurrogate", "not valid UTF-8"),
    }
    lines = ["\t".join(row).encode() for row in (("en", "de"), *ROWS)]
    for number, (line, _) in damage.items():
        lines[number - 1] = line
    (tmp_path / "a.tsv").write_bytes(b"\n".join(lines))
    examples = generate(tmp_path / "a.tsv", tmp_path / "out", max_reject_share=0.05)
    rejects = [
        json.loads(line)
        for path in sorted((tmp_path / "out" / "rejects").iterdir())
        for line in path.read_text().splitlines()
    ]
    expected = [(str(tmp_path / "a.tsv"), number, reason) for number, (_, reason) in damage.items()]
    assert [(r["file"], r["line"], r["reason"]) for r in rejects] == expected
    kept = [row for number, row in enumerate(ROWS, start=2) if number not in damage]
    assert sorted(row for rows in rows_of(examples).values() for row in rows) == sorted(kept)
    found = examples.properties
    assert found["num_rows"] == 250 == sum(found["num_examples"].values()) + found["num_rejected"]
    reasons = collections.Counter(reason for _, reason in damage.values())
    assert found["num_rejected_by_reason"] == dict(reasons)


def test_too_many_rejects_end_the_run_and_name_the_first(tmp_path):
    rows = [*ROWS[:7], ("alone",), *ROWS[7:20], ("", "leer")]
    path = write_tsv(tmp_path / "a.tsv", rows)
    with pytest.raises(
        UserError, match=r"line 9: wrong number of columns \(1 instead of 2\): 'alone'.* 2 rejected rows out of 22"
    ):
        generate(path, tmp_path / "out", max_reject_share=0.05)


def test_windows_line_ends_and_byte_order_mark_are_no_part_of_the_text(tmp_path):
    plain = generate(write_tsv(tmp_path / "a.tsv", ROWS), tmp_path / "one")
    write_tsv(tmp_path / "b.tsv", ROWS, header=("\ufeffen", "de"), end="\r\n")
    assert digest(generate(tmp_path / "b.tsv", tmp_path / "two")) == digest(plain)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"a\.tsv: empty"),
        (b"en\tde\n", "only a header and no rows"),
        (b"english\tde\nHi\tHallo\n", r"line 1: no column 'en'.* It has: 'english', 'de'"),
        (b"eng\tde\nHi\tHallo\n", "no column 'en', did you mean 'eng'"),
        (b"en\ten\tde\nHi\tHo\tHallo\n", "several columns 'en'"),
        ("en\tde\nHi\tHallo\n".encode("utf-16"), "line 1: not valid UTF-8"),
        (b"en\tde\nHi\tHallo\n", r"no row of 1 falls into the (train|eval) split"),
    ],
)
def test_a_file_that_cannot_be_used_is_explained(tmp_path, content, message):
    (tmp_path / "a.tsv").write_bytes(content)
    path = tmp_path / "a.tsv"
    files = RawFiles(str(path), {"files": [{"path": str(path), "bytes": len(content), "sha256": ""}]})
    with pytest.raises(UserError, match=message):
        generate(files, tmp_path / "out")


def test_a_compressed_file_gives_the_same_examples_and_one_cut_off_gives_none(tmp_path):
    plain = write_tsv(tmp_path / "a.tsv", ROWS * 200)  # more than is read at a time
    packed = gzip.compress(plain.read_bytes())
    (tmp_path / "b.tsv.gz").write_bytes(packed)
    (tmp_path / "c.tsv.gz").write_bytes(packed[:-9])
    assert digest(generate(tmp_path / "b.tsv.gz", tmp_path / "one")) == digest(generate(plain, tmp_path / "two"))
    with pytest.raises(UserError, match=r"c\.tsv\.gz: cut off or damaged: .*; fetch or make the file again"):
        generate(tmp_path / "c.tsv.gz", tmp_path / "three")


@pytest.mark.parametrize("shares", [(0.0, 0.1), (0.5, 0.5), (-0.1, 0.2)])
def test_shares_that_leave_nothing_are_refused(tmp_path, shares):
    with pytest.raises(UserError, match="leave a split without rows"):
        generate(write_tsv(tmp_path / "a.tsv", ROWS), tmp_path / "out", eval_share=shares[0], test_share=shares[1])


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(), st.text().map(str.encode)))
def test_a_line_becomes_exactly_its_cells_or_is_rejected(line):
    try:
        row = parse_row(line, PAIR)
    except RejectedRowError as error:
        reason = str(error)
        cells = line.split(b"\t")
        assert (reason == "wrong number of columns") <= (len(cells) != 2)
        assert reason.startswith("empty") <= (len(cells) == 2)
    else:
        assert "\t".join(row.values()).encode() == line
        assert all(text.strip() for text in row.values())


@given(
    parts=st.lists(st.sampled_from(["haus", "Größe", "été", "straße", "Ω", "7", "2026", "x9"]), min_size=1),
    digits=st.integers(0, 10**6),
    seed=st.integers(0, 99),
)
def test_texts_equal_up_to_case_digits_and_spaces_share_a_split(parts, digits, seed):
    twin = "\u3000 ".join(re.sub(r"\d+", str(digits), part).upper() for part in parts)
    splitter = Splitter(0.3, 0.3, seed)
    assert splitter.split(f" {twin}\n") == splitter.split(" ".join(parts))


def test_splits_have_about_their_shares_and_another_seed_deals_anew():
    texts = [f"text {chr(97 + i % 26)}{chr(97 + i // 26 % 26)}{chr(97 + i // 676)}" for i in range(10_000)]
    one, two = ([Splitter(0.05, 0.1, seed).split(text) for text in texts] for seed in (1, 2))
    counts = collections.Counter(one)
    assert counts["eval"] == pytest.approx(500, abs=80)
    assert counts["test"] == pytest.approx(1000, abs=110)
    assert sum(a != b for a, b in zip(one, two, strict=True)) > 1500


def example(features: dict[str, list]) -> bytes:
    """Returns a serialised tf.Example."""
    result = tf.train.Example()
    for name, values in features.items():
        feature = result.features.feature[name]
        (feature.int64_list if isinstance(values[0], int) else feature.bytes_list).value.extend(values)
    return result.SerializeToString()


def write_formats(folder: pathlib.Path) -> dict[str, str]:
    """Writes ROWS in every format and returns what to give ExampleGen."""
    folder.mkdir()
    write_tsv(folder / "a.tsv", ROWS)
    with (folder / "a.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=";", quoting=csv.QUOTE_ALL).writerows(
            [("de", "id", "en"), *((d, 1, e) for e, d in ROWS)]
        )
    records = [{"en": en, "de": de} for en, de in ROWS]
    (folder / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    for side, name in enumerate(("a.en", "a.de")):
        (folder / name).write_text("".join(row[side] + "\n" for row in ROWS))
    table = pyarrow.table({"id": list(range(len(ROWS))), "pair": records})
    parquet.write_table(table, folder / "a.parquet", row_group_size=7)
    with tf.io.TFRecordWriter(str(folder / "a.tfrecord")) as file:
        for record in records:
            features = {name: [text.encode()] for name, text in record.items()}
            file.write(example(features))
    return {
        **{name: str(folder / name) for name in ("a.tsv", "a.csv", "a.jsonl", "a.parquet", "a.tfrecord")},
        "parallel": f"source={folder}/a.en,target={folder}/a.de",
    }


def test_the_same_rows_give_the_same_bytes_in_every_format(tmp_path):
    formats = write_formats(tmp_path / "files")
    nested = {"source": "pair.en", "target": "pair.de"}
    columns = {name: nested if name == "a.parquet" else COLUMNS for name in formats}
    digests = {name: digest(generate(formats[name], tmp_path / name, columns=columns[name])) for name in formats}
    assert all(found == digests["a.tsv"] for found in digests.values())


def test_given_files_keep_their_split_and_what_is_not_given_is_taken_from_training(tmp_path):
    for name, rows in (("train", ROWS[:200]), ("dev", ROWS[200:220]), ("test", ROWS[220:])):
        write_tsv(tmp_path / f"{name}.tsv", rows)
    given = f"train={tmp_path}/train.tsv,test={tmp_path}/test.tsv"
    found = rows_of(generate(f"{given},eval={tmp_path}/dev.tsv", tmp_path / "three"))
    assert found == {"train": ROWS[:200], "eval": ROWS[200:220], "test": ROWS[220:]}
    found = rows_of(generate(given, tmp_path / "two", test_share=0.9))
    assert found["test"] == ROWS[220:]
    assert sorted(found["train"] + found["eval"]) == sorted(ROWS[:200])
    assert 10 < len(found["eval"]) < 80


def test_parallel_files_may_be_given_by_split(tmp_path):
    for name, rows in (("train", ROWS[:200]), ("test", ROWS[220:])):
        for side, language in enumerate(("en", "de")):
            (tmp_path / f"{name}.{language}").write_text("".join(row[side] + "\n" for row in rows))
    roles = [f"{s}.{c}={tmp_path}/{s}.{e}" for s in ("train", "test") for c, e in (("source", "en"), ("target", "de"))]
    found = rows_of(generate(",".join(roles), tmp_path / "out"))
    assert found["test"] == ROWS[220:]


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ("source=a.en", r"there are 1 for source, 0 for target; give the same number of files for each of source"),
        ("source=a.en,text=a.de", "and some for text"),
        ("source=a.en,target=a.en", r"a\.en is named twice"),
        ("eval=a.tsv,test=b.tsv", "files for eval and test and none for train"),
    ],
)
def test_roles_that_do_not_go_together_are_explained(tmp_path, monkeypatch, roles, message):
    monkeypatch.chdir(tmp_path)
    for name in ("a.en", "a.de", "a.tsv", "b.tsv"):
        (tmp_path / name).write_text(f"{name}\n")
    with pytest.raises(UserError, match=message):
        generate(roles, tmp_path / "out")
