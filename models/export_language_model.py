"""A language model as served: the decoder, its tokenizer and the sampling loop in one graph.

Comes in: texts, tf.string [B]. Goes out: how they may go on, and how likely they are themselves.
Read next: export.py, which writes it; decoding.py and sampling.py for the loop.
"""

import dataclasses
import functools
import math
from typing import Any

import tensorflow as tf

from models.config import DecodingConfig
from models.decoding import complete
from models.export import signature
from models.inference import as_variables, prepare, refresh
from models.sampling import Sampling, SamplingOptions, draws
from models.search import Limits
from models.tokenizer_base import Tokenizer
from models.transformer import DecoderLanguageModel
from models.warmup import WarmupRequest, alone_and_together

_TEXT = tf.TensorSpec([None], tf.string, name="text")
_OPTIONS = {
    "temperature": tf.float32,
    "top_k": tf.int32,
    "top_p": tf.float32,
    "max_new_tokens": tf.int32,
    "seed": tf.int32,
}


class LanguageModelServer(tf.Module):
    """A `Server` of a DecoderLanguageModel.

    It looks back on as many tokens as it was trained to (`max_positions`): half of that is the most it reads of a text
    to go on from, and the other half the most it writes.

    Args:
        model: built and trained.
        tokenizer: of its texts.
        decoding: how it writes where a request does not say.
    """

    def __init__(self, model: DecoderLanguageModel, tokenizer: Tokenizer, decoding: DecodingConfig):
        super().__init__(name="language_model")
        self.tokenizer, self.decoding = tokenizer, decoding
        self.weights = [variable.value for variable in model.weights]
        self.decoding_weights = weights = as_variables(prepare(model))
        self._prepare = functools.partial(prepare, model)
        self._context = model.config.max_positions
        search = Sampling(tokenizer.eos_id)
        self._complete = functools.partial(complete, model, search=search, weights=weights, bos_id=tokenizer.bos_id)
        self._logits = functools.partial(model, training=False)
        self._model_config = functools.partial(dataclasses.asdict, model.config)

    def refresh(self) -> None:
        """Answers from now on with what has become of the model's weights."""
        refresh(self.decoding_weights, self._prepare())

    def signatures(self) -> dict[str, Any]:
        """Returns signature name -> tf.function."""
        return {"serving_default": self.serving_default, "sample": self.sample, "score": self.score}

    def warmup_requests(self, samples: list[str]) -> list[WarmupRequest]:
        """Returns requests to every signature."""
        texts = {"text": samples}
        options = {"temperature": 1.0, "top_k": 10, "top_p": 0.9, "max_new_tokens": 4, "seed": 1}
        asked = {"serving_default": texts, "score": texts}
        asked["sample"] = texts | {name: [value] * len(samples) for name, value in options.items()}
        return [request for name, rows in asked.items() for request in alone_and_together(name, rows)]

    def config(self) -> dict[str, Any]:
        """Returns the model's sizes and how it writes."""
        return {"model": self._model_config(), "decoding": dataclasses.asdict(self.decoding)}

    @signature(input_signature=[_TEXT])
    def serving_default(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Goes on from each text as the DecodingConfig says, always the same way.

        Args:
            text: tf.string [B].
        Returns:
            completion: tf.string [B], valid UTF-8, to be appended as it is: it begins with a space before a new word.
        """
        rows, options = tf.shape(text), self.decoding
        return self.sample(  # itself a function in the graph, which so holds the loop once
            text,
            temperature=tf.fill(rows, options.temperature),
            top_k=tf.zeros(rows, tf.int32),
            top_p=tf.fill(rows, options.top_p),
            max_new_tokens=tf.fill(rows, options.max_new_tokens),
            seed=tf.zeros(rows, tf.int32),
        )

    @signature(input_signature=[_TEXT, *(tf.TensorSpec([None], dtype, name) for name, dtype in _OPTIONS.items())])
    def sample(self, text, temperature, top_k, top_p, max_new_tokens, seed) -> dict[str, tf.Tensor]:
        """Goes on from each text as its own options say.

        Args:
            text: tf.string [B].
            temperature: float32 [B]; 0 takes the likeliest token each time.
            top_k: int32 [B]; only the k likeliest tokens may be drawn, 0 for all.
            top_p: float32 [B]; only the fewest tokens whose probabilities reach p, 1 for all.
            max_new_tokens: int32 [B]; at least 1 and at most half of what the model looks back on.
            seed: int32 [B]; another seed, another completion.
        Returns:
            completion: as of `serving_default`.
        """
        options = (temperature, top_k, top_p, max_new_tokens, seed)
        with tf.control_dependencies([_check_rows(text, options)]):
            return {"completion": self._go_on(tf.identity(text), *options)}

    @signature(input_signature=[_TEXT])
    def score(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Says how likely each text is, from its beginning to its end.

        Args:
            text: tf.string [B], of any length.
        Returns:
            log_probability: float32 [B], in nats, of all tokens and the end marker; tokens: int32 [B], their number;
            characters: int32 [B], of the normalised text; bits_per_character: float32 [B].
        """
        ids = self.tokenizer.tokenize(text)
        log_probability = self._log_probability(ids)
        characters = tf.strings.length(self.tokenizer.detokenize(ids), "UTF8_CHAR")
        bits = -log_probability / math.log(2)
        return {
            "log_probability": log_probability,
            "tokens": tf.cast(ids.row_lengths(), tf.int32) + 1,
            "characters": characters,
            "bits_per_character": bits / tf.cast(tf.maximum(characters, 1), tf.float32),
        }

    def _go_on(self, text, temperature, top_k, top_p, max_new_tokens, seed) -> tf.Tensor:
        half = self._context // 2
        prompt = self.tokenizer.tokenize(text)[:, -half:].to_tensor()
        maximum = tf.clip_by_value(max_new_tokens, 1, half)
        # A batch may be empty, and the maximum of nothing is the smallest number there is.
        numbers = draws(seed, tf.maximum(tf.reduce_max(maximum), 1))
        limits = Limits(tf.zeros_like(maximum), maximum)
        written = self._complete(prompt, limits=SamplingOptions(limits, temperature, top_k, top_p, numbers)).ids[:, 0]
        # A piece tells of the space before it only where something is before it.
        before = self.tokenizer.detokenize(prompt)
        both = self.tokenizer.detokenize(tf.concat([prompt, written], axis=1))
        completion = tf.strings.substr(both, tf.strings.length(before), tf.strings.length(both))
        return tf.strings.unicode_transcode(completion, "UTF-8", "UTF-8", replace_control_characters=False)

    def _log_probability(self, ids: tf.RaggedTensor) -> tf.Tensor:
        """Adds up the log probabilities of all tokens and the end marker: int32 [B, (tokens)] -> float32 [B].

        The model moves over a text in steps of half its context, and so sees at least that much before each token.
        """
        step = self._context // 2
        rows, end = ids.nrows(), tf.fill([ids.nrows(), 1], self.tokenizer.eos_id)
        labels = tf.concat([ids, end], axis=1).to_tensor()
        windows = -(-tf.shape(labels)[1] // step)
        labels = tf.pad(labels, [[0, 0], [0, windows * step - tf.shape(labels)[1]]])
        begin = tf.fill([rows, 1], self.tokenizer.bos_id)
        # The padding before the begin marker is another document, which nothing sees.
        inputs = tf.pad(tf.concat([tf.cast(begin, labels.dtype), labels[:, :-1]], 1), [[0, 0], [step, 0]])

        def add_window(number: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            first = number * step
            logits = self._logits(inputs[:, first : first + 2 * step])[:, step:]
            wanted = labels[:, first : first + step]
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(wanted, logits)
            return number + 1, total - tf.reduce_sum(tf.where(wanted == 0, 0.0, losses), 1)

        start = (tf.constant(0), tf.zeros([rows], tf.float32))
        return tf.while_loop(lambda number, _: number < windows, add_window, start)[1]


def _check_rows(text: tf.Tensor, options: tuple[tf.Tensor, ...]) -> tf.Operation:
    """Refuses options that are not one a text: where they happen to broadcast, texts would share what they draw."""
    texts, values = tf.size(text), tf.stack([tf.size(option) for option in options])
    message = f"sample takes as many values of {', '.join(_OPTIONS)} as texts; of texts there are, and of values:"
    return tf.debugging.Assert(tf.reduce_all(values == texts), [message, texts, values])
