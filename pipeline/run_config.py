"""RunConfig: files, columns, task, preset and settings of a run, as `--config` reads and every run writes them.

task = "classification"
preset = "small"        # auto if it is missing

[files]
data = "reviews.csv"    # also schema, tokenizer, warm_start and start_from; paths are relative to the config file

[columns]
text = "review"

[training]              # and the other sections of `seq2serve settings`
steps = 5000
"""

import contextlib
import dataclasses
import glob
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from seq2serve.components.base.errors import UserError
from seq2serve.components.base.uris import is_remote
from seq2serve.components.example_gen.corpora import Role, data_text, parse_data, parse_roles
from seq2serve.components.model_importer.pretrained import NAMED
from seq2serve.components.tasks.registry import DEFAULT_TASK, TASKS
from seq2serve.components.tuner.config import TunerConfig
from seq2serve.pipeline.config import (
    AUTO,
    PRESETS,
    PipelineConfig,
    check_known,
    parse_setting,
    preset,
    sections,
    setting_texts,
    value_text,
    with_columns,
    with_settings,
)

DEFAULT_PRESET = AUTO
NO_DATA = "no data: name a file, or a config file whose table [files] has data"
SHORT_COLUMNS = ("source", "target", "text", "label")  # those with an option of their own
FILES = ("data", "schema", "tokenizer", "warm_start", "start_from")
LAST = "last"  # as warm_start: the last model of the pipeline root
_POSITION = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)  # in errors of tomllib


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """What determines the result of a run; every value may be missing, for its default.

    Args:
        data: path, pattern or URL of the text, or several with their roles or weights (example_gen/corpora.py).
        schema: path of a schema.pbtxt to validate against.
        tokenizer: a tokenizer's folder or file to use, or one per column.
        warm_start: folder of an earlier model whose weights training starts from; LAST for the last one.
        start_from: name or folder of a pretrained model, whose tokenizer and weights training starts from.
        task, preset: names.
        columns: column of the task -> column of the file.
        settings: in the syntax of `--set`; of two for one key the later wins.
        file: path of the config file that some values come from; empty for none.
        from_file: name of each of these values, such as "training.steps" -> the texts by which messages name it.
    """

    data: str = ""
    schema: str = ""
    tokenizer: str = ""
    warm_start: str = ""
    start_from: str = ""
    task: str = ""
    preset: str = ""
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    settings: tuple[str, ...] = ()
    file: str = dataclasses.field(default="", compare=False)
    from_file: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict, compare=False)

    def over(self, base: "RunConfig") -> "RunConfig":
        """Returns these values, and those of another RunConfig, read from a file, where these are missing."""
        if self.start_from:  # training starts from one model
            base = dataclasses.replace(base, warm_start="", tokenizer="")
        if self.warm_start or self.tokenizer:
            base = dataclasses.replace(base, start_from="")
        values = {name: getattr(self, name) or getattr(base, name) for name in (*FILES, "task", "preset")}
        own = {
            *(f"files.{name}" for name in FILES if getattr(self, name)),
            *(f"columns.{column}" for column in self.columns),
            *(setting.partition("=")[0].strip() for setting in self.settings),
        }
        return RunConfig(
            **values,
            columns={**base.columns, **self.columns},
            settings=base.settings + self.settings,
            file=base.file,
            from_file={name: texts for name, texts in base.from_file.items() if name not in own},
        )

    @contextlib.contextmanager
    def naming_file(self) -> Iterator[None]:
        """Adds to a UserError which of the values that its message names were set in the config file."""
        try:
            yield
        except UserError as error:
            message = str(error)
            named = [name for name, texts in self.from_file.items() if any(_names(message, text) for text in texts)]
            if not named or "config" in error.fields:
                raise
            fields = error.fields | {"config": self.file}
            raise UserError(f"{message} (set in {self.file}: {', '.join(named)})", code=error.code, **fields) from error

    def pipeline_config(self) -> PipelineConfig:
        """Returns every setting.

        Raises:
            UserError: a name is unknown, a value is wrong, or two values contradict each other.
        """
        if self.start_from and (self.warm_start or self.tokenizer):
            other = "--warm-start" if self.warm_start else "--tokenizer"
            raise UserError(
                f"--from {self.start_from} and {other} both name what training starts from: choose one",
                code="start-repeated",
            )
        with self.naming_file():
            config = preset(self.preset or DEFAULT_PRESET, self.task or DEFAULT_TASK)
            return with_settings(with_columns(config, self.columns), self.settings)

    def effective_text(self, chosen: Mapping[str, Any]) -> str:
        """Returns the content of a config file that repeats the run in any folder: all settings, absolute paths.

        Args:
            chosen: the settings that were chosen from the data so far; those that are still to be chosen are left out.
        """
        config, here = self.pipeline_config(), os.getcwd()
        searched = set(config.searched(warm_start=bool(self.warm_start or self.start_from)))
        open_settings = {*config.automatic, *searched} - chosen.keys()
        values = dict(chosen)
        if searched and not searched & open_settings:  # the search is over, and its result is repeated
            values |= {f"tuner.{key}": value for key, value in dataclasses.asdict(TunerConfig()).items()}
        config = with_settings(config, (f"{name}={value_text(value)}" for name, value in values.items()))
        tables: dict[str, Mapping[str, Any]] = {"files": _absolute_files(self, here), "columns": config.file_columns}
        for section in sections():
            values = dataclasses.asdict(getattr(config, section))
            tables[section] = {key: value for key, value in values.items() if f"{section}.{key}" not in open_settings}
        if self.tokenizer or self.warm_start or self.start_from:
            # The tokenizer is not learned: only the settings that were compared with it may stand there.
            names = [parse_setting(setting)[0].partition(".") for setting in self.settings]
            kept = {key for section, _, key in names if section == "tokenizer"}
            tables["tokenizer"] = {key: value for key, value in tables["tokenizer"].items() if key in kept}
        head = {"task": config.task, "preset": self.preset or DEFAULT_PRESET}
        lines = ["# Effective config of a seq2serve run. `seq2serve run --config FILE` repeats it.", *_toml_lines(head)]
        for name, values in tables.items():
            lines += ["", f"[{name}]", *_toml_lines(values)] if values else []
        return "\n".join(lines) + "\n"


