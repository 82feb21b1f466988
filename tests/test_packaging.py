"""The package: complete in every kind of install, alone in site-packages, and undisturbed by a user's own modules."""

import json
import pathlib
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = ("pipeline", "components", "models")
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
# A user's own files, whose names are those of our folders.
USER_FILES = {
    "models.py": "raise ImportError",
    "components.py": "raise ImportError",
    "pipeline/__init__.py": "raise ImportError",
}


def module_name(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    inner = parts[2:] if parts[:2] == ("pipeline", "api") else parts
    return ".".join(["seq2serve", *inner]).removesuffix(".__init__")


def sources() -> dict[str, pathlib.Path]:
    return {module_name(path): path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The project as a wheel, built from a copy so that no build folder is left in the checkout."""
    source = tmp_path_factory.mktemp("source")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    target = tmp_path_factory.mktemp("wheel")
    options = ("--quiet", "--no-deps", "--no-build-isolation", f"--wheel-dir={target}")
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True)
    (path,) = target.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder with the wheel's contents, as pip would unpack them into site-packages."""
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


@pytest.fixture
def run_installed(installed, tmp_path):
    """Returns a function that runs Python in a user's folder, with the wheel in place of the editable install."""
    for name, content in USER_FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)

    def run(*arguments: str) -> str:
        # The editable install's finder comes after the path, so that the wheel comes first.
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={"PYTHONPATH": str(installed), "PATH": "", "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_every_package_is_listed():
    packages = {name for name, path in sources().items() if path.name == "__init__.py"}
    assert sorted(SETUPTOOLS["packages"]) == sorted(packages)


def test_every_folder_with_modules_is_a_package():
    assert not [path for path in sources().values() if not (path.parent / "__init__.py").exists()]


def test_the_wheel_holds_every_file_and_nothing_else(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    code = {path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()}
    ours = {path.relative_to(ROOT) for path in code if "__pycache__" not in path.parts}
    unpacked = {path for path in ours if path.name not in ("README.md", "Dockerfile")}
    expected = {
        "/".join(("seq2serve", *(path.parts[2:] if path.parts[:2] == ("pipeline", "api") else path.parts)))
        for path in unpacked
    }
    assert names == expected


def test_a_user_s_own_modules_do_not_matter(run_installed):
    assert "Raw text in" in run_installed("-m", "seq2serve", "--help")
    assert "Raw text in" in run_installed("-c", "from seq2serve.pipeline.commands.app import main; main()", "--help")
    path = run_installed("-c", "import seq2serve; seq2serve.run, seq2serve.load; print(seq2serve.__file__)")
    assert path.strip().endswith("site0/seq2serve/__init__.py")


FINGERPRINT = """
import json
from seq2serve.pipeline.config import preset
from seq2serve.pipeline.dag import make_pipeline
from seq2serve.pipeline.running.closure import code_of

nodes = make_pipeline(preset("demo", "translation"), "a.tsv", "runs", "serving").nodes
print(json.dumps({node.id: code_of([node.component.function])[0] for node in nodes if node.component}))
"""


def test_fingerprints_follow_the_same_files_in_a_wheel_and_an_editable_install(run_installed):
    in_wheel = json.loads(run_installed("-c", FINGERPRINT))
    editable = json.loads(subprocess.run([sys.executable, "-c", FINGERPRINT], capture_output=True, check=True).stdout)
    assert in_wheel == editable
    assert "seq2serve/components/trainer/executor.py" in in_wheel["Trainer"]
    assert not [name for files in in_wheel.values() for name in files if name.startswith("seq2serve/pipeline")]
