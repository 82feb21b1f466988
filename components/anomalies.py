"""Anomalies: what in the statistics of a split does not fit the schema, training, or the last run.

Comes in: statistics protos and a schema. Goes out: Anomalies, in a fixed order.
Read next: example_validator.py, which writes them down and stops the run at errors.
"""

import typing
from collections.abc import Iterator

from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from components.schema_gen import label_domain
from components.statistics_protos import (
    ROW,
    custom_numbers,
    features_by_name,
    label_counts,
    natural_language,
    ranked_counts,
)

MAX_EMPTY_SHARE = 0.01
# A few sentences that everybody writes are in every split that was not made by a hash.
MAX_SHARE_IN_TRAIN = 0.01
MAX_UNTRANSLATED_SHARE = 0.1
MAX_MISALIGNED_SHARE = 0.01
MAX_OTHER_SCRIPT_SHARE = 0.05
MAX_OTHER_LANGUAGE_SHARE = 0.05  # of the texts whose language can be told
MIN_TOLD_LANGUAGES = 50
# Beyond, a model that always says the commonest label looks good.
MAX_LABEL_SHARE = 0.9
MIN_LABEL_ROWS = 2
_NUM_SHOWN = 5


class Anomaly(typing.NamedTuple):
    """One thing that does not fit.

    Args:
        column: the column's name, "row" for whole rows, "" for the split.
        type: a name of AnomalyInfo.Type.
        severity: "ERROR" or "WARNING".
        description: what, how much, and how to mend it.
    """

    column: str
    type: str
    severity: str
    description: str


def find_anomalies(schema: schema_pb2.Schema, dataset: statistics_pb2.DatasetFeatureStatistics) -> list[Anomaly]:
    """Finds what does not fit the schema.

    Args:
        schema: what is expected.
        dataset: the statistics of one split.
    Returns:
        The anomalies: of the split, then column by column in the schema's order, then of rows.
    """
    features = features_by_name(dataset)
    result = []
    if dataset.num_examples < schema.dataset_constraints.min_examples_count:
        wanted = schema.dataset_constraints.min_examples_count
        text = f"{dataset.num_examples} examples, fewer than the {wanted} the schema asks for; add rows"
        result.append(Anomaly("", "DATASET_LOW_NUM_EXAMPLES", "ERROR", text))
    for expected in schema.feature:
        if expected.name in features:
            domain = label_domain(schema, expected.name)
            result += _column_anomalies(expected, domain, features[expected.name], dataset.num_examples)
        else:
            text = "the column is in the schema and not in the data; add it, or take it out of the schema"
            result.append(Anomaly(expected.name, "SCHEMA_MISSING_COLUMN", "ERROR", text))
    for name in sorted(features.keys() - {expected.name for expected in schema.feature} - {ROW}):
        text = "the column is in the data and not in the schema; add it there, or do not read it"
        result.append(Anomaly(name, "SCHEMA_NEW_COLUMN", "ERROR", text))
    return result + list(_row_anomalies(features[ROW]))


def find_drift(
    schema: schema_pb2.Schema,
    dataset: statistics_pb2.DatasetFeatureStatistics,
    previous: statistics_pb2.DatasetFeatureStatistics,
) -> list[Anomaly]:
    """Finds what has changed since an earlier run: the share of a word or label (TFDV: L-infinity distance).

    Args:
        schema: its `drift_comparator.infinity_norm.threshold` of each column says how much may change; 0 is any.
        dataset: the statistics of one split.
        previous: those of the same split at that run.
    Returns:
        The anomalies, all warnings, in the schema's order.
    """
    now, before, result = features_by_name(dataset), features_by_name(previous), []
    for expected in schema.feature:
        limit = expected.drift_comparator.infinity_norm.threshold
        if not limit or expected.name not in now.keys() & before.keys():
            continue
        new, old = _shares(now[expected.name]), _shares(before[expected.name])
        drifts = {word: abs(new.get(word, 0) - old.get(word, 0)) for word in sorted(new.keys() | old.keys())}
        moved = max(drifts, key=drifts.get, default="")
        if drifts.get(moved, 0) > limit:
            shares = f"{old.get(moved, 0):.1%} of it in the last run and is {new.get(moved, 0):.1%}"
            text = f"{moved!r} was {shares}, a drift of more than {limit:.0%}"
            result.append(Anomaly(expected.name, "COMPARATOR_L_INFTY_HIGH", "WARNING", text))
    return result


def _shares(found: statistics_pb2.FeatureNameStatistics) -> dict[str, float]:
    """Returns label or frequent word -> its share of all."""
    counts = label_counts(found)
    if not counts:
        words = natural_language(found)
        counts = {bucket.label: bucket.sample_count for bucket in words.rank_histogram.buckets}
        total = sum(bucket.sample_count for bucket in words.token_length_histogram.buckets)
    else:
        total = sum(counts.values())
    return {word: count / total for word, count in counts.items()}


