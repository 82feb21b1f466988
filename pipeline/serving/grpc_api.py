"""TensorFlow Serving's gRPC services: PredictionService and ModelService.

Source: https://github.com/tensorflow/serving/tree/master/tensorflow_serving/apis
"""

import time
from collections.abc import Awaitable, Callable
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
from seq2serve.pipeline.serving.inference import Inference
from seq2serve.pipeline.serving.limits import HEADER_SECONDS, IDLE_SECONDS, MAX_BODY_BYTES, MAX_REQUESTS
from seq2serve.pipeline.serving.model import ServedModel, ServingError, VersionSpec
from seq2serve.pipeline.serving.workers import Job

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_BODY_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),  # otherwise a second server could share the port unnoticed
    ("grpc.server_handshake_timeout_ms", 1000 * HEADER_SECONDS),
    ("grpc.max_connection_idle_ms", 1000 * IDLE_SECONDS),
    ("grpc.keepalive_time_ms", 1000 * IDLE_SECONDS),  # finds clients that are gone without closing the connection
    ("grpc.max_concurrent_streams", MAX_REQUESTS),  # of one connection
)


def make_server(inference: Inference) -> grpc.aio.Server:
    """Makes the server; the caller adds a port and starts it, in the event loop that calls this function.

    Args:
        inference: answers the requests.
    """
    # gRPC's limit is higher than that of `Workers`, so that the model status is answered when no request is admitted.
    server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=2 * MAX_REQUESTS)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_PredictionService(inference), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_ModelService(inference.model), server)
    return server


class _PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict, Classify, Regress and GetModelMetadata; MultiInference returns UNIMPLEMENTED.

    gRPC cancels a method when its client has cancelled the call or the deadline has passed.
    """

    def __init__(self, inference: Inference):
        self._inference, self._model = inference, inference.model

    async def Predict(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Calls a signature."""
        return await self._answer("Predict", self._predict, request, context)

    async def Classify(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Calls a signature that converts tf.Examples, `inputs`, to `classes` and `scores`."""
        return await self._answer("Classify", self._classify, request, context)

    async def Regress(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Refuses the request."""
        return await self._answer("Regress", self._regress, request, context)

    async def GetModelMetadata(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Returns the signatures."""
        return await self._answer("GetModelMetadata", self._metadata, request, context)

    async def _answer(
        self,
        api: str,
        handle: Callable[[Job, Any], Awaitable[Any]],
        request: Any,
        context: grpc.aio.ServicerContext,
    ) -> Any:
        """Ends a call that raises an error with the matching gRPC status."""
        try:
            with self._inference.answer(api, "GRPC") as job:
                if (seconds := context.time_remaining()) is not None:
                    job.deadline = time.monotonic() + seconds
                job.admit()
                job.reserve(request.ByteSize())
                return await handle(job, request)
        except ServingError as error:
            await context.abort(error.code, str(error))

    async def _predict(self, job: Job, request: Any) -> Any:
        signature = request.model_spec.signature_name or SERVING_DEFAULT
        with self._model.use(_version_spec(self._model, request)) as loaded:
            known = loaded.runtime.signatures
            _check_output_filter(request.output_filter, known[signature].outputs if signature in known else None)
            inputs = await job.run(lambda: {name: from_tensor_proto(proto) for name, proto in request.inputs.items()})
            outputs = await self._inference.run(job, loaded, signature, inputs)

        def write() -> Any:
            response = predict_pb2.PredictResponse()
            _fill_model_spec(self._model, response, loaded.number, signature)
            for name in request.output_filter or outputs:
                response.outputs[name].CopyFrom(to_tensor_proto(outputs[name]))
            return response

        return await job.run(write)

    async def _classify(self, job: Job, request: Any) -> Any:
        signature = request.model_spec.signature_name or SERVING_DEFAULT
        with self._model.use(_version_spec(self._model, request)) as loaded:
            examples = await job.run(lambda: _serialized_examples(request.input))
            outputs = await self._inference.classify(job, loaded, signature, examples)

        def write() -> Any:
            response = classification_pb2.ClassificationResponse()
            _fill_model_spec(self._model, response, loaded.number, signature)
            for labels, scores in zip(outputs["classes"], outputs["scores"], strict=True):
                row = response.result.classifications.add()
                for label, score in zip(labels, scores, strict=True):
                    row.classes.add(label=label.decode(errors="replace"), score=score)
            return response

        return await job.run(write)

    async def _regress(self, _: Job, request: Any) -> Any:
        with self._model.use(_version_spec(self._model, request)) as loaded:
            self._inference.regress(loaded, request.model_spec.signature_name or SERVING_DEFAULT)

    async def _metadata(self, _: Job, request: Any) -> Any:
        if list(request.metadata_field) != ["signature_def"]:
            raise ValueError("GetModelMetadataRequest must specify the metadata_field signature_def, and no other")
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        with self._model.use(_version_spec(self._model, request)) as loaded:
            _fill_model_spec(self._model, response, loaded.number, "")
            response.metadata["signature_def"].Pack(loaded.signatures)
        return response


class _ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus, also while no other request is admitted; HandleReloadConfigRequest returns UNIMPLEMENTED."""

    def __init__(self, model: ServedModel):
        self._model = model

    async def GetModelStatus(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Returns the versions and their states."""
        try:
            return self._model.status(_version_spec(self._model, request))
        except ServingError as error:
            await context.abort(error.code, str(error))


def _check_output_filter(output_filter: Any, outputs: Any) -> None:
    """Raises ValueError if an output is unknown or named twice."""
    names = list(output_filter)
    for name in names:
        if outputs is not None and name not in outputs:
            raise ValueError(f"output tensor alias not found in signature: {name}")
        if names.count(name) > 1:
            raise ValueError(f"duplicate output tensor alias: {name}")


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
