"""TF Serving's gRPC services: PredictionService and ModelService.

Comes in: the messages of tensorflow-serving-api. Goes out: the same, with TF Serving's status codes.
Read next: served_model.py for the answers.
Source: https://github.com/tensorflow/serving/tree/master/tensorflow_serving/apis
"""

import contextlib
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc

from models.saved_model import SERVING_DEFAULT
from models.serving_protos import (
    classification_pb2,
    example_pb2,
    from_tensor_proto,
    get_model_metadata_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    to_tensor_proto,
)
from pipeline.served_model import Choice, ServedModel, ServingError

MAX_MESSAGE_BYTES = 32 * 2**20
_THREADS = 32
_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),  # else a second server on the same port would go unnoticed
)


def make_server(model: ServedModel) -> grpc.Server:
    """Makes the server; add a port and start it.

    Args:
        model: started.
    """
    server = grpc.server(futures.ThreadPoolExecutor(_THREADS), options=_OPTIONS)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Predictions(model), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_Models(model), server)
    return server


class _Predictions(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict, Classify and GetModelMetadata; the others are answered with UNIMPLEMENTED."""

    def __init__(self, model: ServedModel):
        self._model = model

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Runs a signature."""
        with _refusals(context):
            signature = request.model_spec.signature_name or SERVING_DEFAULT
            inputs = {name: from_tensor_proto(proto) for name, proto in request.inputs.items()}
            version, outputs = self._model.run(_choice(self._model, request), signature, inputs)
            response = predict_pb2.PredictResponse()
            _fill_spec(self._model, response, version, signature)
            for name in request.output_filter or outputs:
                if name not in outputs:
                    raise ValueError(f"output tensor alias not found in signature: {name}")
                response.outputs[name].CopyFrom(to_tensor_proto(outputs[name]))
            return response

    def Classify(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Runs a signature with tf.Examples for `inputs`, and `classes` and `scores` for outputs."""
        with _refusals(context):
            signature = request.model_spec.signature_name or SERVING_DEFAULT
            examples = _examples(request.input)
            version, outputs = self._model.classify(_choice(self._model, request), signature, examples)
            response = classification_pb2.ClassificationResponse()
            _fill_spec(self._model, response, version, signature)
            for labels, scores in zip(outputs["classes"], outputs["scores"], strict=True):
                row = response.result.classifications.add()
                for label, score in zip(labels, scores, strict=True):
                    row.classes.add(label=label.decode(errors="replace"), score=score)
            return response

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Describes the signatures."""
        with _refusals(context):
            if list(request.metadata_field) != ["signature_def"]:
                raise ValueError("GetModelMetadataRequest must specify the metadata_field signature_def, and no other")
            response = get_model_metadata_pb2.GetModelMetadataResponse()
            with self._model.use(_choice(self._model, request)) as loaded:
                _fill_spec(self._model, response, loaded.number, "")
                response.metadata["signature_def"].Pack(loaded.signatures)
            return response


class _Models(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus; reloading configs is answered with UNIMPLEMENTED."""

    def __init__(self, model: ServedModel):
        self._model = model

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Says which versions there are."""
        with _refusals(context):
            return self._model.status(_choice(self._model, request))


@contextlib.contextmanager
def _refusals(context: grpc.ServicerContext) -> Iterator[None]:
    """Ends a call with the status of what went wrong."""
    try:
        yield
    except ServingError as error:
        context.abort(error.code, str(error))
    except ValueError as error:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))


def _choice(model: ServedModel, request: Any) -> Choice:
    spec = request.model_spec
    if spec.name != model.name:
        raise ServingError(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Latest({spec.name})")
    return Choice(spec.version.value if spec.HasField("version") else None, spec.version_label)


def _fill_spec(model: ServedModel, response: Any, version: int, signature: str) -> None:
    response.model_spec.name, response.model_spec.signature_name = model.name, signature
    response.model_spec.version.value = version


def _examples(given: Any) -> list[bytes]:
    """Returns serialised tf.Examples, each with the features of the common context if there is one."""
    kind = given.WhichOneof("kind")
    if kind is None:
        raise ValueError("Input is empty.")
    listed = getattr(given, kind)
    context = listed.context if kind == "example_list_with_context" else example_pb2.Example()
    if not listed.examples:
        raise ValueError("Input is empty.")
    joined = []
    for example in listed.examples:
        whole = example_pb2.Example()
        whole.CopyFrom(context)
        whole.MergeFrom(example)
        joined.append(whole.SerializeToString())
    return joined
