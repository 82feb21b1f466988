"""The code behind a result: imports are followed without importing anything, and only the code that runs counts."""

import importlib
import itertools
import linecache
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from seq2serve.components.base.artifact import Model
from seq2serve.components.base.component import Code, Component, Node, Output, component
from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen import readers
from seq2serve.components.model_importer.pretrained import Pretrained
from seq2serve.components.tasks.registry import TASKS
from seq2serve.pipeline.config import preset
from seq2serve.pipeline.dag import make_pipeline
from seq2serve.pipeline.running import closure
from seq2serve.pipeline.running.closure import code_of
from seq2serve.pipeline.running.fingerprint import changes, execution_parts

# A user's package and a module next to it: file -> source.
MODULES = {
    "shop/__init__.py": "LOADED = True",
    "shop/steps.py": """
from seq2serve.components.base.artifact import Model
from seq2serve.components.base.component import Output, component

@component
def Build(model: Output[Model]) -> None:
    from . import wheels
    from shop.deep import engine
    from shop import late
    import single, shop.empty.full
    import sacrebleu, json, google.protobuf.text_format
    import rich.progress
    import not_installed_anywhere
    import apache_beam as beam
""",
    "shop/wheels.py": "from .deep.axle import AXLE\n",
    "shop/deep/__init__.py": "'deep'\nDEPTH = 1\n",
    "shop/deep/engine.py": "import shop.wheels\nfrom .. import wheels\n",
    "shop/deep/axle.py": "AXLE = 1\n",
    "shop/empty/__init__.py": "'a docstring and no code'\n",
    "shop/empty/full.py": "",
    "shop/late.py": "from importlib import import_module\nload = lambda: import_module('.later', __package__)\n",
    "shop/later.py": "import importlib\nlast = importlib.import_module('shop.last')\n",
    "shop/last.py": "",
    "shop/unused.py": "",
    "single.py": "if False:\n    import portalocker\n",
}
UNFOLLOWED = {"shop/unused.py", "shop/empty/__init__.py"}
load = importlib.import_module  # under its own name it would be followed, as part of this module's code


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of MODULES, from which Python imports."""
    for name, source in MODULES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] in ("shop", "single")]:
        del sys.modules[name]


@pytest.fixture
def build(shop) -> Component:
    """The component of MODULES."""
    return load("shop.steps").Build


@pytest.fixture(autouse=True)
def clear_caches():
    """Folders of modules are looked up once per process, but here they change from test to test."""
    yield
    for cached in (closure._spec, closure._first_party_folder):
        cached.cache_clear()


# Imports.


def test_imports_are_followed_without_importing(build):
    parts = execution_parts(build(), {})
    own = {name for name in parts["code"] if not name.startswith("seq2serve/")}
    assert own == set(MODULES) - UNFOLLOWED
    assert parts["versions"].keys() == {"Python", "sacrebleu", "protobuf", "portalocker", "apache-beam"}
    assert "shop.wheels" not in sys.modules
    assert "single" not in sys.modules


@pytest.mark.parametrize("name", [name for name in MODULES if name not in UNFOLLOWED])
def test_a_changed_module_is_named(build, shop, name):
    before = execution_parts(build(), {})
    (shop / name).write_text(MODULES[name] + "\nCHANGED = True\n")
    assert changes(before, execution_parts(build(), {})) == [f"code changed: {name}"]


def test_an_unused_module_changes_nothing(build, shop):
    before = execution_parts(build(), {})
    (shop / "shop/unused.py").write_text("CHANGED = True\n")
    assert changes(before, execution_parts(build(), {})) == []


TYPED = """
import typing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import portalocker
    from shop.unused import Unused
else:
    from shop import wheels

def work():
    if TYPE_CHECKING:
        import single
    from shop.deep import axle
"""


@pytest.mark.parametrize("guard", ["TYPE_CHECKING", "typing.TYPE_CHECKING"])
def test_imports_for_type_checkers_alone_are_not_followed(shop, guard):
    (shop / "shop/typed.py").write_text(TYPED.replace("TYPE_CHECKING:", f"{guard}:"))
    files, versions = code_of([load("shop.typed").work])
    deep = {"shop/deep/__init__.py", "shop/deep/axle.py"}
    assert files.keys() == {"shop/__init__.py", "shop/typed.py", "shop/wheels.py", *deep}
    assert versions == {}


# Parameters that are code.


@component
def Bake(model: Output[Model], recipe: Code) -> None:
    """Does nothing."""


BAKERY = """
from seq2serve.components.base.component import Code