def named_columns(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Returns column of the task -> column of the file.

    Raises:
        UserError: a column has two names, or an empty one.
    """
    named: dict[str, str] = {}
    for column, name in pairs:
        if not name.strip():
            raise UserError(
                f"the column {column} needs the name or the number of a column of the file, got {name!r}",
                code="column-unnamed",
                column=column,
            )
        if named.setdefault(column, name) != name:
            raise UserError(
                f"the column {column} is both {named[column]!r} and {name!r} in the file: name it once",
                code="column-repeated",
                column=column,
            )
    return named


def read_run_config(path: str | os.PathLike[str]) -> RunConfig:
    """Reads a config file; relative paths in it become absolute, from the file's folder.

    Raises:
        UserError: the file is missing or not TOML; a key is unknown; a value has another type or is out of its range.
    """
    path = os.fspath(path)
    values = _read_toml(path)
    with _errors_of(path):
        for name in values:
            check_known("key", name, ("task", "preset", "files", "columns", *sections()))
        for name in ("files", "columns", *sections()):
            _check_type(name, values.get(name, {}), dict, "a table")
        files = values.get("files", {})
        for name, value in files.items():
            check_known("key", f"files.{name}", [f"files.{known}" for known in FILES])
            _check_type(f"files.{name}", value, str, "a text")
        columns = {column: _column_name(column, name) for column, name in values.get("columns", {}).items()}
        names = {}
        for name, known in (("task", TASKS), ("preset", PRESETS)):
            names[name] = _check_type(name, values.get(name, ""), str, "a text")
            if name in values:
                check_known(name, names[name], tuple(known))
        settings = tuple(setting_texts({section: values.get(section, {}) for section in sections()}))
        for setting in settings:
            parse_setting(setting)
        folder = os.path.dirname(os.path.abspath(path))
        config = RunConfig(**_absolute_files(RunConfig(**files), folder), **names, columns=columns, settings=settings)
        return dataclasses.replace(config, file=path, from_file=_texts_in_messages(config))


def _texts_in_messages(config: RunConfig) -> dict[str, tuple[str, ...]]:
    """Returns the name of each value, such as "training.steps" -> the texts by which messages name it."""
    texts = {name: (name,) for name in (setting.partition("=")[0] for setting in config.settings)}
    texts |= {f"columns.{column}": (repr(column), repr(name)) for column, name in config.columns.items()}
    # Messages about the rows of a file have its name without quotes.
    data = parse_data(config.data) if config.data else []
    texts |= {"files.data": tuple(repr(role.pattern) for role in data)}
    for name in ("schema", "tokenizer"):
        texts[f"files.{name}"] = tuple(role.pattern for role in parse_roles(getattr(config, name)) if role.pattern)
    models = ("warm_start", "start_from")
    return texts | {f"files.{name}": tuple(filter(None, [getattr(config, name)])) for name in models}


def _names(message: str, text: str) -> bool:
    return bool(re.search(rf"(?<![\w.]){re.escape(text)}(?!\.?\w)", message))


def _read_toml(path: str) -> dict[str, Any]:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        return tomllib.loads(text)
    except FileNotFoundError as error:
        raise UserError(f"config file not found: {path}", code="file-missing", path=path) from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", code="file-unreadable", path=path) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text, as TOML must be", code="config-malformed", path=path) from error
    except tomllib.TOMLDecodeError as error:
        match = _POSITION.fullmatch(str(error))
        problem, line, column = match.groups() if match else (str(error), None, None)
        line_number = int(line) if line else len(text.splitlines())
        place = f"line {line_number}" + (f", column {column}" if column else "")
        raise UserError(
            f"{path}, {place}: not TOML: {problem[:1].lower()}{problem[1:]}",
            code="config-malformed",
            path=path,
            line=line_number,
        ) from error


@contextlib.contextmanager
def _errors_of(path: str) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}", code=error.code, path=path, **error.fields) from error


def _check_type(name: str, value: Any, kind: type, described: str) -> Any:
    if not isinstance(value, kind):
        raise UserError(f"{name} must be {described}, got {value!r}", code="setting-invalid", setting=name, value=value)
    return value


def _column_name(column: str, name: Any) -> str:
    if isinstance(name, bool) or not isinstance(name, str | int) or not str(name).strip():
        raise UserError(
            f"columns.{column} must be the name or the number of a column of the file, got {name!r}",
            code="setting-invalid",
            setting=f"columns.{column}",
            value=name,
        )
    return str(name)


def _absolute_files(config: RunConfig, folder: str) -> dict[str, str]:
    """Returns the files that are named, with absolute paths.

    Args:
        config: its paths are relative to `folder`.
        folder: an absolute path.
    """
    files = {
        "data": _with_roles(config.data, folder, parse_data, _absolute_pattern),
        "schema": _with_roles(config.schema, folder, parse_roles, _absolute_pattern),
        "tokenizer": _with_roles(config.tokenizer, folder, parse_roles, _absolute_path),
        "warm_start": config.warm_start,
        "start_from": config.start_from,
    }
    for name, names in (("warm_start", (LAST,)), ("start_from", NAMED)):
        if files[name] and files[name] not in names:
            files[name] = _absolute_path(files[name], folder)
    return {name: value for name, value in files.items() if value}


def _with_roles(
    text: str, folder: str, parse: Callable[[str, str], list[Role]], join: Callable[[str, str], str]
) -> str:
    """Joins a folder to a path, or to the path of each role, such as train=a.tsv,test=b.tsv."""
    roles = parse(text, folder) if text else []
    return data_text(role._replace(pattern=join(role.pattern, folder)) for role in roles)


def _absolute_path(path: str, folder: str) -> str:
    return path if is_remote(path) else os.path.normpath(os.path.join(folder, path))


def _absolute_pattern(pattern: str, folder: str) -> str:
    path = _absolute_path(pattern, folder)
    if is_remote(pattern) or os.path.isabs(pattern) or os.path.lexists(path):
        return path
    return _absolute_path(pattern, glob.escape(folder))


def _toml_lines(values: Mapping[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        name = key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml_text(key)
        yield f"{name} = {_toml_text(value) if isinstance(value, str) else value_text(value)}"


def _toml_text(text: str) -> str:
    # The escapes of JSON are TOML's, too; JSON has none for U+007F, which TOML requires.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
