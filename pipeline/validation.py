"""What the person who started `seq2serve validate` or `run` is told of the data.

Comes in: a RunResult with the components that look at the data. Goes out: rows, rejects, and what is odd.
Read next: components/anomalies.py for what is looked for.
"""

from components.artifact import SPLITS
from pipeline.runner import RunResult


def print_validation(result: RunResult) -> None:
    """Prints what was read and every warning; errors have ended the run before.

    Args:
        result: of a run up to ExampleValidator.
    """
    found = result.output("ExampleGen", "examples").properties
    parts = ", ".join(f"{found['num_examples'][split]:,} {split}" for split in SPLITS)
    print(f"\n{found['num_rows']:,} rows: {parts}, {found['num_rejected']:,} rejected")
    print_findings(result)
    if not result.output("ExampleValidator", "anomalies").properties["warnings"]:
        print("nothing is odd")
    schema = next(node.outputs["schema"] for node in result.nodes.values() if "schema" in node.outputs)
    print(f"schema: {schema.path('schema.pbtxt')} (edit a copy, and give it with --schema)")


def print_findings(result: RunResult) -> None:
    """Prints how many rows were rejected and why, and every warning; nothing where there are none."""
    examples = result.output("ExampleGen", "examples")
    for reason, number in examples.properties["num_rejected_by_reason"].items():
        print(f"  {number:,} rejected: {reason}")
    if examples.properties["num_rejected"]:
        print(f"  each with file and line in {examples.path('rejects')}")
    for warning in result.output("ExampleValidator", "anomalies").properties["warnings"]:
        print(f"warning: {warning}")
