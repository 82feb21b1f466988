"""The user's files: found by path or pattern, identified by their contents, and checked before anything runs."""

from pathlib import Path

import pytest

from seq2serve.components.base.artifact import PretrainedFiles, RawFiles
from seq2serve.components.base.errors import UserError
from seq2serve.pipeline.running.raw_files import resolve_raw_files


def write(folder: Path, **contents: str) -> None:
    """Writes files, named <keyword>.tsv."""
    for name, content in contents.items():
        (folder / f"{name}.tsv").write_text(content)


def test_the_contents_identify_the_files_and_their_names_do_not(tmp_path):
    write(tmp_path, a="1", b="2")
    both = resolve_raw_files(RawFiles(str(tmp_path / "*.tsv")))
    (tmp_path / "a.tsv").rename(tmp_path / "z.tsv")
    renamed = resolve_raw_files(RawFiles(str(tmp_path / "*.tsv")))
    assert both.fingerprint == renamed.fingerprint
    assert [Path(file["path"]).name for file in renamed.properties["files"]] == ["b.tsv", "z.tsv"]
    (tmp_path / "z.tsv").write_text("3")
    assert resolve_raw_files(RawFiles(str(tmp_path / "*.tsv"))).fingerprint != both.fingerprint


def test_the_files_of_a_pretrained_model_are_identified_by_their_names_too(tmp_path):
    """The vocabularies of two languages may be swapped."""
    names = ("srcvocab.spm", "trgvocab.spm")
    fingerprints = []
    for order in (names, names[::-1]):
        for name, content in zip(order, "ab", strict=True):
            (tmp_path / name).write_text(content)
        fingerprints.append(resolve_raw_files(PretrainedFiles(str(tmp_path / "*"))).fingerprint)
    assert fingerprints[0] != fingerprints[1]


def test_role_format_and_the_order_of_parallel_files_change_the_fingerprint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, a="1", b="2")
    (tmp_path / "a.csv").write_text("1")
    uris = ("a.tsv", "a.csv", "train=a.tsv", "train=a.tsv,test=b.tsv", "train=b.tsv,test=a.tsv", "source=a.tsv")
    resolved = [resolve_raw_files(RawFiles(uri)) for uri in (*uris, "source=*.tsv", "source=b.tsv,source=a.tsv")]
    assert len({files.fingerprint for files in resolved}) == len(resolved)
    assert [file["column"] for file in resolved[-1].properties["files"]] == ["source", "source"]


def test_an_existing_file_with_brackets_in_its_name_is_not_a_pattern(tmp_path):
    (tmp_path / "a[1].tsv").write_text("1")
    assert len(resolve_raw_files(RawFiles(str(tmp_path / "a[1].tsv"))).properties["files"]) == 1


def test_a_pattern_works_in_a_folder_with_brackets_in_its_name(tmp_path):
    for folder in ("my [old]", "my o"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, a="1")
    (file,) = resolve_raw_files(RawFiles(str(tmp_path / "my [old]" / "*.tsv"))).properties["files"]
    assert file["path"] == str(tmp_path / "my [old]" / "a.tsv")


def test_a_pattern_ignores_folders(tmp_path):
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep", a="1")
    assert len(resolve_raw_files(RawFiles(str(tmp_path / "**"))).properties["files"]) == 1


def test_empty_files_of_a_pattern_are_left_to_example_gen_unless_all_are_empty(tmp_path):
    write(tmp_path, a="1", b="", c="")
    resolved = resolve_raw_files(RawFiles(str(tmp_path / "*.tsv")))
    assert [file["bytes"] for file in resolved.properties["files"]] == [1, 0, 0]
    (tmp_path / "a.tsv").unlink()
    with pytest.raises(UserError) as error:
        resolve_raw_files(RawFiles(str(tmp_path / "*.tsv")))
    assert error.value.code == "file-empty"
    assert [part["path"] for part in error.value.fields["errors"]] == [str(tmp_path / f"{name}.tsv") for name in "bc"]


def test_all_unusable_files_are_in_one_error(tmp_path):
    write(tmp_path, a="1", b="")
    for index in range(25):
        (tmp_path / f"x{index:02}.tsv").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError) as error:
        resolve_raw_files(RawFiles(f"train={tmp_path}/missing.tsv,eval={tmp_path}/b.tsv,test={tmp_path}/x*.tsv"))
    message = str(error.value)
    assert message.startswith("27 files cannot be used:\n")
    assert f"\n  file not found: '{tmp_path}/missing.tsv'" in message
    assert f"\n  {tmp_path}/b.tsv is empty; " in message
    assert f"\n  cannot read {tmp_path}/x00.tsv: No such file or directory\n    also {tmp_path}/x01.tsv, " in message
    assert message.endswith("\n  and 7 more")
    assert (error.value.code, len(error.value.fields["errors"])) == ("files-unusable", 27)


def test_an_unreadable_file_is_an_error(tmp_path):
    link = tmp_path / "a.tsv"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError) as error:
        resolve_raw_files(RawFiles(str(link)))
    assert (error.value.code, error.value.fields) == ("file-unreadable", {"path": str(link)})


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("missing.tsv", r"^file not found: 'missing.tsv' \(in /.*\); name an existing file or a pattern that matches"),
        (".", r"^/.* is a folder; name its files, as in '/.*/\*\.tsv'$"),
        ("empty.tsv", r"^/.*/empty.tsv is empty; it needs at least a header and some rows$"),
        ("link.tsv", r"^cannot read /.*/link.tsv: No such file"),
    ],
)
def test_an_error_has_the_path_and_a_way_to_fix_it(tmp_path, monkeypatch, uri, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, empty="")
    (tmp_path / "link.tsv").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=message):
        resolve_raw_files(RawFiles(uri))
