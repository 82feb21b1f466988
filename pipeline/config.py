"""The settings of a pipeline: every section as a frozen dataclass, and presets to start from.

A setting is one field: type with range, default, and below it the meaning, which `seq2serve settings` prints.
"""

import dataclasses
import functools
import math
import numbers
import pathlib
import tomllib
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from seq2serve.components.base.errors import UserError, did_you_mean
from seq2serve.components.evaluator.bar import Bar
from seq2serve.components.example_gen.config import Unit
from seq2serve.components.example_gen.formats import Format
from seq2serve.components.tasks.registry import DEFAULT_TASK, TASKS, presets_of
from seq2serve.components.tasks.sizing import LONGEST_LIMIT, MAX_LENGTH, automatic_settings
from seq2serve.components.tuner.config import TunerConfig
from seq2serve.components.tuner.space import searchable
from seq2serve.models.config import (
    MAX_SEED,
    DecodingConfig,
    ModelConfig,
    Range,
    TokenizerConfig,
    TrainingConfig,
    number_text,
)

AUTO = "auto"  # the preset that sizes everything from the data
UNCUT = 1_000_000_000  # as data.max_length: texts are not cut, but packed into rows of model.max_positions
# Earlier setting -> the setting that decides now, and what it does.
_REPLACED = {
    "decoding.max_source_length": "data.max_length is the limit in training and when served. Set data.max_length",
    "evaluation.min_over_baseline": "models are compared with baselines by a test of significance. Set evaluation.bar",
}


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """How files are read, and how rows are split."""

    slices: str = ""
    """Further columns of the file, joined by commas; the Evaluator also computes its metrics for each of their
    values."""

    format: Format = "auto"
    """Format of the files; auto follows from the file extension."""

    delimiter: str = ""
    """Text between two cells, if it is not the format's own."""

    unit: Unit = "line"
    """A row of plain text: a line, a paragraph, a whole file, or a part of a document. A document is a file whose
    paragraphs stay in order; the parts at its end are held out for eval and test. With auto, a single file is a
    document, and several files are read by paragraph. With file, a single file is a document unless each split has its
    own."""

    encoding: str = "auto"
    """Encoding of text files, such as windows-1252 (Python's names); auto is UTF-8, or UTF-16 if the bytes show it."""

    quoting: Literal["auto", "csv", "none"] = "auto"
    """Quoting in TSV files: csv if cells may be quoted, none if quotation marks are text; auto follows the file."""

    eval_share: Annotated[float, Range(1e-6, 0.5)] = 0.05  # not 0: no split may be empty
    """Share of the rows held out to evaluate the model during training."""

    test_share: Annotated[float, Range(1e-6, 0.5)] = 0.05
    """Share of the rows held out to evaluate the exported model."""

    seed: Annotated[int, Range(0, MAX_SEED)] = 1
    """Seed of the hash that splits rows."""

    split_key: str = "loose"
    """Rows with the same key share a split. `loose` is the text without case, digits and spaces, so near-duplicates
    share a split; `exact` is the text; any other value is a column of the file, such as the document or the speaker of
    a row."""

    overlap: Literal["error", "drop_from_train", "warn"] = "error"
    """What to do if rows of eval or test are also in train: an error if they are more than 1 % of the split, drop them
    from train, or only warn."""

    max_reject_share: Annotated[float, Range(0, 1)] = 0.01
    """The run stops if a larger share of the rows is unusable."""

    max_length: Annotated[int, Range(1, UNCUT)] = 256
    """Most tokens of a text, in training and when served. The served model cuts a longer text there."""

    too_long: Literal["cut", "drop"] = "drop"
    """Whether a row with a longer text is dropped, or the text cut; both are counted. A model that learns to write
    texts that were cut learns to stop in the middle of a sentence."""

    @property
    def slice_columns(self) -> tuple[str, ...]:
        """Returns the names in `slices`."""
        return tuple(name.strip() for name in self.slices.split(",") if name.strip())


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """When a model is good enough to be blessed."""

    bar: Bar = "strongest"
    """What the model must reach on the test split. strongest: significantly better than the trivial baselines (majority
    or random label, copied source, character frequencies), and not significantly worse than the strongest baseline
    (TF-IDF with logistic regression, Kneser-Ney) and the last blessed model. trivial: without the strongest baseline.
    none blesses every model."""

    num_examples: Annotated[int, Range(0)] = 0
    """Number of test examples to evaluate; 0 is all of them."""


