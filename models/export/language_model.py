"""The serving module of a language model: decoder, tokenizer and sampling in one graph, to continue and score texts."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from seq2serve.models.config import DecodingConfig
from seq2serve.models.decoding.beam_search import LengthLimits
from seq2serve.models.decoding.loop import generate
from seq2serve.models.decoding.sampling import Sampler, SamplingOptions, draw_random_numbers
from seq2serve.models.decoding.step import as_variables, prepare, refresh
from seq2serve.models.export.export import signature
from seq2serve.models.export.warmup import WarmupRequest, alone_and_together
from seq2serve.models.tokenizers.base import Tokenizer
from seq2serve.models.transformer.models import DecoderLanguageModel

_TEXT = tf.TensorSpec([None], tf.string, name="text")
_OPTIONS = {
    "temperature": tf.float32,
    "top_k": tf.int32,
    "top_p": tf.float32,
    "max_new_tokens": tf.int32,
    "seed": tf.int32,
}


class LanguageModelServingModule(tf.Module):
    """A ServingModule of a DecoderLanguageModel.

    The context length is that of training (`max_positions`). Prompt and generated text each have at most half of it;
    longer prompts lose their beginning.

    Args:
        model: a built model.
        tokenizer: the tokenizer of its texts.
        decoding: defaults for requests without options of their own.
    """

    def __init__(self, model: DecoderLanguageModel, tokenizer: Tokenizer, decoding: DecodingConfig):
        super().__init__(name="language_model")
        self.tokenizer, self.decoding = tokenizer, decoding
        self.weights = [variable.value for variable in model.weights]
        self.decoding_weights = weights = as_variables(prepare(model))
        self._prepare = functools.partial(prepare, model)
        self._context = model.config.max_positions
        search = Sampler(tokenizer.eos_id)
        self._generate = functools.partial(generate, model, search=search, weights=weights, bos_id=tokenizer.bos_id)
        self._logits = lambda ids: model(ids, training=False)
        self._model_config = functools.partial(dataclasses.asdict, model.config)

    def refresh(self) -> None:
        """Updates the prepared weights after the model's weights have changed."""
        refresh(self.decoding_weights, self._prepare())

    def signatures(self) -> dict[str, Any]:
        """Returns signature name -> tf.function."""
        return {"serving_default": self.serving_default, "sample": self.sample, "score": self.score}

    def warmup_requests(self, samples: list[str]) -> list[WarmupRequest]:
        """Returns requests to every signature."""
        texts: Mapping[str, list] = {"text": samples}
        options = {"temperature": 1.0, "top_k": 10, "top_p": 0.9, "max_new_tokens": 4, "seed": 1}
        inputs = {
            "serving_default": texts,
            "score": texts,
            "sample": {**texts, **{name: [value] * len(samples) for name, value in options.items()}},
        }
        return [request for name, rows in inputs.items() for request in alone_and_together(name, rows)]

    def config(self) -> dict[str, Any]:
        """Returns the model config and the decoding config."""
        return {"model": self._model_config(), "decoding": dataclasses.asdict(self.decoding)}

    @signature(input_signature=[_TEXT])
    def serving_default(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Continues each text with the options of the DecodingConfig; the same text always has the same completion.

        Args:
            text: tf.string [B].
        Returns:
            completion: tf.string [B], valid UTF-8. Append it to the text: it starts with a space before a new word.
        """
        rows, options = tf.shape(text), self.decoding
        return self.sample(  # a tf.function, so the graph contains the loop once
            text,
            temperature=tf.fill(rows, options.temperature),
            top_k=tf.zeros(rows, tf.int32),
            top_p=tf.fill(rows, options.top_p),
            max_new_tokens=tf.fill(rows, options.max_new_tokens),
            seed=tf.zeros(rows, tf.int32),
        )

    @signature(input_signature=[_TEXT, *(tf.TensorSpec([None], dtype, name) for name, dtype in _OPTIONS.items())])
    def sample(
        self,
        text: tf.Tensor,
        temperature: tf.Tensor,
        top_k: tf.Tensor,
        top_p: tf.Tensor,
        max_new_tokens: tf.Tensor,
        seed: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """Continues each text with options of its own.

        Args:
            text: tf.string [B].
            temperature: float32 [B]; 0 always takes the most likely token.
            top_k: int32 [B]; sample from the k most likely tokens only. 0 samples from all tokens.
            top_p: float32 [B]; sample from the fewest tokens whose probabilities reach p. 1 samples from all tokens.
            max_new_tokens: int32 [B]; clipped to 1 to half of the context length.
            seed: int32 [B]; random seed.
        Returns:
            completion: as for `serving_default`.
        """
        options = (temperature, top_k, top_p, max_new_tokens, seed)
        with tf.control_dependencies([_check_rows(text, options)]):
            return {"completion": self._completions(tf.identity(text), *options)}

    @signature(input_signature=[_TEXT])
    def score(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Computes the log probability of each text.

        Args:
            text: tf.string [B], of any length.
        Returns:
            log_probability: float32 [B], in nats, of all tokens and the end marker; tokens: int32 [B], their number;
            characters: int32 [B], number of characters of the normalised text; bits_per_character: float32 [B].
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

    def _completions(
        self,
        text: tf.Tensor,
        temperature: tf.Tensor,
        top_k: tf.Tensor,
        top_p: tf.Tensor,
        max_new_tokens: tf.Tensor,
        seed: tf.Tensor,
    ) -> tf.Tensor:
        max_length = self._context // 2
        prompt = self.tokenizer.tokenize(text)[:, -max_length:].to_tensor()  # [B, P]
        maximum = tf.clip_by_value(max_new_tokens, 1, max_length)
        # The maximum over an empty batch would be the smallest int32.
        random_numbers = draw_random_numbers(seed, tf.maximum(tf.reduce_max(maximum), 1))
        limits = LengthLimits(tf.zeros_like(maximum), maximum)
        options = SamplingOptions(limits, temperature, top_k, top_p, random_numbers)
        generated = self._generate(prompt, limits=options).ids[:, 0]  # [B, T]
        # The first piece of a text is decoded without its leading space, so decode it together with the prompt.
        prompt_text = self.tokenizer.detokenize(prompt)
        full_text = self.tokenizer.detokenize(tf.concat([prompt, generated], axis=1))
        completion = tf.strings.substr(full_text, tf.strings.length(prompt_text), tf.strings.length(full_text))
        return tf.strings.unicode_transcode(completion, "UTF-8", "UTF-8", replace_control_characters=False)

    def _log_probability(self, ids: tf.RaggedTensor) -> tf.Tensor:
        """Sums the log probabilities of all tokens and the end marker: int32 [B, (tokens)] -> float32 [B].

        The model is applied to windows of its context length, which advance by half of it. So each token is predicted
        from at least that many previous tokens.
        """
        step = self._context // 2
        rows, end = ids.nrows(), tf.fill([ids.nrows(), 1], self.tokenizer.eos_id)
        labels = tf.concat([ids, end], axis=1).to_tensor()  # [B, T]
        windows = -(-tf.shape(labels)[1] // step)
        labels = tf.pad(labels, [[0, 0], [0, windows * step - tf.shape(labels)[1]]])  # [B, windows * step]
        begin = tf.fill([rows, 1], self.tokenizer.bos_id)
        # To the model, the padding before the begin marker is a different document, to which no token attends.
        inputs = tf.pad(tf.concat([tf.cast(begin, labels.dtype), labels[:, :-1]], 1), [[0, 0], [step, 0]])

        def add_window(number: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            start = number * step
            logits = self._logits(inputs[:, start : start + 2 * step])[:, step:]  # [B, step, V]
            targets = labels[:, start : start + step]
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
            return number + 1, total - tf.reduce_sum(tf.where(targets == 0, 0.0, losses), 1)

        variables = (tf.constant(0), tf.zeros([rows], tf.float32))
        return tf.while_loop(lambda number, _: number < windows, add_window, variables)[1]


def _check_rows(text: tf.Tensor, options: tuple[tf.Tensor, ...]) -> tf.Operation:
    """Fails unless every option has one value per text; a single value would be broadcast, and texts would share it."""
    texts, values = tf.size(text), tf.stack([tf.size(option) for option in options])
    message = f"sample needs one value per text of each of {', '.join(_OPTIONS)}; number of texts, number of values:"
    return tf.debugging.Assert(tf.reduce_all(values == texts), [message, texts, values])
