"""`seq2serve.run`: the pipeline as a function."""

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

from seq2serve._rows import columns_of, write_rows
from seq2serve.components.base import progress as progress_display
from seq2serve.components.base.artifact import Artifact
from seq2serve.components.base.errors import NotBlessedError, UserError
from seq2serve.components.base.uris import absolute_uri
from seq2serve.components.pusher.store import version_path
from seq2serve.components.pusher.versions import unserved_reason
from seq2serve.pipeline.commands.findings_text import (
    cuts_of_evaluation,
    data_warnings,
    lengths_of_training,
    notices_of_tokenizers,
    unused_rows,
)
from seq2serve.pipeline.config import sections, setting_texts
from seq2serve.pipeline.dag import make_configured_pipeline
from seq2serve.pipeline.metadata.store import MetadataStore
from seq2serve.pipeline.run_config import NO_DATA, RunConfig, read_run_config
from seq2serve.pipeline.running.listeners import ConsoleListener, RunListener
from seq2serve.pipeline.running.pipeline import NodeResult, Pipeline
from seq2serve.pipeline.running.preflight import check_serving_dir, checked_beam_options
from seq2serve.pipeline.running.quiet import quiet_libraries
from seq2serve.pipeline.running.runner import Runner
from seq2serve.pipeline.running.state_folder import config_path


class RunOptions(TypedDict, total=False):
    """Options of `run`, each like the option of `seq2serve run` of that name.

    Settings are dicts of key -> value per section; `seq2serve settings` lists them. `tokenizer` is either settings or
    the path of a tokenizer to use instead of learning one.
    """

    config: str | os.PathLike[str]  # a TOML file with any of the others; these win over it
    columns: Mapping[str, str]  # column of the task -> column of the rows
    source: str  # short for columns={"source": ...}, the texts to translate
    target: str  # as `source`: the translations
    text: str  # as `source`: the texts of other tasks
    label: str  # as `source`: the labels
    schema: str | os.PathLike[str]  # a schema.pbtxt to validate the data against
    tokenizer: Mapping[str, Any] | str | os.PathLike[str]
    warm_start: str | os.PathLike[str]  # a Trainer's model, whose weights training starts from; "last" for the last one
    start_from: str | os.PathLike[str]  # a pretrained model, by name or folder: its tokenizer and its weights
    metadata: str  # URL of a metadata store that several pipeline roots share
    beam_options: Sequence[str]  # Beam's own, verbatim
    data: Mapping[str, Any]
    model: Mapping[str, Any]
    training: Mapping[str, Any]
    tuner: Mapping[str, Any]
    decoding: Mapping[str, Any]
    evaluation: Mapping[str, Any]


def run(
    rows: Any = None,
    /,
    *,
    task: str = "",
    preset: str = "",
    pipeline_root: str | os.PathLike[str] = "runs",
    serving_dir: str | os.PathLike[str] = "",
    progress: bool | None = None,
    **options: Unpack[RunOptions],
) -> "Run":
    """Trains, evaluates, validates and pushes a model of your text; what has not changed is reused (`seq2serve run`).

    Args:
        rows: path, pattern or URL of files; or rows in memory: dicts of column -> text, or a pandas, Polars or Arrow
            table. Not needed if `config` names files.
        task: name of the task; by default, translation of texts.
        preset: settings to start from; by default "auto", which sizes everything from the data.
        pipeline_root: where artifacts, metadata and logs are kept, a path or a URL.
        serving_dir: where versions are pushed; by default serving/<task>.
        progress: whether to show progress; by default only in a notebook.
        **options: see RunOptions.
    Returns:
        A Run. If the model is not good enough to be pushed, `blessed` is False and `reason` says why.
    Raises:
        UserError: the input or an option is wrong.
        ComponentError: a component failed.
    """
    root, chosen = os.fspath(pipeline_root), _chosen(task, preset, options)
    chosen.pipeline_config()  # before anything is written
    if rows is None and not chosen.data:
        raise UserError(NO_DATA, code="data-missing")
    mode = _display_mode(progress)
    with progress_display.display(mode), quiet_libraries(), chosen.naming_file():
        if rows is not None:
            source = os.fspath(rows) if isinstance(rows, str | os.PathLike) else write_rows(rows, root)
            chosen = RunConfig(data=source).over(chosen)
        config = chosen.pipeline_config()
        destination = os.fspath(serving_dir) or f"serving/{config.task}"
        beam_options = checked_beam_options(list(options.get("beam_options", ())), chosen.data, root, destination)
        pipeline = make_configured_pipeline(chosen, root, destination, options.get("metadata", ""))
        check_serving_dir(destination, config.task)
        listener = RunListener() if mode == "hidden" else ConsoleListener()
        return _run(pipeline, beam_options, options.get("metadata", ""), listener)


