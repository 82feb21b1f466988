"""ExampleGen: every row is an example or a reject, and splits and bytes depend only on the rows."""

import collections
import csv
import gzip
import hashlib
import json
import pathlib
import random
import re
import string

import pyarrow
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from seq2serve.components.base.artifact import SPLITS, Examples, RawFiles
from seq2serve.components.base.component import Context
from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen import text_files
from seq2serve.components.example_gen.component import ExampleGen
from seq2serve.components.example_gen.config import InputConfig, SplitConfig
from seq2serve.components.example_gen.readers.base import Layout, RejectedRowError
from seq2serve.components.example_gen.readers.tsv import TsvReader
from seq2serve.components.example_gen.splitting import Splitter
from seq2serve.pipeline.running.raw_files import resolve_raw_files

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
    split_config = SplitConfig(
        settings.pop("eval_share", 0.2),
        settings.pop("test_share", 0.2),
        1,
        settings.pop("split_key", "loose"),
        settings.pop("drop_overlap", False),
    )
    parameters = {
        "columns": COLUMNS,
        "input_config": InputConfig(),
        "split_config": split_config,
        "max_reject_share": 0.0,
    }
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


def rejects_of(examples: Examples) -> list[dict]:
    paths = sorted(pathlib.Path(examples.path("rejects")).iterdir())
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def digest(examples: Examples) -> dict[str, str]:
    files = [path for path in sorted(pathlib.Path(examples.uri).rglob("*")) if path.is_file()]
    return {str(path.relative_to(examples.uri)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_every_row_is_in_one_split_in_file_order(tmp_path):
    examples = generate(write_tsv(tmp_path / "a.tsv", ROWS), tmp_path / "out")
    splits = rows_of(examples)
    assert sorted(row for rows in splits.values() for row in rows) == sorted(ROWS)
    assert all(rows == sorted(rows, key=ROWS.index) for rows in splits.values())
    assert examples.properties["num_examples"] == {split: len(rows) for split, rows in splits.items()}
    assert examples.properties["num_rows"] == 250
    assert 20 < len(splits["eval"]) < 80


def test_the_bytes_are_the_same_in_every_run_and_for_any_number_of_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "SHARD_BYTES", 700)
    path = write_tsv(tmp_path / "a.tsv", ROWS)
    first = generate(path, tmp_path / "one")
    again = generate(path, tmp_path / "two")
    parallel = generate(path, tmp_path / "three", "--direct_num_workers=3", "--direct_running_mode=multi_threading")
    assert len(digest(first)) > 4 * 5
    assert digest(first) == digest(again) == digest(parallel)
    assert first.properties == again.properties == parallel.properties


def test_renaming_files_does_not_change_the_bytes(tmp_path):
    (tmp_path / "parts").mkdir()
    one, two = (write_tsv(tmp_path / "parts" / name, rows) for name, rows in (("a", ROWS[:100]), ("b", ROWS[100:])))
    before = digest(generate(tmp_path / "parts" / "*", tmp_path / "one"))
    one.rename(tmp_path / "parts" / "c")
    assert two.exists()
    assert digest(generate(tmp_path / "parts" / "*", tmp_path / "two")) == before


def test_the_split_of_a_row_does_not_depend_on_its_position_or_file(tmp_path, monkeypatch):
    in_order = rows_of(generate(write_tsv(tmp_path / "a.tsv", ROWS), tmp_path / "one"))
    shuffled = random.Random(1).sample(ROWS, len(ROWS))
    monkeypatch.setattr(text_files, "SHARD_BYTES", 900)
    (tmp_path / "parts").mkdir()
    write_tsv(tmp_path / "parts" / "x.tsv", shuffled[:99])
    write_tsv(tmp_path / "parts" / "y.tsv", [row[::-1] for row in shuffled[99:]], header=("de", "en"))
    reordered = rows_of(generate(tmp_path / "parts" / "*.tsv", tmp_path / "two"))
    assert {split: set(rows) for split, rows in in_order.items()} == {
        split: set(rows) for split, rows in reordered.items()
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
    rejects = rejects_of(examples)
    expected = [(str(tmp_path / "a.tsv"), number, reason) for number, (_, reason) in damage.items()]
    assert [(r["file"], r["line"], r["reason"]) for r in rejects] == expected
    valid = [row for number, row in enumerate(ROWS, start=2) if number not in damage]
    assert sorted(row for rows in rows_of(examples).values() for row in rows) == sorted(valid)
    properties = examples.properties
    assert properties["num_rows"] == 250 == sum(properties["num_examples"].values()) + properties["num_rejected"]
    reasons = collections.Counter(reason for _, reason in damage.values())
    assert properties["num_rejected_by_reason"] == dict(reasons)


DAMAGED = b'{"t": '


@pytest.mark.parametrize("flags", [(), ("--direct_num_workers=3", "--direct_running_mode=multi_threading")])
def test_rejects_are_numbered_through_each_file_whatever_shares_its_shards(tmp_path, monkeypatch, flags):
    monkeypatch.setattr(text_files, "SHARD_BYTES", 300)
    random_lines = random.Random(1)
    expected = {}
    for name, end in (("a.jsonl", b"\n"), ("b.jsonl", b"\r\n"), ("c.jsonl.gz", b"\n"), ("d.jsonl", b"\n")):
        lines = [json.dumps({"t": f"{name} {source}"}).encode() for source, _ in ROWS[:120]]
        for number in (0, 40, 41, 119):  # at the beginning, at the end, and blank lines anywhere
            lines[number] = DAMAGED
        for number in random_lines.sample(range(1, 120), 20):
            lines.insert(number, b"")
        content = b"\xef\xbb\xbf" * (name == "d.jsonl") + end.join(lines)
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        expected[str(tmp_path / name)] = [number for number, line in enumerate(lines, start=1) if line == DAMAGED]
    examples = generate(
        tmp_path / "*.jsonl*", tmp_path / "out", *flags, columns={"text": "t"}, max_reject_share=0.5, eval_share=0.3
    )
    lines_by_file = collections.defaultdict(list)
    for reject in rejects_of(examples):
        assert (reject["reason"], reject["text"]) == ("not valid JSON", DAMAGED.decode())
        lines_by_file[reject["file"]].append(reject["line"])
    assert lines_by_file == expected


def test_the_first_reject_of_a_file_is_named_with_its_line_in_a_later_segment(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "SHARD_BYTES", 300)
    path = write_tsv(tmp_path / "a.tsv", [*ROWS, ("alone",)])
    with pytest.raises(UserError, match=r"a\.tsv, line 252: wrong number of columns") as error:
        generate(path, tmp_path / "out")
    assert error.value.fields["line"] == 252


def test_lines_are_read_once_and_files_whose_rows_span_lines_twice(tmp_path, monkeypatch, bytes_read):
    monkeypatch.setattr(text_files, "SHARD_BYTES", 100_000)
    monkeypatch.setattr(text_files, "_CHUNK_BYTES", 1000)
    content = "".join(f"Line {chr(97 + i % 26)}{chr(97 + i // 26 % 26)} of the text.\n\n" for i in range(40_000))
    reads = {}
    for unit in ("line", "paragraph"):
        (tmp_path / f"text-{unit}.txt").write_text(content)
        bytes_read()
        config = {"columns": {"text": "text"}, "input_config": InputConfig(unit=unit)}
        generate(tmp_path / f"text-{unit}.txt", tmp_path / unit, **config)
        reads[unit] = bytes_read() / len(content)
    assert reads == pytest.approx({"line": 1, "paragraph": 2}, abs=0.15)


def test_too_many_rejects_are_an_error_that_shows_the_first(tmp_path):
    rows = [*ROWS[:7], ("alone",), *ROWS[7:20], ("", "leer")]
    path = write_tsv(tmp_path / "a.tsv", rows)
    with pytest.raises(UserError) as error:
        generate(path, tmp_path / "out", max_reject_share=0.05)
    assert error.value.code == "too-many-rejects"
    assert error.value.fields == {
        "path": str(path),
        "line": 9,
        "reason": "wrong number of columns",
        "detail": "1 instead of 2",
        "num_rejected": 2,
        "num_rows": 22,
    }


def test_windows_line_ends_and_a_byte_order_mark_are_not_part_of_the_text(tmp_path):
    plain = generate(write_tsv(tmp_path / "a.tsv", ROWS), tmp_path / "one")
    write_tsv(tmp_path / "b.tsv", ROWS, header=("\ufeffen", "de"), end="\r\n")
    assert digest(generate(tmp_path / "b.tsv", tmp_path / "two")) == digest(plain)


@pytest.mark.parametrize(
    ("content", "code", "fields", "wording"),
    [
        (b"", "file-empty", {}, "a.tsv is empty; its first line must name the columns, separated by tabs"),
        (b"en\tde\n", "rows-missing", {}, "a.tsv: there is a header but no rows; add one row per line"),
        (
            b"english\tde\nHi\tHallo\n",
            "column-missing",
            {"line": 1, "column": "en", "nearest": ""},
            "a.tsv, line 1: no column 'en'. The file has: 'english', 'de'. Pass the right name with --source",
        ),
        (
            b"eng\tde\nHi\tHallo\n",
            "column-missing",
            {"line": 1, "column": "en", "nearest": "eng"},
            "no column 'en', did you mean 'eng'?",
        ),
        (
            b"en\ten\tde\nHi\tHo\tHallo\n",
            "column-ambiguous",
            {"line": 1, "column": "en"},
            "a.tsv, line 1: several columns 'en'. The file has: 'en', 'en', 'de'. Rename all but one",
        ),
        (
            b"Hi\tHallo\nBye\tTsch\xc3\xbcs\n",
            "column-missing",
            {"line": 1, "column": "en"},
            "If the file has no header, pass numbers: --source 1 --target 2",
        ),
        (b"en\tde \xe9\nHi\tHallo\n", "encoding-invalid", {"line": 1}, "line 1: not valid UTF-8"),
        (b"en\tde\nHi\tHallo\n", "split-empty", {"num_rows": 1, "num_distinct": 1}, "none of 1 rows falls into the "),
    ],
)
def test_an_unusable_file_is_an_error(tmp_path, content, code, fields, wording):
    (tmp_path / "a.tsv").write_bytes(content)
    path = tmp_path / "a.tsv"
    files = RawFiles(str(path), {"files": [{"path": str(path), "bytes": len(content), "sha256": ""}]})
    with pytest.raises(UserError) as error:
        generate(files, tmp_path / "out")
    assert error.value.code == code
    assert error.value.fields | fields | {"path": str(path)} == error.value.fields
    assert wording in str(error.value)


def test_a_compressed_file_gives_the_same_examples_and_a_truncated_one_is_an_error(tmp_path):
    plain = write_tsv(tmp_path / "a.tsv", ROWS * 200)  # larger than the read buffer
    packed = gzip.compress(plain.read_bytes())
    (tmp_path / "b.tsv.gz").write_bytes(packed)
    (tmp_path / "c.tsv.gz").write_bytes(packed[:-9])
    assert digest(generate(tmp_path / "b.tsv.gz", tmp_path / "one")) == digest(generate(plain, tmp_path / "two"))
    message = r"c\.tsv\.gz: truncated or corrupt: .*; download or create the file again"
    with pytest.raises(UserError, match=message) as error:
        generate(tmp_path / "c.tsv.gz", tmp_path / "three")
    assert (error.value.code, error.value.fields) == ("file-damaged", {"path": str(tmp_path / "c.tsv.gz")})


@pytest.mark.parametrize("shares", [(0.0, 0.1), (0.5, 0.5), (-0.1, 0.2)])
def test_shares_that_leave_a_split_without_rows_are_an_error(tmp_path, shares):
    with pytest.raises(UserError, match="leave a split without rows; set each above 0 and their sum below 1") as error:
        generate(write_tsv(tmp_path / "a.tsv", ROWS), tmp_path / "out", eval_share=shares[0], test_share=shares[1])
    assert error.value.code == "split-shares-invalid"
    assert error.value.fields == {"eval_share": shares[0], "test_share": shares[1]}


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(), st.text().map(str.encode)))
def test_a_line_is_split_into_its_exact_cells_or_rejected(line):
    reader = TsvReader(PAIR, "\t", first_row=2, note="")
    try:
        row = reader.parse(line)
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
    near_duplicate = "\u3000 ".join(re.sub(r"\d+", str(digits), part).upper() for part in parts)
    splitter = Splitter(0.3, 0.3, seed)
    assert splitter.split(f" {near_duplicate}\n") == splitter.split(" ".join(parts))


