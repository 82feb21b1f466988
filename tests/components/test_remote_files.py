"""Files on any of Beam's file systems are read as local ones are: proved by one that lives in memory."""

import gzip
import pathlib

import pytest

from components.artifact import Examples, RawFiles
from components.component import Context
from components.errors import UserError
from components.example_gen import ExampleGen, Splitting
from components.file_formats import Reading
from pipeline.fingerprint import resolve_raw_files


@pytest.fixture
def store(blobs):
    rows = "".join(f"light {number}\tLicht {number}\n" for number in "abcdefghijklmnopqrstuvwxyz")
    blobs["memory://bucket/text/a.tsv"] = f"source\ttarget\n{rows}".encode()
    blobs["memory://bucket/text/b.tsv.gz"] = gzip.compress(f"source\ttarget\n{rows.upper()}".encode())
    return blobs


def generate(uri: str, folder: pathlib.Path) -> dict[str, bytes]:
    folder.mkdir()
    ExampleGen.function(
        files=resolve_raw_files(RawFiles(uri)),
        examples=Examples(str(folder)),
        columns={"source": "source", "target": "target"},
        reading=Reading(),
        splitting=Splitting(0.2, 0.2),
        max_reject_share=0,
        context=Context(),
    )
    return {path.parent.name: path.read_bytes() for path in folder.rglob("data_tfrecord-00000-*")}


def test_what_lies_in_a_store_is_read_as_what_lies_here(store, tmp_path):
    (tmp_path / "a.tsv").write_bytes(store["memory://bucket/text/a.tsv"])
    here = generate(str(tmp_path / "a.tsv"), tmp_path / "here")
    assert generate("memory://bucket/text/a.tsv", tmp_path / "there") == here
    both = resolve_raw_files(RawFiles("memory://bucket/text/*")).properties["files"]
    assert [file["path"] for file in both] == sorted(store)
    generate("memory://bucket/text/*", tmp_path / "both")


def test_a_fingerprint_follows_what_the_store_says_of_a_file(store):
    first, again = (resolve_raw_files(RawFiles("memory://bucket/text/a.tsv")).fingerprint for _ in range(2))
    assert first == again
    store["memory://bucket/text/a.tsv"] += b"one\tmore\n"
    assert resolve_raw_files(RawFiles("memory://bucket/text/a.tsv")).fingerprint != first


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("memory://bucket/other/*", r"^no file 'memory://bucket/other/\*'"),
        ("memory://bucket/empty", "^memory://bucket/empty is empty"),
        ("nowhere://bucket/a.tsv", r"^cannot read nowhere://bucket/a\.tsv: .*seq2serve\[gcp\]"),
    ],
)
def test_what_is_not_there_is_said(store, uri, message):
    store["memory://bucket/empty"] = b""
    with pytest.raises(UserError, match=message):
        resolve_raw_files(RawFiles(uri))
