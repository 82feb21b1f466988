"""A trained model as a SavedModel that needs no file of ours: strings in, strings out.

Comes in: a server, which is a model with its tokenizer and named signatures. Goes out: a folder that TF Serving loads.
Read next: export_translation.py for a server; runtime.py, which loads it as the model server does; warmup.py for the
requests that ride along.
"""

import functools
import importlib.metadata
import json
import os
from typing import Any, Protocol

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from models.saved_model import CLASSIFY_METHOD, SERVING_DEFAULT
from models.shared_nodes import share_nodes
from models.warmup import WarmupRequest, write_warmup_requests

EXTRA_FOLDER = "assets.extra"  # the model server leaves alone what it does not know there
LIBRARIES = ("keras", "tensorflow", "tensorflow-text")  # those that shape the graph

# Makes a signature of a method. AutoGraph would rewrite Python's loops and conditions, of which none hangs on a tensor
# here, and it takes a good part of an export to find that out.
signature = functools.partial(tf.function, autograph=False)


class Server(Protocol):
    """What can be exported: a `tf.Module` with these methods.

    Dimension 0 of every input and output is the batch, so that the model server may join requests; an option such as a
    temperature is a vector with one number a row. Names are given by the functions themselves: of inputs in
    `input_signature`, of outputs as keys of the dictionary they return.

    It keeps every variable that its functions read as a `tf.Variable`, in attributes or lists of them; of a Keras
    variable that is `variable.value`. Keras's own objects restore a copy, which Python's loader swaps in and a C++
    session does not; so keep the model itself out of sight, in a closure or a `functools.partial`.
    """

    tokenizer: Any  # as in tokenizer.py; of what is written. What is read may have one of its own, `source_tokenizer`

    def signatures(self) -> dict[str, Any]:
        """Returns signature name -> tf.function; `serving_default` must be among them."""

    def warmup_requests(self, samples: list[str]) -> list[WarmupRequest]:
        """Returns requests to every signature, made of sample texts; see `warmup.alone_and_together`."""

    def config(self) -> dict[str, Any]:
        """Returns what the model was made with, as JSON values."""


def export(server: Server, directory: str, samples: list[str]) -> None:
    """Writes the SavedModel, its warm-up requests, and what a person may want to know of it in `assets.extra/`:

    vocabulary.tsv   piece, id; and source_vocabulary.tsv where the source has a tokenizer of its own
    config.json      what the server says of itself
    versions.json    library -> version

    Args:
        server: what to serve.
        directory: made where it is missing.
        samples: short, middle and long texts for the warm-up requests.
    Raises:
        ValueError: a warm-up request does not fit its signature.
    """
    # Nobody trains what is served, and each gradient would be a function more for the model server to look through.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(server, directory, signatures=server.signatures(), options=options)
    _finish(directory)
    # What users ask first is replayed last, and so still warm.
    requests = sorted(server.warmup_requests(samples), key=lambda request: request.signature == SERVING_DEFAULT)
    write_warmup_requests(directory, requests)
    versions = {library: importlib.metadata.version(library) for library in LIBRARIES}
    _write_json(directory, "config.json", server.config())
    _write_json(directory, "versions.json", versions)
    _write(directory, "vocabulary.tsv", _vocabulary(server.tokenizer))
    source_tokenizer = getattr(server, "source_tokenizer", server.tokenizer)
    if source_tokenizer is not server.tokenizer:
        _write(directory, "source_vocabulary.tsv", _vocabulary(source_tokenizer))


def _finish(directory: str) -> None:
    """Changes what TensorFlow has written where the model server is better served with something else."""
    path = os.path.join(directory, "saved_model.pb")
    with tf.io.gfile.GFile(path, "rb") as file:
        saved_model = saved_model_pb2.SavedModel.FromString(file.read())
    _name_classify_calls(saved_model)
    _forget_gradients(saved_model)
    share_nodes(saved_model)
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(saved_model.SerializeToString(deterministic=True))


def _forget_gradients(saved_model: saved_model_pb2.SavedModel) -> None:
    """Takes away the names of gradients that were not exported, of which Python would warn at each load."""
    for meta_graph in saved_model.meta_graphs:
        for function in meta_graph.graph_def.library.function:
            for node in function.node_def:
                node.attr.pop("_gradient_op_type", None)


def _name_classify_calls(saved_model: saved_model_pb2.SavedModel) -> None:
    """Gives the signatures that have the form of the model server's Classify call its method name, without which the
    server refuses the call; TensorFlow writes that of Predict for all. Predict takes either.
    """
    for meta_graph in saved_model.meta_graphs:
        for definition in meta_graph.signature_def.values():
            if set(definition.inputs) == {"inputs"} and set(definition.outputs) == {"classes", "scores"}:
                definition.method_name = CLASSIFY_METHOD


def _vocabulary(tokenizer: Any) -> bytes:
    pieces = tokenizer.id_to_piece(tf.range(tokenizer.vocab_size)).numpy()
    return b"".join(b"%s\t%d\n" % (piece, number) for number, piece in enumerate(pieces))


def _write_json(directory: str, name: str, value: Any) -> None:
    _write(directory, name, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n")


def _write(directory: str, name: str, content: bytes) -> None:
    with tf.io.gfile.GFile(os.path.join(directory, EXTRA_FOLDER, name), "wb") as file:
        file.write(content)
