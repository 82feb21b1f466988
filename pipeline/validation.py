"""What `seq2serve validate` tells the person who started it.

Comes in: a RunResult of the components that look at the data. Goes out: rows, rejects, and what is odd.
Read next: components/anomalies.py for what is looked for.
"""

from components.artifact import SPLITS
from pipeline.runner import RunResult


def print_validation(result: RunResult) -> None:
    """Prints what was read and every warning; errors have ended the run before.

    Args:
        result: of a run up to ExampleValidator.
    """
    examples = result.output("ExampleGen", "examples")
    found = examples.properties
    parts = ", ".join(f"{found['num_examples'][split]:,} {split}" for split in SPLITS)
    print(f"\n{found['num_rows']:,} rows: {parts}, {found['num_rejected']:,} rejected")
    for reason, number in found["num_rejected_by_reason"].items():
        print(f"  {number:,} {reason}")
    if found["num_rejected"]:
        print(f"  each with file and line in {examples.path('rejects')}")
    warnings = result.output("ExampleValidator", "anomalies").properties["warnings"]
    for warning in warnings:
        print(f"warning: {warning}")
    if not warnings:
        print("nothing is odd")
    schema = next(node.outputs["schema"] for node in result.nodes.values() if "schema" in node.outputs)
    print(f"schema: {schema.path('schema.pbtxt')} (edit a copy, and give it with --schema)")