def test_splits_have_about_their_shares_and_depend_on_the_seed():
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
    """Writes ROWS in every format and returns name -> the files as on the command line."""
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
    assert all(one == digests["a.tsv"] for one in digests.values())


def test_line_ends_tabs_and_spaces_in_a_text_are_kept(tmp_path):
    texts = [
        "def f(x):\n\treturn x\n",
        "  a  b \n\n    c",
        "\n\tz\t",
        *(f" {letter}\n" for letter in string.ascii_letters),
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"t": text}) + "\n" for text in texts))
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("t",), *((text,) for text in texts)])
    parquet.write_table(pyarrow.table({"t": texts}), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        splits = rows_of(generate(tmp_path / name, tmp_path / f"{name}-out", columns={"text": "t"}))
        assert sorted(text for rows in splits.values() for (text,) in rows) == sorted(texts)
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.txt").write_text(text)
    whole = {"columns": {"text": "text"}, "input_config": InputConfig(unit="file")}
    splits = rows_of(generate(f"{tmp_path}/*.txt", tmp_path / "txt-out", **whole))
    assert sorted(text for rows in splits.values() for (text,) in rows) == sorted(
        text.removesuffix("\n") for text in texts
    )


def test_files_of_a_split_keep_it_and_splits_without_files_are_taken_from_training(tmp_path):
    for name, rows in (("train", ROWS[:200]), ("dev", ROWS[200:220]), ("test", ROWS[220:])):
        write_tsv(tmp_path / f"{name}.tsv", rows)
    train_and_test = f"train={tmp_path}/train.tsv,test={tmp_path}/test.tsv"
    splits = rows_of(generate(f"{train_and_test},eval={tmp_path}/dev.tsv", tmp_path / "three"))
    assert splits == {"train": ROWS[:200], "eval": ROWS[200:220], "test": ROWS[220:]}
    splits = rows_of(generate(train_and_test, tmp_path / "two", test_share=0.9))
    assert splits["test"] == ROWS[220:]
    assert sorted(splits["train"] + splits["eval"]) == sorted(ROWS[:200])
    assert 10 < len(splits["eval"]) < 80


def test_white_space_around_labels_is_removed(tmp_path):
    rows = [
        (f"a text {chr(97 + i // 26)}{chr(97 + i % 26)} ", ("up", " up", "up\u00a0", "UP ")[i % 4]) for i in range(200)
    ]
    path = write_tsv(tmp_path / "a.tsv", rows, header=("text", "label"))
    columns = {"columns": {"text": "text", "label": "label"}, "input_config": InputConfig(label_columns=("label",))}
    written = [row for split in rows_of(generate(path, tmp_path / "out", **columns)).values() for row in split]
    assert sorted(written) == sorted((text, label.strip()) for text, label in rows)


def test_parallel_files_may_be_assigned_to_splits(tmp_path):
    for name, rows in (("train", ROWS[:200]), ("test", ROWS[220:])):
        for side, language in enumerate(("en", "de")):
            (tmp_path / f"{name}.{language}").write_text("".join(row[side] + "\n" for row in rows))
    roles = [f"{s}.{c}={tmp_path}/{s}.{e}" for s in ("train", "test") for c, e in (("source", "en"), ("target", "de"))]
    assert rows_of(generate(",".join(roles), tmp_path / "out"))["test"] == ROWS[220:]


@pytest.mark.parametrize(
    ("roles", "code", "fields", "wording"),
    [
        (
            "source=a.en",
            "parallel-files-mismatched",
            {"counts": {"source": 1, "target": 0}, "unknown": []},
            "there are 1 for source, 0 for target; name the same number of files for each of source, target, such as",
        ),
        (
            "source=a.en,text=a.de",
            "parallel-files-mismatched",
            {"counts": {"source": 1, "target": 0}, "unknown": ["text"]},
            "there are 1 for source, 0 for target, and some for the unknown column text; name",
        ),
        ("source=a.en,target=a.en", "file-repeated", {}, "a.en is named twice; name each file once"),
        (
            "eval=a.tsv,test=b.tsv",
            "train-files-missing",
            {"splits": ["eval", "test"]},
            "there are files for eval and test but none for train; add train=FILE",
        ),
    ],
)
def test_inconsistent_roles_are_an_error(tmp_path, monkeypatch, roles, code, fields, wording):
    monkeypatch.chdir(tmp_path)
    for name in ("a.en", "a.de", "a.tsv", "b.tsv"):
        (tmp_path / name).write_text(f"{name}\n")
    with pytest.raises(UserError) as error:
        generate(roles, tmp_path / "out")
    assert error.value.code == code
    assert error.value.fields | fields == error.value.fields
    assert wording in str(error.value)
