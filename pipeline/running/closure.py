"""The code behind a result: the source files that functions reach through imports, and the libraries these import.

Imports are followed as text, those inside functions and by `import_module("a.name")` too; nothing is imported. Imports
for type checkers alone, under `if TYPE_CHECKING:`, shape no result and are not followed.
"""

import ast
import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import importlib.util
import inspect
import sys
import textwrap
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any

from seq2serve.components.base.errors import UserError

_PACKAGE = "seq2serve"
# Imported to show progress; a new version changes no result.
_COSMETIC = frozenset({"rich"})


def code_of(functions: Iterable[Callable]) -> tuple[dict[str, str], dict[str, str]]:
    """Finds the code that shapes the results of some functions or classes.

    Returns:
        {file: SHA-256} of their modules and the first-party modules that these reach, files named relative to where
        imports start; and {library: version} of the distributions that they import. For one typed into a notebook, its
        own source and that of the notebook's functions and classes that it uses stand in for the module.
    Raises:
        UserError: the source of a function cannot be read.
    """
    hashes: dict[str, str] = {}
    libraries: set[str] = set()
    seen: set[str] = set()
    for function in functions:
        module, path = function.__module__, _source_file(function)
        if path is None:
            source, modules = _interactive_source(function)
            hashes[f"{module}:{function.__qualname__}"] = _digest(source)
            waiting = _follow({parent for name in modules for parent in _with_parents(name)}, seen, libraries)
            waiting += _follow(_imports(source, ""), seen, libraries)
        else:
            waiting = [(module, path)] if module not in seen else []
            seen.add(module)
        while waiting:
            module, path = waiting.pop()
            is_package, source = path.name == "__init__.py", path.read_bytes()
            if is_package and _is_empty(source):
                continue
            hashes[module.replace(".", "/") + ("/__init__.py" if is_package else ".py")] = _digest(source)
            package = module if is_package else module.rpartition(".")[0]
            waiting += _follow(_imports(source, package), seen, libraries)
    return hashes, {name: version for module in libraries for name, version in _distributions(module)}


def _follow(imported: Set[str], seen: set[str], libraries: set[str]) -> list[tuple[str, Path]]:
    """Returns the first-party modules among those imported that are not yet seen; adds the others to libraries."""
    modules = []
    for name in imported - seen:
        seen.add(name)
        if path := _first_party_file(name):
            modules.append((name, path))
        elif _is_library(name):
            libraries.add(name)
    return modules


def _digest(source: bytes) -> str:
    return hashlib.sha256(source).hexdigest()


def _source_file(function: Callable) -> Path | None:
    """Returns the file that defines a function or class; None for one typed into a notebook."""
    try:
        path = Path(inspect.getfile(function))
    except (OSError, TypeError):  # a class of a module without a file
        return None
    return path if path.is_file() else None


def _interactive_source(function: Callable) -> tuple[bytes, set[str]]:
    """Returns the source of a function or class typed into a notebook, and the names of the modules that it uses.

    The source includes those of the notebook's functions and classes that it uses, and the values of its constants.
    """
    sources: set[str] = set()
    modules: set[str] = set()
    waiting: list[Any] = [function]
    seen: set[int] = set()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if inspect.ismodule(part):
            modules.add(part.__name__)
        elif dataclasses.is_dataclass(part) and not isinstance(part, type):
            waiting += [type(part), *vars(part).values()]
        elif getattr(part, "__module__", function.__module__) != function.__module__:
            modules.add(part.__module__)
        elif inspect.isclass(part):
            waiting += [
                *part.__bases__,
                *(value for name, value in vars(part).items() if not name.startswith(("__", "_abc_"))),
            ]
        elif inspect.isfunction(part):
            sources.add(_source_text(part))
            waiting += [part.__globals__[name] for name in _names(part.__code__) if name in part.__globals__]
        elif isinstance(part, tuple):
            waiting += part
        elif isinstance(part, bool | int | float | str | bytes):
            sources.add(repr(part))
    return "\n".join(sorted(sources)).encode(), modules


