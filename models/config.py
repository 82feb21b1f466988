"""Settings of tokenizers, models, training and decoding, as frozen dataclasses.

A setting is one field: type with range, default, and below it the meaning, which `seq2serve settings` prints.
The module does not import TensorFlow, so a cached run does not load it.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

MAX_PLACEHOLDERS = 64
MAX_SEED = 2**32 - 1  # NumPy's


class Range(NamedTuple):
    """The smallest and the largest value of a numeric setting, both allowed."""

    low: float
    high: float = math.inf

    def allows(self, value: float) -> bool:
        """Returns whether a value is in the range."""
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return (
            f"at least {self.low:g}" if self.high == math.inf else f"between {self.low:g} and {number_text(self.high)}"
        )


def number_text(value: float) -> str:
    """Returns an integer with all digits, another number with six."""
    return str(value) if isinstance(value, int) else f"{value:g}"


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """Settings of a tokenizer."""

    kind: Literal["sentencepiece", "wordpiece", "characters", "bytes"] = "sentencepiece"
    """Type of tokenizer: SentencePiece, WordPiece as in BERT, one piece per character, or one piece per byte."""

    model_type: Literal["unigram", "bpe"] = "unigram"
    """SentencePiece algorithm: unigram (Kudo 2018) or bpe (Sennrich et al. 2016)."""

    vocab_size: Annotated[int, Range(8, 1_000_000)] = 8000
    """Number of pieces, including the four control pieces. A small corpus may yield fewer. With more characters than
    pieces, the rarest characters become bytes, or without bytes the vocabulary grows."""

    character_coverage: Annotated[float, Range(0.98, 1)] = 1.0  # the range of SentencePiece
    """Share of the characters in the corpus that get their own piece; the rest become bytes, or unknown without
    byte_fallback."""

    byte_fallback: bool = True
    """Encode a character without a piece as its UTF-8 bytes, so that no character is unknown."""

    placeholders: Annotated[int, Range(0, MAX_PLACEHOLDERS)] = 0
    """Translation only: number of placeholder pieces. Numbers, URLs, e-mail addresses, {variables}, markup, emoji and
    words in unknown scripts are copied from the source, up to this many per sentence, instead of being translated.
    0 disables it."""

    lowercase: bool = False
    """Lowercase all text before tokenization; the model's output is then lowercase, too."""

    whitespace: Literal["fold", "keep"] = "fold"
    """Fold white space, so that single spaces separate words, or keep line ends, tabs and indentation as part of the
    text. Only language models can keep it, and they do so by default."""

    shared: bool = True
    """Use one vocabulary for source and target. If false, each side has its own vocabulary of this size, and
    `model.tie_embeddings` must be off, because an id means something different on each side."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Architecture of a Transformer, with the names of Vaswani et al. 2017 (section 3 and table 3)."""

    num_encoder_layers: Annotated[int, Range(1)] = 6
    """Number of layers of the encoder. A language model has none."""

    num_decoder_layers: Annotated[int, Range(1)] = 6
    """Number of layers of the decoder. A classifier has none."""

    d_model: Annotated[int, Range(2)] = 512
    """Width of the embeddings and of the output of every sub-layer."""

    num_heads: Annotated[int, Range(1)] = 8
    """Attention heads per layer, with d_model / num_heads channels each."""

    dff: Annotated[int, Range(1)] = 2048
    """Width of the hidden feed-forward layer."""

    num_kv_heads: Annotated[int, Range(0)] = 0
    """Attention heads of keys and values, which divide num_heads: each serves several heads of queries (Ainslie et al.
    2023), so decoding reads smaller caches. 0 means num_heads; 1 is multi-query attention."""

    dropout: Annotated[float, Range(0, 0.9)] = 0.1
    """Dropout rate on the embeddings and after each sub-layer (section 5.4)."""

    attention_dropout: Annotated[float, Range(0, 0.9)] = 0.0
    """Dropout rate on the attention weights."""

    activation_dropout: Annotated[float, Range(0, 0.9)] = 0.0
    """Dropout rate inside the feed-forward layer."""

    decoder: Literal["attention", "ssru"] = "attention"
    """Translation only: how a token of the target reads the tokens before it. attention is the masked self-attention of
    the paper; ssru a recurrent layer (Kim et al. 2019), with which a step of decoding takes less time."""

    activation: Literal["relu", "gelu", "gelu_tanh", "silu", "swiglu"] = "relu"
    """Activation of the hidden feed-forward layer. swiglu is gated and needs a third matrix."""

    use_bias: bool = True
    """Add a bias in every projection of attention and feed-forward layers."""

    output_bias: bool = False
    """Add a bias to the logits of every token. A classifier's head always has one."""

    norm: Literal["layer", "rms"] = "layer"
    """Layer normalisation, or RMS normalisation (Zhang and Sennrich 2019), which does not subtract the mean."""

    norm_first: bool = True
    """True for pre-norm, false for post-norm as in the paper."""

    positions: Literal["sinusoidal", "learned", "rotary"] = "sinusoidal"
    """Position encoding: sinusoidal (section 3.5), learned, or rotary (Su et al. 2021)."""

    sinusoids: Literal["interleaved", "halves", "tensor2tensor"] = "interleaved"
    """Channels of sinusoidal positions: interleaved sines and cosines as in the paper; halves, first the sines and then
    the cosines; or, as in tensor2tensor and Marian, halves with wavelengths up to 2 pi times exactly 10,000."""

    rotary_base: Annotated[float, Range(2)] = 10_000.0
    """Base of the wavelengths of rotary positions; a larger one suits longer texts."""

    rotary_layout: Literal["halves", "interleaved"] = "halves"
    """Which pairs of channels rotary positions rotate: those d/2 apart, or adjacent ones."""

    tie_embeddings: bool = True
    """Share one matrix between source embeddings, target embeddings and output (section 3.4)."""

    embedding_norm: bool = False
    """Normalise the embeddings after their positions are added, as in BERT (Devlin et al. 2019)."""

    scale_embeddings: bool = True
    """Multiply embeddings by the square root of d_model (section 3.4)."""

    layer_norm_epsilon: Annotated[float, Range(1e-12, 0.01)] = 1e-6
    """Number that normalisation adds to the variance."""

    max_positions: Annotated[int, Range(1)] = 1024
    """Number of learned positions; later positions share the last one. For a language model also its context length:
    the number of tokens in a row of packed text, and the most that generation attends to."""

    begin_marker: bool = False
    """Classification only: put the begin marker before each text, like BERT's [CLS]."""

    pooling: Literal["mean", "first", "pooler", "attention"] = "mean"
    """Classification only: how the encoder's outputs become one vector. Their mean; the first one; BERT's pooler, a
    dense layer with tanh on the first one; or attention, a mean with learned weights (Yang et al. 2016)."""

    ngram_buckets: Annotated[int, Range(0, 2**24)] = 0
    """Classification only: number of hash values of the pairs of adjacent tokens that a linear classifier beside the
    encoder learns from. 0 disables that classifier."""

    @property
    def longest_text(self) -> int:
        """Returns the most tokens of a text if each has a learned position, without those of BERT's two markers."""
        return self.max_positions - 2 * self.begin_marker

    @property
    def embedding_scale(self) -> float:
        """Returns the factor of the embeddings."""
        return self.d_model**0.5 if self.scale_embeddings else 1.0


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Settings of training."""

    steps: Annotated[int, Range(0)] = 100_000
    """Number of optimizer updates, unless `epochs` or `minutes` is set. With 0 nothing is trained: the model that
    training would start from is exported."""

    epochs: Annotated[float, Range(0)] = 0.0
    """Number of passes over the train split; overrides `steps`. 0 disables it."""

    minutes: Annotated[float, Range(0)] = 0.0
    """Training time, including evaluations; overrides `epochs` and `steps`. A cosine schedule adapts to end at that
    time. Results depend on the speed of the machine. 0 disables it."""

    optimizer: Literal["adam", "muon"] = "adam"
    """Which optimizer: adam as in section 5.3, or muon (Jordan et al. 2024), which needs fewer steps."""

    batch_tokens: Annotated[int, Range(1)] = 25_000
    """Maximum number of target tokens in a batch, including padding."""

    batch_parts: Annotated[int, Range(1, 1024)] = 1
    """Number of parts that a batch is split into and computed in sequence, to save memory. The update is that of the
    whole batch (gradient accumulation)."""

    gradient_dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype in which several GPUs or machines add up their gradients. bfloat16 sends half as many bytes, for a slow
    network, and rounds each gradient to 8 bits. On one device it has no effect."""

    learning_rate: Annotated[float, Range(1e-9, 10)] = 7e-4
    """Peak learning rate, reached after `warmup_steps`."""

    warmup_steps: Annotated[int, Range(0)] = 4_000
    """Number of steps over which the learning rate rises to its peak."""

    schedule: Literal["inverse_sqrt", "cosine"] = "inverse_sqrt"
    """Decay of the learning rate after its peak: inverse_sqrt as in section 5.3, or half a cosine to zero."""

    label_smoothing: Annotated[float, Range(0, 0.9)] = 0.1
    """Epsilon of label smoothing (section 5.4)."""

    label_weights: Literal["even", "balanced"] = "even"
    """Classification only: even weights all rows equally, balanced weights all labels equally."""

    token_dropout: Annotated[float, Range(0, 0.9)] = 0.0
    """Classification only: share of a text's tokens that are replaced by the unknown token."""

    beta_2: Annotated[float, Range(0, 0.999999)] = 0.98
    """Adam's decay rate of the second moment. With muon it applies to the embeddings and biases."""

    clip_norm: Annotated[float, Range(1e-6)] = 1.0
    """Maximum global norm of the gradients."""

    average_decay: Annotated[float, Range(0, 0.999999)] = 0.999
    """Decay rate of the moving average of the weights. Checkpoints are evaluated and exported with the averaged
    weights. 0 uses the weights themselves."""

    checkpoint_steps: Annotated[int, Range(1)] = 1_000
    """Number of steps between checkpoints. Each checkpoint is evaluated on the eval split."""

    export: Literal["auto", "last", "best"] = "auto"
    """Which checkpoints to export: the last, the best by the task's metric on the eval split, or auto: the last, unless
    the best one is better by more than noise. Noise is the standard error of a difference on the eval split, at least
    1 % of the metric."""

    export_checkpoints: Annotated[int, Range(1, 100)] = 1
    """Number of checkpoints whose weights are averaged for export (section 6.1)."""

    patience: Annotated[int, Range(0)] = 0
    """Number of evaluations without improvement after which training stops (early stopping). 0 disables it."""

    eval_examples: Annotated[int, Range(0)] = 200
    """Number of texts in the eval split for which the model makes predictions at each evaluation, for inspection and
    for BLEU. With 0, the loss is used instead of BLEU."""

    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Dtype in which the layers compute. Weights, loss and updates stay in float32 (Micikevicius et al. 2018), and so
    does the exported model. float16 needs a GPU; bfloat16 is faster only where the hardware supports it."""

    warm_start_optimizer: bool = False
    """A warm start also takes the state of the earlier model's optimizer, its moments of the gradients. The schedule
    starts from its beginning. Needs a model of the same architecture and optimizer."""

    seed: Annotated[int, Range(0, MAX_SEED)] = 1
    """Random seed of the initial weights, the order of the data and dropout."""

    histograms: bool = False
    """Write a histogram of each weight to TensorBoard at each checkpoint."""

    profile_step: Annotated[int, Range(0)] = 0
    """Step at which TensorBoard starts to profile a few steps. 0 disables it."""


@dataclasses.dataclass(frozen=True)
class DecodingConfig:
    """Settings of text generation."""

    beam_size: Annotated[int, Range(1, 64)] = 4
    """Number of hypotheses per sentence; 1 is greedy search."""

    length_penalty: Annotated[float, Range(0, 10)] = 0.6
    """Alpha of GNMT's length penalty (Wu et al. 2016, equation 14); 0 disables it."""

    max_length_ratio: Annotated[float, Range(0, 10)] = 2.0
    """A translation has at most max_length_ratio * source tokens + max_length_extra tokens."""

    max_length_extra: Annotated[int, Range(1)] = 10
    """Number of tokens that a translation may have beyond max_length_ratio * source tokens."""

    split_sentences: bool = True
    """Translation only: translate the sentences of a text one by one, for models trained on rows of one sentence. If
    false, a text is translated in one piece, up to `data.max_length` tokens, and its line breaks become spaces."""

    temperature: Annotated[float, Range(0, 100)] = 0.5
    """Sampling temperature of a language model. Higher values are more random; 0 always takes the most likely token."""

    top_p: Annotated[float, Range(1e-6, 1)] = 0.9
    """Sample from the most likely tokens that together reach this probability; 1 samples from all tokens."""

    max_new_tokens: Annotated[int, Range(1)] = 48
    """Maximum number of generated tokens, unless a request sets its own; at most half of `model.max_positions`, because
    the prompt may fill the other half."""

    no_repeat_ngram: Annotated[int, Range(0)] = 8
    """No sequence of this many tokens is generated twice in a text, which ends loops. Source and prompt do not count.
    The sequence is 8 times as long if tokens are single characters or bytes. 0 disables it."""

    repetition_penalty: Annotated[float, Range(1, 10)] = 1.0
    """Makes generated tokens less likely to come again (Keskar et al. 2019, section 4.1). Their logits are divided by
    it if positive, and multiplied by it if negative. 1 disables it."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All settings that distinguish one trained model from another on the same data."""

    model: ModelConfig
    training: TrainingConfig
    decoding: DecodingConfig

    def value(self, name: str) -> Any:
        """Returns the value of a setting, such as "training.steps"."""
        section, _, key = name.partition(".")
        return getattr(getattr(self, section), key)

    def with_values(self, values: Mapping[str, Any]) -> "Recipe":
        """Returns a Recipe with other values, such as {"training.steps": 500}."""
        sections: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            section, _, key = name.partition(".")
            sections.setdefault(section, {})[key] = value
        return dataclasses.replace(
            self, **{section: dataclasses.replace(getattr(self, section), **keys) for section, keys in sections.items()}
        )
