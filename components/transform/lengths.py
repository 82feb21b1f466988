"""Warnings about the texts beyond the length limit: how many, in which column, and what to do.

It reads properties only, so that a run that reuses everything can print them without TensorFlow.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

LARGE_SHARE = 0.05  # of the rows or texts: more is a large warning


class LengthWarning(NamedTuple):
    """A warning about texts that were cut or dropped.

    Args:
        text: the warning, one sentence or two.
        is_large: whether more than LARGE_SHARE of the data is concerned.
    """

    text: str
    is_large: bool


def length_warnings(properties: Mapping[str, Any]) -> list[LengthWarning]:
    """Returns the warnings about a TransformedExamples artifact; none if every text is within the limit.

    Args:
        properties: of the artifact; without `num_long`, which earlier versions did not count, there are none.
    """
    num_long = {column: number for column, number in properties.get("num_long", {}).items() if number}
    if not num_long:
        return []
    limit, num_dropped = f"data.max_length={properties['max_length']:,} tokens", properties["num_dropped"]
    num_rows = sum(properties["num_examples"].values()) + num_dropped
    if num_dropped:
        columns = ", ".join(f"{number:,} in {column}" for column, number in num_long.items())
        text = (
            f"{num_dropped:,} of {num_rows:,} rows ({_percent(num_dropped / num_rows)}) were dropped, because a text "
            f"has more than {limit}: {columns}"
        )
        return [_warning(text, num_dropped / num_rows, properties, num_long)]
    return [
        _warning(
            f"{number:,} of {num_rows:,} texts in {column} ({_percent(number / num_rows)}) were cut after {limit}",
            number / num_rows,
            properties,
            [column],
        )
        for column, number in num_long.items()
    ]


def _warning(text: str, share: float, properties: Mapping[str, Any], columns: Any) -> LengthWarning:
    """Adds what to do: the limit that 99 % of the texts need, and the one that all need."""
    lengths = [properties["token_lengths"][column] for column in columns]
    most, longest = (max(quantiles[name] for quantiles in lengths) for name in ("p99", "max"))
    needed = f"{longest:,} keeps all" + (f", {most:,} keeps 99 %" if properties["max_length"] < most < longest else "")
    advice = f"The served model cuts its input there, too. Raise data.max_length to keep more: {needed}"
    return LengthWarning(f"{text}. {advice}", share > LARGE_SHARE)


def _percent(share: float) -> str:
    return "less than 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"
