"""The serving module of a classifier: EncoderClassifier and tokenizer in one graph, from texts to labels."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from seq2serve.models.export.export import signature
from seq2serve.models.export.inputs import read_texts
from seq2serve.models.export.warmup import WarmupRequest, alone_and_together
from seq2serve.models.tokenizers.base import Tokenizer
from seq2serve.models.transformer.models import EncoderClassifier


class ClassificationServingModule(tf.Module):
    """A ServingModule of an EncoderClassifier.

    Args:
        model: a built model.
        tokenizer: the tokenizer of its texts.
        labels: the labels, in the order of their ids.
        max_length: number of tokens after which a text is cut, that of training.
    """

    def __init__(
        self,
        model: EncoderClassifier,
        tokenizer: Tokenizer,
        labels: Sequence[str],
        max_length: int,
    ):
        super().__init__(name="classification")
        self.tokenizer = tokenizer
        self.weights = [variable.value for variable in model.weights]
        self._max_length, self._labels = max_length, tuple(labels)
        self._logits = lambda ids: model(ids, training=False)
        self._pool = lambda ids: model.pool(ids, training=False)
        self._model_config = functools.partial(dataclasses.asdict, model.config)

    def signatures(self) -> dict[str, Any]:
        """Returns signature name -> tf.function."""
        return {"serving_default": self.serving_default, "classify": self.classify, "embed": self.embed}

    def warmup_requests(self, samples: list[str]) -> list[WarmupRequest]:
        """Returns requests to all signatures."""
        texts = [tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode()])) for text in samples]
        examples = [tf.train.Example(features=tf.train.Features(feature={"text": text})) for text in texts]
        serialised = [example.SerializeToString(deterministic=True) for example in examples]
        requests = {
            "serving_default": {"text": samples},
            "classify": {"inputs": serialised},
            "embed": {"text": samples},
        }
        return [request for name, inputs in requests.items() for request in alone_and_together(name, inputs)]

    def config(self) -> dict[str, Any]:
        """Returns the model config, the labels and the maximum length."""
        return {"model": self._model_config(), "labels": list(self._labels), "max_length": self._max_length}

    @signature(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def serving_default(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Classifies texts.

        Args:
            text: tf.string [B], truncated to `max_length` tokens.
        Returns:
            label: tf.string [B], the most likely label; probability: float32 [B], its probability; labels: tf.string
            [B, C], all labels; probabilities: float32 [B, C], in the same order; truncated: bool [B], whether the text
            was cut.
        """
        labels, probabilities, truncated = self._classify_texts(text)
        best = tf.argmax(probabilities, 1)  # [B]
        return {
            "label": tf.gather(labels, best, batch_dims=1),
            "probability": tf.gather(probabilities, best, batch_dims=1),
            "labels": labels,
            "probabilities": probabilities,
            "truncated": truncated,
        }

    @signature(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def classify(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Classifies tf.Examples, in the form of the model server's Classify call.

        Args:
            inputs: tf.string [B], serialised tf.Examples with one value in the bytes feature `text`. Without it, or
                with none or several values, the request fails with INVALID_ARGUMENT and the name of the feature.
        Returns:
            classes: tf.string [B, C], all labels; scores: float32 [B, C], their probabilities. The Classify call has
            no place for `truncated`.
        Source: https://www.tensorflow.org/tfx/serving/signature_defs#classification_signaturedef
        """
        text = tf.io.parse_example(inputs, {"text": tf.io.FixedLenFeature([], tf.string)})["text"]
        classes, scores, _ = self._classify_texts(text)
        return {"classes": classes, "scores": scores}

    @signature(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def embed(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Embeds texts: the encoder's pooled output, at unit length (Reimers and Gurevych 2019).

        The dot product of two embeddings is their cosine similarity. How well it tells similar texts depends on what
        the encoder has learnt.

        Args:
            text: tf.string [B], truncated to `max_length` tokens.
        Returns:
            embedding: float32 [B, D], of length 1; truncated: bool [B], whether the text was cut.
        """
        ids, truncated = read_texts(self.tokenizer, text, self._max_length)
        embedding = tf.math.l2_normalize(tf.cast(self._pool(ids), tf.float32), axis=1, epsilon=1e-24)
        return {"embedding": embedding, "truncated": truncated}

    def _classify_texts(self, text: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """tf.string [B] -> labels, tf.string [B, C], their probabilities, float32 [B, C], and `truncated`, bool [B]."""
        ids, truncated = read_texts(self.tokenizer, text, self._max_length)
        labels = tf.repeat([list(self._labels)], tf.shape(text)[0], axis=0)
        return labels, tf.nn.softmax(self._logits(ids)), truncated
