"""Anomalies: deviations of a split's statistics from the schema, from the train split and from the last run."""

import collections
import typing
from collections.abc import Iterator, Mapping

from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from seq2serve.components.example_validator.labels import join_shown, label_findings
from seq2serve.components.schema_gen.schema_file import MAX_UNKNOWN_LABEL_SHARE, label_domain
from seq2serve.components.statistics_gen.statistics_file import (
    ROW,
    custom_numbers,
    features_by_name,
    label_counts,
    natural_language,
    ranked_counts,
)

MAX_EMPTY_SHARE = 0.01
# Splits that were not made by hashing usually share a few common sentences.
MAX_SHARE_IN_TRAIN = 0.01
MAX_UNTRANSLATED_SHARE = 0.1
MAX_MISALIGNED_SHARE = 0.01
MAX_OTHER_SCRIPT_SHARE = 0.05
MAX_OTHER_LANGUAGE_SHARE = 0.05  # of the texts whose language was identified
MIN_IDENTIFIED_LANGUAGES = 50
# If a label is more frequent, always predicting it gives a high accuracy.
MAX_LABEL_SHARE = 0.9
# A model learns little from fewer rows, and the held-out splits have almost none of them.
MIN_LABEL_ROWS = 10


class Anomaly(typing.NamedTuple):
    """A deviation from the expectations.

    Args:
        column: the column's name, "row" for entire rows, or "" for the split.
        type: a name of AnomalyInfo.Type.
        severity: "ERROR" or "WARNING".
        description: what is wrong, how frequent it is, and how to fix it.
    """

    column: str
    type: str
    severity: str
    description: str


def find_anomalies(
    schema: schema_pb2.Schema, dataset: statistics_pb2.DatasetFeatureStatistics, overlap: str = "error"
) -> list[Anomaly]:
    """Finds the deviations from a schema.

    Args:
        schema: the expected columns, types and values.
        dataset: the statistics of one split.
        overlap: data.overlap; with `warn`, rows that are also in the train split are never an error.
    Returns:
        The anomalies of the split, then of its columns in the schema's order, then of its rows.
    """
    features = features_by_name(dataset)
    result = []
    if dataset.num_examples < schema.dataset_constraints.min_examples_count:
        minimum = schema.dataset_constraints.min_examples_count
        text = f"{dataset.num_examples} examples, fewer than the {minimum} that the schema requires; add rows"
        result.append(Anomaly("", "DATASET_LOW_NUM_EXAMPLES", "ERROR", text))
    for expected in schema.feature:
        if expected.name in features:
            domain = label_domain(schema, expected.name)
            result += _column_anomalies(expected, domain, features[expected.name], dataset)
        else:
            text = "the column is in the schema but not in the data; add it, or remove it from the schema"
            result.append(Anomaly(expected.name, "SCHEMA_MISSING_COLUMN", "ERROR", text))
    for name in sorted(features.keys() - {expected.name for expected in schema.feature} - {ROW}):
        text = "the column is in the data but not in the schema; add it to the schema, or do not import it"
        result.append(Anomaly(name, "SCHEMA_NEW_COLUMN", "ERROR", text))
    return result + list(_row_anomalies(features[ROW], dataset.num_examples, overlap))


def find_label_anomalies(
    schema: schema_pb2.Schema,
    datasets: Mapping[str, statistics_pb2.DatasetFeatureStatistics],
    conflicts: Mapping[str, Mapping],
) -> list[Anomaly]:
    """Finds what looks wrong in the label columns of all splits together.

    Args:
        schema: a column with a domain is a label column.
        datasets: split -> its statistics.
        conflicts: label column -> equal texts with different labels; a property of ExampleStatistics.
    Returns:
        The anomalies, all warnings, in the schema's order.
    """
    splits = {split: features_by_name(dataset) for split, dataset in datasets.items()}
    result = []
    for name in (feature.name for feature in schema.feature if label_domain(schema, feature.name)):
        counts: collections.Counter = collections.Counter()
        for features in splits.values():
            counts.update(label_counts(features[name]) if name in features else {})
        train = splits.get("train", {})
        rare = _rare_labels(label_counts(train[name])) if name in train else ()
        texts = [*label_findings(counts, conflicts.get(name, {})), *rare]
        result += [Anomaly(name, "CUSTOM_VALIDATION", "WARNING", text) for text in texts]
    return result


def _rare_labels(counts: dict[str, float]) -> Iterator[str]:
    rare = sorted((count, label) for label, count in counts.items() if count < MIN_LABEL_ROWS)
    if rare:
        number = f"{len(rare):,} labels have" if len(rare) > 1 else "1 label has"
        listed = join_shown(f"{label!r} ({count:.0f})" for count, label in rare)
        yield f"{number} fewer than {MIN_LABEL_ROWS} rows in the train split: {listed}; add rows, or merge labels"