def _column_anomalies(
    expected: schema_pb2.Feature, domain: list[str], found: statistics_pb2.FeatureNameStatistics, num_examples: int
) -> Iterator[Anomaly]:
    if found.type != statistics_pb2.FeatureNameStatistics.STRING or expected.type != schema_pb2.BYTES:
        names = schema_pb2.FeatureType.Name(expected.type), statistics_pb2.FeatureNameStatistics.Type.Name(found.type)
        text = "the schema says {} and the data holds {}; text is BYTES in one and STRING in the other".format(*names)
        yield Anomaly(expected.name, "UNEXPECTED_DATA_TYPE", "ERROR", text)
        return
    present = found.string_stats.common_stats.num_non_missing
    if present < expected.presence.min_fraction * num_examples or present < expected.presence.min_count:
        text = f"present in {present} of {num_examples} rows, the schema asks for {expected.presence.min_fraction:.1%}"
        yield Anomaly(expected.name, "FEATURE_TYPE_LOW_FRACTION_PRESENT", "ERROR", f"{text}; fill the gaps")
    empty = custom_numbers(found)["num_empty"]
    if empty > MAX_EMPTY_SHARE * num_examples:
        text = f"empty in {empty:.0f} of {num_examples} rows, more than {MAX_EMPTY_SHARE:.0%}; fill or drop those rows"
        yield Anomaly(expected.name, "FEATURE_TYPE_NO_VALUES", "ERROR", text)
    yield from _label_anomalies(expected, domain, found) if domain else _text_anomalies(expected, found)


def _label_anomalies(
    expected: schema_pb2.Feature, domain: list[str], found: statistics_pb2.FeatureNameStatistics
) -> Iterator[Anomaly]:
    counts = label_counts(found)
    unknown = [f"{label!r} ({count:.0f} rows)" for label, count in counts.items() if label not in domain]
    if unknown or not counts:
        what = ", ".join(unknown[:_NUM_SHOWN]) + (", ..." if unknown[_NUM_SHOWN:] else "")
        text = f"not in the schema's domain: {what or 'too many different values'}; mend the rows, or add it there"
        yield Anomaly(expected.name, "ENUM_TYPE_UNEXPECTED_STRING_VALUES", "ERROR", text)
    total = sum(counts.values())
    if counts and len(domain) > 1 and max(counts.values()) > MAX_LABEL_SHARE * total:
        label = max(counts, key=counts.get)
        text = f"{counts[label] / total:.1%} of the rows are {label!r}: always saying so would look good; balance them"
        yield Anomaly(expected.name, "CUSTOM_VALIDATION", "WARNING", text)
    rare = [repr(label) for label, count in counts.items() if count < MIN_LABEL_ROWS]
    if rare:
        what = ", ".join(rare[:_NUM_SHOWN]) + (", ..." if rare[_NUM_SHOWN:] else "")
        many = f"{len(rare)} labels have" if rare[1:] else "1 label has"
        text = f"{many} one row only: {what}; add rows, or join them to others"
        yield Anomaly(expected.name, "CUSTOM_VALIDATION", "WARNING", text)


def _text_anomalies(expected: schema_pb2.Feature, found: statistics_pb2.FeatureNameStatistics) -> Iterator[Anomaly]:
    words = natural_language(found)
    limits = expected.natural_language_domain.sequence_length_constraints
    if words.min_sequence_length < limits.min_sequence_length:
        text = f"a text has {words.min_sequence_length} words, the schema's shortest {limits.min_sequence_length}"
        yield Anomaly(expected.name, "SEQUENCE_VALUE_TOO_FEW_OCCURRENCES", "WARNING", text)
    if 0 < limits.max_sequence_length < words.max_sequence_length:
        text = f"a text has {words.max_sequence_length} words, the schema's longest {limits.max_sequence_length}"
        yield Anomaly(expected.name, "SEQUENCE_VALUE_TOO_MANY_OCCURRENCES", "WARNING", text)
    scripts = {name: count for name, count in ranked_counts(found, "scripts").items() if name}
    main, *others = scripts or [""]
    strangers = sum(scripts[name] for name in others)
    if strangers > MAX_OTHER_SCRIPT_SHARE * sum(scripts.values()):
        share = strangers / sum(scripts.values())
        text = f"{share:.1%} of the texts are not in the {main} script but in {', '.join(others)}: another language?"
        yield Anomaly(expected.name, "CUSTOM_VALIDATION", "WARNING", text)
    yield from _language_anomalies(expected.name, ranked_counts(found, "languages"))


def _language_anomalies(column: str, languages: dict[str, float]) -> Iterator[Anomaly]:
    told = sum(languages.values())
    main, *others = languages or [""]
    strangers = {name: languages[name] / told for name in others if languages[name] > MAX_OTHER_LANGUAGE_SHARE * told}
    if told >= MIN_TOLD_LANGUAGES and strangers:
        shares = ", ".join(f"{share:.0%} {name}" for name, share in strangers.items())
        text = f"of the texts whose language can be told most are {main!r}, but {shares}: not translated, or mixed up?"
        yield Anomaly(column, "CUSTOM_VALIDATION", "WARNING", text)


def _row_anomalies(found: statistics_pb2.FeatureNameStatistics) -> Iterator[Anomaly]:
    numbers = custom_numbers(found)
    leaked = numbers.get("share_in_train", 0)  # train itself has no such number
    if leaked > 0:
        severity = "ERROR" if leaked > MAX_SHARE_IN_TRAIN else "WARNING"
        text = f"{leaked:.1%} of the rows are in the train split, too, so scores would flatter; drop them from one"
        yield Anomaly(ROW, "CUSTOM_VALIDATION", severity, text)
    if numbers["share_untranslated"] > MAX_UNTRANSLATED_SHARE:
        text = f"{numbers['share_untranslated']:.1%} of the rows have the same text in every column: not translated?"
        yield Anomaly(ROW, "CUSTOM_VALIDATION", "WARNING", text)
    misaligned = numbers.get("share_misaligned", 0)
    if misaligned > MAX_MISALIGNED_SHARE:
        text = f"in {misaligned:.1%} of the rows one text is many times as long as the other: not each other's?"
        yield Anomaly(ROW, "CUSTOM_VALIDATION", "WARNING", text)
