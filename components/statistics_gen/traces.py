"""Traces of other programs in texts: tokenisation, entities, wrongly decoded characters."""

import collections
import re
from collections.abc import Iterator, Sequence

from tensorflow_metadata.proto.v0 import statistics_pb2

TOKENIZED, ESCAPED, MISDECODED, REPLACED = KINDS = ("tokenized", "escaped", "misdecoded", "replaced")

# The characters after & are those that HTML, Moses and XML escape.
_ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|nbsp|bar|lsqb|rsqb|#\d{1,6}|#x[0-9a-fA-F]{1,5});")
# Moses turns hyphens into @-@. French has spaces before : ; ! ? so only full stops and commas count.
_TOKENIZED = re.compile(
    r"(?:^| )@[-,.:/]@(?: |$)"
    r"|[^\s.] \.(?: (?:&quot;|''|[\"”»)]))?\s*$"
    r"|\w ,(?: \w|$)"
    r"|\w (?:n't|(?:'|&apos;)(?:s|re|ve|ll|d|m|t)) "
)
# UTF-8 that was read as Windows-1252: the first byte became a letter, the next one a sign that rarely follows it.
_MISDECODED = re.compile(
    "[\u00c2\u00c3][\u0080-\u00bf\u20ac\u201a\u0192\u201e\u2020-\u2022\u2030\u0152\u0160\u2122]|\u00e2\u20ac"
)
_PATTERNS = dict(zip(KINDS, (_TOKENIZED, _ENTITY, _MISDECODED, re.compile("\ufffd")), strict=True))


def add_traces(feature: statistics_pb2.FeatureNameStatistics, texts: Sequence[str]) -> None:
    """Adds share_<kind> and example_<kind> to the statistics of a text column, for each kind of trace in the texts."""
    counts: collections.Counter = collections.Counter()
    examples: dict[str, str] = {}
    for text in texts:
        for kind, pattern in _PATTERNS.items():
            if pattern.search(text):
                counts[kind] += 1
                examples.setdefault(kind, text)
    for kind in sorted(counts):
        feature.custom_stats.add(name=f"share_{kind}", num=counts[kind] / len(texts))
        feature.custom_stats.add(name=f"example_{kind}", str=examples[kind])


def read_traces(feature: statistics_pb2.FeatureNameStatistics) -> Iterator[tuple[str, float, str]]:
    """Yields (kind, share of the texts, an example) of the traces that `add_traces` added."""
    numbers = {stat.name: stat.num for stat in feature.custom_stats}
    texts = {stat.name: stat.str for stat in feature.custom_stats}
    for kind in KINDS:
        if f"share_{kind}" in numbers:
            yield kind, numbers[f"share_{kind}"], texts[f"example_{kind}"]