@dataclasses.dataclass(frozen=True)
class Run:
    """A run of the pipeline.

    Args:
        id: its number in the metadata store; `seq2serve runs` lists it.
        nodes: component -> its published outputs, whether they were reused, and why.
        reason: why the model was pushed, or why not.
        pipeline_root: absolute path or URL.
        store: the metadata store.
    """

    id: int
    nodes: Mapping[str, NodeResult]
    reason: str
    pipeline_root: str
    store: MetadataStore = dataclasses.field(repr=False)

    def output(self, component: str, key: str) -> Artifact:
        """Returns a published artifact, such as `output("Trainer", "model")`."""
        return self.nodes[component].outputs[key]

    @property
    def metrics(self) -> dict[str, float]:
        """Returns the model's metrics on the test split, such as {"bleu": 31.6, "chrf": 58.0}."""
        return self.output("Evaluator", "evaluation").properties["model"]

    @property
    def baselines(self) -> dict[str, dict[str, float]]:
        """Returns the metrics of the baselines, by name."""
        return self.output("Evaluator", "evaluation").properties["baselines"]

    @property
    def warnings(self) -> list[str]:
        """Returns what `seq2serve run` warns of: unused rows, anomalies, cut texts, a version that no server loads."""
        examples, anomalies = self.output("ExampleGen", "examples"), self.output("ExampleValidator", "anomalies")
        lines = [*unused_rows(examples), *data_warnings(examples, anomalies)]
        outputs = {name: node.outputs for name, node in self.nodes.items()}
        lines += [warning.text for warning in lengths_of_training(outputs)]
        lines += [*notices_of_tokenizers(outputs), *cuts_of_evaluation(outputs)]
        if self.blessed:
            pushed = self.output("Pusher", "pushed_model").properties
            folder = pushed["pushed_destination"].rpartition("/")[0]
            lines += filter(None, [unserved_reason(folder, pushed["pushed_version"])])
        return lines

    @property
    def blessed(self) -> bool:
        """Returns whether Evaluator and InfraValidator blessed the model; only then it is pushed."""
        return "Pusher" in self.nodes

    @property
    def model(self) -> str:
        """Returns the path of the exported SavedModel, pushed or not; `seq2serve.load` takes it."""
        return self.output("Trainer", "model").path("Format-Serving")

    @property
    def pushed(self) -> str | None:
        """Returns the folder or URL of the pushed version; None if the model was not blessed."""
        if not self.blessed:
            return None
        return version_path(self.output("Pusher", "pushed_model").properties["pushed_destination"])

    @property
    def config(self) -> Path:
        """Returns the path of the file that has everything the run used; `run(config=...)` repeats it."""
        return config_path(self.pipeline_root, self.id)

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Writes the HTML report of the run (`seq2serve report`) and returns its path.

        Raises:
            UserError: the file cannot be written.
        """
        # Plots and event files: a second to import.
        from seq2serve.pipeline.report.page import write_report

        write_report(self.store, [self.id], self.pipeline_root, os.fspath(path))
        return Path(path)


class _Recorder(RunListener):
    """Keeps the results of a run, of one that fails too, and passes the events on."""

    def __init__(self, display: RunListener) -> None:
        self.run_id, self._display = 0, display
        self.nodes: dict[str, NodeResult] = {}

    def begin(self, run_id: int, components: list[str]) -> None:
        self.run_id = run_id
        self._display.begin(run_id, components)

    def update(self, component: str, state: str, reason: str) -> None:
        self._display.update(component, state, reason)

    def end(self, component: str, result: NodeResult) -> None:
        self.nodes[component] = result
        self._display.end(component, result)


def _chosen(task: str, preset: str, options: RunOptions) -> RunConfig:
    """Returns what the options name, over the config file.

    Raises:
        UserError: the config file or an option is wrong.
    """
    if unknown := next((name for name in options if name not in RunOptions.__annotations__), None):
        known = ", ".join(RunOptions.__annotations__)
        raise UserError(f"run() has no option {unknown!r}; it has {known}", code="option-unknown", option=unknown)
    tokenizer = options.get("tokenizer", "")
    given = RunConfig(
        schema=os.fspath(options.get("schema") or ""),
        tokenizer="" if isinstance(tokenizer, Mapping) else os.fspath(tokenizer),
        warm_start=os.fspath(options.get("warm_start") or ""),
        start_from=os.fspath(options.get("start_from") or ""),
        task=task,
        preset=preset,
        columns=columns_of(options),
        settings=tuple(_settings(options)),
    )
    return given.over(read_run_config(options["config"])) if options.get("config") else given


def _settings(options: Mapping[str, Any]) -> list[str]:
    """Returns the settings among the options, in the syntax of `--set`."""
    settings: list[str] = []
    for section in sections():
        values = options.get(section)
        if isinstance(values, Mapping):
            settings += setting_texts({section: values})
        elif values is not None and section != "tokenizer":
            raise UserError(
                f"{section} must be a dict of settings, got {values!r}", code="settings-invalid", option=section
            )
    return settings


def _run(pipeline: Pipeline, beam_options: tuple[str, ...], metadata: str, listener: RunListener) -> Run:
    recorder = _Recorder(listener)
    runner = Runner(pipeline, beam_options, metadata_url=metadata, listener=recorder)
    try:
        runner.run()
    except NotBlessedError as error:
        reason = str(error)
    else:
        reason = recorder.nodes["Evaluator"].outputs["blessing"].properties["reason"]
    return Run(recorder.run_id, recorder.nodes, reason, absolute_uri(pipeline.pipeline_root), runner.store)


def _display_mode(progress: bool | None) -> progress_display.Mode:
    """Returns how components show their progress; None shows it only in a Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    is_notebook = hasattr(ipython.get_ipython() if ipython else None, "kernel")
    if not (is_notebook if progress is None else progress):
        return "hidden"
    return "notebook" if is_notebook else "visible"