class Rye(Code):
    name = "rye"

    def bake(self):
        from shop import oven

class Wheat(Rye):
    name = "wheat"
"""


@pytest.fixture
def bakery(shop) -> types.ModuleType:
    """A module with two classes, one of which imports another module when it is used."""
    (shop / "shop/bakery.py").write_text(BAKERY)
    (shop / "shop/oven.py").write_text("HEAT = 200\n")
    return load("shop.bakery")


def test_a_parameter_that_is_code_is_recorded_by_name_and_adds_the_modules_of_its_class(bakery):
    parts = execution_parts(Bake(recipe=bakery.Rye()), {})
    assert parts["parameters"] == {"recipe": "rye"}
    own = {name for name in parts["code"] if name.startswith("shop/")}
    assert own == {"shop/__init__.py", "shop/bakery.py", "shop/oven.py"}


def test_the_bases_of_a_class_count_wherever_they_are(bakery, shop):
    (shop / "shop/freezer.py").write_text("from shop.bakery import Rye\n\nclass Cooled(Rye):\n    pass\n")
    freezer = load("shop.freezer")
    before = execution_parts(Bake(recipe=bakery.Rye()), {})
    after = execution_parts(Bake(recipe=freezer.Cooled()), {})
    assert changes(before, after) == ["code changed: shop/freezer.py"]


def test_a_change_in_the_code_of_a_parameter_or_its_name_is_described(bakery, shop):
    rye = Bake(recipe=bakery.Rye())
    before = execution_parts(rye, {})
    assert changes(before, execution_parts(Bake(recipe=bakery.Wheat()), {})) == ["parameter recipe: rye -> wheat"]
    (shop / "shop/oven.py").write_text("HEAT = 250\n")
    assert changes(before, execution_parts(rye, {})) == ["code changed: shop/oven.py"]


# Functions and classes typed into a notebook.

CELL = """
def double(number):
    return 2 * number

def unused(number):
    return 5 * number

class Base:
    def answer(self):
        return double(21)

class Answer(Base):
    def text(self):
        return str(self.answer())

def answer():
    import shop.wheels, portalocker
    return [double(number) for number in range(3)]

def instance():
    return Answer()
"""


@pytest.fixture
def notebook(tmp_path, monkeypatch) -> Callable[[str], types.ModuleType]:
    """Returns a function that runs source as IPython runs a cell, and returns the notebook's `__main__`."""
    numbers = itertools.count(1)

    def run_cell(source: str, readable: bool = True) -> types.ModuleType:
        main = types.ModuleType("__main__")
        path = str(tmp_path / "ipykernel_1" / f"{next(numbers)}.py")  # IPython names such a file and never writes it
        monkeypatch.setitem(sys.modules, "__main__", main)
        if readable:
            monkeypatch.setitem(linecache.cache, path, (len(source), None, source.splitlines(keepends=True), path))
        exec(compile(source, path, "exec"), vars(main))
        return main

    return run_cell


@pytest.mark.parametrize("name", ["answer", "instance", "Answer"])
def test_in_a_notebook_the_functions_and_classes_that_are_used_count(notebook, shop, name):
    def code(source: str) -> dict[str, str]:
        return code_of([getattr(notebook(source), name)])[0]

    before = code(CELL)
    assert f"__main__:{name}" in before
    assert code(CELL) == before
    assert code(CELL.replace("2 * number", "3 * number")) != before
    assert code(CELL.replace("5 * number", "6 * number")) == before


@pytest.mark.parametrize("name", ["instance", "Answer"])
def test_in_a_notebook_the_methods_of_a_base_class_count(notebook, name):
    before, after = (
        code_of([getattr(notebook(source), name)])[0] for source in (CELL, CELL.replace("double(21)", "double(22)"))
    )
    assert before != after


