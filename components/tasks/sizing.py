"""How the preset `auto` sizes a pipeline: tables, read from top to bottom; the first row that fits counts.

The choice depends on the data alone, never on the machine. Transform chooses the vocabulary and the length limit, Tuner
everything else. Settings that the user sets are kept, and the others follow from them.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from seq2serve.models.config import Recipe

VOCABULARY = "tokenizer.vocab_size"
MAX_LENGTH = "data.max_length"


class _Vocabulary(NamedTuple):
    words: float  # most words of the train split, of CHARACTERS_PER_WORD, in all columns that share the vocabulary
    pieces: int


class _Size(NamedTuple):
    tokens: float  # most tokens of the train split, in the column that is learned
    layers: int  # of each part of the model
    d_model: int
    dff: int
    dropout: float
    epochs: float
    batch_tokens: int
    min_steps: int


_Sizes = dict[tuple[str, ...], tuple[_Size, ...]]  # parts of the model -> rows

# A classifier learns little from a piece that is a part of a word, so it gets more pieces; a decoder chooses among all
# pieces at each step, so it gets fewer. On Multi30k (800,000 words) 8,000 pieces had 36.4 BLEU on the eval split where
# 4,000 had 34.3, both after three quarters of the training.
_VOCABULARIES_OF_CLASSIFIERS = (
    _Vocabulary(10_000, 2000),
    _Vocabulary(50_000, 4000),
    _Vocabulary(10_000_000, 8000),
    _Vocabulary(math.inf, 16_000),
)
_VOCABULARIES = (
    _Vocabulary(20_000, 1000),
    _Vocabulary(300_000, 4000),
    _Vocabulary(30_000_000, 8000),
    _Vocabulary(300_000_000, 16_000),
    _Vocabulary(math.inf, 32_000),
)

# The first row of classifiers was measured on SST-2, SMS spam and rt-polarity: tests/benchmarks/README.md. Those of
# translation and language models follow the preset `demo`; the last rows of each table follow `small` and `base`, with
# the epochs that such corpora are usually given. On Multi30k a width of 128 with a dropout of 0.1 was as good as 192
# with 0.25; batches of 2,000 tokens were as good as twice as many of 1,000, and need less time.
_SIZES: _Sizes = {
    ("encoder",): (
        _Size(300_000, 1, 64, 128, 0.3, 18, 2048, 800),
        _Size(1_500_000, 1, 64, 128, 0.3, 8, 2048, 2600),
        _Size(15_000_000, 2, 128, 512, 0.2, 4, 4096, 5800),
        _Size(math.inf, 4, 256, 1024, 0.1, 2, 8192, 15_000),
    ),
    ("decoder",): (
        _Size(100_000, 2, 128, 512, 0.1, 10, 2048, 100),
        _Size(5_000_000, 2, 128, 512, 0.0, 2, 2048, 500),
        _Size(100_000_000, 4, 256, 1024, 0.0, 2, 8192, 7500),
        _Size(math.inf, 6, 512, 2048, 0.1, 1, 25_000, 24_000),
    ),
    ("encoder", "decoder"): (
        _Size(100_000, 2, 128, 512, 0.2, 20, 1000, 150),
        _Size(1_000_000, 2, 128, 512, 0.1, 12, 2000, 1500),
        _Size(10_000_000, 3, 256, 1024, 0.1, 8, 4096, 14_000),
        _Size(math.inf, 6, 512, 2048, 0.1, 3, 25_000, 20_000),
    ),
}


class _FineTuning(NamedTuple):
    learning_rate: float
    epochs: float
    batch_tokens: int
    min_steps: int


# A pretrained model keeps its architecture. From MiniLM the first row gives 92 % on the eval split of the demo corpus,
# where a model from scratch has 81. The learning rate falls to zero, so averaged weights would gain nothing, and they
# take a seventh of the time.
FINE_TUNING: dict[tuple[str, ...], _FineTuning] = {
    ("encoder",): _FineTuning(1e-4, 3, 1024, 200),
    ("encoder", "decoder"): _FineTuning(3e-4, 3, 2000, 300),
}

FILLED = 0.93  # of a batch; the rest is padding
EVALUATIONS, FINE_TUNING_EVALUATIONS = 10, 6  # checkpoints of a training, fewer if it is short
STEPS_PER_EVALUATION = 25  # at least, because the answers of an evaluation take as long as these steps
AVERAGE_DECAY = 0.99
PATIENCE = 5  # half of them, of a training of at least LONG steps: a short one is cheaper than a wrong stop
LONG = 5000
LEAST_CHECKPOINT_STEPS = 100  # with training.minutes: answers for an evaluation take time however small the data
CHARACTERS_PER_WORD = 6  # with the space
CHARACTERS = 512  # a smaller vocabulary is one of characters or bytes
SHORTEST_LIMIT, LONGEST_LIMIT = 128, 1024  # tokens of a text
MOST_NGRAM_WEIGHTS = 2**19  # of the pairs of tokens; a step updates each of them
MOST_NGRAM_BUCKETS, LEAST_NGRAM_BUCKETS = 2**18, 2**12


@dataclasses.dataclass(frozen=True)
class TrainData:
    """What is known of the data before training.

    Args:
        rows: number of rows of the train split.
        tokens: number of tokens in the column that is learned: the last text column.
        vocab_size: of that column.
        num_labels: 0 without labels.
        is_pretrained: whether training starts from a pretrained model.
    """

    rows: int
    tokens: int
    vocab_size: int
    num_labels: int = 0
    is_pretrained: bool = False


def automatic_settings(parts: tuple[str, ...], context: bool) -> tuple[str, ...]:
    """Returns the settings that `auto` chooses for a model of these parts.

    Args:
        parts: those of "encoder" and "decoder" that the model has.
        context: whether texts are packed into rows of `model.max_positions` tokens, instead of being limited.
    """
    layers = [f"model.num_{part}_layers" for part in parts]
    labels = ["model.ngram_buckets", "training.token_dropout"] if parts == ("encoder",) else []
    names = ["d_model", "num_heads", "dff", "dropout"]
    training = ["optimizer", "learning_rate", "batch_tokens", "steps", "warmup_steps", "checkpoint_steps", "patience"]
    training.append("average_decay")
    return (
        VOCABULARY,
        "model.max_positions" if context else MAX_LENGTH,
        *layers,
        *(f"model.{name}" for name in names),
        *labels,
        *(f"training.{name}" for name in training),
    )


def choose_vocab_size(words: Mapping[str, int], for_labels: bool) -> int:
    """Returns the number of pieces of a tokenizer.

    Args:
        words: word -> number of occurrences in the train split. Not every script separates words by spaces, so their
            characters are counted.
        for_labels: whether texts are classified.
    """
    number = sum((len(word) + 1) * count for word, count in words.items()) / CHARACTERS_PER_WORD
    table = _VOCABULARIES_OF_CLASSIFIERS if for_labels else _VOCABULARIES
    return next(row.pieces for row in table if number <= row.words)


def choose_max_length(longest: int, longest_limit: int = LONGEST_LIMIT) -> int:
    """Returns the length limit in tokens: the power of two from the longest text on, so that none is cut.

    A served text may be longer than those of the data, so a limit is at least SHORTEST_LIMIT; above LONGEST_LIMIT
    attention would need too much memory.

    Args:
        longest: tokens of the longest text.
        longest_limit: the most that is allowed, below SHORTEST_LIMIT too: a model may have learned fewer positions.
    """
    return min(max(SHORTEST_LIMIT, 2 ** math.ceil(math.log2(max(1, longest)))), longest_limit)


class _Choices:
    """The choices so far; `take` returns the value that counts, chosen or the user's own."""

    def __init__(self, recipe: Recipe, automatic: Collection[str]):
        self._recipe, self._automatic = recipe, automatic
        self.values: dict[str, Any] = {}

    def take(self, name: str, chosen: Any) -> Any:
        if name in self._automatic:
            self.values[name] = chosen
            return chosen
        return self._recipe.value(name)


