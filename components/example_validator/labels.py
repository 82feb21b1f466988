"""Findings about the labels of all splits together: spellings of one label, missing values, conflicting rows."""

import collections
import fractions
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping

# Texts that spreadsheets and data frames write for a missing value, in lower case and without spaces and brackets.
_MISSING_WORDS = """
    - -- ? . nan na n/a n.a. null none nil nat missing undefined empty blank notavailable notapplicable
    #n/a #na #null! #ref! #value! #name? #num! #div/0!
"""
_MISSING = {"", *_MISSING_WORDS.split()}
_BRACKETS = "<>()[]{}'\" "
_NUMBER = re.compile(r"[+-]?(\d{1,30}[.,]?\d{0,30}|[.,]\d{1,30})(e[+-]?\d{1,2})?")
_NUM_SHOWN = 5


def label_findings(counts: Mapping[str, float], conflicts: Mapping) -> Iterator[str]:
    """Yields what looks wrong in a label column, and how to fix it.

    Args:
        counts: label -> number of rows of all splits.
        conflicts: {"num_texts", "examples" {text: {label: rows}}} of equal texts with different labels, or empty.
    """
    if len(counts) == 1:
        (label,) = counts
        yield f"all rows have the label {label!r}, so there is nothing to learn; add rows with other labels"
    groups = collections.defaultdict(list)
    for label in sorted(counts):
        groups[_spelling_key(label)].append(label)
    alike = [names for names in groups.values() if len(names) > 1]
    if alike:
        listed = join_shown(
            " and ".join(_with_count(name, counts, _is_invisible(names)) for name in names) for names in alike
        )
        yield (
            f"{len(alike):,} group{'s' * (len(alike) != 1)} of labels that differ only in case, spaces, Unicode form "
            f"or number form: {listed}; each counts as a label of its own; make them equal in the file if they mean "
            "the same"
        )
    missing = [label for label in sorted(counts) if is_missing(label)]
    if missing:
        listed = join_shown(_with_count(label, counts, False) for label in missing)
        yield f"labels that look like a missing value: {listed}; remove these rows, or rename the label if it is meant"
    if conflicts:
        yield _conflict_text(conflicts)


def _conflict_text(conflicts: Mapping) -> str:
    examples = [
        f"{text!r} is " + " and ".join(_with_count(label, labels, False) for label in labels)
        for text, labels in conflicts["examples"].items()
    ]
    number = conflicts["num_texts"]
    texts = "1 text occurs" if number == 1 else f"{number:,} texts occur"
    more = ", ..." if number > len(examples) else ""
    return f"{texts} with different labels: {'; '.join(examples)}{more}; correct or remove these rows"


def is_missing(label: str) -> bool:
    """Returns whether a label is what programs write for a missing value, such as nan or N/A."""
    return "".join(_folded(label).split()).strip(_BRACKETS) in _MISSING


def join_shown(names: Iterable[str]) -> str:
    """Returns the first names, joined by commas."""
    names = list(names)
    return ", ".join(names[:_NUM_SHOWN]) + (", ..." if names[_NUM_SHOWN:] else "")


def _spelling_key(label: str) -> str | fractions.Fraction:
    """Returns a key that the spellings of one label share; numbers are compared by value."""
    text = "".join(_folded(label).split())
    if _NUMBER.fullmatch(text):
        return fractions.Fraction(text.replace(",", "."))
    return text


def _folded(label: str) -> str:
    """Returns a label in one Unicode form and case, without invisible characters (category Cf)."""
    visible = "".join(c for c in unicodedata.normalize("NFKC", label) if unicodedata.category(c) != "Cf")
    return unicodedata.normalize("NFKC", visible.casefold())


def _is_invisible(labels: list[str]) -> bool:
    """Returns whether some of the labels look the same when they are printed."""
    keys = [unicodedata.normalize("NFC", " ".join(label.split())) for label in labels]
    return len(set(keys)) < len(keys) or not all(key.isprintable() for key in keys)


def _with_count(label: str, counts: Mapping[str, float], as_ascii: bool) -> str:
    rows = f"{counts[label]:,.0f} {'row' if counts[label] == 1 else 'rows'}"
    return f"{ascii(label) if as_ascii else repr(label)} ({rows})"
