"""ServedModel: retries of versions whose files arrive late, and requests while a version is replaced."""

import asyncio
import contextlib
import json
import os
import shutil
import time

import pytest

from seq2serve.components.pusher.versions import publish
from seq2serve.models.runtime.protos import get_model_status_pb2
from seq2serve.pipeline.serving import model as served_model
from seq2serve.pipeline.serving.inference import Inference
from seq2serve.pipeline.serving.metrics import Metrics
from seq2serve.pipeline.serving.model import ServedModel, VersionSpec
from seq2serve.pipeline.serving.rest import make_app
from seq2serve.pipeline.serving.workers import Workers


@pytest.fixture
def served(models, tmp_path, monkeypatch):
    """A ServedModel with one version, which reads the folder only when a test calls `refresh`."""
    monkeypatch.setattr(served_model, "POLL_SECONDS", 0.01)
    publish(str(tmp_path / "echo"), models("one"), {}, 3)
    with contextlib.closing(ServedModel("echo", str(tmp_path / "echo"), Metrics())) as served:
        served.refresh()
        yield served


def add(served, model, name) -> None:
    """Copies a file or folder of a model into the version 3000000000, like a user without the Pusher."""
    source, target = os.path.join(model, name), os.path.join(served.folder, "3000000000", name)
    (shutil.copytree if os.path.isdir(source) else shutil.copy)(source, target)


def refresh(served) -> list[int]:
    """Waits until every retry is due, and refreshes; returns the versions that are served."""
    time.sleep(0.1)
    served.refresh()
    states = served.status(VersionSpec()).model_version_status
    return [state.version for state in states if state.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE]


def translate(served) -> bytes:
    with served.use(VersionSpec()) as loaded:
        return loaded.run("serving_default", {"text": ["hi"]}, timeout=60)["translation"][0]


def test_a_version_whose_files_arrive_one_by_one_is_served_when_it_is_complete(served, models):
    os.mkdir(os.path.join(served.folder, "3000000000"))
    (first,) = refresh(served)
    for name in ("saved_model.pb", "assets.extra"):
        add(served, models("two"), name)
        assert refresh(served) == [first]
    add(served, models("two"), "variables")
    assert refresh(served) == [3000000000]
    assert translate(served) == b"two:hi"


def test_a_broken_version_is_reported_once_for_each_reason(served, capfd):
    folder = os.path.join(served.folder, "3000000000")
    os.mkdir(folder)
    for _ in range(3):
        refresh(served)
    assert [line.split(": ")[:3] for line in capfd.readouterr().err.splitlines()] == [
        ["seq2serve", "version 3000000000 of echo cannot be served", "no SavedModel"]
    ]
    with open(os.path.join(folder, "saved_model.pb"), "wb") as file:
        file.write(b"broken")
    for _ in range(3):
        refresh(served)
    assert ["is broken" in line for line in capfd.readouterr().err.splitlines()] == [True]


def test_the_wait_before_retrying_a_broken_version_doubles_up_to_a_limit(served, monkeypatch):
    monkeypatch.setattr(served_model, "MAX_RETRY_SECONDS", 0.05)
    os.mkdir(os.path.join(served.folder, "3000000000"))
    waits = []
    for _ in range(5):
        refresh(served)
        waits += [failure.wait for failure in served._failures.values()]
    assert waits == [0.01, 0.02, 0.04, 0.05, 0.05]


def post(served, path, body):
    """Sends a request to the application, like a web server; returns the status and the response."""
    sent, unread = [], [json.dumps(body).encode()]

    async def receive():
        if not unread:
            await asyncio.Event().wait()  # the client stays connected
        return {"type": "http.request", "body": unread.pop()}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""}
    app = make_app(Inference(served, Workers(), Metrics()), local_only=False)
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"])


@pytest.mark.parametrize(
    ("path", "body", "answer"),
    [
        ("/v1/models/echo:predict", {"instances": ["hi"]}, {"predictions": [{"translation": "one:hi", "score": 0.2}]}),
        (
            "/v1/models/echo:classify",
            {"signature_name": "classify", "examples": [{"text": "hi"}]},
            {"results": [[["length", 2], ["hi", -2]]]},
        ),
    ],
)
def test_a_request_is_answered_by_the_version_that_it_started_with(served, models, monkeypatch, path, body, answer):
    use = served.use

    @contextlib.contextmanager
    def use_and_replace(spec):
        with use(spec) as loaded:
            publish(served.folder, models("two"), {}, 1)
            served.refresh()
            yield loaded

    monkeypatch.setattr(served, "use", use_and_replace)
    assert post(served, path, body) == (200, answer)
    monkeypatch.undo()
    assert translate(served) == b"two:hi"
