"""Everything a person may set about a pipeline, and presets to start from.

Comes in: a task, the name of a preset and settings such as `training.steps=500`. Goes out: a PipelineConfig, checked.
Read next: dag.py, which hands each section to its component; models/config.py for the sections the model owns.
"""

import dataclasses
import difflib
import math
import typing
from collections.abc import Iterable, Sequence
from typing import Literal

from components.errors import UserError
from components.tasks import TASKS
from models.config import DecodingConfig, ModelConfig, TokenizerConfig, TrainingConfig


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which columns are read, and how rows are split.

    Args:
        source: the file's column to translate from; a name, a number from 1 where there is no header, or for JSON a
            field or fields joined by dots.
        target: the file's column to translate into.
        text: the file's column of texts, of tasks that read one text.
        label: the file's column of labels.
        slices: further columns of the file, joined by commas, by whose values the Evaluator tells its metrics apart.
        format: of the files; auto goes by their names.
        delimiter: between cells, where it is not the format's own.
        unit: what a row of plain text is.
        eval_share: share of the rows held out to watch training with.
        test_share: share of the rows held out to judge the exported model with.
        seed: a different one deals the rows out differently.
        max_reject_share: a file of which a larger share is unusable stops the run.
        max_length: tokens that a text may have.
        too_long: whether a longer one is cut or its row dropped; either is counted.
    """

    source: str = "source"
    target: str = "target"
    text: str = "text"
    label: str = "label"
    slices: str = ""
    format: Literal["auto", "tsv", "csv", "jsonl", "text", "parquet", "tfrecord"] = "auto"
    delimiter: str = ""
    unit: Literal["line", "paragraph", "file"] = "line"
    eval_share: float = 0.05
    test_share: float = 0.05
    seed: int = 1
    max_reject_share: float = 0.01
    max_length: int = 256
    too_long: Literal["cut", "drop"] = "cut"

    @property
    def slice_columns(self) -> tuple[str, ...]:
        """Returns the names in `slices`."""
        return tuple(name.strip() for name in self.slices.split(",") if name.strip())


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """When a model is good enough to be blessed.

    Args:
        min_over_baseline: how much better than the baseline the model must be on the test split: BLEU points above the
            source copied as it is, points of accuracy above the majority's label, bits a character below those that
            the characters' frequencies give.
        num_examples: how many test examples are asked; 0 is all of them.
    """

    min_over_baseline: float = 1.0
    num_examples: int = 0


@dataclasses.dataclass(frozen=True)
class PipelineConfig:
    """All settings of one pipeline; a section a component family. Building one checks every value.

    Raises:
        UserError: a value is out of its range, or two do not go together.
    """

    task: str = "translation"
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = dataclasses.field(default_factory=TokenizerConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    decoding: DecodingConfig = dataclasses.field(default_factory=DecodingConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        _known("task", self.task, tuple(TASKS))
        for name, bounds in _RANGES.items():
            section, key = name.split(".")
            _check_range(name, getattr(getattr(self, section), key), *bounds)
        _check_together(self)


def preset(name: str, task: str) -> PipelineConfig:
    """Returns the preset of that name for a task.

    Raises:
        UserError: no such preset or task; the message holds the nearest name and the list.
    """
    _known("preset", name, tuple(PRESETS))
    config = dataclasses.replace(PRESETS[name], task=task)
    return with_settings(config, (*_TASK_SETTINGS.get(("", task), ()), *_TASK_SETTINGS.get((name, task), ())))


def with_settings(config: PipelineConfig, settings: Iterable[str]) -> PipelineConfig:
    """Changes single settings.

    Args:
        config: where to start from.
        settings: texts such as "training.steps=500"; of two for one key the later wins.
    Returns:
        A new PipelineConfig, checked as a whole.
    Raises:
        UserError: no such section or key, a value of the wrong type or out of range; the message says what is possible.
    """
    changes: dict[str, dict[str, typing.Any]] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        section, dot, key = name.strip().partition(".")
        if not (equals and dot):
            raise UserError(f"setting {setting!r}: write SECTION.KEY=VALUE{_nearest(name.strip(), setting_names())}")
        _known("section of settings", section, tuple(_sections()))
        siblings = [known for known in setting_names() if known.startswith(f"{section}.")]
        _known("setting", name.strip(), setting_names(), shown=siblings)
        hint = typing.get_type_hints(type(getattr(config, section)))[key]
        changes.setdefault(section, {})[key] = _coerced(f"{section}.{key}", text.strip(), hint)
    sections = {section: dataclasses.replace(getattr(config, section), **keys) for section, keys in changes.items()}
    return dataclasses.replace(config, **sections)


def setting_names() -> tuple[str, ...]:
    """Returns every name that `with_settings` knows, such as "training.steps"."""
    return tuple(f"{section}.{key.name}" for section, fields in _sections().items() for key in fields)


def _sections() -> dict[str, tuple[dataclasses.Field, ...]]:
    sections = {field.name: field.type for field in dataclasses.fields(PipelineConfig)}
    return {name: dataclasses.fields(kind) for name, kind in sections.items() if dataclasses.is_dataclass(kind)}


UNCUT = 1_000_000_000  # as data.max_length: texts are not cut, but packed into rows of model.max_positions
_INF = math.inf
_MAX_SEED = 2**32 - 1  # NumPy's
# setting -> smallest and largest value, both allowed. A share of exactly 0 or 1 would leave a split empty.
_RANGES = {
    "data.eval_share": (1e-6, 0.5),
    "data.test_share": (1e-6, 0.5),
    "data.seed": (0, _MAX_SEED),
    "data.max_reject_share": (0, 1),
    "data.max_length": (1, _INF),
    "tokenizer.vocab_size": (8, 1_000_000),
    "tokenizer.character_coverage": (0.9, 1),
    "model.num_encoder_layers": (1, _INF),
    "model.num_decoder_layers": (1, _INF),
    "model.d_model": (2, _INF),
    "model.num_heads": (1, _INF),
    "model.dff": (1, _INF),
    "model.dropout": (0, 0.9),
    "model.attention_dropout": (0, 0.9),
    "model.activation_dropout": (0, 0.9),
    "model.max_positions": (1, _INF),
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
    "decoding.max_source_length": (1, _INF),
    "decoding.temperature": (0, 100),
    "decoding.top_p": (1e-6, 1),
    "decoding.max_new_tokens": (1, _INF),
    "evaluation.min_over_baseline": (-100, 100),
    "evaluation.num_examples": (0, _INF),
}


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UserError(f"setting {name} must be {allowed_range(name)}, got {_shown(value)}")


def allowed_range(name: str) -> str:
    """Returns in words what values a setting that is a number may have."""
    low, high = _RANGES[name]
    return f"at least {low:g}" if high == _INF else f"between {low:g} and {_shown(high)}"


def _shown(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _check_together(config: PipelineConfig) -> None:
    """Checks what takes more than one setting to say."""
    model, data = config.model, config.data
    if model.d_model % model.num_heads:
        raise UserError(
            f"setting model.d_model ({model.d_model}) must be divisible by model.num_heads ({model.num_heads})"
        )
    if model.positions == "rotary" and model.d_model // model.num_heads % 2:
        raise UserError("setting model.positions=rotary needs an even model.d_model / model.num_heads")
    if model.positions == "sinusoidal" and model.d_model % 2:
        raise UserError("setting model.positions=sinusoidal needs an even model.d_model")
    lengths = [length for length in (data.max_length, config.decoding.max_source_length) if length < UNCUT]
    if model.positions == "learned" and model.max_positions < max(lengths, default=0):
        raise UserError(
            "setting model.positions=learned needs a model.max_positions of at least data.max_length and "
            "decoding.max_source_length"
        )
    if config.training.epochs and config.training.minutes:
        raise UserError("settings training.epochs and training.minutes each say when training ends: set one of them")
    _check_tokenizer(config)
    if clash := next((name for name in data.slice_columns if name in TASKS[config.task].columns), None):
        raise UserError(f"setting data.slices: {clash!r} is what the task calls a column of its own; rename the file's")
    names = [getattr(data, column) for column in TASKS[config.task].columns]
    if same := next((name for name in names if names.count(name) > 1), None):
        columns = " and ".join(f"data.{column}" for column in TASKS[config.task].columns)
        raise UserError(f"{columns} are both {same!r}: name two columns")


def _check_tokenizer(config: PipelineConfig) -> None:
    tokenizer = config.tokenizer
    has_bytes = tokenizer.byte_fallback and tokenizer.kind in ("sentencepiece", "characters")
    if has_bytes and tokenizer.vocab_size <= 260:
        raise UserError(
            f"setting tokenizer.vocab_size must be above 260 with byte_fallback (256 bytes, 4 control pieces), got "
            f"{tokenizer.vocab_size}"
        )
    if not tokenizer.shared and len(TASKS[config.task].text_columns) == 1:
        raise UserError(f"setting tokenizer.shared=false needs a task with two texts, and {config.task} reads one")
    if not tokenizer.shared and config.model.tie_embeddings:
        raise UserError(
            "setting tokenizer.shared=false needs model.tie_embeddings=false: two vocabularies, two matrices"
        )


def _coerced(name: str, text: str, hint: typing.Any) -> typing.Any:
    """Reads a setting's text as its dataclass's type."""
    if typing.get_origin(hint) is typing.Literal:
        _known(f"value of {name}", text, typing.get_args(hint))
        return text
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise UserError(f"setting {name} must be true or false, got {text!r}")
        return text.lower() == "true"
    try:
        value = hint(text)
    except ValueError:
        kind = "a whole number" if hint is int else "a number"
        raise UserError(f"setting {name} must be {kind}, got {text!r}") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"setting {name} must be a finite number, got {text!r}")
    return value


def _known(what: str, name: str, names: Sequence[str], shown: Sequence[str] = ()) -> None:
    if name not in names:
        raise UserError(f"unknown {what} {name!r}{_nearest(name, names) or '.'} There are: {', '.join(shown or names)}")


def _nearest(name: str, names: Sequence[str]) -> str:
    """Returns a hint at the most similar name; a bare key such as "steps" finds the sections that have it."""
    same_key = [candidate for candidate in names if candidate.partition(".")[2] == name]
    nearest = same_key or difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {' or '.join(nearest)}?)." if nearest else ""


# The sizes of base and big, their dropout, steps and peak rates are those of Vaswani et al. 2017 (table 3, section 5.3:
# d_model^-0.5 * warmup^-0.5); the others are what a laptop trains in seconds (tiny), minutes (demo) or hours (small).
PRESETS = {
    "demo": PipelineConfig(
        tokenizer=TokenizerConfig(vocab_size=4000),
        model=ModelConfig(
            num_encoder_layers=2,
            num_decoder_layers=2,
            d_model=128,
            num_heads=4,
            dff=512,
            dropout=0.0,
            positions="rotary",
        ),
        # Muon, no dropout: in a few minutes a model sees its text a dozen times, too seldom to learn it by heart.
        training=TrainingConfig(
            steps=3000,
            optimizer="muon",
            batch_tokens=1000,
            learning_rate=3e-3,
            warmup_steps=200,
            schedule="cosine",
            average_decay=0.99,
            checkpoint_steps=500,
        ),
        data=DataConfig(eval_share=0.03, test_share=0.03, max_length=64),
    ),
    "tiny": PipelineConfig(
        tokenizer=TokenizerConfig(vocab_size=2000),
        model=ModelConfig(num_encoder_layers=2, num_decoder_layers=2, d_model=64, num_heads=4, dff=256),
        training=TrainingConfig(
            steps=200, batch_tokens=2048, learning_rate=3e-3, warmup_steps=50, average_decay=0.9, checkpoint_steps=100
        ),
        data=DataConfig(max_length=64),
    ),
    "small": PipelineConfig(
        tokenizer=TokenizerConfig(vocab_size=8000),
        model=ModelConfig(num_encoder_layers=4, num_decoder_layers=4, d_model=256, num_heads=8, dff=1024),
        training=TrainingConfig(steps=30_000, batch_tokens=8192, learning_rate=1e-3, warmup_steps=2000),
        data=DataConfig(max_length=128),
    ),
    "base": PipelineConfig(tokenizer=TokenizerConfig(vocab_size=37_000)),
    "big": PipelineConfig(
        tokenizer=TokenizerConfig(vocab_size=37_000),
        model=ModelConfig(d_model=1024, num_heads=16, dff=4096, dropout=0.3),
        training=TrainingConfig(steps=300_000, learning_rate=5e-4),
    ),
}

# (preset, or "" for all of them; task) -> what that task needs otherwise.
_TASK_SETTINGS = {
    # A document is cut by the packing into rows, not before.
    ("", "language_model"): (
        "data.unit=paragraph",
        f"data.max_length={UNCUT}",
        "evaluation.min_over_baseline=0.1",
        "training.label_smoothing=0",
        "model.positions=rotary",
        "model.max_positions=256",
    ),
    # A few thousand sentences: small, and kept from learning them by heart in every way there is.
    ("demo", "classification"): (
        "data.eval_share=0.1",
        "data.test_share=0.1",
        "data.max_length=96",
        "tokenizer.lowercase=true",
        "model.num_encoder_layers=1",
        "model.d_model=64",
        "model.dff=128",
        "model.dropout=0.3",
        "training.optimizer=adam",
        "training.steps=1500",
        "training.batch_tokens=2048",
        "training.learning_rate=0.002",
        "training.warmup_steps=100",
        "training.token_dropout=0.3",
        "training.checkpoint_steps=250",
    ),
    ("demo", "language_model"): (
        "data.unit=file",
        "decoding.temperature=0.4",  # of the words it writes, 2 in 1,000 are none; at 0.5 8 in 1,000
        "data.eval_share=0.04",
        "data.test_share=0.06",
        "model.max_positions=128",
        "training.batch_tokens=2048",
        "training.steps=1500",
        "training.warmup_steps=100",
        "training.checkpoint_steps=250",
    ),
}