def find_drift(
    schema: schema_pb2.Schema,
    dataset: statistics_pb2.DatasetFeatureStatistics,
    previous: statistics_pb2.DatasetFeatureStatistics,
) -> list[Anomaly]:
    """Finds drift since an earlier run: changes in the share of a word or label (TFDV: L-infinity distance).

    Args:
        schema: `drift_comparator.infinity_norm.threshold` is the largest allowed change in a column;
            0 allows any change.
        dataset: the statistics of one split.
        previous: the statistics of the same split in the earlier run.
    Returns:
        The anomalies, all warnings, in the schema's order.
    """
    now, before = features_by_name(dataset), features_by_name(previous)
    result = []
    for expected in schema.feature:
        limit = expected.drift_comparator.infinity_norm.threshold
        if not limit or expected.name not in now.keys() & before.keys():
            continue
        new, old = _shares(now[expected.name]), _shares(before[expected.name])
        drifts = {word: abs(new.get(word, 0) - old.get(word, 0)) for word in sorted(new.keys() | old.keys())}
        word = max(drifts, key=drifts.get, default="")
        if drifts.get(word, 0) > limit:
            shares = f"from {old.get(word, 0):.1%} in the last run to {new.get(word, 0):.1%}"
            text = f"the share of {word!r} changed {shares}, a drift of more than {limit:.0%}"
            result.append(Anomaly(expected.name, "COMPARATOR_L_INFTY_HIGH", "WARNING", text))
    return result


def _shares(feature: statistics_pb2.FeatureNameStatistics) -> dict[str, float]:
    """Returns each label's share of all labels, or each frequent word's share of all words."""
    counts = label_counts(feature)
    if counts:
        total = sum(counts.values())
    else:
        words = natural_language(feature)
        counts = {bucket.label: bucket.sample_count for bucket in words.rank_histogram.buckets}
        total = sum(bucket.sample_count for bucket in words.token_length_histogram.buckets)
    return {word: count / total for word, count in counts.items()}


def _column_anomalies(
    expected: schema_pb2.Feature,
    domain: list[str],
    feature: statistics_pb2.FeatureNameStatistics,
    dataset: statistics_pb2.DatasetFeatureStatistics,
) -> Iterator[Anomaly]:
    num_examples = dataset.num_examples
    if feature.type != statistics_pb2.FeatureNameStatistics.STRING or expected.type != schema_pb2.BYTES:
        names = schema_pb2.FeatureType.Name(expected.type), statistics_pb2.FeatureNameStatistics.Type.Name(feature.type)
        types = "the type is {} in the schema and {} in the data".format(*names)
        text = f"{types}; text is BYTES in a schema and STRING in statistics"
        yield Anomaly(expected.name, "UNEXPECTED_DATA_TYPE", "ERROR", text)
        return
    present = feature.string_stats.common_stats.num_non_missing
    if present < expected.presence.min_fraction * num_examples or present < expected.presence.min_count:
        text = f"present in {present} of {num_examples} rows; the schema requires {expected.presence.min_fraction:.1%}"
        yield Anomaly(
            expected.name, "FEATURE_TYPE_LOW_FRACTION_PRESENT", "ERROR", f"{text}; fill in the missing values"
        )
    empty = custom_numbers(feature)["num_empty"]
    if empty > MAX_EMPTY_SHARE * num_examples:
        text = f"empty in {empty:.0f} of {num_examples} rows, more than {MAX_EMPTY_SHARE:.0%}"
        yield Anomaly(expected.name, "FEATURE_TYPE_NO_VALUES", "ERROR", f"{text}; fill in or remove those rows")
    if domain:
        yield from _label_anomalies(expected, domain, feature, dataset.name)
    else:
        yield from _text_anomalies(expected, feature)


def _label_anomalies(
    expected: schema_pb2.Feature, domain: list[str], feature: statistics_pb2.FeatureNameStatistics, split: str
) -> Iterator[Anomaly]:
    counts = label_counts(feature)
    total = sum(counts.values())
    unknown = {label: count for label, count in counts.items() if label not in domain}
    share = sum(unknown.values()) / total if total else 1.0
    if unknown or not counts:
        listed = join_shown(f"{label!r} ({count:.0f} rows)" for label, count in unknown.items())
        text = f"not in the schema: {listed or 'too many distinct values'}"
        is_error = split == "train" or share > MAX_UNKNOWN_LABEL_SHARE
        if unknown and split != "train":
            verdict = "more than {:.0%} is an error" if is_error else "up to {:.0%} count as errors of the model"
            text += f", {share:.1%} of the rows; {verdict.format(MAX_UNKNOWN_LABEL_SHARE)}"
        severity = "ERROR" if is_error else "WARNING"
        yield Anomaly(
            expected.name, "ENUM_TYPE_UNEXPECTED_STRING_VALUES", severity, f"{text}; fix the rows or the schema"
        )
    if counts and len(domain) > 1 and max(counts.values()) > MAX_LABEL_SHARE * total:
        label = max(counts, key=counts.get)
        text = f"{counts[label] / total:.1%} of the rows are {label!r}, so always predicting it gives a high accuracy"
        yield Anomaly(expected.name, "CUSTOM_VALIDATION", "WARNING", f"{text}; add rows with other labels")


