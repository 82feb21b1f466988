"""`seq2serve serve` works with the gRPC client of tensorflow-serving-api; invalid calls get the right status."""

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)


@pytest.fixture(scope="module")
def stub(server):
    with grpc.insecure_channel(f"localhost:{server.grpc_port}") as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def predict_request(signature="", **inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "echo", signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def test_the_client_stub_predicts(stub):
    response = stub.Predict(predict_request(text=["hi", "größer"]))
    assert tf.make_ndarray(response.outputs["translation"]).tolist() == [b"one:hi", "one:größer".encode()]
    np.testing.assert_allclose(tf.make_ndarray(response.outputs["score"]), [0.2, 0.8])
    assert (response.model_spec.name, response.model_spec.signature_name) == ("echo", "serving_default")
    request = predict_request(text=["hi"])
    request.model_spec.version_label = "live"
    request.output_filter.append("score")
    assert list(stub.Predict(request).outputs) == ["score"]
    empty = stub.Predict(predict_request("only", x=np.zeros([0, 2], np.float32)))
    assert tf.make_ndarray(empty.outputs["doubled"]).shape == (0, 2)


def test_the_client_stub_classifies(stub):
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = "echo", "classify"
    example = request.input.example_list.examples.add()
    example.features.feature["text"].bytes_list.value.append(b"four")
    (row,) = stub.Classify(request).result.classifications
    assert [(entry.label, entry.score) for entry in row.classes] == [("length", 4), ("four", -4)]


def test_classify_rejects_a_signature_for_predict(stub):
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = "echo", "encode"
    request.input.example_list.examples.add()
    with pytest.raises(grpc.RpcError) as error:
        stub.Classify(request)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "method_name to be tensorflow/serving/classify. Was: tensorflow/serving/predict" in error.value.details()


def test_the_client_stub_reads_metadata_and_status(server, stub):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "echo"
    signatures = get_model_metadata_pb2.SignatureDefMap()
    stub.GetModelMetadata(request).metadata["signature_def"].Unpack(signatures)
    assert signatures.signature_def["only"].inputs["x"].dtype == tf.float32.as_datatype_enum
    with grpc.insecure_channel(f"localhost:{server.grpc_port}") as channel:
        status = get_model_status_pb2.GetModelStatusRequest()
        status.model_spec.name = "echo"
        (version,) = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(status).model_version_status
    assert version.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE


def with_spec(**fields):
    request = predict_request(text=["a"])
    for name, value in fields.items():
        setattr(request.model_spec, name, value)
    return request


def tensor_with_a_wrong_shape():
    request = predict_request(text=["a"])
    request.inputs["text"].tensor_shape.dim[0].size = 2**40
    return request


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (with_spec(name="other"), grpc.StatusCode.NOT_FOUND),
        (with_spec(version_label="beta"), grpc.StatusCode.INVALID_ARGUMENT),
        (with_spec(signature_name="nonsense"), grpc.StatusCode.FAILED_PRECONDITION),
        (predict_request(txet=["a"]), grpc.StatusCode.INVALID_ARGUMENT),
        (predict_request(text=[1.5]), grpc.StatusCode.INVALID_ARGUMENT),
        (tensor_with_a_wrong_shape(), grpc.StatusCode.INVALID_ARGUMENT),
        (predict_request(text=["x" * (40 * 2**20)]), grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
def test_an_invalid_call_gets_the_right_status(stub, call, code):
    with pytest.raises(grpc.RpcError) as error:
        stub.Predict(call)
    assert error.value.code() == code