def _source_text(function: Callable) -> str:
    try:
        return textwrap.dedent(inspect.getsource(function))
    except OSError as error:
        raise UserError(
            f"the source of {function.__qualname__} cannot be read, so changes to it would go unnoticed; define it in "
            f"a file or a notebook",
            code="source-missing",
            name=function.__qualname__,
        ) from error


def _names(code: types.CodeType) -> set[str]:
    """Returns the global names that a function and those nested in it may use."""
    nested = (const for const in code.co_consts if isinstance(const, types.CodeType))
    return set(code.co_names).union(*map(_names, nested))


@functools.lru_cache(maxsize=1024)
def _imports(source: bytes, package: str) -> frozenset[str]:
    """Returns every module that a source may import, its parent packages included."""
    names: set[str] = set()
    for node in _walk(ast.parse(source)):
        match node:
            case ast.Import():
                names.update(alias.name for alias in node.names)
            case ast.ImportFrom():
                parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                base = ".".join([*parts, *filter(None, [node.module])])
                names.add(base)
                # `from package import name`: the name may be a module of its own.
                names.update(f"{base}.{alias.name}" for alias in node.names)
            case ast.Call(
                func=ast.Name("import_module") | ast.Attribute(attr="import_module"), args=[ast.Constant(str(name)), *_]
            ):
                with contextlib.suppress(ImportError):  # relative to no package
                    names.add(importlib.util.resolve_name(name, package))
    return frozenset(parent for name in names for parent in _with_parents(name))


@functools.lru_cache(maxsize=1024)
def _is_empty(source: bytes) -> bool:
    """Returns whether a source has no code, only a docstring."""
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in ast.parse(source).body)


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """Yields every node except those under `if TYPE_CHECKING:`."""
    yield node
    children: Iterable[ast.AST] = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        children = node.orelse
    for child in children:
        yield from _walk(child)


def _with_parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[: end + 1]) for end in range(len(parts)))


def _first_party_file(module: str) -> Path | None:
    """Returns the file of a module that is neither the standard library's nor an installed library's."""
    top, *rest = module.split(".")
    if top == _PACKAGE:
        # Its packages may lie in different folders, see pyproject.toml. The facade itself holds names and no code.
        folder, rest = (_own_folder(rest[0]), rest[1:]) if rest else (None, [])
    else:
        folder = _first_party_folder(top)
    if folder is None:
        return None
    base = folder.joinpath(*rest)
    candidates = (base.with_name(f"{base.name}.py"), base / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


@functools.cache
def _own_folder(package: str) -> Path | None:
    """Returns the folder of seq2serve.<package>, however seq2serve is installed."""
    spec = importlib.util.find_spec(f"{_PACKAGE}.{package}")
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None


@functools.cache
def _first_party_folder(top: str) -> Path | None:
    """Returns the path without suffix at which a user's own top-level module or package lies."""
    spec = _spec(top)
    if spec is None:
        return None
    location = Path(spec.origin or next(iter(spec.submodule_search_locations or []), ""))
    if {"site-packages", "dist-packages"} & set(location.parts):
        return None
    return location.parent if location.name == "__init__.py" else location.with_suffix("")


@functools.cache
def _spec(top: str) -> importlib.machinery.ModuleSpec | None:
    """Finds a top-level module without importing it; None for the standard library's and for what is not there."""
    if top in sys.stdlib_module_names or top == "__main__":
        return None
    try:
        return importlib.util.find_spec(top)
    except ValueError:
        return None


def _is_library(module: str) -> bool:
    top = module.partition(".")[0]
    return top not in {*_COSMETIC, _PACKAGE} and _first_party_folder(top) is None and _spec(top) is not None


@functools.cache
def _distributions(module: str) -> tuple[tuple[str, str], ...]:
    """Returns the distributions that an imported module comes from, with their versions."""
    top, _, rest = module.partition(".")
    # A namespace such as google's belongs to many distributions; the name below it identifies the distribution.
    spec = _spec(top)
    is_namespace = spec is None or spec.origin is None
    name = rest.partition(".")[0] if is_namespace else top
    try:
        return ((name.replace("_", "-"), importlib.metadata.version(name)),)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        names = _installed().get(top, [])
        known = names if len(names) == 1 or not is_namespace else []
        return tuple((name, importlib.metadata.version(name)) for name in known)


@functools.cache
def _installed() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()
