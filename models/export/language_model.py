"""The serving module of a language model: decoder, tokenizer and sampling in one graph, to continue and score texts."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from seq2serve.models.config import DecodingConfig
from seq2serve.models.decoding.beam_search import LengthLimits
from seq2serve.models.decoding.fold import FoldedDecoder
from seq2serve.models.decoding.loop import generate
from seq2serve.models.decoding.repetition import limit_repetition
from seq2serve.models.decoding.sampling import Sampler, SamplingOptions, draw_random_numbers
from seq2serve.models.export.export import signature
from seq2serve.models.export.inputs import check_range, check_rows, check_values
from seq2serve.models.export.warmup import WarmupRequest, alone_and_together
from seq2serve.models.runtime.answers import LENGTH, STOP
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
    longer prompts lose their beginning, and `truncated` says so.

    Args:
        model: a built model.
        tokenizer: the tokenizer of its texts.
        decoding: defaults for requests without options of their own.
    Raises:
        ValueError: `max_new_tokens` is more than half of the context.
    """

    def __init__(self, model: DecoderLanguageModel, tokenizer: Tokenizer, decoding: DecodingConfig):
        super().__init__(name="language_model")
        self._max_length = longest = model.config.max_positions // 2
        self.tokenizer = tokenizer
        self.decoding = decoding
        if decoding.max_new_tokens > longest:
            raise ValueError(f"max_new_tokens ({decoding.max_new_tokens}) exceeds half of the context ({longest})")
        self.weights = [variable.value for variable in model.weights]
        self._decoder = FoldedDecoder(model)
        self.decoding_weights = [variable.value for variable in self._decoder.weights]
        search = limit_repetition(Sampler(tokenizer.eos_id, tokenizer.word_starts), decoding, tokenizer)
        self._generate = functools.partial(generate, self._decoder, search=search, bos_id=tokenizer.bos_id)
        self._logits = lambda ids: model(ids, training=False)
        self._model_config = functools.partial(dataclasses.asdict, model.config)

    def refresh(self) -> None:
        """Updates the folded weights after the model's weights have changed."""
        self._decoder.refresh()

    def signatures(self) -> dict[str, Any]:
        """Returns signature name -> tf.function."""
        return {"serving_default": self.serving_default, "sample": self.sample, "score": self.score}

    def warmup_requests(self, samples: list[str]) -> list[WarmupRequest]:
        """Returns requests to every signature."""
        texts: Mapping[str, list] = {"text": samples}
        new_tokens = min(4, self._max_length)
        options = {"temperature": 1.0, "top_k": 10, "top_p": 0.9, "max_new_tokens": new_tokens, "seed": 1}
        inputs = {
            "serving_default": texts,
            "score": texts,
            "sample": {**texts, **{name: [value] * len(samples) for name, value in options.items()}},
        }
        return [request for name, rows in inputs.items() for request in alone_and_together(name, rows)]

    def config(self) -> dict[str, Any]:
        """Returns the model config, the decoding config, and the options of `serving_default`."""
        decoding = dataclasses.asdict(self.decoding)
        return {"model": self._model_config(), "decoding": decoding, "options": {"sample": self._options()}}

    @signature(input_signature=[_TEXT])
    def serving_default(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Continues each text with the options of the DecodingConfig; the same text always has the same completion.

        Args:
            text: tf.string [B].
        Returns:
            completion: tf.string [B], valid UTF-8. Append it to the text. It starts with a space before a new word,
                unless the text ends with one.
            finish_reason: tf.string [B], "stop" if the model ended the text, "length" after `max_new_tokens`.
            truncated: bool [B], whether the text was longer than half of the context, so that its beginning was cut.
        """
        # a tf.function, so the graph contains the loop once
        options = {name: tf.constant(value, _OPTIONS[name]) for name, value in self._options().items()}
        return self.sample(text, **{name: tf.fill(tf.shape(text), value) for name, value in options.items()})

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
            temperature: float32 [B], finite, at least 0; 0 always takes the most likely token.
            top_k: int32 [B], at least 0; sample from the k most likely tokens only. 0 samples from all tokens.
            top_p: float32 [B], above 0, at most 1; sample from the fewest tokens whose probabilities reach p. 1 samples
                from all tokens.
            max_new_tokens: int32 [B], 1 to half of the context length.
            seed: int32 [B]; random seed, any number.
        Returns:
            As for `serving_default`.
        """
        values = (temperature, top_k, top_p, max_new_tokens, seed)
        options = dict(zip(_OPTIONS, values, strict=True))
        is_finite = (temperature >= 0) & (temperature <= tf.float32.max)  # also false for NaN
        checks = [
            check_rows("sample", {"text": text, **options}),
            check_values("temperature", temperature, is_finite, "finite and at least 0"),
            check_values("top_k", top_k, top_k >= 0, "at least 0"),
            check_values("top_p", top_p, (top_p > 0) & (top_p <= 1), "above 0 and at most 1"),
            check_range("max_new_tokens", max_new_tokens, 1, self._max_length),
        ]
        with tf.control_dependencies(checks):
            return self._complete(tf.identity(text), options)

    @signature(input_signature=[_TEXT])
    def score(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Computes the log probability of each text.

        Args:
            text: tf.string [B], of any length; it is never cut, so there is no output `truncated`.
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

    def _options(self) -> dict[str, Any]:
        """Returns the options of `sample` with which it continues texts as `serving_default`."""
        names = ("temperature", "top_p", "max_new_tokens")
        return {"top_k": 0, "seed": 0, **{name: getattr(self.decoding, name) for name in names}}

    def _complete(self, text: tf.Tensor, options: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        ids, begins_word = self.tokenizer.tokenize_prompt(text)
        maximum = options["max_new_tokens"]
        prompt = ids[:, -self._max_length :].to_tensor()  # [B, P]
        # The maximum over an empty batch would be the smallest int32.
        random_numbers = draw_random_numbers(options["seed"], tf.maximum(tf.reduce_max(maximum), 1))
        lengths = LengthLimits(tf.zeros_like(maximum), maximum)
        temperature, top_k, top_p = (options[name] for name in ("temperature", "top_k", "top_p"))
        limits = SamplingOptions(lengths, temperature, top_k, top_p, random_numbers, begins_word)
        result = self._generate(prompt, limits=limits)
        return {
            "completion": self._completions(prompt, result.ids[:, 0], begins_word),
            "finish_reason": tf.where(result.lengths[:, 0] >= maximum, LENGTH, STOP),
            "truncated": ids.row_lengths() > self._max_length,
        }

    def _completions(self, prompt: tf.Tensor, generated: tf.Tensor, begins_word: tf.Tensor) -> tf.Tensor:
        """Returns the text of generated ids after that of the prompt.

        Args:
            prompt: int32 [B, P].
            generated: int32 [B, T].
            begins_word: bool [B], whether the prompt's text ends with the space that begins the generated text.
        Returns:
            tf.string [B].
        """
        # The first piece of a text is decoded without its leading space, so decode it together with the prompt.
        prompt_text = self.tokenizer.detokenize(prompt)
        full_text = self.tokenizer.detokenize(tf.concat([prompt, generated], axis=1))
        size = tf.strings.length(full_text)
        start = tf.minimum(tf.strings.length(prompt_text) + tf.cast(begins_word, tf.int32), size)
        completion = tf.strings.substr(full_text, start, size)
        return tf.strings.unicode_transcode(completion, "UTF-8", "UTF-8", replace_control_characters=False)

    def _log_probability(self, ids: tf.RaggedTensor) -> tf.Tensor:
        """Sums the log probabilities of all tokens and the end marker: int32 [B, (tokens)] -> float32 [B].

        The model is applied to windows of its context length, which advance by half of it. So each token is predicted
        from at least that many previous tokens.
        """
        step = self._max_length
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