def choose(parts: tuple[str, ...], data: TrainData, recipe: Recipe, automatic: Collection[str]) -> dict[str, Any]:
    """Chooses the settings of model and training.

    Args:
        parts: those of "encoder" and "decoder" that the model has.
        data: what it learns from.
        recipe: the user's settings, and values for those that are chosen, which do not count.
        automatic: the names of the settings to choose.
    Returns:
        Name -> value of these settings.
    """
    size = next(row for row in _SIZES[parts] if data.tokens <= row.tokens)
    if data.is_pretrained:
        _, epochs, batch_tokens, min_steps = FINE_TUNING[parts]
        size = size._replace(epochs=epochs, batch_tokens=batch_tokens, min_steps=min_steps)
    if parts == ("decoder",) and data.vocab_size <= CHARACTERS:
        # The output layer costs little, so there is time for more layers; and a text has four times as many tokens.
        layers, epochs, batch_tokens = 2 * size.layers, 0.6 * size.epochs, size.batch_tokens // 2
        size = size._replace(layers=layers, epochs=epochs, batch_tokens=batch_tokens)
    choices = _Choices(recipe, automatic)
    if data.is_pretrained:
        choices.take("model.ngram_buckets", 0)
        width = recipe.model.d_model
    else:
        width = _choose_model(choices, parts, data, size, recipe)
    _choose_training(choices, parts, data, size._replace(d_model=width), recipe)
    return choices.values


