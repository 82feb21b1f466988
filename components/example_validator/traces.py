"""Anomalies of texts that another program has changed: tokenised, escaped or wrongly decoded."""

from collections.abc import Iterator

from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from seq2serve.components.example_validator.anomalies import Anomaly
from seq2serve.components.statistics_gen.statistics_file import features_by_name
from seq2serve.components.statistics_gen.traces import ESCAPED, MISDECODED, REPLACED, TOKENIZED, read_traces

_SHOWN_CHARACTERS = 80
# Kind of trace -> (the largest share of the texts without a warning, the problem, the fix). Some text has a few: a
# manual of HTML has entities.
_WARNINGS = {
    TOKENIZED: (
        0.3,
        "seem to be tokenised, with spaces around punctuation, which the model would expect and generate",
        "detokenise the files, for example with sacremoses detokenize",
    ),
    ESCAPED: (0.01, "have HTML entities", "unescape the files, for example with Python's html.unescape"),
    MISDECODED: (
        0.01,
        "look like UTF-8 that was read as Windows-1252",
        "export the files again as UTF-8, or repair them, for example with ftfy",
    ),
    REPLACED: (
        0.0,
        "have U+FFFD, which replaces characters that an earlier conversion lost",
        "export the files again from their source",
    ),
}


def find_traces(schema: schema_pb2.Schema, dataset: statistics_pb2.DatasetFeatureStatistics) -> Iterator[Anomaly]:
    """Yields a warning for each column of the schema and kind of trace that too many texts of the split have."""
    features = features_by_name(dataset)
    for expected in schema.feature:
        for kind, share, example in read_traces(features[expected.name]) if expected.name in features else ():
            limit, problem, fix = _WARNINGS[kind]
            if share > limit:
                text = f"{share:.1%} of the texts {problem}: {example[:_SHOWN_CHARACTERS]!r}; {fix}"
                yield Anomaly(expected.name, "CUSTOM_VALIDATION", "WARNING", text)
