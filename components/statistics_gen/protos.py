"""Converts counts to tensorflow_metadata protos."""

import collections
from collections.abc import Mapping

from tensorflow_metadata.proto.v0 import statistics_pb2

from seq2serve.components.statistics_gen.counts import ColumnCounts, SplitCounts
from seq2serve.components.statistics_gen.hashes import HashSample
from seq2serve.components.statistics_gen.languages import languages
from seq2serve.components.statistics_gen.statistics_file import ALL_EXAMPLES, ROW, slice_key
from seq2serve.components.statistics_gen.traces import add_traces

_MAX_RANKS = 1000
_NUM_BUCKETS = 10


def split_statistics(
    split: str, counts: dict[str, SplitCounts], corpora: Mapping[str, SplitCounts] | None = None
) -> statistics_pb2.DatasetFeatureStatisticsList:
    """Returns the statistics of one split, including its overlap with the other splits.

    Args:
        split: one of the keys of `counts`.
        counts: split -> its counts.
        corpora: if there are several, corpus -> the counts of its rows in the split.
    Returns:
        One dataset with the name of the split or, with several corpora, ALL_EXAMPLES and a slice for each, as in TFDV;
        a slice is compared with the whole of other splits.

        Each column is a feature with string statistics, natural language statistics (words) and custom statistics:
        characters, num_empty, scripts, languages (of a sample), num_repeated, share_in_<other split>, and traces of
        other programs (of a sample). Label columns have ranked labels instead of words, scripts, languages and traces.
        The derived feature `row` has num_repeated, share_in_<other split>, exact_share_in_<other split> (of rows that
        do not even differ in case or digits) and share_untranslated, and with two texts also share_misaligned and
        length_ratio_percent.
    """
    others = {name: other for name, other in sorted(counts.items()) if name != split}
    datasets = [_dataset(ALL_EXAMPLES if corpora else split, counts[split], others)]
    datasets += [_dataset(slice_key(corpus), part, others) for corpus, part in (corpora or {}).items()]
    return statistics_pb2.DatasetFeatureStatisticsList(datasets=datasets)


def _dataset(
    name: str, split_counts: SplitCounts, others: dict[str, SplitCounts]
) -> statistics_pb2.DatasetFeatureStatistics:
    dataset = statistics_pb2.DatasetFeatureStatistics(name=name, num_examples=split_counts.num_rows)
    for index, (column, column_counts) in enumerate(split_counts.columns.items()):
        feature = _column_statistics(column, column_counts)
        if column_counts.labels is None:
            sample = [row[index] for row in split_counts.sample.values()]
            add_traces(feature, sample)
            language_counts = languages(sample)
            feature.custom_stats.add(name="languages", rank_histogram=_ranked(language_counts))
        other_texts = {name: other.columns[column].texts for name, other in others.items()}
        _add_overlaps(feature, column_counts.texts, other_texts)
        dataset.features.append(feature)
    dataset.features.append(_row_statistics(split_counts, others))
    return dataset


def _row_statistics(counts: SplitCounts, others: dict[str, SplitCounts]) -> statistics_pb2.FeatureNameStatistics:
    row = statistics_pb2.FeatureNameStatistics(type=statistics_pb2.FeatureNameStatistics.STRING)
    row.path.step.append(ROW)
    row.validation_derived_source.deriver_name = ROW
    for column in counts.columns:
        row.validation_derived_source.source_path.add(step=[column])
    row.string_stats.common_stats.num_non_missing = counts.num_rows
    row.string_stats.unique = counts.rows.num_unique
    row.custom_stats.add(name="share_untranslated", num=counts.num_untranslated / max(counts.num_rows, 1))
    if counts.length_ratios:
        row.custom_stats.add(name="share_misaligned", num=counts.num_misaligned / counts.num_rows)
        row.custom_stats.add(
            name="length_ratio_percent", histogram=_quantiles("length_ratio_percent", counts.length_ratios)
        )
    _add_overlaps(row, counts.rows, {name: other.rows for name, other in others.items()})
    for name, other in others.items():
        row.custom_stats.add(name=f"exact_share_in_{name}", num=counts.exact_rows.share_in(other.exact_rows))
    return row


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
    """Returns buckets with about the same number of samples. All samples of one value are in the same bucket."""
    result = statistics_pb2.Histogram(name=name, type=statistics_pb2.Histogram.QUANTILES)
    total, num_seen, quantile = histogram.total(), 0, -1
    for value, count in sorted(histogram.items()):
        if num_seen * _NUM_BUCKETS // total != quantile:
            quantile = num_seen * _NUM_BUCKETS // total
            bucket = result.buckets.add(low_value=value)
        bucket.high_value = value
        bucket.sample_count += count
        num_seen += count
    return result