def _text_anomalies(expected: schema_pb2.Feature, feature: statistics_pb2.FeatureNameStatistics) -> Iterator[Anomaly]:
    words = natural_language(feature)
    limits = expected.natural_language_domain.sequence_length_constraints
    if words.min_sequence_length < limits.min_sequence_length:
        text = (
            f"the shortest text has {words.min_sequence_length} words; the schema allows {limits.min_sequence_length}"
        )
        yield Anomaly(expected.name, "SEQUENCE_VALUE_TOO_FEW_OCCURRENCES", "WARNING", text)
    if 0 < limits.max_sequence_length < words.max_sequence_length:
        text = f"the longest text has {words.max_sequence_length} words; the schema allows {limits.max_sequence_length}"
        yield Anomaly(expected.name, "SEQUENCE_VALUE_TOO_MANY_OCCURRENCES", "WARNING", text)
    scripts = {name: count for name, count in ranked_counts(feature, "scripts").items() if name}
    main, *minor = scripts or [""]
    total = sum(scripts.values())
    num_minor = sum(scripts[name] for name in minor)
    if num_minor > MAX_OTHER_SCRIPT_SHARE * total:
        text = f"{num_minor / total:.1%} of the texts are in {', '.join(minor)} script, not {main}"
        yield Anomaly(expected.name, "CUSTOM_VALIDATION", "WARNING", f"{text}; check for other languages")
    yield from _language_anomalies(expected.name, ranked_counts(feature, "languages"))


def _language_anomalies(column: str, languages: dict[str, float]) -> Iterator[Anomaly]:
    total = sum(languages.values())
    main, *minor = languages or [""]
    frequent = {name: languages[name] / total for name in minor if languages[name] > MAX_OTHER_LANGUAGE_SHARE * total}
    if total >= MIN_IDENTIFIED_LANGUAGES and frequent:
        shares = ", ".join(f"{share:.0%} in {name!r}" for name, share in frequent.items())
        text = f"most texts with an identified language are in {main!r}, but {shares}"
        advice = "check for untranslated rows or swapped columns"
        yield Anomaly(column, "CUSTOM_VALIDATION", "WARNING", f"{text}; {advice}")


def _overlap_anomalies(numbers: dict[str, float], num_rows: int, overlap: str) -> Iterator[Anomaly]:
    # The train split has no such statistics.
    leaked, near = numbers.get("exact_share_in_train", 0), numbers.get("share_in_train", 0)
    if leaked > 0:
        severity = "ERROR" if leaked > MAX_SHARE_IN_TRAIN and overlap != "warn" else "WARNING"
        text = f"{leaked * num_rows:,.0f} of {num_rows:,} rows ({leaked:.1%}) are also in the train split"
        fix = "remove them from one of the splits, or set data.overlap=drop_from_train"
        fix += ", or data.overlap=warn to keep them" if severity == "ERROR" else ""
        text = f"{text}, so metrics would be too optimistic; {fix}"
        yield Anomaly(ROW, "CUSTOM_VALIDATION", severity, text)
    if near > leaked:
        text = (
            f"{(near - leaked) * num_rows:,.0f} of {num_rows:,} rows ({near - leaked:.1%}) differ from a row of the "
            "train split only in case, digits or spaces; if the model can guess them from that row, remove them from "
            "one of the splits, or let data.split_key=loose make the splits"
        )
        yield Anomaly(ROW, "CUSTOM_VALIDATION", "WARNING", text)


def _row_anomalies(feature: statistics_pb2.FeatureNameStatistics, num_rows: int, overlap: str) -> Iterator[Anomaly]:
    numbers = custom_numbers(feature)
    yield from _overlap_anomalies(numbers, num_rows, overlap)
    if numbers["share_untranslated"] > MAX_UNTRANSLATED_SHARE:
        text = f"{numbers['share_untranslated']:.1%} of the rows have the same text in all columns"
        yield Anomaly(ROW, "CUSTOM_VALIDATION", "WARNING", f"{text}; check for untranslated rows")
    misaligned = numbers.get("share_misaligned", 0)
    if misaligned > MAX_MISALIGNED_SHARE:
        text = f"in {misaligned:.1%} of the rows one text is many times longer than the other"
        yield Anomaly(ROW, "CUSTOM_VALIDATION", "WARNING", f"{text}; check the alignment of the columns")
