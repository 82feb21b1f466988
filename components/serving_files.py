"""What stock TF Serving reads beside the model: which versions to serve, how to batch, what to count, and how to start.

Comes in: a serving folder and its labels. Goes out: four small files in it.
Read next: serving_folder.py, which calls this after every change.
Source: https://www.tensorflow.org/tfx/serving/serving_config
"""

import posixpath
from collections.abc import Mapping

from components.serving_store import Store

SERVER_SETTINGS = "models.config"
BATCH_SIZES = (1, 2, 4, 8, 16, 32)  # the server fills a batch up to one of these; the last is the largest there is

# One batch at a time uses every core, and waits no longer for more than a person would notice.
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
# docker compose up: serves the versions in this folder, and goes on to new ones as they are pushed.
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
      # Translation writes the halves of a batch side by side: it is fastest with each operation on one thread, and as
      # many operations at once as there are cores:
      # - --tensorflow_intra_op_parallelism=1
      # - --tensorflow_inter_op_parallelism=2
"""


def write_server_settings(store: Store, labels: Mapping[str, int]) -> None:
    """Writes `models.config`, and beside it, where they are missing (they are yours to change),
    `batching_parameters.txt`, `monitoring.config` and `compose.yaml`.

    Args:
        store: the serving folder; its last part is the model's name.
        labels: label -> version; these versions are served.
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
    from google.protobuf import text_format

    from models.serving_protos import model_server_config_pb2

    server = model_server_config_pb2.ModelServerConfig()
    config = server.model_config_list.config.add(name=name, base_path=base_path, model_platform="tensorflow")
    config.model_version_policy.specific.versions.extend(sorted(set(labels.values())))
    config.version_labels.update(labels)
    return text_format.MessageToString(server)
