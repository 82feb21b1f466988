"""The findings of `validate` and `run` about the data: row counts, labels, rejected rows, cut texts, warnings.

components/example_validator/anomalies.py lists the checks.
"""

import shlex
import sys
from collections.abc import Iterator, Mapping

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from seq2serve.components.base.artifact import SPLITS, Artifact
from seq2serve.components.model_importer.pretrained import NAMED, suggested_start
from seq2serve.components.statistics_gen.statistics_file import languages_of
from seq2serve.components.statistics_gen.totals import label_totals, mean_lengths
from seq2serve.components.tasks.registry import get_task
from seq2serve.components.transform.lengths import LengthWarning, length_warnings
from seq2serve.models.runtime.answers import describe_cuts
from seq2serve.pipeline.commands.result_tables import make_table
from seq2serve.pipeline.config import PipelineConfig
from seq2serve.pipeline.running.pipeline import RunResult

NUM_FREQUENT, NUM_RARE = 15, 5  # labels in a table that is too long for a terminal
MAX_LABEL_WIDTH = 50


def print_validation(result: RunResult) -> None:
    """Prints row counts, every warning and the path of the schema. Errors have ended the run before.

    Args:
        result: a run of the components up to ExampleValidator.
    """
    properties = result.output("ExampleGen", "examples").properties
    split_sizes = ", ".join(f"{properties['num_examples'][split]:,} {split}" for split in SPLITS)
    dropped = sum(properties.get("num_dropped_by_rule", {}).values())
    unused = f"{properties['num_rejected']:,} rejected" + (f", {dropped:,} dropped" if dropped else "")
    print(f"\n{properties['num_rows']:,} rows: {split_sizes}, {unused}")
    print_findings(result)
    if not data_warnings(result.output("ExampleGen", "examples"), result.output("ExampleValidator", "anomalies")):
        print("no warnings")
    schema = next(node.outputs["schema"] for node in result.nodes.values() if "schema" in node.outputs)
    print(f"schema: {schema.path('schema.pbtxt')} (edit a copy and pass it with --schema)")


def print_findings(result: RunResult) -> None:
    """Prints label tables, rejected rows per reason, how files were read, and every warning; nothing without them."""
    console = Console(soft_wrap=False, highlight=False)
    for column, counts in label_totals(result.output("StatisticsGen", "statistics")).items():
        console.print(f"Labels in the column {column}: {len(counts):,}", soft_wrap=True, markup=False)
        console.print(_label_table(column, counts))
    print_corpora(console, result.output("StatisticsGen", "statistics"))
    examples, anomalies = result.output("ExampleGen", "examples"), result.output("ExampleValidator", "anomalies")
    for line in unused_rows(examples):
        print(f"  {line}")
    for note in examples.properties.get("notes", []):
        print(f"note: {note}")
    for warning in data_warnings(examples, anomalies):
        print(f"warning: {warning}")


def print_suggested_start(result: RunResult, config: PipelineConfig) -> None:
    """Prints the command that starts from a pretrained model, if there is one for the data."""
    task = get_task(config.task)
    if all(model.parts != task.parts for model in NAMED.values()):
        return
    languages = languages_of(result.output("StatisticsGen", "statistics"))
    num_rows = result.output("ExampleGen", "examples").properties["num_examples"]["train"]
    name = suggested_start(task.parts, num_rows, [languages.get(column, {}) for column in task.text_columns])
    if name:
        command = shlex.join(["seq2serve", *with_start(sys.argv[1:], name)])
        print(f"With {num_rows:,} rows for training, a pretrained model is usually better: {command}")


def with_start(arguments: list[str], name: str) -> list[str]:
    """Returns the arguments of a command that trains from a pretrained model, which no preset fits.

    Args:
        arguments: of the command that ran; those of Beam follow a bare --.
        name: of the model.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    command = ["run" if arguments[:1] == ["validate"] else word for word in arguments[:1]]
    own = iter(arguments[1:end])
    kept = [word for word in own if not word.startswith("--preset=") and not (word == "--preset" and next(own, ""))]
    return [*command, *kept, "--from", name, *arguments[end:]]


def print_corpora(console: Console, statistics: Artifact) -> None:
    """Prints the rows of each corpus in each split and the mean length of its texts, if there are several corpora."""
    corpora = statistics.properties.get("corpora", {})
    if not corpora:
        return
    splits = statistics.properties["splits"]
    lengths = {name: mean_lengths(by_split) for name, by_split in corpora.items()}
    columns = list(next(iter(lengths.values())))
    rows = [
        (name, *(f"{by_split[split]['rows']:,}" for split in splits), *(f"{lengths[name][c]:.0f}" for c in columns))
        for name, by_split in corpora.items()
    ]
    console.print(make_table("Corpora", ("corpus", *splits, *(f"characters of {c}" for c in columns)), rows))


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


def data_warnings(examples: Artifact, anomalies: Artifact) -> list[str]:
    """Returns the warnings of ExampleGen and of ExampleValidator."""
    return [*examples.properties.get("warnings", []), *anomalies.properties["warnings"]]


def unused_rows(examples: Artifact) -> list[str]:
    """Returns a line per reason why rows are not used, and one with the rejected rows' location; empty without any."""
    lines = [
        f"{number:,} rejected: {reason}" for reason, number in examples.properties["num_rejected_by_reason"].items()
    ]
    lines += [f"rejected rows, with file and line: {examples.path('rejects')}"] if lines else []
    dropped = examples.properties.get("num_dropped_by_rule", {})
    return lines + [f"{number:,} dropped from train, also in eval or test: {rule}" for rule, number in dropped.items()]


def _label_table(column: str, counts: dict[str, int]) -> Table:
    total = sum(counts.values())
    table = Table()
    # Without a maximum, a long label would take the room of the numbers.
    table.add_column(Text(column), max_width=MAX_LABEL_WIDTH, overflow="ellipsis", no_wrap=True)
    table.add_column("rows", justify="right")
    table.add_column("share", justify="right")
    for label, number in _shortened(list(counts.items())):
        table.add_row(Text(label), f"{number:,}", f"{number / total:.1%}")
    return table


def _shortened(counts: list[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    """Yields the most frequent and the rarest labels, and between them one row for all others."""
    omitted = counts[NUM_FREQUENT:-NUM_RARE] if len(counts) > NUM_FREQUENT + NUM_RARE + 1 else []
    for label, number in counts[:NUM_FREQUENT] if omitted else counts:
        # A label with control characters would change the terminal's state.
        yield label if label.isprintable() else repr(label), number
    if omitted:
        yield f"({len(omitted):,} more labels)", sum(number for _, number in omitted)
        yield from counts[-NUM_RARE:]
