"""Configuration files for unmodified TF Serving: versions and labels, batching, monitoring, and Docker Compose.

Source: https://www.tensorflow.org/tfx/serving/serving_config
"""

import posixpath
from collections.abc import Mapping

from seq2serve.components.pusher.store import Store

SERVER_SETTINGS = "models.config"
BATCH_SIZES = (1, 2, 4, 8, 16, 32)  # the server pads a batch to the next of these sizes; the last is the maximum

# Each batch uses all cores. The server waits 1 ms for more requests, too short for a user to notice.
_BATCHING = f"""\
max_batch_size {{ value: {BATCH_SIZES[-1]} }}
batch_timeout_micros {{ value: 1000 }}
max_enqueued_batches {{ value: 100 }}
num_batch_threads {{ value: 2 }}
{"".join(f"allowed_batch_sizes: {size}{chr(10)}" for size in BATCH_SIZES)}"""

_MONITORING = """\
prometheus_config {
  enable: true
  path: "/monitoring/prometheus/metrics"
}
"""

_COMPOSE = """\
# docker compose up: serves the versions in this folder, and new ones as they are pushed.
services:
  serving:
    image: tensorflow/serving
    restart: unless-stopped
    ports:
      - "127.0.0.1:8500:8500" # gRPC
      - "127.0.0.1:8501:8501" # REST
    volumes:
      - ".:{base_path}:ro"
    command:
      - --model_config_file={base_path}/models.config
      - --model_config_file_poll_wait_seconds=5
      - --allow_version_labels_for_unavailable_models=true
      - --enable_batching=true
      - --batching_parameters_file={base_path}/batching_parameters.txt
      - --monitoring_config_file={base_path}/monitoring.config
      # Translation decodes the two halves of a batch in parallel. It is fastest with one thread per operation and one
      # parallel operation per core:
      # - --tensorflow_intra_op_parallelism=1
      # - --tensorflow_inter_op_parallelism=2
"""


def write_server_settings(store: Store, labels: Mapping[str, int]) -> None:
    """Writes `models.config`, and the other three files if they are missing, so that operators can edit those.

    Args:
        store: the serving folder; the last component of its path is the model's name.
        labels: label -> version; the server loads these versions.
    """
    name = posixpath.basename(store.path("x").removesuffix("/x"))
    base_path = f"/models/{name}"
    store.write(SERVER_SETTINGS, _models_config(name, base_path, labels).encode())
    present = set(store.names())
    settings = {
        "batching_parameters.txt": _BATCHING,
        "monitoring.config": _MONITORING,
        "compose.yaml": _COMPOSE.format(base_path=base_path),
    }
    for file, content in settings.items():
        if file not in present:
            store.write(file, content.encode())


def _models_config(name: str, base_path: str, labels: Mapping[str, int]) -> str:
    # Imported here because the command line imports this module, and --help must not load protobuf.
    from google.protobuf import text_format

    from seq2serve.models.runtime.protos import model_server_config_pb2

    server = model_server_config_pb2.ModelServerConfig()
    config = server.model_config_list.config.add(name=name, base_path=base_path, model_platform="tensorflow")
    config.model_version_policy.specific.versions.extend(sorted(set(labels.values())))
    config.version_labels.update(labels)
    return text_format.MessageToString(server)
