"""A ServedModel tries a version again whose files come late, and a request keeps the version that it began with."""

import asyncio
import contextlib
import json
import os
import shutil
import time

import pytest

from components.serving_folder import publish
from models.serving_protos import get_model_status_pb2
from pipeline import served_model
from pipeline.served_model import Choice, ServedModel
from pipeline.serving_rest import make_app


@pytest.fixture
def served(models, tmp_path, monkeypatch):
    """A ServedModel of one version, which looks when it is told to."""
    monkeypatch.setattr(served_model, "POLL_SECONDS", 0.01)
    publish(str(tmp_path / "echo"), models("one"), {}, 3)
    with contextlib.closing(ServedModel("echo", str(tmp_path / "echo"))) as served:
        served.refresh()
        yield served


def add(served, model, name) -> None:
    """Copies a file or folder of a model into a version of its own, as a person would."""
    source, target = os.path.join(model, name), os.path.join(served.folder, "3000000000", name)
    (shutil.copytree if os.path.isdir(source) else shutil.copy)(source, target)


def look(served) -> list[int]:
    """Lets every wait pass, and looks; returns the versions that are served."""
    time.sleep(0.1)
    served.refresh()
    states = served.status(Choice()).model_version_status
    return [state.version for state in states if state.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE]


def test_a_version_whose_files_come_one_by_one_is_served_in_the_end(served, models):
    os.mkdir(os.path.join(served.folder, "3000000000"))
    (first,) = look(served)
    for name in ("saved_model.pb", "assets.extra"):
        add(served, models("two"), name)
        assert look(served) == [first]
    add(served, models("two"), "variables")
    assert look(served) == [3000000000]
    assert served.run(Choice(), "serving_default", {"text": ["hi"]})[1]["translation"][0] == b"two:hi"


def test_a_version_that_stays_broken_is_spoken_of_once_and_again_when_the_reason_changes(served, caplog):
    folder = os.path.join(served.folder, "3000000000")
    os.mkdir(folder)
    for _ in range(3):
        look(served)
    assert ["no SavedModel" in record.getMessage() for record in caplog.records] == [True]
    with open(os.path.join(folder, "saved_model.pb"), "wb") as file:
        file.write(b"broken")
    for _ in range(3):
        look(served)
    assert ["is broken" in record.getMessage() for record in caplog.records] == [False, True]


def test_a_version_that_stays_broken_is_tried_ever_more_seldom(served, monkeypatch):
    monkeypatch.setattr(served_model, "MOST_SECONDS", 0.05)
    os.mkdir(os.path.join(served.folder, "3000000000"))
    waits = []
    for _ in range(5):
        look(served)
        waits += [failure.wait for failure in served._failures.values()]
    assert waits == [0.01, 0.02, 0.04, 0.05, 0.05]


def post(served, path, body):
    """Returns status and answer of the application, called as a web server would."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": json.dumps(body).encode()}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""}
    asyncio.run(make_app(served)(scope, receive, send))
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
def test_a_request_is_answered_by_the_version_it_began_with(served, models, monkeypatch, path, body, answer):
    use = served.use

    @contextlib.contextmanager
    def use_while_it_is_replaced(choice):
        with use(choice) as loaded:
            publish(served.folder, models("two"), {}, 1)
            served.refresh()
            yield loaded

    monkeypatch.setattr(served, "use", use_while_it_is_replaced)
    assert post(served, path, body) == (200, answer)
    monkeypatch.undo()
    assert served.run(Choice(), "serving_default", {"text": ["hi"]})[1]["translation"][0] == b"two:hi"
