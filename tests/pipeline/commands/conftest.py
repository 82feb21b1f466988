"""Fixtures: the command line in this process, and a toy pipeline in place of the real one."""

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from seq2serve.components.base.artifact import Model
from seq2serve.components.base.component import Context, Output, component, raw_files
from seq2serve.components.base.errors import Seq2ServeError
from seq2serve.components.tasks import corpora
from seq2serve.pipeline.commands import summary_text
from seq2serve.pipeline.commands.app import app
from seq2serve.pipeline.config import PipelineConfig
from seq2serve.pipeline.dag import make_pipeline
from seq2serve.pipeline.running.pipeline import Pipeline, RunResult


class Outcome(NamedTuple):
    """How a command ended: its exit code, its output, and the error that it reported, if any."""

    exit_code: int
    stdout: str
    stderr: str
    error: Seq2ServeError | None

    @property
    def message(self) -> str:
        """Returns standard error as one line, without the frame of a usage error."""
        return " ".join(self.stderr.replace("│", " ").split())


@dataclasses.dataclass
class ToyState:
    """What the toy pipeline received, and how its component behaves.

    Args:
        arguments: of `make_pipeline`, by name.
        beam_options: that reached the component.
        error: raised by the component.
    """

    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    beam_options: tuple[str, ...] = ()
    error: BaseException | None = None


STATE = ToyState()


@component
def Toy(model: Output[Model], context: Context) -> None:
    """Records its Beam options; fails if the test wants it to."""
    STATE.beam_options = context.beam_options
    if STATE.error:
        raise STATE.error


def reported_error(exception: BaseException | None) -> Seq2ServeError | None:
    """Returns the error behind the SystemExit of a command."""
    chain: list[BaseException] = []
    while exception and exception not in chain:  # an exception that was raised again may be its own context
        chain.append(exception)
        exception = exception.__cause__ or exception.__context__
    return next((link for link in chain if isinstance(link, Seq2ServeError)), None)


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Returns a function that runs a command in this process, with `stdin` as its standard input."""
    # It would change the log levels of the test process.
    for module in ("run", "look", "serving", "evaluate"):
        monkeypatch.setattr(f"seq2serve.pipeline.commands.{module}.set_up_logs", lambda verbose: None)

    def invoke(*arguments: object, stdin: bytes | None = None) -> Outcome:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin, terminal_width=100)
        return Outcome(result.exit_code, result.stdout, result.stderr, reported_error(result.exception))

    return invoke


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> ToyState:
    """The state of the toy pipeline, new for each test."""
    for field in dataclasses.fields(ToyState):
        monkeypatch.setattr(STATE, field.name, getattr(ToyState(), field.name))
    return STATE


@pytest.fixture
def command(
    invoke: Callable[..., Outcome], toy: ToyState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Outcome]:
    """Returns a function that runs a command in a folder with data.tsv; its pipeline has only the component Toy."""

    def toy_pipeline(*values: object, **keywords: object) -> Pipeline:
        toy.arguments = inspect.signature(make_pipeline).bind(*values, **keywords).arguments
        files = raw_files(toy.arguments["files"]).node
        return Pipeline("toy", toy.arguments["pipeline_root"], (files, Toy()))

    def print_summary(result: RunResult, config: PipelineConfig) -> None:
        print(f"summary of run {result.run_id}, {config.task}")

    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.tsv").write_text("source\ttarget\n")
    monkeypatch.setattr("seq2serve.pipeline.dag.make_pipeline", toy_pipeline)
    monkeypatch.setattr(summary_text, "print_summary", print_summary)
    local = {
        task: dataclasses.replace(corpus, fetch=lambda language: str(tmp_path / "data.tsv"))
        for task, corpus in corpora.CORPORA.items()
    }
    monkeypatch.setattr(corpora, "CORPORA", local)
    return invoke


@pytest.fixture(scope="session")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A SavedModel whose `serving_default` returns upper case and a score, and whose `pair` takes two texts."""
    import tensorflow as tf

    text, other = (tf.TensorSpec([None], tf.string, name=name) for name in ("text", "other"))
    module, folder = tf.Module(), str(tmp_path_factory.mktemp("model"))

    @tf.function(input_signature=[text])
    def shout(text):
        return {"loud": tf.strings.upper(text), "score": 0.5 * tf.cast(tf.strings.length(text), tf.float32)}

    @tf.function(input_signature=[text, other])
    def pair(text, other):
        return {"length": tf.strings.length(text + other)}

    module.shout, module.pair = shout, pair
    tf.saved_model.save(module, folder, signatures={"serving_default": shout, "pair": pair})
    return folder
