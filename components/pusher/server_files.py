"""Configuration files for unmodified TF Serving: versions, batching, monitoring, and Docker Compose.

`models.config` names no version. By TF Serving's default policy, a server looks for a newer version every second, loads
it, and only then frees the old one. A file that moved a label to the new version would be refused, because a server
checks labels before it loads versions (`ServerCore::ReloadConfig`), and the new version would never be loaded.

Each file is written once. Then it belongs to the operator, whose changes `versions.served` follows.

Source: https://www.tensorflow.org/tfx/serving/serving_config
"""

import posixpath
import re
from typing import Any

from seq2serve.components.base.errors import UserError
from seq2serve.components.base.uris import is_remote
from seq2serve.components.pusher.store import Store

SERVER_SETTINGS = "models.config"
SERVER_VERSION = "2.20.0"  # the newest release of TF Serving; not newer than the TensorFlow that exports the models
BATCH_SIZES = (1, 2, 4, 8, 16, 32)  # the server pads a batch to the next of these sizes; the last is the maximum
MAX_REQUEST_ROWS = 1024  # the server refuses larger requests, and splits smaller ones into batches
_FOLDER = "/serving"  # where Docker Compose mounts a local folder; the same for all, so no folder's name matters

# Each batch uses all cores. The server waits 1 ms for more requests, too short for a user to notice. It requires that
# the last allowed size equals max_batch_size, although no batch is larger than max_execution_batch_size.
_BATCHING = f"""\
max_batch_size {{ value: {MAX_REQUEST_ROWS} }}
enable_large_batch_splitting {{ value: true }}
max_execution_batch_size {{ value: {BATCH_SIZES[-1]} }}
batch_timeout_micros {{ value: 1000 }}
max_enqueued_batches {{ value: 100 }}
num_batch_threads {{ value: 2 }}
{"".join(f"allowed_batch_sizes: {size}{chr(10)}" for size in (*BATCH_SIZES, MAX_REQUEST_ROWS))}"""

_MONITORING = """\
prometheus_config {
  enable: true
  path: "/monitoring/prometheus/metrics"
}
"""

_COMPOSE = """\
# docker compose up: serves the newest version in this folder, and new ones as they are pushed.
name: {project}
services:
  serving:
    image: tensorflow/serving:{version}
    restart: unless-stopped
    ports:
      - "127.0.0.1:8500:8500" # gRPC
      - "127.0.0.1:8501:8501" # REST
{files}\
    command:
      - {models}
      - --model_config_file_poll_wait_seconds=5
      # While one thread retries a version that does not load, the other loads a newer one.
      - --num_load_threads=2
      # With labels in models.config, a server refuses to start without this flag.
      - --allow_version_labels_for_unavailable_models=true
      - --enable_batching=true
      - {batching}
      - {monitoring}
      # Translation decodes the two halves of a batch in parallel. It is fastest with one thread per operation and one
      # parallel operation per core:
      # - --tensorflow_intra_op_parallelism=1
      # - --tensorflow_inter_op_parallelism=2
"""

_LOCAL_FILES = f"""\
    volumes:
      - type: bind
        source: .
        target: {_FOLDER}
        read_only: true
        bind:
          create_host_path: false # else Docker Compose joins both paths by ":", which the folder's name may contain
"""

_REMOTE_FILES = """\
    # The server reads the bucket itself. For a private one, it needs the key file of a service account:
    # environment:
    #   GOOGLE_APPLICATION_CREDENTIALS: /key.json
    # volumes:
    #   - ./key.json:/key.json:ro
"""


def write_server_settings(store: Store) -> None:
    """Writes the files that are missing, so that operators can edit them.

    Args:
        store: the serving folder; the last component of its path is the model's name.
    """
    folder = store.path("x").removesuffix("/x")
    name, root = posixpath.basename(folder), folder if is_remote(folder) else _FOLDER
    present = set(store.names())
    settings = {
        SERVER_SETTINGS: _models_config(name, root),
        "batching_parameters.txt": _BATCHING,
        "monitoring.config": _MONITORING,
        "compose.yaml": _compose(name, root),
    }
    for file, content in settings.items():
        if file not in present:
            store.write(file, content.encode())


def read_model_config(store: Store) -> Any:
    """Returns the tensorflow.serving.ModelConfig of a serving folder in its models.config; without one, the default.

    Raises:
        UserError: the file cannot be parsed, is for other models, or has a model that a server refuses.
        OSError: the file cannot be read.
    """
    from google.protobuf import text_format

    from seq2serve.models.runtime.server_config import model_server_config_pb2

    server, path = model_server_config_pb2.ModelServerConfig(), store.path(SERVER_SETTINGS)
    if not store.has(SERVER_SETTINGS):
        return model_server_config_pb2.ModelConfig()
    try:
        text_format.Parse(store.read(SERVER_SETTINGS).decode(), server)
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} is not a model server's configuration: {error}; fix it and run the command again",
            code="server-config-invalid",
            path=path,
        ) from error
    models = list(server.model_config_list.config)
    name = posixpath.basename(path.removesuffix(f"/{SERVER_SETTINGS}"))
    matching = [model for model in models if model.name == name] or models
    if len(matching) != 1:
        raise UserError(
            f"{path} lists {len(models)} models, and not exactly one of them has the name {name}; name the model of "
            f"this folder {name}",
            code="server-config-foreign",
            path=path,
        )
    _check_model(matching[0], path)
    return matching[0]


def _check_model(model: Any, path: str) -> None:
    """Raises a UserError if a server refuses a model (server_core.cc: ValidateModelConfigList, GetPlatform)."""
    problem = ""
    if not (model.base_path.startswith("/") or is_remote(model.base_path)):
        problem = f"base_path {model.base_path!r} is neither an absolute path nor a URL"
    elif bool(model.model_platform) == bool(model.model_type):
        problem = 'a model needs model_platform: "tensorflow", and no model_type beside it'
    if problem:
        raise UserError(
            f"{path}: {problem}, so model servers refuse the file; correct it and run the command again",
            code="server-config-invalid",
            path=path,
        )


def _models_config(name: str, root: str) -> str:
    # Imported here because the command line imports this module, and --help must not load protobuf.
    from google.protobuf import text_format

    from seq2serve.models.runtime.server_config import model_server_config_pb2

    server = model_server_config_pb2.ModelServerConfig()
    server.model_config_list.config.add(name=name, base_path=root, model_platform="tensorflow")
    return text_format.MessageToString(server, as_utf8=True)


def _compose(name: str, root: str) -> str:
    # Docker Compose derives the same name from the folder, but fails if nothing is left of it.
    project = re.sub(r"[^a-z0-9_-]", "", name.lower()).lstrip("_-") or "seq2serve"
    return _COMPOSE.format(
        project=_quoted(project),
        version=SERVER_VERSION,
        files=_REMOTE_FILES if is_remote(root) else _LOCAL_FILES,
        models=_quoted(f"--model_config_file={root}/{SERVER_SETTINGS}"),
        batching=_quoted(f"--batching_parameters_file={root}/batching_parameters.txt"),
        monitoring=_quoted(f"--monitoring_config_file={root}/monitoring.config"),
    )


def _quoted(text: str) -> str:
    """Returns a YAML string; Docker Compose would replace a single $ and what follows by a variable."""
    plain = (char if char.isprintable() and char not in '"\\' else f"\\U{ord(char):08x}" for char in text)
    return f'"{"".join(plain)}"'.replace("$", "$$")
