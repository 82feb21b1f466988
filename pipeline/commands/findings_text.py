"""The findings of `validate` and `run` about the data: row counts, rejected rows, warnings.

components/example_validator/anomalies.py lists the checks.
"""

from seq2serve.components.base.artifact import SPLITS, Artifact
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
    """Prints the rejected rows per reason, how files were read, and every warning; nothing if there are none."""
    examples, anomalies = result.output("ExampleGen", "examples"), result.output("ExampleValidator", "anomalies")
    for line in rejected_rows(examples):
        print(f"  {line}")
    for note in examples.properties.get("notes", []):
        print(f"note: {note}")
    for warning in anomalies.properties["warnings"]:
        print(f"warning: {warning}")


def rejected_rows(examples: Artifact) -> list[str]:
    """Returns a line per reason with the number of rejected rows, and one with their location; empty without any."""
    lines = [
        f"{number:,} rejected: {reason}" for reason, number in examples.properties["num_rejected_by_reason"].items()
    ]
    return [*lines, f"rejected rows, with file and line: {examples.path('rejects')}"] if lines else []
