"""Reads and writes the files of ExampleStatistics: tensorflow_metadata protos in the layout of TFDV."""

from pathlib import Path

from tensorflow_metadata.proto.v0 import statistics_pb2

from seq2serve.components.base.artifact import CORPUS, ExampleStatistics
from seq2serve.components.storage.files import local_file, write_file

# The feature that represents whole rows. It is derived from all columns, and marked as derived as in TFDV.
ROW = "row"
ALL_EXAMPLES = "All Examples"  # TFDV's name of the dataset that is not a slice
MAX_LABELS = 1000  # a column with more distinct values is not a label column
_SLICE = f"{CORPUS}_"


def write_statistics(uri: str, split: str, statistics: statistics_pb2.DatasetFeatureStatisticsList) -> None:
    """Writes a split's statistics into the folder of an ExampleStatistics artifact."""
    write_file(f"{uri}/Split-{split}/FeatureStats.pb", statistics.SerializeToString(deterministic=True))


def read_statistics(artifact: ExampleStatistics, split: str) -> statistics_pb2.DatasetFeatureStatistics:
    """Reads the statistics of a split, of all its corpora together."""
    return _read_datasets(artifact, split)[0]


def read_corpora(artifact: ExampleStatistics, split: str) -> dict[str, statistics_pb2.DatasetFeatureStatistics]:
    """Reads corpus -> statistics of its rows in a split; empty if there is only one."""
    return {dataset.name.removeprefix(_SLICE): dataset for dataset in _read_datasets(artifact, split)[1:]}


def slice_key(corpus: str) -> str:
    """Returns TFDV's name of a slice, `<feature>_<value>`."""
    return f"{_SLICE}{corpus}"


def _read_datasets(artifact: ExampleStatistics, split: str) -> list[statistics_pb2.DatasetFeatureStatistics]:
    with local_file(artifact.path(f"Split-{split}", "FeatureStats.pb")) as path:
        return list(statistics_pb2.DatasetFeatureStatisticsList.FromString(Path(path).read_bytes()).datasets)


def features_by_name(dataset: statistics_pb2.DatasetFeatureStatistics) -> dict:
    """Returns name -> FeatureNameStatistics, including the derived feature `row`."""
    return {feature.path.step[0]: feature for feature in dataset.features}


def custom_numbers(feature: statistics_pb2.FeatureNameStatistics) -> dict[str, float]:
    """Returns name -> value of a feature's numeric custom statistics."""
    return {stat.name: stat.num for stat in feature.custom_stats if stat.WhichOneof("val") == "num"}


def natural_language(feature: statistics_pb2.FeatureNameStatistics) -> statistics_pb2.NaturalLanguageStatistics:
    """Returns the word statistics of a text column; empty ones for other features."""
    result = statistics_pb2.NaturalLanguageStatistics()
    for stat in feature.custom_stats:
        if stat.name == "nl_statistics":
            stat.any.Unpack(result)
    return result


def label_counts(feature: statistics_pb2.FeatureNameStatistics) -> dict[str, float]:
    """Returns label -> number of rows of a label column, most frequent first; empty for other columns."""
    return _counts(feature.string_stats.rank_histogram)


def ranked_counts(feature: statistics_pb2.FeatureNameStatistics, name: str) -> dict[str, float]:
    """Returns script or language -> number of texts, most frequent first; `name` is "scripts" or "languages"."""
    return _counts(next((s.rank_histogram for s in feature.custom_stats if s.name == name), None))


def languages_of(statistics: ExampleStatistics, split: str = "train") -> dict[str, dict[str, float]]:
    """Returns column -> language (ISO 639-1) -> number of texts, most frequent first, of a sample of a split.

    Only texts whose language was identified with confidence are counted; columns without any are omitted.
    """
    features = features_by_name(read_statistics(statistics, split))
    counts = {column: ranked_counts(feature, "languages") for column, feature in features.items()}
    return {column: languages for column, languages in counts.items() if languages}


def _counts(histogram: statistics_pb2.RankHistogram | None) -> dict[str, float]:
    return {bucket.label: bucket.sample_count for bucket in histogram.buckets} if histogram else {}
