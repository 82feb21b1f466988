"""Evaluates a finished model on files, for `seq2serve evaluate` and `seq2serve.evaluate`. It pushes nothing."""

import collections
import dataclasses
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

from seq2serve.components.base.artifact import Artifact, Examples, RawFiles
from seq2serve.components.base.errors import UserError
from seq2serve.components.base.uris import absolute_uri
from seq2serve.components.evaluator.report import columns_to_slice_by, evaluate_rows, read_rows, unknown_labels
from seq2serve.components.example_gen.corpora import parse_data
from seq2serve.components.example_gen.executor import generate_test_examples
from seq2serve.components.pusher.versions import read_record
from seq2serve.components.storage.examples_io import read_batches
from seq2serve.components.storage.files import local_copy
from seq2serve.components.storage.shards import first_rejects, shard_paths
from seq2serve.components.storage.text_keys import exact_key
from seq2serve.components.tasks.data import Answers, Baseline, Row
from seq2serve.components.tasks.registry import get_task
from seq2serve.components.tasks.task import Task
from seq2serve.models.runtime.answers import describe_cuts
from seq2serve.models.tokenizers.tokenizer import load_tokenizers
from seq2serve.pipeline.commands.evaluation_result import Evaluation
from seq2serve.pipeline.commands.history_text import open_store
from seq2serve.pipeline.config import PipelineConfig, preset, with_columns, with_settings
from seq2serve.pipeline.dag import input_config
from seq2serve.pipeline.metadata.store import Ancestry, MetadataStore
from seq2serve.pipeline.running.artifact_store import root_of
from seq2serve.pipeline.running.raw_files import resolve_raw_files
from seq2serve.pipeline.serving.location import find_saved_model, load_runtime

DEFAULT_ROOT = "runs"
NUM_SHOWN = 5  # rejected rows, and unknown labels
# The settings that have an effect; those of training are in the model.
SETTINGS = (
    *("data.slices", "data.format", "data.delimiter", "data.unit", "data.encoding", "data.quoting"),
    *("data.max_reject_share", "evaluation.num_examples"),
)


@dataclasses.dataclass(frozen=True)
class FinishedModel:
    """A model to evaluate.

    Args:
        folder: path or URL of its SavedModel.
        task: its task.
        properties: of the Trainer's Model, where they are known.
        artifact: the Trainer's Model; None if its pipeline root is unknown.
        examples: the Examples it was trained on; None if its pipeline root is unknown.
        unknown: why they are unknown.
    """

    folder: str
    task: Task
    properties: Mapping[str, Any]
    artifact: Artifact | None
    examples: Artifact | None
    unknown: str

    def train_rows(self) -> list[dict[str, str]]:
        """Returns the rows of the train split; UserError if they are unknown or were deleted."""
        if self.examples is None:
            raise UserError(self.unknown, code="training-unknown")
        return read_rows(self.examples, "train", self.task.columns)

    def num_trained(self, rows: Iterable[Row]) -> int:
        """Returns how many rows are also in the train split, white space and Unicode form aside.

        Raises:
            UserError: the training rows are unknown or were deleted.
        """
        if self.examples is None:
            raise UserError(self.unknown, code="training-unknown")
        columns = list(self.task.columns)
        counts = collections.Counter(tuple(exact_key(row[column]) for column in columns) for row in rows)
        trained = set()
        for path in shard_paths(self.examples, "train"):  # one by one: there may be more than fit into memory
            for batch in read_batches(path, columns):
                cells = zip(*(batch[column] for column in columns), strict=True)
                keys = (tuple(exact_key(values[0].decode()) for values in row) for row in cells)
                trained.update(key for key in keys if key in counts)
        return sum(counts[key] for key in trained)

    def tokenizers(self) -> Mapping[str, Any]:
        """Returns text column -> tokenizer; UserError if they are unknown."""
        if self.artifact is None:
            raise UserError(self.unknown, code="training-unknown")
        with local_copy(self.artifact.path("Format-Keras", "tokenizer")) as folder:
            return load_tokenizers(folder, self.task.text_columns)


def find_model(
    model: str, version: int | str | None = None, pipeline_root: str = "", metadata: str = ""
) -> FinishedModel:
    """Finds a model and, in the metadata of its pipeline root, what it was trained on.

    Args:
        model: a pushed version, a serving folder, or a Trainer's model; a path or a URL.
        version: number or label of a version in a serving folder; by default the newest.
        pipeline_root: where it was trained; by default, that of a Trainer's model, and DEFAULT_ROOT for others.
        metadata: URL of a shared metadata store; empty for the pipeline root's own.
    Raises:
        UserError: there is no such model, or it is unknown what its task is.
    """
    folder = absolute_uri(find_saved_model(model, version))
    record, parent = read_record(folder), folder.removesuffix("/Format-Serving")
    root = pipeline_root or (root_of(parent) if parent != folder else DEFAULT_ROOT)
    unknown, lineage, task = "", [], record.get("task", "")
    try:
        store = open_store(root, metadata)
        lineage = _lineage(store, record, parent)
        task = task or _task_of(store, lineage[0])
    except UserError as error:
        unknown = f"{root} has no record of its training: {error}; name another pipeline root with --pipeline-root"
    if not task:
        raise UserError(
            f"the task of {model} is unknown: it is not a pushed version, and {unknown}",
            code="model-unknown",
            path=model,
        )
    artifact = lineage[0].artifact if lineage else None
    properties = artifact.properties if artifact else record.get("model", {})
    examples = next((row.artifact for row in lineage if row.type == "Examples"), None)
    return FinishedModel(folder, get_task(task), properties, artifact, examples, unknown)


