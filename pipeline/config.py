"""The settings of a pipeline: every section as a frozen dataclass, with bounds, and presets to start from."""

import dataclasses
import difflib
import functools
import math
import numbers
import pathlib
import tomllib
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen.formats import Format, Unit
from seq2serve.components.tasks.registry import TASKS
from seq2serve.models.config import MAX_PLACEHOLDERS, DecodingConfig, ModelConfig, TokenizerConfig, TrainingConfig


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which columns are read, and how rows are split.

    Args:
        source: the file's column to translate from: a name, a number from 1 if there is no header, or for JSON a field
            or a path of fields joined by dots.
        target: the file's column to translate into.
        text: the file's column of texts, for tasks that read one text.
        label: the file's column of labels.
        slices: further columns of the file, joined by commas; the Evaluator also computes its metrics for each of their
            values.
        format: of the files; auto follows from the file extension.
        delimiter: between cells, if it is not the format's own.
        unit: a row of plain text: a line, a paragraph, a whole file, or a part of a document. A document is a file
            whose paragraphs stay in order; the parts at its end are held out for eval and test. With auto, a single
            file is a document, and several files are read by paragraph. With file, a single file is a document unless
            each split has its own.
        encoding: of text files, such as windows-1252 (Python's names); auto is UTF-8, or UTF-16 if the bytes show it.
        quoting: of TSV files: csv if cells may be quoted, none if quotation marks are text; auto follows from the file.
        eval_share: share of the rows held out to evaluate the model during training.
        test_share: share of the rows held out to evaluate the exported model.
        seed: of the hash that splits rows.
        split_key: rows with the same key share a split. `loose` is the text without case, digits and spaces, so
            near-duplicates share a split; `exact` is the text; any other value is a column of the file, such as the
            document or the speaker of a row.
        overlap: what to do if rows of eval or test are also in train: an error if they are more than 1 % of the split,
            drop them from train, or only warn.
        max_reject_share: the run stops if a larger share of the rows is unusable.
        max_length: most tokens of a text, in training and when served. The served model cuts a longer text there.
        too_long: whether a row with a longer text is dropped, or the text cut; both are counted. A model that learns
            to write texts that were cut learns to stop in the middle of a sentence.
    """

    source: str = "source"
    target: str = "target"
    text: str = "text"
    label: str = "label"
    slices: str = ""
    format: Literal["auto", Format] = "auto"
    delimiter: str = ""
    unit: Unit = "line"
    encoding: str = "auto"
    quoting: Literal["auto", "csv", "none"] = "auto"
    eval_share: float = 0.05
    test_share: float = 0.05
    seed: int = 1
    split_key: str = "loose"
    overlap: Literal["error", "drop_from_train", "warn"] = "error"
    max_reject_share: float = 0.01
    max_length: int = 256
    too_long: Literal["cut", "drop"] = "drop"

    @property
    def slice_columns(self) -> tuple[str, ...]:
        """Returns the names in `slices`."""
        return tuple(name.strip() for name in self.slices.split(",") if name.strip())


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """When a model is good enough to be blessed.

    Args:
        min_over_baseline: how much better than the baseline the model must be on the test split: BLEU points above
            copying the source, points of accuracy above the majority label, bits per character below the frequencies
            of the characters.
        num_examples: number of test examples to evaluate; 0 is all of them.
    """

    min_over_baseline: float = 1.0
    num_examples: int = 0


@dataclasses.dataclass(frozen=True)
class PipelineConfig:
    """All settings of one pipeline, in sections. Constructing one checks every value.

    Raises:
        UserError: a value is out of its range, or two values contradict each other.
    """

    task: str = "translation"
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = dataclasses.field(default_factory=TokenizerConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    decoding: DecodingConfig = dataclasses.field(default_factory=DecodingConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        _check_known("task", self.task, tuple(TASKS))
        for name, bounds in _RANGES.items():
            section, key = name.split(".")
            _check_range(name, getattr(getattr(self, section), key), *bounds)
        _check_together(self)


def preset(name: str, task: str) -> PipelineConfig:
    """Returns a preset for a task.

    Raises:
        UserError: no such preset or task; the message names the closest match and lists them all.
    """
    _check_known("preset", name, tuple(PRESETS))
    settings = (*_task_settings("common", task), *_task_settings(name, task))
    return with_settings(dataclasses.replace(PRESETS[name], task=task), settings)


def with_settings(config: PipelineConfig, settings: Iterable[str]) -> PipelineConfig:
    """Changes single settings.

    Args:
        config: to start from.
        settings: texts such as "training.steps=500"; of two for one key the later wins.
    Returns:
        A new PipelineConfig, checked as a whole.
    Raises:
        UserError: no such section or key, a value of the wrong type or out of range; the message lists what is
            possible.
    """
    changes: dict[str, dict[str, Any]] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        section, dot, key = name.strip().partition(".")
        if not (equals and dot):
            raise UserError(
                f"setting {setting!r}: write SECTION.KEY=VALUE{_closest(name.strip(), setting_names())}",
                code="setting-malformed",
                setting=setting,
            )
        _check_known("section of settings", section, tuple(_sections()))
        siblings = [known for known in setting_names() if known.startswith(f"{section}.")]
        _check_current(name.strip())
        _check_known("setting", name.strip(), setting_names(), listed=siblings)
        hint = typing.get_type_hints(type(getattr(config, section)))[key]
        value = text.strip() or text  # a delimiter may be a blank
        changes.setdefault(section, {})[key] = _parse(name.strip(), value, hint)
    sections = {section: dataclasses.replace(getattr(config, section), **keys) for section, keys in changes.items()}
    return dataclasses.replace(config, **sections)


def setting_texts(sections: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yields sections of settings, such as {"training": {"steps": 500}}, in the syntax of `with_settings`.

    Raises:
        UserError: a value is neither a text nor a number nor a truth value.
    """
    for section, values in sections.items():
        for key, value in values.items():
            if not isinstance(value, str | numbers.Real):  # of NumPy too
                raise _invalid(f"{section}.{key}", "a text, a number, True or False", value)
            yield f"{section}.{key}={value_text(value)}"


def value_text(value: Any) -> str:
    """Returns a value in the syntax of `with_settings`, which is that of `--set`."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def setting_names() -> tuple[str, ...]:
    """Returns the name of every setting, such as "training.steps"."""
    return tuple(f"{section}.{key.name}" for section, fields in _sections().items() for key in fields)


def _sections() -> dict[str, tuple[dataclasses.Field, ...]]:
    sections = {field.name: field.type for field in dataclasses.fields(PipelineConfig)}
    return {name: dataclasses.fields(kind) for name, kind in sections.items() if dataclasses.is_dataclass(kind)}


UNCUT = 1_000_000_000  # as data.max_length: texts are not cut, but packed into rows of model.max_positions
# Earlier setting -> the setting that decides now, and what it does.
_REPLACED = {
    "decoding.max_source_length": "data.max_length is the limit in training and when served. Set data.max_length"
}
_INF = math.inf
_MAX_SEED = 2**32 - 1  # NumPy's
# setting -> smallest and largest value, both allowed. A share of exactly 0 or 1 would leave a split empty.
_RANGES = {
    "data.eval_share": (1e-6, 0.5),
    "data.test_share": (1e-6, 0.5),
    "data.seed": (0, _MAX_SEED),
    "data.max_reject_share": (0, 1),
    "data.max_length": (1, UNCUT),
    "tokenizer.vocab_size": (8, 1_000_000),
    "tokenizer.placeholders": (0, MAX_PLACEHOLDERS),
    "tokenizer.character_coverage": (0.98, 1),  # SentencePiece's
    "model.num_encoder_layers": (1, _INF),
    "model.num_decoder_layers": (1, _INF),
    "model.d_model": (2, _INF),
    "model.num_heads": (1, _INF),
    "model.dff": (1, _INF),
    "model.dropout": (0, 0.9),
    "model.attention_dropout": (0, 0.9),
    "model.activation_dropout": (0, 0.9),
    "model.max_positions": (1, _INF),
    "model.ngram_buckets": (0, 2**24),
    "training.steps": (1, _INF),
    "training.epochs": (0, _INF),
    "training.minutes": (0, _INF),
    "training.batch_tokens": (1, _INF),
    "training.batch_parts": (1, 1024),
    "training.learning_rate": (1e-9, 10),
    "training.warmup_steps": (0, _INF),
    "training.label_smoothing": (0, 0.9),
    "training.token_dropout": (0, 0.9),
    "training.beta_2": (0, 0.999999),
    "training.clip_norm": (1e-6, _INF),
    "training.average_decay": (0, 0.999999),
    "training.checkpoint_steps": (1, _INF),
    "training.export_checkpoints": (1, 100),
    "training.patience": (0, _INF),
    "training.eval_examples": (0, _INF),
    "training.seed": (0, _MAX_SEED),
    "training.profile_step": (0, _INF),
    "decoding.beam_size": (1, 64),
    "decoding.length_penalty": (0, 10),
    "decoding.max_length_ratio": (0, 10),
    "decoding.max_length_extra": (1, _INF),
    "decoding.temperature": (0, 100),
    "decoding.top_p": (1e-6, 1),
    "decoding.max_new_tokens": (1, _INF),
    "decoding.no_repeat_ngram": (0, _INF),
    "decoding.repetition_penalty": (1, 10),
    "evaluation.min_over_baseline": (-100, 100),
    "evaluation.num_examples": (0, _INF),
}


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UserError(
            f"setting {name} must be {allowed_range(name)}, got {_number_text(value)}",
            code="setting-out-of-range",
            setting=name,
            value=value,
        )


def allowed_range(name: str) -> str:
    """Returns the range of a numeric setting in words."""
    low, high = _RANGES[name]
    return f"at least {low:g}" if high == _INF else f"between {low:g} and {_number_text(high)}"


def _number_text(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _check_together(config: PipelineConfig) -> None:
    """Checks the conditions that involve more than one setting."""
    _check_model(config)
    _check_tokenizer(config)
    _check_columns(config)
    if config.training.epochs and config.training.minutes:
        raise _conflict("settings training.epochs and training.minutes both limit training: set one of them")


def _conflict(message: str) -> UserError:
    return UserError(message, code="settings-conflict")


def _check_model(config: PipelineConfig) -> None:
    model = config.model
    if model.d_model % model.num_heads:
        raise _conflict(
            f"setting model.d_model ({model.d_model}) must be divisible by model.num_heads ({model.num_heads})"
        )
    if model.positions == "rotary" and model.d_model // model.num_heads % 2:
        raise _conflict("setting model.positions=rotary needs an even model.d_model / model.num_heads")
    if model.positions == "sinusoidal" and model.d_model % 2:
        raise _conflict("setting model.positions=sinusoidal needs an even model.d_model")
    if model.positions == "learned" and model.max_positions < config.data.max_length < UNCUT:
        raise _conflict(
            f"setting model.positions=learned needs a model.max_positions of at least data.max_length "
            f"({config.data.max_length}), got {model.max_positions}"
        )
    if TASKS[config.task].parts == ("decoder",) and config.decoding.max_new_tokens > model.max_positions // 2:
        raise _conflict(
            f"setting decoding.max_new_tokens must be at most {model.max_positions // 2}, half of model.max_positions, "
            f"got {config.decoding.max_new_tokens}"
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
    columns = TASKS[config.task].columns
    if clash := next((name for name in config.data.slice_columns if name in columns), None):
        raise _conflict(f"setting data.slices: the task has its own column {clash!r}; rename the column in the file")
    key = config.data.split_key
    if key in columns and getattr(config.data, key) != key:
        raise _conflict(f"setting data.split_key: the task has its own column {key!r}; rename the column in the file")
    names = [getattr(config.data, column) for column in columns]
    if same := next((name for name in names if names.count(name) > 1), None):
        settings = " and ".join(f"data.{column}" for column in columns)
        raise _conflict(f"{settings} are both {same!r}: name two columns")


def _parse(name: str, text: str, hint: Any) -> Any:
    """Parses the text of a setting as the type of its field."""
    if typing.get_origin(hint) is Literal:
        _check_known(f"value of {name}", text, typing.get_args(hint))
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
    if current := _REPLACED.get(name):
        raise UserError(f"setting {name} no longer exists: {current}", code="setting-replaced", setting=name)


def _invalid(name: str, expected: str, value: Any) -> UserError:
    return UserError(
        f"setting {name} must be {expected}, got {value!r}", code="setting-invalid", setting=name, value=value
    )


def _check_known(kind: str, name: str, names: Sequence[str], listed: Sequence[str] = ()) -> None:
    if name not in names:
        raise UserError(
            f"unknown {kind} {name!r}{_closest(name, names) or '.'} There are: {', '.join(listed or names)}",
            code="name-unknown",
            kind=kind,
            name=name,
        )


def _closest(name: str, names: Sequence[str]) -> str:
    """Returns a hint at the closest name; a bare key such as "steps" finds the sections that have it."""
    same_key = [candidate for candidate in names if candidate.partition(".")[2] == name]
    closest = same_key or difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {' or '.join(closest)}?)." if closest else ""


@functools.cache
def _preset_file(name: str) -> Mapping[str, Any]:
    """Returns presets/<name>.toml: sections of settings, and under `tasks` what a task needs instead."""
    path = pathlib.Path(__file__).parent / "presets" / f"{name}.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _task_settings(name: str, task: str) -> Iterator[str]:
    return setting_texts(_preset_file(name).get("tasks", {}).get(task, {}))


def _read_preset(name: str) -> PipelineConfig:
    sections = {section: keys for section, keys in _preset_file(name).items() if section != "tasks"}
    return with_settings(PipelineConfig(), setting_texts(sections))


PRESETS = {name: _read_preset(name) for name in ("tiny", "demo", "small", "base", "big")}
