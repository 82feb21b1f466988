"""`seq2serve.evaluate`: a finished model, measured on any rows."""

import os
import tempfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from seq2serve._rows import columns_of, write_rows
from seq2serve.components.base import progress as progress_display
from seq2serve.components.base.errors import UserError
from seq2serve.pipeline.commands.evaluation_result import Evaluation
from seq2serve.pipeline.config import setting_texts
from seq2serve.pipeline.running.quiet import quiet_libraries

if TYPE_CHECKING:
    from seq2serve._run import Run


class EvaluateOptions(TypedDict, total=False):
    """Options of `evaluate`, each like the option of `seq2serve evaluate` of that name; settings as for `run`."""

    columns: Mapping[str, str]  # column of the task -> column of the rows
    source: str  # short for columns={"source": ...}, the texts to translate
    target: str  # as `source`: the references
    text: str  # as `source`: the texts of other tasks
    label: str  # as `source`: the labels
    pipeline_root: str | os.PathLike[str]  # where the model was trained; by default "runs", or that of the model
    metadata: str  # URL of a metadata store that several pipeline roots share
    data: Mapping[str, Any]
    evaluation: Mapping[str, Any]


def evaluate(
    model: "str | os.PathLike[str] | Run",
    rows: Any,
    /,
    *,
    version: int | str | None = None,
    progress: bool = False,
    **options: Unpack[EvaluateOptions],
) -> Evaluation:
    """Measures a finished model on all rows, as the Evaluator does; pushes nothing (`seq2serve evaluate`).

    Args:
        model: a serving folder, a pushed version, a Trainer's model, or a Run.
        rows: path, pattern or URL of files; or rows in memory, as for `run`.
        version: number or label of a version in a serving folder; by default the newest.
        progress: whether to show progress on standard error.
        **options: see EvaluateOptions.
    Returns:
        An Evaluation: metrics, intervals, baselines, slices, and the rows that were rejected.
    Raises:
        UserError: there is no such model, the rows cannot be used, or an option is wrong.
    """
    # TensorFlow and Beam: seconds to import.
    from seq2serve.pipeline.commands.evaluation import evaluate_files, evaluation_config, find_model

    if unknown := next((name for name in options if name not in EvaluateOptions.__annotations__), None):
        known = ", ".join(EvaluateOptions.__annotations__)
        raise UserError(f"evaluate() has no option {unknown!r}; it has {known}", code="option-unknown", option=unknown)
    root = os.fspath(options.get("pipeline_root", ""))
    with (
        progress_display.display("visible" if progress else "hidden"),
        quiet_libraries(),
        tempfile.TemporaryDirectory() as scratch,
    ):
        path = os.fspath(model) if isinstance(model, str | os.PathLike) else model.model
        finished = find_model(path, version, root, options.get("metadata", ""))
        source = os.fspath(rows) if isinstance(rows, str | os.PathLike) else write_rows(rows, scratch)
        config = evaluation_config(finished.task, columns_of(options), _settings(options))
        return evaluate_files(finished, source, config)


def _settings(options: Mapping[str, Any]) -> list[str]:
    """Returns the settings among the options, in the syntax of `--set`."""
    return list(setting_texts({name: options[name] for name in ("data", "evaluation") if name in options}))