def _choose_model(choices: _Choices, parts: tuple[str, ...], data: TrainData, size: _Size, recipe: Recipe) -> int:
    """Returns the width."""
    for part in parts:
        choices.take(f"model.num_{part}_layers", size.layers)
    usual, kv_heads = 4 if size.d_model <= 128 else 8, recipe.model.num_kv_heads or 1
    heads = choices.take("model.num_heads", 0) or kv_heads * math.ceil(usual / kv_heads)
    # A multiple of the user's heads; rotary positions need an even number of channels in each.
    width = choices.take("model.d_model", 2 * heads * math.ceil(size.d_model / (2 * heads)))
    numbers = range(heads, kv_heads, -kv_heads)
    choices.take("model.num_heads", next((number for number in numbers if width % (2 * number) == 0), kv_heads))
    choices.take("model.dff", size.dff * width // size.d_model)
    choices.take("model.dropout", size.dropout)
    # Half of the context is for what is generated.
    context = max(128 if width <= 128 else 256, 2 * recipe.decoding.max_new_tokens)
    choices.take("model.max_positions", 2 ** math.ceil(math.log2(context)))
    if data.num_labels:
        # Most pairs of a small corpus differ, so there are about as many as tokens.
        wanted = min(max(data.tokens, LEAST_NGRAM_BUCKETS), MOST_NGRAM_BUCKETS, MOST_NGRAM_WEIGHTS // data.num_labels)
        choices.take("model.ngram_buckets", 2 ** int(math.log2(max(2, wanted))))
    return width


def _choose_training(choices: _Choices, parts: tuple[str, ...], data: TrainData, size: _Size, recipe: Recipe) -> None:
    # A classifier gets about as many rows per batch whatever their length.
    longer = round(math.log2(max(1.0, data.tokens / max(1, data.rows) / 32))) if data.num_labels else 0
    batch_tokens = choices.take("training.batch_tokens", size.batch_tokens * 2 ** min(longer, 3))
    steps_per_epoch = max(1.0, data.tokens / (FILLED * batch_tokens))
    steps = _choose_steps(choices, steps_per_epoch, size, recipe)
    is_small = size.d_model <= 128
    is_new = not data.is_pretrained
    optimizer = choices.take("training.optimizer", "muon" if is_new and "decoder" in parts and is_small else "adam")
    muon_rate = 4e-3 if "encoder" in parts else 3e-3
    rate = muon_rate if optimizer == "muon" else 2e-3 if size.d_model <= 64 else 1e-3 if size.d_model <= 256 else 7e-4
    choices.take("training.learning_rate", rate if is_new else FINE_TUNING[parts].learning_rate)
    choices.take("training.warmup_steps", max(1, min(200 if is_small else 2000, steps // 10)))
    if recipe.training.minutes:
        # How many steps there will be depends on the machine, so evaluations follow from their cost. The eval split is
        # at most a tenth of train and has no backward pass, so three in an epoch take at most a tenth of the time.
        choices.take("training.checkpoint_steps", max(LEAST_CHECKPOINT_STEPS, round(steps_per_epoch / 3)))
        choices.take("training.patience", 0)  # the user set when training ends
    else:
        # Rounded up, so that the last one is not followed by a few steps and another one.
        evaluations = min(EVALUATIONS if is_new else FINE_TUNING_EVALUATIONS, max(1, steps // STEPS_PER_EVALUATION))
        choices.take("training.checkpoint_steps", max(1, math.ceil(steps / evaluations)))  # 0 steps export the start
        choices.take("training.patience", PATIENCE if steps >= LONG else 0)
    choices.take("training.token_dropout", 0.3 if is_new else 0.0)
    choices.take("training.average_decay", AVERAGE_DECAY if is_new else 0.0)


def _choose_steps(choices: _Choices, steps_per_epoch: float, size: _Size, recipe: Recipe) -> int:
    """Returns the number of steps; with `training.epochs` an estimate of it, with `training.minutes` the usual one."""
    epochs, minutes = recipe.training.epochs, recipe.training.minutes
    usual = max(1 if epochs else size.min_steps, round((epochs or size.epochs) * steps_per_epoch))
    return usual if epochs or minutes else choices.take("training.steps", usual)


def describe(values: Mapping[str, Any], data: TrainData) -> str:
    """Returns the choice and its reason, in a line."""
    chosen = ", ".join(f"{name.partition('.')[2]} {_number(value)}" for name, value in values.items())
    labels = f", {data.num_labels} labels" if data.num_labels else ""
    return (
        f"{chosen}; because train has {data.rows:,} rows with {data.tokens:,} tokens in total{labels}, and the "
        f"vocabulary {data.vocab_size:,} pieces"
    )


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