def test_imports_in_a_notebook_are_followed(notebook, shop):
    files, versions = code_of([notebook(CELL).answer])
    followed = {"shop/__init__.py", "shop/wheels.py", "shop/deep/__init__.py", "shop/deep/axle.py"}
    assert files.keys() == {"__main__:answer", *followed}
    assert versions.keys() == {"portalocker"}


# A parameter whose class has values that refer to functions, such as the metrics of a task.
RYE = """
from seq2serve.components.base.component import Code
from seq2serve.components.tasks.metric import Metric

def share(columns, weights):
    return double(columns.mean())

class Rye(Code):
    name = "rye"
    metrics = (Metric("share", "%", share, decimals=2),)
"""


@pytest.mark.parametrize("change", [("2 * number", "3 * number"), ("columns.mean()", "columns.sum()"), ('"%"', '"g"')])
def test_a_parameter_may_come_from_a_notebook(notebook, change):
    first, again, changed = (
        execution_parts(Bake(recipe=notebook(source).Rye()), {})
        for source in (CELL + RYE, CELL + RYE, (CELL + RYE).replace(*change))
    )
    assert first == again
    assert changes(first, changed) == ["code changed: __main__:Rye"]
    assert "seq2serve/components/tasks/metric.py" in first["code"]


def test_a_function_without_source_is_an_error(notebook):
    message = "^the source of answer cannot be read, so changes to it would go unnoticed; define it in a file or a"
    with pytest.raises(UserError, match=message) as error:
        code_of([notebook(CELL, readable=False).answer])
    assert (error.value.code, error.value.fields) == ("source-missing", {"name": "answer"})


# The components of the project.


def component_nodes(task: str) -> dict[str, Node]:
    """Returns the components of the pipelines of a task, those for the user's own schema and tokenizer included."""
    arguments = (preset("tiny", task), "text.tsv", "runs", "serving")
    pretrained = Pretrained(Path("bert"), "a shelf", "MIT")
    pipelines = (
        make_pipeline(*arguments),
        make_pipeline(*arguments, schema_file="a.pbtxt", tokenizer="a.model"),
        make_pipeline(*arguments, pretrained=pretrained),
    )
    return {node.id: node for pipeline in pipelines for node in pipeline.nodes if node.component}


@pytest.mark.parametrize("task", TASKS)
def test_no_component_depends_on_the_pipeline_or_the_facade(task):
    nodes = component_nodes(task)
    assert len(nodes) == 13
    for name, node in nodes.items():
        files = execution_parts(node, {})["code"]
        assert "seq2serve/components/base/component.py" in files, name
        outside = {file for file in files if not file.startswith(("seq2serve/components/", "seq2serve/models/"))}
        assert not outside, name


@pytest.mark.parametrize("task", TASKS)
def test_the_trainer_depends_on_no_other_task(task):
    files = execution_parts(component_nodes(task)["Trainer"], {})["code"]

    def files_of(name: str) -> set[str]:
        folder, export = f"seq2serve/components/tasks/{name}/", f"seq2serve/models/export/{name}.py"
        return {file for file in files if file.startswith(folder) or file == export}

    assert {f"seq2serve/components/tasks/{task}/task.py", f"seq2serve/models/export/{task}.py"} <= files_of(task)
    for other in TASKS.keys() - {task}:
        assert files_of(other) == set()


def test_the_trainer_does_not_depend_on_the_registry_of_tasks():
    files = execution_parts(component_nodes("translation")["Trainer"], {})["code"]
    assert "seq2serve/components/tasks/registry.py" not in files


def test_example_gen_depends_on_every_reader():
    files = execution_parts(component_nodes("translation")["ExampleGen"], {})["code"]
    folder = Path(readers.__file__).parent
    names = {path.name for path in folder.glob("*.py")} - {"__init__.py"}
    assert len(names) > 10
    assert {f"seq2serve/components/example_gen/readers/{name}" for name in names} <= set(files)


def test_the_schema_does_not_depend_on_how_files_are_read():
    files = execution_parts(component_nodes("translation")["SchemaGen"], {})["code"]
    assert len(files) <= 13
    assert not [file for file in files if "/example_gen/" in file]
