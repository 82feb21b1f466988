"""The files for TF Serving: they fit every folder's name, and are written once."""

import importlib.metadata
import re

import pytest
import yaml
from google.protobuf import text_format

from seq2serve.components.pusher.server_files import SERVER_VERSION, write_server_settings
from seq2serve.components.pusher.store import open_store
from seq2serve.models.runtime.server_config import model_server_config_pb2

NAMES = [
    *(
        "en_de",
        "a model",
        "a#b",
        "a # b",
        'say "hi"',
        "it's",
        "a:b",
        "a: b",
        "$HOME",
        "${HOME}",
        "{x}",
        "[x]",
        "-model",
    ),
    *("--flag", "no", "1e3", "007", "null", "~", "*a", "&a", "!a", "%a", "@a", "`a`", "a\\b", "a\nb", "日本語", "😀"),
    *("a\u2028b", "\x7f", "Ünïcode", "a=b", "a,b", "|", ">", "?"),
]


@pytest.fixture(params=["disk", "object store"])
def folder(request, tmp_path, blobs):
    """Returns a function from a name to a serving folder with settings of that name."""

    def make(name):
        if request.param == "object store" and set("[*?") & set(name):
            pytest.skip("Pusher refuses this name, which Beam would treat as a pattern")
        store = open_store(str(tmp_path / name) if request.param == "disk" else f"memory://bucket/{name}")
        with store.locked():
            write_server_settings(store)
        return store

    return make


def uninterpolated(text):
    """Returns what Docker Compose makes of a string without variables: $$ is $, and no other $ may be left."""
    assert "$" not in text.replace("$$", "")
    return text.replace("$$", "$")


@pytest.mark.parametrize("name", NAMES)
def test_docker_compose_starts_the_server_on_the_folder_whatever_its_name(folder, name):
    store = folder(name)
    compose = yaml.safe_load(store.read("compose.yaml"))
    assert re.fullmatch("[a-z0-9][a-z0-9_-]*", compose["name"])  # Docker Compose accepts no other
    service = compose["services"]["serving"]
    flags = dict(uninterpolated(flag).removeprefix("--").split("=", 1) for flag in service["command"])
    remote = store.path("").startswith("memory://")
    root = store.path("models.config").removesuffix("/models.config") if remote else "/serving"
    files = {"model_config_file": "models.config", "batching_parameters_file": "batching_parameters.txt"}
    files["monitoring_config_file"] = "monitoring.config"
    assert {flag: flags[flag] for flag in files} == {flag: f"{root}/{file}" for flag, file in files.items()}
    if remote:
        assert "volumes" not in service
    else:
        (volume,) = service["volumes"]
        assert (volume["type"], volume["source"], volume["target"], volume["read_only"]) == ("bind", ".", root, True)
        assert volume["bind"] == {"create_host_path": False}
    server = text_format.Parse(store.read("models.config"), model_server_config_pb2.ModelServerConfig())
    (model,) = server.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == (name, root, "tensorflow")


def test_the_image_is_pinned_to_a_release_not_newer_than_the_tensorflow_of_the_models(folder):
    (image,) = re.findall(r"image: tensorflow/serving:(\S+)", folder("en_de").read("compose.yaml").decode())
    assert image == SERVER_VERSION
    server, exporter = (tuple(map(int, v.split(".")[:2])) for v in (image, importlib.metadata.version("tensorflow")))
    assert server <= exporter


def test_each_file_is_written_once_so_that_an_operators_changes_stay(folder):
    store = folder("en_de")
    files = ["batching_parameters.txt", "compose.yaml", "models.config", "monitoring.config"]
    assert sorted(name for name in store.names() if not name.startswith(".")) == files
    assert "enable: true" in store.read("monitoring.config").decode()
    for name in files:
        store.write(name, b"edited")
    write_server_settings(store)
    assert {store.read(name) for name in files} == {b"edited"}
