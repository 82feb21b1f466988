"""Classification as served: the EncoderClassifier and its tokenizer in one graph.

Comes in: texts, tf.string [B], or serialised tf.Examples with a `text`. Goes out: labels and their probabilities.
Read next: export.py, which writes it; transformer.py for the classifier.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from models.config import DecodingConfig
from models.export import signature
from models.tokenizer_base import Tokenizer
from models.transformer import EncoderClassifier
from models.warmup import WarmupRequest, alone_and_together


class ClassificationServer(tf.Module):
    """A `Server` of an EncoderClassifier.

    Args:
        model: built and trained.
        tokenizer: of its texts.
        labels: by id.
        decoding: how much of a text it reads.
    """

    def __init__(
        self,
        model: EncoderClassifier,
        tokenizer: Tokenizer,
        labels: Sequence[str],
        decoding: DecodingConfig,
    ):
        super().__init__(name="classification")
        self.tokenizer = tokenizer
        self.weights = [variable.value for variable in model.weights]
        self._max_length, self._labels = decoding.max_source_length, tuple(labels)
        self._logits = functools.partial(model, training=False)
        self._model_config = functools.partial(dataclasses.asdict, model.config)

    def signatures(self) -> dict[str, Any]:
        """Returns signature name -> tf.function."""
        return {"serving_default": self.serving_default, "classify": self.classify}

    def warmup_requests(self, samples: list[str]) -> list[WarmupRequest]:
        """Returns requests to both signatures."""
        texts = [tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode()])) for text in samples]
        examples = [tf.train.Example(features=tf.train.Features(feature={"text": text})) for text in texts]
        serialised = [example.SerializeToString(deterministic=True) for example in examples]
        by_text = alone_and_together("serving_default", {"text": samples})
        return [*by_text, *alone_and_together("classify", {"inputs": serialised})]

    def config(self) -> dict[str, Any]:
        """Returns the model's sizes and the labels."""
        return {"model": self._model_config(), "labels": list(self._labels), "max_length": self._max_length}

    @signature(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def serving_default(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Finds the label of each text.

        Args:
            text: tf.string [B]; what is beyond `max_source_length` tokens is not read.
        Returns:
            label: tf.string [B], the likeliest; probability: float32 [B], its; labels: tf.string [B, C], all of them;
            probabilities: float32 [B, C], in their order.
        """
        labels, probabilities = self._classified(text)
        best = tf.argmax(probabilities, 1)
        return {
            "label": tf.gather(labels, best, batch_dims=1),
            "probability": tf.gather(probabilities, best, batch_dims=1),
            "labels": labels,
            "probabilities": probabilities,
        }

    @signature(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def classify(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Answers as the model server's Classify call wants it.

        Args:
            inputs: tf.string [B], serialised tf.Examples with the bytes feature `text`.
        Returns:
            classes: tf.string [B, C], all labels; scores: float32 [B, C], their probabilities.
        Source: https://www.tensorflow.org/tfx/serving/signature_defs#classification_signaturedef
        """
        text = tf.io.parse_example(inputs, {"text": tf.io.FixedLenFeature([], tf.string, "")})["text"]
        classes, scores = self._classified(text)
        return {"classes": classes, "scores": scores}

    def _classified(self, text: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """tf.string [B] -> labels, tf.string [B, C], and their probabilities, float32 [B, C]."""
        ids = self.tokenizer.tokenize(text)[:, : self._max_length]
        end = tf.fill([ids.nrows(), 1], self.tokenizer.eos_id)
        probabilities = tf.nn.softmax(self._logits(tf.concat([ids, end], axis=1).to_tensor()))
        return tf.repeat([list(self._labels)], tf.shape(text)[0], axis=0), probabilities
