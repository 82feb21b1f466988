"""The quality benchmarks, which are run by hand: their configs are valid, and the table of results is up to date."""

import pathlib

import pytest

from seq2serve.pipeline.config import preset, with_columns, with_settings

FOLDER = pathlib.Path(__file__).parent / "benchmarks" / "quality"
NAMES = sorted(path.stem for path in FOLDER.glob("*.toml"))


@pytest.fixture(scope="module")
def quality(load_script):
    """benchmarks/quality/run.py as a module."""
    return load_script(FOLDER / "run.py")


@pytest.mark.parametrize("name", NAMES)
def test_a_config_is_valid_for_the_pipeline(quality, name):
    benchmark = quality.load(name)
    config = with_columns(
        with_settings(preset(benchmark.preset, benchmark.task), benchmark.settings), benchmark.columns
    )
    assert config.task == benchmark.task
    for file in benchmark.files:
        role, _, path = file.rpartition("=")
        assert role.split(".")[0] in ("", "train", "eval", "test")
        assert path.startswith(("{data}/", "{work}/"))


def test_the_table_of_the_readme_has_the_recorded_results(quality, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_bytes(quality.README.read_bytes())
    quality.write_table(readme)
    assert readme.read_text(encoding="utf-8") == quality.README.read_text(encoding="utf-8")
