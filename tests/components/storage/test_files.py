"""Files on any of Beam's file systems are read like local files; the tests use one in memory."""

import gzip
import json
import pathlib

import pytest

from seq2serve.components.base.artifact import Examples, RawFiles
from seq2serve.components.base.component import Context
from seq2serve.components.base.errors import Seq2ServeError, UserError
from seq2serve.components.example_gen import text_files
from seq2serve.components.example_gen.component import ExampleGen
from seq2serve.components.example_gen.config import InputConfig, SplitConfig
from seq2serve.components.storage.beam_files import write_file
from seq2serve.pipeline.running.raw_files import resolve_raw_files


@pytest.fixture
def store(blobs):
    rows = "".join(f"light {number}\tLicht {number}\n" for number in "abcdefghijklmnopqrstuvwxyz")
    blobs["memory://bucket/text/a.tsv"] = f"source\ttarget\n{rows}".encode()
    blobs["memory://bucket/text/b.tsv.gz"] = gzip.compress(f"source\ttarget\n{rows.upper()}".encode())
    return blobs


def generate(uri: str, folder: pathlib.Path) -> dict[str, bytes]:
    """Runs ExampleGen and returns split folder -> content of its first shard."""
    folder.mkdir()
    ExampleGen.function(
        files=resolve_raw_files(RawFiles(uri)),
        examples=Examples(str(folder)),
        columns={"source": "source", "target": "target"},
        input_config=InputConfig(),
        split_config=SplitConfig(0.2, 0.2),
        max_reject_share=0,
        context=Context(),
    )
    return {path.parent.name: path.read_bytes() for path in folder.rglob("data_tfrecord-00000-*")}


def test_remote_files_give_the_same_examples_as_local_files(store, tmp_path):
    (tmp_path / "a.tsv").write_bytes(store["memory://bucket/text/a.tsv"])
    local = generate(str(tmp_path / "a.tsv"), tmp_path / "local")
    assert generate("memory://bucket/text/a.tsv", tmp_path / "remote") == local
    both = resolve_raw_files(RawFiles("memory://bucket/text/*")).properties["files"]
    assert [file["path"] for file in both] == sorted(store)
    generate("memory://bucket/text/*", tmp_path / "both")


def test_rejects_in_a_store_have_the_lines_of_their_file(store, monkeypatch):
    monkeypatch.setattr(text_files, "SHARD_BYTES", 100)
    store["memory://bucket/text/a.tsv"] += b"alone\nlast\tline\nalso alone"
    examples = Examples("memory://bucket/examples")
    config, shares = InputConfig(), SplitConfig(0.2, 0.2)
    files = resolve_raw_files(RawFiles("memory://bucket/text/a.tsv"))
    columns = {"source": "source", "target": "target"}
    ExampleGen.function(files, examples, columns, config, shares, max_reject_share=0.1, context=Context())
    rejects = [blob.splitlines() for path, blob in sorted(store.items()) if path.startswith(f"{examples.uri}/rejects")]
    lines = [json.loads(line)["line"] for shard in rejects for line in shard]
    assert (len(rejects) > 1, lines) == (True, [28, 30])


def test_a_fingerprint_depends_on_the_checksum_in_the_store(store):
    first, again = (resolve_raw_files(RawFiles("memory://bucket/text/a.tsv")).fingerprint for _ in range(2))
    assert first == again
    store["memory://bucket/text/a.tsv"] += b"one\tmore\n"
    assert resolve_raw_files(RawFiles("memory://bucket/text/a.tsv")).fingerprint != first


@pytest.mark.parametrize(
    ("uri", "code", "message"),
    [
        (
            "memory://bucket/other/*",
            "file-missing",
            r"^file not found: 'memory://bucket/other/\*'; name an existing file or a pattern that matches some$",
        ),
        (
            "memory://bucket/empty",
            "file-empty",
            "^memory://bucket/empty is empty; it needs at least a header and some rows$",
        ),
        (
            "nowhere://bucket/a.tsv",
            "file-unreadable",
            r"^cannot read nowhere://bucket/a\.tsv: .* \(gs:// needs the extra gcp: pip install 'seq2serve\[gcp\]'\)$",
        ),
    ],
)
def test_unusable_remote_files_are_user_errors(store, uri, code, message):
    store["memory://bucket/empty"] = b""
    with pytest.raises(UserError, match=message) as error:
        resolve_raw_files(RawFiles(uri))
    assert (error.value.code, error.value.fields) == (code, {"path": uri})


def test_errors_of_a_store_have_one_type_and_their_cause(blobs):
    with pytest.raises(Seq2ServeError, match=r"^cannot reach memory://closed/a: [\w ]+$") as error:
        write_file("memory://closed/a", b"")
    assert (error.value.code, error.value.fields) == ("url-unreachable", {"path": "memory://closed/a"})
