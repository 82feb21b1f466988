"""The proto of TF Serving's models.config; a module of its own, because a run reads that file and needs no NumPy."""

from seq2serve.models.runtime.tensorflow_stub import tensorflow_stub

with tensorflow_stub():
    from tensorflow_serving.config import model_server_config_pb2

__all__ = ["model_server_config_pb2"]
