"""The headline of classification: accuracy, or macro F1 if one label dominates the training rows."""

from collections.abc import Mapping

from seq2serve.components.tasks.task import Headline

DOMINANCE = 3  # times as many rows as the next label; with two labels, at least 75 % of the rows


def choose_headline(label_counts: Mapping[str, int]) -> Headline:
    """Returns macro F1 if the commonest label has at least DOMINANCE times as many rows as the next one, else accuracy.

    A classifier that always answers with such a label has a high accuracy and a low macro F1, because it does not know
    the other labels. The rule compares the two commonest labels and not the rarest: a few rows with a misspelt label
    must not change the metric.

    Args:
        label_counts: label -> number of its rows in the train split.
    """
    if len(label_counts) < 2:
        return Headline("accuracy")
    (label, most), (_, second), *_ = sorted(label_counts.items(), key=lambda item: -item[1])
    if most < DOMINANCE * second:
        return Headline("accuracy")
    share = most / sum(label_counts.values())
    return Headline(
        "macro_f1",
        f"the label {label!r} has {share:.1%} of the training rows, at least {DOMINANCE} times as many as any other",
    )
