"""Exports a trained model as a self-contained SavedModel with strings as inputs and outputs, for TF Serving.

See also: translation.py for an example of a ServingModule; runtime/runtime.py, which loads a SavedModel as the model
server does.
"""

import functools
import importlib.metadata
import json
import os
from typing import Any, Protocol

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from seq2serve.models.export.shared_nodes import share_nodes
from seq2serve.models.export.warmup import WarmupRequest, write_warmup_requests
from seq2serve.models.runtime.saved_model import CLASSIFY_METHOD, SERVING_DEFAULT
from seq2serve.models.tokenizers.base import Tokenizer, vocabulary_tsv

EXTRA_FOLDER = "assets.extra"  # the model server ignores unknown files in this folder
LIBRARIES = ("keras", "tensorflow", "tensorflow-text")  # those that determine the graph
# The lowest versions in which a model server loads the graph: `make test-server-versions` loads every demo model there.
LOWEST_VERSIONS = {"tensorflow": "2.19", "tensorflow-text": "2.19"}

# Decorates a method that is a signature. AutoGraph would rewrite Python's loops and conditions. None of them depends on
# a tensor here, and the analysis would take a large share of the export time.
signature = functools.partial(tf.function, autograph=False)


class ServingModule(Protocol):
    """The interface that `export` needs: a `tf.Module` with these methods.

    Dimension 0 of every input and output is the batch, so that the model server can batch requests. An option like a
    temperature is a vector with one number per row. Inputs are named in `input_signature`, outputs by the keys of the
    returned dictionary.

    The module stores every variable that its functions read as a `tf.Variable`, in attributes or in lists; for a Keras
    variable that is `variable.value`. Keras objects restore a copy, which the Python loader replaces but a C++ session
    does not. Therefore keep the Keras model itself out of the attributes, in a closure or a `functools.partial`.
    """

    tokenizer: Tokenizer  # of the target; a different tokenizer of the source is in the attribute `source_tokenizer`

    def signatures(self) -> dict[str, Any]:
        """Returns signature name -> tf.function, including `serving_default`."""

    def warmup_requests(self, samples: list[str]) -> list[WarmupRequest]:
        """Returns requests to every signature, made from sample texts; see `warmup.alone_and_together`."""

    def config(self) -> dict[str, Any]:
        """Returns the configuration of the model, as JSON values."""


def export(module: ServingModule, directory: str, samples: list[str]) -> None:
    """Writes the SavedModel, its warm-up requests and files that describe it, in `assets.extra/`:

    vocabulary.tsv   piece, id; and source_vocabulary.tsv if the source has a tokenizer of its own
    config.json      `module.config()`
    versions.json    library -> version that exported the model; in `lowest`, library -> version that a server needs

    Args:
        module: the model to export.
        directory: created if it does not exist.
        samples: short, medium and long texts for the warm-up requests.
    Raises:
        ValueError: a warm-up request does not fit its signature.
    """
    # An exported model is not trained, and each gradient would be one more function for the model server to process.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(module, directory, signatures=module.signatures(), options=options)
    _rewrite_graph(directory)
    # The most used signature is warmed up last, so its code and data are still in the caches.
    requests = sorted(module.warmup_requests(samples), key=lambda request: request.signature == SERVING_DEFAULT)
    write_warmup_requests(directory, requests)
    versions: dict[str, Any] = {library: importlib.metadata.version(library) for library in LIBRARIES}
    _write_json(directory, "config.json", module.config())
    _write_json(directory, "versions.json", {**versions, "lowest": LOWEST_VERSIONS})
    _write(directory, "vocabulary.tsv", _vocabulary(module.tokenizer))
    source_tokenizer: Tokenizer | None = getattr(module, "source_tokenizer", None)
    if source_tokenizer is not None and source_tokenizer is not module.tokenizer:
        _write(directory, "source_vocabulary.tsv", _vocabulary(source_tokenizer))


def _rewrite_graph(directory: str) -> None:
    """Adapts the graph that TensorFlow has written to the model server."""
    path = os.path.join(directory, "saved_model.pb")
    with open(path, "rb") as file:
        saved_model = saved_model_pb2.SavedModel.FromString(file.read())
    _set_classify_method(saved_model)
    _remove_gradient_names(saved_model)
    share_nodes(saved_model)
    with open(path, "wb") as file:
        file.write(saved_model.SerializeToString(deterministic=True))


def _remove_gradient_names(saved_model: saved_model_pb2.SavedModel) -> None:
    """Removes the names of gradients that are not exported; Python would log a warning for each when it loads them."""
    for meta_graph in saved_model.meta_graphs:
        for function in meta_graph.graph_def.library.function:
            for node in function.node_def:
                node.attr.pop("_gradient_op_type", None)


def _set_classify_method(saved_model: saved_model_pb2.SavedModel) -> None:
    """Sets the method name of signatures in the form of the model server's Classify call.

    TensorFlow writes Predict's method name for all signatures, and Classify rejects that. Predict accepts both.
    """
    for meta_graph in saved_model.meta_graphs:
        for definition in meta_graph.signature_def.values():
            if set(definition.inputs) == {"inputs"} and set(definition.outputs) == {"classes", "scores"}:
                definition.method_name = CLASSIFY_METHOD


def _vocabulary(tokenizer: Tokenizer) -> bytes:
    pieces = tokenizer.id_to_piece(tf.range(tokenizer.vocab_size)).numpy()
    return vocabulary_tsv(piece.decode() for piece in pieces)


def _write_json(directory: str, name: str, value: Any) -> None:
    _write(directory, name, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n")


def _write(directory: str, name: str, content: bytes) -> None:
    with open(os.path.join(directory, EXTRA_FOLDER, name), "wb") as file:
        file.write(content)
