"""TensorFlow Serving's gRPC services: PredictionService and ModelService.

Source: https://github.com/tensorflow/serving/tree/master/tensorflow_serving/apis
"""

import contextlib
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc

from seq2serve.models.runtime.protos import (
    classification_pb2,
    example_pb2,
    from_tensor_proto,
    get_model_metadata_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    to_tensor_proto,
)
from seq2serve.models.runtime.saved_model import SERVING_DEFAULT
from seq2serve.pipeline.serving.model import ServedModel, ServingError, VersionSpec

MAX_MESSAGE_BYTES = 32 * 2**20
_THREADS = 32
_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),  # otherwise a second server could share the port unnoticed
)


def make_server(model: ServedModel) -> grpc.Server:
    """Makes the server; the caller adds a port and starts it.

    Args:
        model: a started ServedModel.
    """
    server = grpc.server(futures.ThreadPoolExecutor(_THREADS), options=_OPTIONS)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_PredictionService(model), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_ModelService(model), server)
    return server


class _PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict, Classify and GetModelMetadata; the other methods return UNIMPLEMENTED."""

    def __init__(self, model: ServedModel):
        self._model = model

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Calls a signature."""
        with _status_of_errors(context):
            signature = request.model_spec.signature_name or SERVING_DEFAULT
            inputs = {name: from_tensor_proto(proto) for name, proto in request.inputs.items()}
            version, outputs = self._model.run(_version_spec(self._model, request), signature, inputs)
            response = predict_pb2.PredictResponse()
            _fill_model_spec(self._model, response, version, signature)
            for name in request.output_filter or outputs:
                if name not in outputs:
                    raise ValueError(f"output tensor alias not found in signature: {name}")
                response.outputs[name].CopyFrom(to_tensor_proto(outputs[name]))
            return response

    def Classify(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Calls a signature that converts tf.Examples, `inputs`, to `classes` and `scores`."""
        with _status_of_errors(context):
            signature = request.model_spec.signature_name or SERVING_DEFAULT
            examples = _serialized_examples(request.input)
            version, outputs = self._model.classify(_version_spec(self._model, request), signature, examples)
            response = classification_pb2.ClassificationResponse()
            _fill_model_spec(self._model, response, version, signature)
            for labels, scores in zip(outputs["classes"], outputs["scores"], strict=True):
                row = response.result.classifications.add()
                for label, score in zip(labels, scores, strict=True):
                    row.classes.add(label=label.decode(errors="replace"), score=score)
            return response

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Returns the signatures."""
        with _status_of_errors(context):
            if list(request.metadata_field) != ["signature_def"]:
                raise ValueError("GetModelMetadataRequest must specify the metadata_field signature_def, and no other")
            response = get_model_metadata_pb2.GetModelMetadataResponse()
            with self._model.use(_version_spec(self._model, request)) as loaded:
                _fill_model_spec(self._model, response, loaded.number, "")
                response.metadata["signature_def"].Pack(loaded.signatures)
            return response


class _ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus; HandleReloadConfigRequest returns UNIMPLEMENTED."""

    def __init__(self, model: ServedModel):
        self._model = model

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Returns the versions and their states."""
        with _status_of_errors(context):
            return self._model.status(_version_spec(self._model, request))


@contextlib.contextmanager
def _status_of_errors(context: grpc.ServicerContext) -> Iterator[None]:
    """Ends a call that raises an error with the matching gRPC status."""
    try:
        yield
    except ServingError as error:
        context.abort(error.code, str(error))
    except ValueError as error:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))


def _version_spec(model: ServedModel, request: Any) -> VersionSpec:
    spec = request.model_spec
    if spec.name != model.name:
        raise ServingError(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Latest({spec.name})")
    return VersionSpec(spec.version.value if spec.HasField("version") else None, spec.version_label)


def _fill_model_spec(model: ServedModel, response: Any, version: int, signature: str) -> None:
    response.model_spec.name, response.model_spec.signature_name = model.name, signature
    response.model_spec.version.value = version


def _serialized_examples(request_input: Any) -> list[bytes]:
    """Returns serialised tf.Examples, each merged with the common context of the request, if there is one."""
    kind = request_input.WhichOneof("kind")
    if kind is None:
        raise ValueError("Input is empty.")
    example_list = getattr(request_input, kind)
    context = example_list.context if kind == "example_list_with_context" else example_pb2.Example()
    if not example_list.examples:
        raise ValueError("Input is empty.")
    serialized = []
    for example in example_list.examples:
        merged = example_pb2.Example()
        merged.CopyFrom(context)
        merged.MergeFrom(example)
        serialized.append(merged.SerializeToString())
    return serialized
