"""Statistics as tensorflow_metadata protos: counts to protos, protos to files and back.

Comes in: SplitCounts. Goes out: DatasetFeatureStatisticsList, as TFDV would write it.
Read next: schema_gen.py and example_validator.py, which read them.
"""

import collections

import tensorflow as tf
from tensorflow_metadata.proto.v0 import statistics_pb2

from components.artifact import ExampleStatistics
from components.remote_files import write_file
from components.text_counts import ColumnCounts, HashSample, SplitCounts
from components.text_languages import languages

# The feature that stands for whole rows, made of all columns; TFDV marks such a feature as derived.
ROW = "row"
_MAX_RANKS = 1000
_SOURCE = "source.txt"
_NUM_BUCKETS = 10


def split_statistics(split: str, counts: dict[str, SplitCounts]) -> statistics_pb2.DatasetFeatureStatisticsList:
    """Describes one split, and how much of it is in the others.

    Args:
        split: one of the keys of `counts`.
        counts: split -> what was counted.
    Returns:
        One dataset. Each column is a feature with string statistics, natural language statistics (words) and custom
        ones: characters, num_empty, scripts, languages (of a sample), num_repeated, share_in_<other split>. A column of
        labels has them ranked instead of words. The feature `row` has the last two, too, and share_untranslated, and
        where there are two texts share_misaligned and length_ratio_percent.
    """
    mine = counts[split]
    others = {name: other for name, other in sorted(counts.items()) if name != split}
    result = statistics_pb2.DatasetFeatureStatisticsList()
    dataset = result.datasets.add(name=split, num_examples=mine.num_rows)
    for place, (column, found) in enumerate(mine.columns.items()):
        feature = _column_statistics(column, found)
        if found.labels is None:
            counted = languages(row[place] for row in mine.sample.values())
            feature.custom_stats.add(name="languages", rank_histogram=_ranked(counted))
        _add_overlaps(feature, found.texts, {name: other.columns[column].texts for name, other in others.items()})
        dataset.features.append(feature)
    row = statistics_pb2.FeatureNameStatistics(type=statistics_pb2.FeatureNameStatistics.STRING)
    row.path.step.append(ROW)
    row.validation_derived_source.deriver_name = ROW
    for column in mine.columns:
        row.validation_derived_source.source_path.add(step=[column])
    row.string_stats.common_stats.num_non_missing = mine.num_rows
    row.string_stats.unique = mine.rows.num_unique
    row.custom_stats.add(name="share_untranslated", num=mine.num_untranslated / max(mine.num_rows, 1))
    if mine.length_ratios:
        row.custom_stats.add(name="share_misaligned", num=mine.num_misaligned / mine.num_rows)
        row.custom_stats.add(
            name="length_ratio_percent", histogram=_quantiles("length_ratio_percent", mine.length_ratios)
        )
    _add_overlaps(row, mine.rows, {name: other.rows for name, other in others.items()})
    dataset.features.append(row)
    return result


def write_statistics(uri: str, split: str, statistics: statistics_pb2.DatasetFeatureStatisticsList) -> None:
    """Writes a split's statistics into the folder of an ExampleStatistics artifact."""
    write_file(f"{uri}/Split-{split}/FeatureStats.pb", statistics.SerializeToString(deterministic=True))


def read_statistics(artifact: ExampleStatistics, split: str) -> statistics_pb2.DatasetFeatureStatistics:
    """Reads the one dataset of a split's statistics."""
    with tf.io.gfile.GFile(artifact.path(f"Split-{split}", "FeatureStats.pb"), "rb") as file:
        return statistics_pb2.DatasetFeatureStatisticsList.FromString(file.read()).datasets[0]


def write_source(uri: str, source: str) -> None:
    """Writes down what the user called the files that statistics are of."""
    write_file(f"{uri}/{_SOURCE}", source.encode())


def read_source(artifact: ExampleStatistics) -> str:
    """Returns what `write_source` wrote; empty if nothing."""
    path = artifact.path(_SOURCE)
    return tf.io.gfile.GFile(path).read() if tf.io.gfile.exists(path) else ""


def features_by_name(dataset: statistics_pb2.DatasetFeatureStatistics) -> dict:
    """Returns name -> FeatureNameStatistics, the derived `row` included."""
    return {feature.path.step[0]: feature for feature in dataset.features}


def custom_numbers(feature: statistics_pb2.FeatureNameStatistics) -> dict[str, float]:
    """Returns name -> value of a feature's custom statistics that are numbers."""
    return {stat.name: stat.num for stat in feature.custom_stats if stat.WhichOneof("val") == "num"}


