# The types of what __init__.py imports lazily; tests/pipeline/api/test_exports.py keeps the two equal.

from seq2serve._evaluate import evaluate as evaluate
from seq2serve._load import LoadedModel as LoadedModel
from seq2serve._load import load as load
from seq2serve._run import Run as Run
from seq2serve._run import run as run
from seq2serve.components.base.artifact import Artifact as Artifact
from seq2serve.components.base.component import Context as Context
from seq2serve.components.base.component import Input as Input
from seq2serve.components.base.component import Output as Output
from seq2serve.components.base.component import component as component
from seq2serve.components.base.component import raw_files as raw_files
from seq2serve.components.base.errors import ComponentError as ComponentError
from seq2serve.components.base.errors import Seq2ServeError as Seq2ServeError
from seq2serve.components.base.errors import UserError as UserError
from seq2serve.components.tasks.task import Task as Task
from seq2serve.pipeline.commands.evaluation_result import Evaluation as Evaluation
from seq2serve.pipeline.running.pipeline import Pipeline as Pipeline
from seq2serve.pipeline.running.runner import Runner as Runner

__all__ = [
    "Artifact",
    "ComponentError",
    "Context",
    "Evaluation",
    "Input",
    "LoadedModel",
    "Output",
    "Pipeline",
    "Run",
    "Runner",
    "Seq2ServeError",
    "Task",
    "UserError",
    "component",
    "evaluate",
    "load",
    "raw_files",
    "run",
]