def _lineage(store: MetadataStore, record: Mapping[str, Any], folder: str) -> list[Ancestry]:
    """Returns the lineage of a Trainer's model, itself first. A version may have been copied: its record counts."""
    artifact = store.find_artifact(str(record["model_id"]) if "model_id" in record else folder)
    if artifact.fingerprint != record.get("model_fingerprint", artifact.fingerprint):
        raise UserError(f"{store} does not have the model of this version", code="artifact-unknown", name=folder)
    models = [row.artifact.id for row in store.lineage(artifact.id, "backward") if row.type == "Model"]
    if not models:
        raise UserError(f"{folder} is not a model of {store}", code="artifact-unknown", name=folder)
    return sorted(store.lineage(models[-1], "backward"), key=lambda row: row.artifact.id != models[-1])


def _task_of(store: MetadataStore, model: Ancestry) -> str:
    parts = {row.component: row.parts for row in store.executions_of_run(model.run_id)}
    return parts.get(model.component, {}).get("parameters", {}).get("task", "")


def evaluation_config(task: Task, columns: Mapping[str, str], settings: Iterable[str]) -> PipelineConfig:
    """Returns the settings with which files are read and rows are measured.

    Args:
        task: of the model.
        columns: column of the task -> column of the file.
        settings: in the syntax of `--set`; only SETTINGS.
    Raises:
        UserError: a column or a setting is unknown, or a setting has no effect on an evaluation.
    """
    settings = list(settings)
    config = with_settings(with_columns(preset("small", task.name), columns), settings)
    names = [setting.partition("=")[0].strip() for setting in settings]
    if unused := next((name for name in names if name not in SETTINGS), ""):
        raise UserError(
            f"setting {unused} has no effect on an evaluation; those that have are {', '.join(SETTINGS)}",
            code="setting-unused",
            setting=unused,
        )
    return config


def evaluate_files(model: FinishedModel, files: str, config: PipelineConfig) -> Evaluation:
    """Reads files as ExampleGen does, and measures a model on all their rows as the Evaluator does.

    Args:
        model: see `find_model`.
        files: path, pattern or URL, or parallel files such as `source=a.en,target=a.de`.
        config: see `evaluation_config`.
    Raises:
        UserError: the files cannot be used, too many rows are rejected, or the model cannot be loaded.
    """
    _check_roles(files)
    task, data = model.task, config.data
    with tempfile.TemporaryDirectory() as folder:
        examples = Examples(folder)
        generate_test_examples(
            resolve_raw_files(RawFiles(files)),
            examples,
            config.file_columns,
            input_config(config),
            data.max_reject_share,
            data.slice_columns,
        )
        slice_columns = [*data.slice_columns, *columns_to_slice_by(examples)]
        rows = read_rows(examples, "test", [*task.columns, *slice_columns])
        rejects = first_rejects(folder, NUM_SHOWN)
    rows = rows[: config.evaluation.num_examples or None]
    warnings: list[str] = []

    def baselines() -> Mapping[str, Baseline]:
        try:
            return task.baselines(model.train_rows, rows, model.tokenizers)
        except UserError as error:
            warnings.append(f"no baselines: {error}")
            return {}

    with local_copy(model.folder) as folder, load_runtime(folder, model.folder) as runtime:
        evaluated = evaluate_rows(runtime, task, model.properties, rows, slice_columns, baselines)
    warnings += describe_cuts(**evaluated.report["num_cut"], number=len(rows))
    warnings += [*_label_warnings(task, evaluated.answers, rows), *_trained_warnings(model, rows)]
    names = ("num_rows", "num_rejected", "num_rejected_by_reason")
    counts = {name: examples.properties[name] for name in names}
    counts["num_examples"] = examples.properties["num_examples"]["test"]
    return Evaluation(
        model.folder, task.name, evaluated.report, counts, rejects, examples.properties["notes"], warnings
    )


def _check_roles(files: str) -> None:
    """Refuses files for training, and weights: all rows of all files are evaluated."""
    roles = parse_data(files)
    if any(role.weight is not None for role in roles):
        raise UserError(
            f"{files}: an evaluation reads every row once, so its files have no weights; remove them",
            code="weight-unexpected",
        )
    split = next((role.split for role in roles if role.split not in ("", "test")), "")
    if split:
        raise UserError(
            f"{files}: an evaluation reads one set of rows, so it takes no files for {split}; pass FILE or test=FILE",
            code="split-unexpected",
            split=split,
        )


def _trained_warnings(model: FinishedModel, rows: list[Row]) -> list[str]:
    try:
        number = model.num_trained(rows)
    except UserError:
        return []  # nothing to compare with
    if not number:
        return []
    return [
        f"{number:,} of {len(rows):,} rows ({number / len(rows):.1%}) are also in the data that the model was trained "
        "on, so metrics are too optimistic; remove these rows"
    ]


def _label_warnings(task: Task, answers: Answers, rows: list[Row]) -> list[str]:
    unknown = unknown_labels(task, answers, rows)
    if not unknown:
        return []
    listed = ", ".join(f"{label!r} ({number:,})" for label, number in unknown.most_common(NUM_SHOWN))
    more = f" and {len(unknown) - NUM_SHOWN:,} more" if len(unknown) > NUM_SHOWN else ""
    return [
        f"{unknown.total():,} of {len(rows):,} rows have labels that the model does not know, and count as errors: "
        f"{listed}{more}"
    ]
