"""The findings of `validate` and `run` about the data: row counts, rejected rows, texts that were cut, warnings.

components/example_validator/anomalies.py lists the checks.
"""

from collections.abc import Mapping

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from seq2serve.components.base.artifact import SPLITS, Artifact
from seq2serve.components.transform.lengths import LengthWarning, length_warnings
from seq2serve.models.runtime.answers import describe_cuts
from seq2serve.pipeline.running.pipeline import RunResult


def print_validation(result: RunResult) -> None:
    """Prints row counts, every warning and the path of the schema. Errors have ended the run before.

    Args:
        result: a run of the components up to ExampleValidator.
    """
    properties = result.output("ExampleGen", "examples").properties
    split_sizes = ", ".join(f"{properties['num_examples'][split]:,} {split}" for split in SPLITS)
    print(f"\n{properties['num_rows']:,} rows: {split_sizes}, {properties['num_rejected']:,} rejected")
    print_findings(result)
    if not result.output("ExampleValidator", "anomalies").properties["warnings"]:
        print("no warnings")
    schema = next(node.outputs["schema"] for node in result.nodes.values() if "schema" in node.outputs)
    print(f"schema: {schema.path('schema.pbtxt')} (edit a copy and pass it with --schema)")


def print_findings(result: RunResult) -> None:
    """Prints the rejected rows per reason, and every warning; nothing if there are none."""
    examples, anomalies = result.output("ExampleGen", "examples"), result.output("ExampleValidator", "anomalies")
    for line in rejected_rows(examples):
        print(f"  {line}")
    for warning in anomalies.properties["warnings"]:
        print(f"warning: {warning}")


def print_text_warnings(result: RunResult) -> None:
    """Prints warnings about lengths in training and when served, large shares in a box, and about the vocabulary."""
    outputs = {name: node.outputs for name, node in result.nodes.items()}
    for warning in lengths_of_training(outputs):
        if warning.is_large:
            Console(highlight=False).print(Panel(Text(warning.text), title="WARNING", title_align="left"))
        else:
            print(f"warning: {warning.text}")
    for sentence in (*notices_of_tokenizers(outputs), *cuts_of_evaluation(outputs)):
        print(f"warning: {sentence}")


def lengths_of_training(outputs: Mapping[str, Mapping[str, Artifact]]) -> list[LengthWarning]:
    """Returns the warnings about texts beyond data.max_length; `outputs` are those of each component that has run."""
    transformed = (keys["transformed_examples"] for keys in outputs.values() if "transformed_examples" in keys)
    return [warning for artifact in transformed for warning in length_warnings(artifact.properties)]


def notices_of_tokenizers(outputs: Mapping[str, Mapping[str, Artifact]]) -> list[str]:
    """Returns how learned vocabularies differ from the settings; `outputs` as for `lengths_of_training`."""
    tokenizers = (keys["tokenizer"] for keys in outputs.values() if "tokenizer" in keys)
    return [notice for artifact in tokenizers for notice in artifact.properties.get("notices", [])]


def cuts_of_evaluation(outputs: Mapping[str, Mapping[str, Artifact]]) -> list[str]:
    """Returns a sentence about the test texts that the exported model cut, and one about answers that it cut."""
    if "Evaluator" not in outputs:
        return []
    report = outputs["Evaluator"]["evaluation"].properties
    sentences = describe_cuts(**report.get("num_cut", {"texts": 0, "answers": 0}), number=report["num_examples"])
    return [f"test split: {sentence}" for sentence in sentences]


def rejected_rows(examples: Artifact) -> list[str]:
    """Returns a line per reason with the number of rejected rows, and one with their location; empty without any."""
    lines = [
        f"{number:,} rejected: {reason}" for reason, number in examples.properties["num_rejected_by_reason"].items()
    ]
    return [*lines, f"rejected rows, with file and line: {examples.path('rejects')}"] if lines else []
