"""What can be set about tokenizers, models, training and decoding: frozen dataclasses, no TensorFlow.

Comes in: numbers from a preset or the command line. Goes out: values that fingerprint and serialise as JSON.
Read next: pipeline/config.py for the presets, transformer.py for what the sizes mean.
"""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """How text becomes ids.

    Args:
        kind: what a piece is: found by SentencePiece; found and used as BERT does; one character; one byte.
        model_type: SentencePiece's algorithm (Kudo 2018 for unigram, Sennrich et al. 2016 for bpe).
        vocab_size: number of pieces, the four control pieces included. A small corpus may yield fewer.
        shared: one vocabulary for source and target, or one of that size for each; then `model.tie_embeddings` must be
            off, as the ids of one mean nothing in the other.
        character_coverage: share of the corpus's characters that get a piece of their own; the rest become bytes.
        byte_fallback: write a character without a piece as its UTF-8 bytes, so that nothing is unknown.
        lowercase: read all text in lower case; what the model writes is in lower case, too.
    """

    kind: Literal["sentencepiece", "wordpiece", "characters", "bytes"] = "sentencepiece"
    model_type: Literal["unigram", "bpe"] = "unigram"
    vocab_size: int = 8000
    character_coverage: float = 1.0
    byte_fallback: bool = True
    lowercase: bool = False
    shared: bool = True


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Sizes and shape of a Transformer, named as in Vaswani et al. 2017 (section 3 and table 3).

    Args:
        num_encoder_layers, num_decoder_layers: a classifier has no decoder, a language model no encoder.
        d_model: width of the embeddings and of every sub-layer's output.
        num_heads: attention heads of a layer, of d_model / num_heads channels each.
        dff: width of the inner feed-forward layer.
        dropout: rate after each sub-layer and on the embeddings (section 5.4).
        attention_dropout, activation_dropout: rates on the attention weights and inside the feed-forward layer.
        activation: of the inner feed-forward layer; swiglu has a gate, and so a third matrix.
        norm_first: True for pre-norm, False for the paper's post-norm.
        positions: sinusoidal as in section 3.5, learned, or rotary (Su et al. 2021).
        tie_embeddings: one matrix for source, target and output (section 3.4).
        max_positions: length of the longest sequence that learned positions can tell apart; for a language model its
            context, the tokens of a row of packed text and those it looks back on.
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


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How a model learns.

    Args:
        steps: optimizer updates to end after, where neither `epochs` nor `minutes` says otherwise.
        epochs: passes over the train split to end after; 0 leaves it to the others.
        minutes: of training to end after, evaluations included, the cosine drawn to end with them; 0 leaves it to the
            others. What comes of it depends on how fast the machine was.
        optimizer: adam as in section 5.3, or muon (Jordan et al. 2024), which needs fewer steps.
        batch_tokens: budget of a batch in target tokens, padding included.
        batch_parts: parts that a batch is computed in, one after the other, to need less memory; the update is that of
            the whole batch (gradient accumulation).
        learning_rate: the peak, reached after `warmup_steps`.
        warmup_steps: over which the rate rises to its peak.
        schedule: how the rate falls after the peak: inverse_sqrt as in section 5.3, or half a cosine down to zero.
        label_smoothing: the paper's epsilon (section 5.4).
        label_weights: of a classifier: even for every row alike, balanced for every label alike.
        token_dropout: of a classifier: share of a text's tokens that it does not see.
        beta_2: Adam's decay of the second moment, for muon that of the embeddings and biases.
        clip_norm: largest global norm of the gradients.
        average_decay: decay of the moving average of the weights, which stands for them at a checkpoint when it is
            evaluated and exported; 0 for the weights themselves.
        checkpoint_steps: steps between two checkpoints, each of which is evaluated on the eval split.
        export: which checkpoints are exported: the last, or the best by the task's metric on the eval split.
        export_checkpoints: how many of them, averaged (section 6.1).
        patience: evaluations in a row that find nothing better before training ends (early stopping); 0 for no end.
        eval_examples: texts of the eval split that the model answers at each evaluation, to be looked at and for BLEU;
            0 for none, and the loss stands for BLEU.
        precision: in which the layers compute; weights, loss and updates stay in float32 (Micikevicius et al. 2018),
            and so does what is exported. float16 needs a GPU; bfloat16 gains speed only where a processor has it.
        seed: of the weights, the order of the data and dropout.
        histograms: whether TensorBoard gets one of each weight at each checkpoint.
        profile_step: a few steps from this one on are profiled for TensorBoard; 0 for none.
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
    export: Literal["last", "best"] = "last"
    export_checkpoints: int = 1
    patience: int = 0
    eval_examples: int = 200
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    seed: int = 1
    histograms: bool = False
    profile_step: int = 0


@dataclasses.dataclass(frozen=True)
class DecodingConfig:
    """How a trained model writes.

    Args:
        beam_size: hypotheses kept a sentence; 1 is greedy.
        length_penalty: alpha of GNMT's length penalty (Wu et al. 2016, equation 14); 0 switches it off.
        max_length_ratio, max_length_extra: a translation has at most ratio * source tokens + extra tokens.
        max_source_length: tokens of the source that are read; the rest is cut.
        temperature: of a language model that goes on from a text; higher is bolder, 0 takes the likeliest token.
        top_p: draw from the likeliest tokens that reach this probability together; 1 is all of them.
        max_new_tokens: most tokens that are written where a request does not say.
    """

    beam_size: int = 4
    length_penalty: float = 0.6
    max_length_ratio: float = 2.0
    max_length_extra: int = 10
    max_source_length: int = 256
    temperature: float = 0.5
    top_p: float = 0.9
    max_new_tokens: int = 48
