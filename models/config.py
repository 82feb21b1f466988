"""Settings of tokenizers, models, training and decoding, as frozen dataclasses.

`seq2serve settings` prints the docstrings below; pipeline/config.py defines the presets and the allowed ranges. The
module does not import TensorFlow, so a cached run does not load it.
"""

import dataclasses
from typing import Literal

MAX_PLACEHOLDERS = 64


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """Settings of a tokenizer.

    Args:
        kind: type of tokenizer: SentencePiece, WordPiece as in BERT, one piece per character, or one piece per byte.
        model_type: SentencePiece algorithm: unigram (Kudo 2018) or bpe (Sennrich et al. 2016).
        vocab_size: number of pieces, including the four control pieces. A small corpus may yield fewer. With more
            characters than pieces, the rarest characters become bytes, or without bytes the vocabulary grows.
        shared: use one vocabulary for source and target. If false, each side has its own vocabulary of this size, and
            `model.tie_embeddings` must be off, because an id means something different on each side.
        character_coverage: share of the characters in the corpus that get their own piece; the rest become bytes, or
            unknown without byte_fallback.
        byte_fallback: encode a character without a piece as its UTF-8 bytes, so that no character is unknown.
        placeholders: translation only: number of placeholder pieces. Numbers, URLs, e-mail addresses, {variables},
            markup, emoji and words in unknown scripts are copied from the source, up to this many per sentence, instead
            of being translated. 0 disables it.
        lowercase: lowercase all text before tokenization; the model's output is then lowercase, too.
        whitespace: fold white space, so that single spaces separate words, or keep line ends, tabs and indentation as
            part of the text. Only language models can keep it, and they do so by default.
    """

    kind: Literal["sentencepiece", "wordpiece", "characters", "bytes"] = "sentencepiece"
    model_type: Literal["unigram", "bpe"] = "unigram"
    vocab_size: int = 8000
    character_coverage: float = 1.0
    byte_fallback: bool = True
    placeholders: int = 0
    lowercase: bool = False
    whitespace: Literal["fold", "keep"] = "fold"
    shared: bool = True


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Architecture of a Transformer, with the names of Vaswani et al. 2017 (section 3 and table 3).

    Args:
        num_encoder_layers, num_decoder_layers: number of layers. A classifier has no decoder, a language model no
            encoder.
        d_model: width of the embeddings and of the output of every sub-layer.
        num_heads: attention heads per layer, with d_model / num_heads channels each.
        dff: width of the hidden feed-forward layer.
        dropout: dropout rate on the embeddings and after each sub-layer (section 5.4).
        attention_dropout, activation_dropout: dropout rate on the attention weights and inside the feed-forward layer.
        activation: activation of the hidden feed-forward layer. swiglu is gated and needs a third matrix.
        norm_first: true for pre-norm, false for post-norm as in the paper.
        positions: position encoding: sinusoidal (section 3.5), learned, or rotary (Su et al. 2021).
        tie_embeddings: share one matrix between source embeddings, target embeddings and output (section 3.4).
        max_positions: number of learned positions; later positions share the last one. For a language model also its
            context length: the number of tokens in a row of packed text, and the most that generation attends to.
        ngram_buckets: classification only: number of hash values of the pairs of adjacent tokens that a linear
            classifier beside the encoder learns from. 0 disables that classifier.
    """

    num_encoder_layers: int = 6
    num_decoder_layers: int = 6
    d_model: int = 512
    num_heads: int = 8
    dff: int = 2048
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    activation: Literal["relu", "gelu", "swiglu"] = "relu"
    norm_first: bool = True
    positions: Literal["sinusoidal", "learned", "rotary"] = "sinusoidal"
    tie_embeddings: bool = True
    max_positions: int = 1024
    ngram_buckets: int = 0


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Settings of training.

    Args:
        steps: number of optimizer updates, unless `epochs` or `minutes` is set.
        epochs: number of passes over the train split; overrides `steps`. 0 disables it.
        minutes: training time, including evaluations; overrides `epochs` and `steps`. A cosine schedule adapts to end
            at that time. Results depend on the speed of the machine. 0 disables it.
        optimizer: which optimizer: adam as in section 5.3, or muon (Jordan et al. 2024), which needs fewer steps.
        batch_tokens: maximum number of target tokens in a batch, including padding.
        batch_parts: number of parts that a batch is split into and computed in sequence, to save memory. The update is
            that of the whole batch (gradient accumulation).
        learning_rate: peak learning rate, reached after `warmup_steps`.
        warmup_steps: number of steps over which the learning rate rises to its peak.
        schedule: decay of the learning rate after its peak: inverse_sqrt as in section 5.3, or half a cosine to zero.
        label_smoothing: epsilon of label smoothing (section 5.4).
        label_weights: classification only: even weights all rows equally, balanced weights all labels equally.
        token_dropout: classification only: share of a text's tokens that are replaced by the unknown token.
        beta_2: Adam's decay rate of the second moment. With muon it applies to the embeddings and biases.
        clip_norm: maximum global norm of the gradients.
        average_decay: decay rate of the moving average of the weights. Checkpoints are evaluated and exported with the
            averaged weights. 0 uses the weights themselves.
        checkpoint_steps: number of steps between checkpoints. Each checkpoint is evaluated on the eval split.
        export: which checkpoints to export: the last, the best by the task's metric on the eval split, or auto: the
            last, unless the best one is better by more than noise. Noise is the standard error of a difference on the
            eval split, at least 1 % of the metric.
        export_checkpoints: number of checkpoints whose weights are averaged for export (section 6.1).
        patience: number of evaluations without improvement after which training stops (early stopping). 0 disables it.
        eval_examples: number of texts in the eval split for which the model makes predictions at each evaluation, for
            inspection and for BLEU. With 0, the loss is used instead of BLEU.
        precision: dtype in which the layers compute. Weights, loss and updates stay in float32 (Micikevicius et al.
            2018), and so does the exported model. float16 needs a GPU; bfloat16 is faster only where the hardware
            supports it.
        warm_start_optimizer: a warm start also takes the state of the earlier model's optimizer, its moments of the
            gradients. The schedule starts from its beginning. Needs a model of the same architecture and optimizer.
        seed: random seed of the initial weights, the order of the data and dropout.
        histograms: write a histogram of each weight to TensorBoard at each checkpoint.
        profile_step: step at which TensorBoard starts to profile a few steps. 0 disables it.
    """

    steps: int = 100_000
    epochs: float = 0.0
    minutes: float = 0.0
    optimizer: Literal["adam", "muon"] = "adam"
    batch_tokens: int = 25_000
    batch_parts: int = 1
    learning_rate: float = 7e-4
    warmup_steps: int = 4_000
    schedule: Literal["inverse_sqrt", "cosine"] = "inverse_sqrt"
    label_smoothing: float = 0.1
    label_weights: Literal["even", "balanced"] = "even"
    token_dropout: float = 0.0
    beta_2: float = 0.98
    clip_norm: float = 1.0
    average_decay: float = 0.999
    checkpoint_steps: int = 1_000
    export: Literal["auto", "last", "best"] = "auto"
    export_checkpoints: int = 1
    patience: int = 0
    eval_examples: int = 200
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    warm_start_optimizer: bool = False
    seed: int = 1
    histograms: bool = False
    profile_step: int = 0