@dataclasses.dataclass(frozen=True)
class PipelineConfig:
    """All settings of one pipeline, in sections. Constructing one checks every value.

    Args:
        task: name of the task.
        columns: column of the task -> column of the file: a name, a number from 1 if there is no header, or for JSON a
            field or a path of fields joined by dots. Others have the same name in the file.
        automatic: the settings that Transform and Tuner choose from the data (components/tasks/sizing.py). Their values
            here are only those of a usual choice.
        made: the settings that the user set, which no component changes.
        data, tokenizer, model, training, tuner, decoding, evaluation: the sections.
    Raises:
        UserError: a value is out of its range, or two values contradict each other.
    """

    task: str = DEFAULT_TASK
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    automatic: tuple[str, ...] = ()
    made: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = dataclasses.field(default_factory=TokenizerConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    tuner: TunerConfig = dataclasses.field(default_factory=TunerConfig)
    decoding: DecodingConfig = dataclasses.field(default_factory=DecodingConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        check_known("task", self.task, tuple(TASKS))
        for name, (_, allowed) in _setting_types().items():
            if allowed:
                _check_range(name, self.value(name), allowed)
        _check_together(self)

    @property
    def file_columns(self) -> dict[str, str]:
        """Returns every column of the task -> column of the file."""
        return {column: self.columns.get(column, column) for column in TASKS[self.task].columns}

    @property
    def longest_limit(self) -> int:
        """Returns the most that Transform may choose as data.max_length, in tokens."""
        is_bound = MAX_LENGTH in self.automatic and self.model.positions == "learned"
        return min(self.model.longest_text, LONGEST_LIMIT) if is_bound else LONGEST_LIMIT

    def searched(self, warm_start: bool = False) -> tuple[str, ...]:
        """Returns the settings that Tuner's search may change, without those that the user set; none without search.

        Args:
            warm_start: whether training starts from an earlier model.
        Raises:
            UserError: there is a search, and nothing to change.
        """
        if not self.tuner.searches:
            return ()
        parts = TASKS[self.task].parts
        if not (names := searchable(parts, self.made, self.training, warm_start)):
            known = searchable(parts, (), self.training, warm_start)
            raise _conflict(
                "settings tuner.trials and tuner.minutes: there is nothing to search, because every setting of the "
                f"search space is set. Leave out at least one of {', '.join(known)}"
            )
        return names

    def value(self, name: str) -> Any:
        """Returns the value of a setting, such as "training.steps"."""
        section, _, key = name.partition(".")
        return getattr(getattr(self, section), key)


def preset(name: str, task: str) -> PipelineConfig:
    """Returns a preset for a task. That of `AUTO` leaves many settings to the data, see PipelineConfig.automatic.

    Raises:
        UserError: no such preset or task; the message names the closest match and lists them all.
    """
    check_known("preset", name, tuple(PRESETS))
    own = presets_of(task)
    settings = (text for kind in ("common", name) for text in setting_texts(own.get(kind, {})))
    config = with_settings(dataclasses.replace(PRESETS[name], task=task), settings)
    config = dataclasses.replace(config, made=())  # so far by presets
    if name != AUTO:
        return config
    parts = TASKS[task].parts
    return dataclasses.replace(config, automatic=automatic_settings(parts, config.data.max_length == UNCUT))


def with_settings(config: PipelineConfig, settings: Iterable[str]) -> PipelineConfig:
    """Changes single settings.

    Args:
        config: to start from.
        settings: texts such as "training.steps=500"; of two for one key the later wins.
    Returns:
        A new PipelineConfig, checked as a whole. A setting that is changed is not automatic any more, nor is one that
        has no effect: `training.steps` with `training.epochs` or `training.minutes`.
    Raises:
        UserError: no such section or key, a value of the wrong type or out of range; the message lists what is
            possible.
    """
    changes: dict[str, dict[str, Any]] = {}
    for setting in settings:
        name, value = parse_setting(setting)
        section, _, key = name.partition(".")
        changes.setdefault(section, {})[key] = value
    changed = {section: dataclasses.replace(getattr(config, section), **keys) for section, keys in changes.items()}
    made = {f"{section}.{key}" for section, keys in changes.items() for key in keys}
    training = changed.get("training", config.training)
    unused = {"training.steps"} if training.epochs or training.minutes else set()
    automatic = tuple(name for name in config.automatic if name not in made | unused)
    return dataclasses.replace(config, automatic=automatic, made=tuple(sorted({*config.made, *made})), **changed)


def parse_setting(setting: str) -> tuple[str, Any]:
    """Parses a text such as "training.steps=500".

    Returns:
        The name of the setting, and its value, which is in its range.
    Raises:
        UserError: no such section or key, a value of the wrong type or out of range; the message lists what is
            possible.
    """
    name, equals, text = setting.partition("=")
    name = name.strip()
    section, dot, _ = name.partition(".")
    if not (equals and dot):
        raise UserError(
            f"setting {setting!r}: write SECTION.KEY=VALUE{_closest(name, setting_names())}",
            code="setting-malformed",
            setting=setting,
        )
    check_known("section of settings", section, tuple(sections()))
    _check_current(name)
    siblings = [known for known in setting_names() if known.startswith(f"{section}.")]
    check_known("setting", name, setting_names(), listed=siblings)
    kind, allowed = setting_type(name)
    value = _parse(name, text.strip() or text, kind)  # a delimiter may be a blank
    if allowed:
        _check_range(name, value, allowed)
    return name, value


def with_columns(config: PipelineConfig, columns: Mapping[str, str]) -> PipelineConfig:
    """Names columns of the file.

    Args:
        config: to start from.
        columns: column of the task -> column of the file.
    Raises:
        UserError: the task has no such column, or two are the same in the file.
    """
    return dataclasses.replace(config, columns={**config.columns, **columns})


def setting_texts(values: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yields sections of settings, such as {"training": {"steps": 500}}, in the syntax of `with_settings`.

    Raises:
        UserError: a value is neither a text nor a number nor a truth value.
    """
    for section, keys in values.items():
        for key, value in keys.items():
            if not isinstance(value, str | numbers.Real):  # of NumPy too
                raise _invalid(f"{section}.{key}", "a text, a number, True or False", value)
            yield f"{section}.{key}={value_text(value)}"


def value_text(value: Any) -> str:
    """Returns a value in the syntax of `with_settings`, which is that of `--set`."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def setting_names() -> tuple[str, ...]:
    """Returns the name of every setting, such as "training.steps"."""
    return tuple(_setting_types())


def setting_type(name: str) -> tuple[Any, Range | None]:
    """Returns the type of a setting (int, float, bool, str or a Literal), and the range of a number."""
    return _setting_types()[name]


def sections() -> dict[str, type]:
    """Returns the name of every section of settings, such as "training" -> its dataclass."""
    return {
        field.name: field.type for field in dataclasses.fields(PipelineConfig) if dataclasses.is_dataclass(field.type)
    }


@functools.cache
def _setting_types() -> dict[str, tuple[Any, Range | None]]:
    types = {}
    for section, kind in sections().items():
        for key, hint in typing.get_type_hints(kind, include_extras=True).items():
            is_number = typing.get_origin(hint) is Annotated
            types[f"{section}.{key}"] = typing.get_args(hint)[:2] if is_number else (hint, None)
    return types


def _check_range(name: str, value: float, allowed: Range) -> None:
    if not allowed.allows(value):
        raise UserError(
            f"setting {name} must be {allowed}, got {number_text(value)}",
            code="setting-out-of-range",
            setting=name,
            value=value,
        )


def _check_together(config: PipelineConfig) -> None:
    """Checks the conditions that involve more than one setting."""
    _check_model(config)
    _check_labels(config)
    _check_tokenizer(config)
    _check_columns(config)
    if config.training.epochs and config.training.minutes:
        raise _conflict("settings training.epochs and training.minutes both limit training: set one of them")
    config.searched()


def _conflict(message: str) -> UserError:
    return UserError(message, code="settings-conflict")


def _check_model(config: PipelineConfig) -> None:
    model, automatic = config.model, config.automatic
    has_heads = not {"model.d_model", "model.num_heads"} & set(automatic)  # otherwise one is chosen for the other
    if has_heads and model.d_model % model.num_heads:
        raise _conflict(
            f"setting model.d_model ({model.d_model}) must be divisible by model.num_heads ({model.num_heads})"
        )
    if "model.num_heads" not in automatic and model.num_kv_heads and model.num_heads % model.num_kv_heads:
        raise _conflict(
            f"setting model.num_heads ({model.num_heads}) must be divisible by model.num_kv_heads "
            f"({model.num_kv_heads})"
        )
    for name in ("rotary_base", "rotary_layout") if model.positions != "rotary" else ():
        if getattr(model, name) != getattr(ModelConfig, name):
            raise _conflict(f"setting model.{name} needs model.positions=rotary")
    if model.sinusoids != ModelConfig.sinusoids and model.positions != "sinusoidal":
        raise _conflict("setting model.sinusoids needs model.positions=sinusoidal")
    if has_heads and model.positions == "rotary" and model.d_model // model.num_heads % 2:
        raise _conflict("setting model.positions=rotary needs an even model.d_model / model.num_heads")
    if model.positions in ("sinusoidal", "rotary") and model.d_model % 2:
        raise _conflict(f"setting model.positions={model.positions} needs an even model.d_model")
    if model.decoder == "ssru" and TASKS[config.task].parts != ("encoder", "decoder"):
        raise _conflict(f"setting model.decoder=ssru needs a task with encoder and decoder, which {config.task} is not")
    has_limit = MAX_LENGTH not in automatic  # otherwise it is at most `longest_limit`
    if has_limit and model.positions == "learned" and model.longest_text < config.data.max_length < UNCUT:
        raise _conflict(
            f"setting model.positions=learned needs a data.max_length of at most {model.longest_text} for "
            f"model.max_positions={model.max_positions}, got {config.data.max_length}"
        )
    has_context = TASKS[config.task].parts == ("decoder",) and "model.max_positions" not in automatic
    if has_context and config.decoding.max_new_tokens > model.max_positions // 2:
        raise _conflict(
            f"setting decoding.max_new_tokens must be at most {model.max_positions // 2}, half of model.max_positions, "
            f"got {config.decoding.max_new_tokens}"
        )


def _check_labels(config: PipelineConfig) -> None:
    """Checks the settings that need labels."""
    usual = {
        "model.ngram_buckets": 0,
        "model.begin_marker": False,
        "model.pooling": "mean",
        "training.token_dropout": 0.0,
        "training.label_weights": "even",
    }
    has_labels = bool(TASKS[config.task].label_columns)
    for name, value in usual.items():
        if not has_labels and config.value(name) != value:
            raise _conflict(f"setting {name}={value_text(config.value(name))} needs a task with labels")
    if has_labels and config.model.output_bias:
        raise _conflict(
            "setting model.output_bias needs a task that writes text; a classifier's head has a bias anyway"
        )


def _check_tokenizer(config: PipelineConfig) -> None:
    tokenizer = config.tokenizer
    has_bytes = tokenizer.byte_fallback and tokenizer.kind in ("sentencepiece", "characters")
    if has_bytes and tokenizer.vocab_size <= 260 + tokenizer.placeholders:
        placeholders = f", {tokenizer.placeholders} placeholders" if tokenizer.placeholders else ""
        raise _conflict(
            f"setting tokenizer.vocab_size must be above {260 + tokenizer.placeholders} with byte_fallback (256 bytes, "
            f"4 control pieces{placeholders}), got {tokenizer.vocab_size}"
        )
    if tokenizer.placeholders and len(TASKS[config.task].text_columns) == 1:
        raise _conflict(f"setting tokenizer.placeholders needs a task with two texts; {config.task} reads one")
    if tokenizer.whitespace == "keep" and not TASKS[config.task].keeps_whitespace:
        raise _conflict(
            f"setting tokenizer.whitespace=keep is not supported by {config.task}, which reads text without line ends "
            "and indentation; use fold"
        )
    if not tokenizer.shared and len(TASKS[config.task].text_columns) == 1:
        raise _conflict(f"setting tokenizer.shared=false needs a task with two texts; {config.task} reads one")
    if not tokenizer.shared and config.model.tie_embeddings:
        raise _conflict(
            "setting tokenizer.shared=false needs model.tie_embeddings=false: two vocabularies, two embedding matrices"
        )


def _check_columns(config: PipelineConfig) -> None:
    columns = config.file_columns
    for column in config.columns:
        check_known(f"column of {config.task}", column, tuple(columns))
    if clash := next((name for name in config.data.slice_columns if name in columns), None):
        raise _conflict(f"setting data.slices: the task has its own column {clash!r}; rename the column in the file")
    key = config.data.split_key
    if columns.get(key, key) != key:
        raise _conflict(f"setting data.split_key: the task has its own column {key!r}; rename the column in the file")
    names = list(columns.values())
    if same := next((name for name in names if names.count(name) > 1), None):
        raise _conflict(f"columns {' and '.join(columns)} are both {same!r} in the file: name two columns")


def _parse(name: str, text: str, hint: Any) -> Any:
    """Parses the text of a setting as the type of its field."""
    if typing.get_origin(hint) is Literal:
        check_known(f"value of {name}", text, typing.get_args(hint))
        return text
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise _invalid(name, "true or false", text)
        return text.lower() == "true"
    try:
        value = hint(text)
    except ValueError:
        raise _invalid(name, "a whole number" if hint is int else "a number", text) from None
    if isinstance(value, float) and not math.isfinite(value):
        raise _invalid(name, "a finite number", text)
    return value


def _check_current(name: str) -> None:
    section, _, key = name.partition(".")
    current = _REPLACED.get(name, "")
    if section == "data" and any(key in task.columns for task in TASKS.values()):
        current = f"name the column of the file with --column {key}=NAME"
    if current:
        raise UserError(f"setting {name} no longer exists: {current}", code="setting-replaced", setting=name)


def _invalid(name: str, expected: str, value: Any) -> UserError:
    return UserError(
        f"setting {name} must be {expected}, got {value!r}", code="setting-invalid", setting=name, value=value
    )


def check_known(kind: str, name: str, names: Sequence[str], listed: Sequence[str] = ()) -> None:
    """Raises a UserError unless a name is one of several; it suggests the closest one and lists `listed`, or all."""
    if name not in names:
        raise UserError(
            f"unknown {kind} {name!r}{_closest(name, names) or '.'} There are: {', '.join(listed or names)}",
            code="name-unknown",
            kind=kind,
            name=name,
        )


def _closest(name: str, names: Sequence[str]) -> str:
    """Returns a hint at the closest name; a key such as "steps" finds the sections that have it."""
    key = name.rpartition(".")[2]
    same_key = [candidate for candidate in names if key and candidate.partition(".")[2] == key]
    hint = f" (did you mean {' or '.join(same_key)}?)" if same_key else did_you_mean(name, names)
    return f"{hint}." if hint else ""


def _read_preset(name: str) -> PipelineConfig:
    """Returns the settings in presets/<name>.toml."""
    path = pathlib.Path(__file__).parent / "presets" / f"{name}.toml"
    return with_settings(PipelineConfig(), setting_texts(tomllib.loads(path.read_text(encoding="utf-8"))))


PRESETS = {name: _read_preset(name) for name in (AUTO, "tiny", "demo", "small", "base", "big")}
