"""The last model of a pipeline root is the one pushed last or, if none was, blessed last; others are one message."""

import dataclasses

import pytest

from seq2serve.components.base.artifact import Artifact, Model, ModelBlessing, PushedModel
from seq2serve.components.base.errors import UserError
from seq2serve.pipeline.metadata.database import sqlite_url
from seq2serve.pipeline.metadata.store import MetadataStore
from seq2serve.pipeline.running.last_model import last_model


@dataclasses.dataclass
class History:
    """A pipeline root and its metadata, to which runs are added."""

    root: str
    store: MetadataStore

    def execute(self, run, component, inputs, outputs) -> dict[str, Artifact]:
        number = self.store.begin_execution(run, component, f"{component}{run}", {}, "")
        artifacts = {
            key: kind(f"{self.root}/{component}/{key}/{number}", properties)
            for key, (kind, properties) in outputs.items()
        }
        return self.store.publish(number, inputs, artifacts)

    def add_run(self, is_blessed=True, is_pushed=True, task="classification") -> str:
        """Returns the folder of the run's model."""
        run = self.store.begin_run(task)
        base = self.execute(run, "Importer", {}, {"model": (Model, {})})  # a model that is not the run's own
        model = self.execute(run, "Trainer", base, {"model": (Model, {})})
        evaluated = self.execute(run, "Evaluator", model, {"blessing": (ModelBlessing, {"blessed": is_blessed})})
        if is_pushed:
            inputs = model | {"model_blessing": evaluated["blessing"]}
            self.execute(run, "Pusher", inputs, {"pushed_model": (PushedModel, {"pushed_destination": "serving/1"})})
        self.store.end_run(run, "COMPLETE" if is_pushed else "FAILED")
        return model["model"].uri


@pytest.fixture
def history(tmp_path) -> History:
    root = tmp_path / "runs"
    root.mkdir()
    return History(str(root), MetadataStore(sqlite_url(root / "metadata.sqlite")))


def test_the_model_that_was_pushed_last_is_taken(history, capsys):
    history.add_run()
    pushed = history.add_run()
    history.add_run(is_pushed=False)
    history.add_run(task="translation")
    assert last_model(history.root, "classification") == pushed
    assert f"warm start from the last pushed model, {pushed} (serving/1)" in capsys.readouterr().err


def test_without_a_push_the_last_blessed_model_is_taken(history, capsys):
    history.add_run(is_pushed=False)
    blessed = history.add_run(is_pushed=False)
    history.add_run(is_blessed=False, is_pushed=False)
    assert last_model(history.root, "classification") == blessed
    assert f"last blessed model, {blessed} (" in capsys.readouterr().err


def test_in_a_shared_store_only_the_models_of_the_pipeline_root_count(history, tmp_path):
    url = sqlite_url(tmp_path / "runs" / "metadata.sqlite")
    own = history.add_run()
    dataclasses.replace(history, root=f"{history.root}-other").add_run()
    assert last_model(history.root, "classification", url) == own


@pytest.mark.parametrize("is_new", [True, False])
def test_without_a_model_the_message_says_what_to_do(history, tmp_path, is_new):
    history.add_run(is_blessed=False, is_pushed=False)
    history.add_run(task="translation")
    root = str(tmp_path / "new") if is_new else history.root
    with pytest.raises(
        UserError, match=r"no model of classification was pushed or blessed in the pipeline root .*; run"
    ):
        last_model(root, "classification")
    assert not (tmp_path / "new").exists()


def test_a_model_on_an_object_store_is_refused(history):
    dataclasses.replace(history, root="gs://bucket/runs").add_run()
    with pytest.raises(
        UserError, match=r"the last model is gs://bucket/runs/Trainer/model/\d+, and training starts only"
    ):
        last_model(history.root, "classification")