@dataclasses.dataclass(frozen=True)
class DecodingConfig:
    """Settings of text generation.

    Args:
        beam_size: number of hypotheses per sentence; 1 is greedy search.
        length_penalty: alpha of GNMT's length penalty (Wu et al. 2016, equation 14); 0 disables it.
        max_length_ratio, max_length_extra: a translation has at most ratio * source tokens + extra tokens.
        temperature: sampling temperature of a language model. Higher values are more random; 0 always takes the most
            likely token.
        top_p: sample from the most likely tokens that together reach this probability; 1 samples from all tokens.
        max_new_tokens: maximum number of generated tokens, unless a request sets its own; at most half of
            `model.max_positions`, because the prompt may fill the other half.
        no_repeat_ngram: no sequence of this many tokens is generated twice in a text, which ends loops. Source and
            prompt do not count. The sequence is 8 times as long if tokens are single characters or bytes. 0 disables
            it.
        repetition_penalty: makes generated tokens less likely to come again (Keskar et al. 2019, section 4.1). Their
            logits are divided by it if positive, and multiplied by it if negative. 1 disables it.
    """

    beam_size: int = 4
    length_penalty: float = 0.6
    max_length_ratio: float = 2.0
    max_length_extra: int = 10
    temperature: float = 0.5
    top_p: float = 0.9
    max_new_tokens: int = 48
    no_repeat_ngram: int = 8
    repetition_penalty: float = 1.0


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All settings that distinguish one trained model from another on the same data."""

    model: ModelConfig
    training: TrainingConfig
    decoding: DecodingConfig
