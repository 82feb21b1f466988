"""Files on any of Beam's file systems are read as local ones are: proved by one that lives in memory."""

import fnmatch
import gzip
import io
import pathlib

import pytest
from apache_beam.io.filesystem import BeamIOError, FileMetadata, FileSystem

from components.artifact import Examples, RawFiles
from components.component import Context
from components.errors import UserError
from components.example_gen import ExampleGen, Splitting
from components.file_formats import Reading
from pipeline.fingerprint import resolve_raw_files

BLOBS: dict[str, bytes] = {}


class MemoryFileSystem(FileSystem):
    """As much of an object store as reading needs; Beam finds it by its scheme."""

    @classmethod
    def scheme(cls):
        return "memory"

    def join(self, basepath, *paths):
        return "/".join([basepath.rstrip("/"), *paths])

    def split(self, path):
        return tuple(path.rsplit("/", 1))

    def has_dirs(self):
        return False

    def _list(self, dir_or_prefix):
        return (FileMetadata(path, len(blob), 1.0) for path, blob in BLOBS.items() if path.startswith(dir_or_prefix))

    def open(self, path, mime_type="", compression_type="auto"):
        if path not in BLOBS:
            raise BeamIOError(f"no blob {path}")
        return io.BytesIO(BLOBS[path])

    def exists(self, path):
        return any(fnmatch.fnmatch(name, path) for name in BLOBS)

    def checksum(self, path):
        return str(hash(BLOBS[path]))

    def metadata(self, path):
        return FileMetadata(path, len(BLOBS[path]), 1.0)

    def size(self, path):
        return len(BLOBS[path])

    def last_updated(self, path):
        return 1.0

    def _read_only(self, *arguments, **settings):
        raise NotImplementedError

    mkdirs = create = copy = rename = delete = _read_only


@pytest.fixture
def store():
    BLOBS.clear()
    rows = "".join(f"light {number}\tLicht {number}\n" for number in "abcdefghijklmnopqrstuvwxyz")
    BLOBS["memory://bucket/text/a.tsv"] = f"source\ttarget\n{rows}".encode()
    BLOBS["memory://bucket/text/b.tsv.gz"] = gzip.compress(f"source\ttarget\n{rows.upper()}".encode())
    return BLOBS


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
