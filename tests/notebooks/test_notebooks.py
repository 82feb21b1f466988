"""The notebooks, without running them: links, syntax, fresh outputs. `make notebooks` runs them."""

import ast
import json
import pathlib
import re

import pytest

NOTEBOOKS = pathlib.Path(__file__).parents[2] / "notebooks"
PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
MAGIC = re.compile(r"^\s*[!%].*(?<!\\)$", re.MULTILINE)


@pytest.fixture(scope="module")
def execute(load_script):
    """The script that executes notebooks, as a module."""
    return load_script(NOTEBOOKS / "execute.py")


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def path(request):
    """Each notebook."""
    return request.param


def cells(path, kind):
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def test_the_tour_is_complete():
    assert [path.name for path in PATHS] == [
        "01_attention.ipynb",
        "02_pipeline.ipynb",
        "03_serving.ipynb",
        "04_your_task.ipynb",
        "05_semantic_search.ipynb",
    ]


def test_committed_outputs_are_fresh(path, execute):
    code = cells(path, "code")
    if path.name in execute.WITH_OUTPUTS:
        code_sha256 = json.loads(path.read_text(encoding="utf-8"))["metadata"].get("code_sha256")
        assert code_sha256 == execute.digest(code), "changed since it was executed: make notebooks ARGS=--keep"
        assert any(cell["outputs"] for cell in code)
        assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), "not executed in order"
    else:
        assert not any(cell["outputs"] or cell["execution_count"] for cell in code)


def test_every_link_resolves(path):
    links = [link for cell in cells(path, "markdown") for link in re.findall(r"\]\((.*?)\)", "".join(cell["source"]))]
    assert links
    missing = [link for link in links if "://" not in link and not (path.parent / link.partition("#")[0]).exists()]
    assert not missing


def test_every_cell_parses(path):
    for cell in cells(path, "code"):
        source = "".join(cell["source"])
        if not source.startswith("%%"):
            ast.parse(MAGIC.sub("", source))