def natural_language(feature: statistics_pb2.FeatureNameStatistics) -> statistics_pb2.NaturalLanguageStatistics:
    """Returns a text column's statistics of words; empty ones for other features."""
    result = statistics_pb2.NaturalLanguageStatistics()
    for stat in feature.custom_stats:
        if stat.name == "nl_statistics":
            stat.any.Unpack(result)
    return result


def label_counts(feature: statistics_pb2.FeatureNameStatistics) -> dict[str, float]:
    """Returns label -> rows of a column of labels, the most frequent first; empty for other columns."""
    return _counts(feature.string_stats.rank_histogram)


def ranked_counts(feature: statistics_pb2.FeatureNameStatistics, name: str) -> dict[str, float]:
    """Returns script or language ("scripts", "languages") -> texts of a column of text, the most frequent first."""
    return _counts(next((s.rank_histogram for s in feature.custom_stats if s.name == name), None))


def _counts(histogram: statistics_pb2.RankHistogram | None) -> dict[str, float]:
    return {bucket.label: bucket.sample_count for bucket in histogram.buckets} if histogram else {}


def _column_statistics(column: str, counts: ColumnCounts) -> statistics_pb2.FeatureNameStatistics:
    num_texts = counts.characters.total()
    feature = statistics_pb2.FeatureNameStatistics(type=statistics_pb2.FeatureNameStatistics.STRING)
    feature.path.step.append(column)
    strings = feature.string_stats
    strings.unique = counts.texts.num_unique
    strings.avg_length = _mean(counts.characters)
    common = strings.common_stats
    common.num_missing, common.num_non_missing, common.tot_num_values = counts.num_missing, num_texts, num_texts
    if num_texts:
        common.min_num_values = common.max_num_values = common.avg_num_values = 1
    feature.custom_stats.add(name="num_empty", num=counts.num_empty)
    feature.custom_stats.add(name="min_characters", num=min(counts.characters, default=0))
    feature.custom_stats.add(name="max_characters", num=max(counts.characters, default=0))
    feature.custom_stats.add(name="characters", histogram=_quantiles("characters", counts.characters))
    if counts.labels is None:
        feature.custom_stats.add(name="scripts", rank_histogram=_ranked(counts.scripts))
        feature.custom_stats.add(name="nl_statistics").any.Pack(_words(counts), deterministic=True)
    else:
        strings.rank_histogram.CopyFrom(_ranked(counts.labels))
    return feature


def _words(counts: ColumnCounts) -> statistics_pb2.NaturalLanguageStatistics:
    result = statistics_pb2.NaturalLanguageStatistics(
        avg_token_length=_mean(counts.word_lengths),
        token_length_histogram=_quantiles("characters a word", counts.word_lengths),
        min_sequence_length=min(counts.words, default=0),
        max_sequence_length=max(counts.words, default=0),
        sequence_length_histogram=_quantiles("words", counts.words),
    )
    result.rank_histogram.CopyFrom(_ranked(counts.word_counts))
    return result


def _ranked(counts: collections.Counter) -> statistics_pb2.RankHistogram:
    result = statistics_pb2.RankHistogram()
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    for rank, (label, count) in enumerate(ranked[:_MAX_RANKS]):
        result.buckets.add(low_rank=rank, high_rank=rank, label=label, sample_count=count)
    return result


def _add_overlaps(
    feature: statistics_pb2.FeatureNameStatistics, sample: HashSample, others: dict[str, HashSample]
) -> None:
    feature.custom_stats.add(name="num_repeated", num=sample.num_repeated)
    for name, other in others.items():
        feature.custom_stats.add(name=f"share_in_{name}", num=sample.share_in(other))


def _mean(histogram: collections.Counter) -> float:
    return sum(value * count for value, count in histogram.items()) / max(histogram.total(), 1)


def _quantiles(name: str, histogram: collections.Counter) -> statistics_pb2.Histogram:
    """Returns buckets of about the same number of samples; of whole numbers, so a bucket holds whole values."""
    result = statistics_pb2.Histogram(name=name, type=statistics_pb2.Histogram.QUANTILES)
    total, seen, place = histogram.total(), 0, -1
    for value, count in sorted(histogram.items()):
        if seen * _NUM_BUCKETS // total != place:
            place = seen * _NUM_BUCKETS // total
            bucket = result.buckets.add(low_value=value)
        bucket.high_value = value
        bucket.sample_count += count
        seen += count
    return result
