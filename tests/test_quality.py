"""The quality benchmarks, which are run by hand: their configs are valid, and the README's table is of their results.

Comes in: tests/benchmarks/quality. Goes out: nothing.
Read next: benchmarks/quality/run.py.
"""

import pathlib

import pytest

from pipeline.config import preset, with_settings

FOLDER = pathlib.Path(__file__).parent / "benchmarks" / "quality"
NAMES = sorted(path.stem for path in FOLDER.glob("*.toml"))


@pytest.fixture(scope="module")
def quality(load_script):
    """The script that runs the benchmarks, as a module."""
    return load_script(FOLDER / "run.py")


@pytest.mark.parametrize("name", NAMES)
def test_a_config_is_one_of_the_pipeline(quality, name):
    benchmark = quality.load(name)
    config = with_settings(preset(benchmark.preset, benchmark.task), benchmark.settings)
    assert config.task == benchmark.task
    for file in benchmark.files:
        role, path = file.split("=")
        assert role.split(".")[0] in ("train", "eval", "test")
        assert path.startswith(("{data}/", "{work}/"))


def test_the_readme_shows_the_results_as_they_are(quality, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_bytes(quality.README.read_bytes())
    quality.write_table(readme)
    assert readme.read_text(encoding="utf-8") == quality.README.read_text(encoding="utf-8")
