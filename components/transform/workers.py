"""The Beam transforms of Transform: counting words, learning tokenizers, writing ids."""

import collections
import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import ModuleType

import apache_beam as beam

from seq2serve.components.tasks.sizing import choose_vocab_size
from seq2serve.components.transform.preprocessing import Preprocessing
from seq2serve.models.config import TokenizerConfig

WordCounts = tuple[str, collections.Counter]  # the name of a tokenizer and its words


def _ids() -> ModuleType:
    # Imports TensorFlow, which the process that launches the pipeline does not need if the workers are other processes.
    from seq2serve.components.transform import ids

    return ids


class LearnTokenizers(beam.PTransform):
    """Paths of train shards -> a result per tokenizer, {"name", "vocab_size", "wanted", "error", "notice"}.

    It writes the tokenizers.

    Args:
        columns: name of a tokenizer -> the columns that it is learned from. The name is its folder; "" is `uri` itself.
        config: kind and size of each; a size of 0 is chosen from the words.
        uri: folder of the Tokenizer artifact.
        for_labels: whether the texts are classified, for that choice.
    """

    def __init__(self, columns: Mapping[str, Sequence[str]], config: TokenizerConfig, uri: str, for_labels: bool):
        super().__init__()
        self._columns, self._config, self._uri, self._for_labels = columns, config, uri, for_labels

    def expand(self, paths: beam.PCollection) -> beam.PCollection:
        """Returns one element per tokenizer; `error` is empty unless learning failed."""
        return (
            paths
            | beam.Reshuffle()
            | beam.ParDo(CountWords(self._columns, self._config.whitespace == "keep"))
            | beam.CombinePerKey(add_counters)
            | beam.ParDo(LearnTokenizer(self._config, self._uri, self._for_labels))
        )


class CountWords(beam.DoFn):
    """Path of a shard -> (name of a tokenizer, Counter of its words), for each tokenizer.

    Args:
        columns: as for LearnTokenizers.
        with_spaces: whether runs of spaces are words, too.
    """

    def __init__(self, columns: Mapping[str, Sequence[str]], with_spaces: bool):
        self._columns, self._with_spaces = columns, with_spaces

    def process(self, path: str) -> Iterator[WordCounts]:
        yield from _ids().count_words(path, self._columns, self._with_spaces).items()


class LearnTokenizer(beam.DoFn):
    """(name of a tokenizer, Counter of its words) -> the result, see LearnTokenizers; writes the tokenizer.

    Args:
        config, uri, for_labels: as for LearnTokenizers.
    """

    def __init__(self, config: TokenizerConfig, uri: str, for_labels: bool):
        self._config, self._uri, self._for_labels = config, uri, for_labels

    def process(self, element: WordCounts) -> Iterator[dict]:
        name, words = element
        folder = os.path.join(self._uri, name) if name else self._uri
        size = self._config.vocab_size or choose_vocab_size(words, self._for_labels)
        config = dataclasses.replace(self._config, vocab_size=size)
        yield {"name": name, **_ids().learn_from_words(words, config, folder)}


class CountLabels(beam.DoFn):
    """(split, path of a shard) -> (split, {label: number of rows}).

    Args:
        column: name of the label column.
    """

    def __init__(self, column: str):
        self._column = column

    def process(self, element: tuple[str, str]) -> Iterator[tuple[str, dict[str, int]]]:
        split, path = element
        yield split, dict(_ids().count_labels(path, self._column))


def add_counters(counters: Iterable[collections.Counter]) -> collections.Counter:
    """Sums Counters. In the end one worker holds all distinct words, as SentencePiece does anyway."""
    result = collections.Counter()
    for counter in counters:
        result.update(counter)
    return result


class WriteIds(beam.DoFn):
    """(split, path of a shard, path to write) -> counts; writes the shard with ids, rows in the same order.

    Args:
        preprocessing, labels, tokenizer_uri: as for IdWriter.
    """

    def __init__(self, preprocessing: Preprocessing, labels: dict[str, list[str]], tokenizer_uri: str):
        self._settings = preprocessing, labels, tokenizer_uri

    def setup(self) -> None:
        # Created with the first shard: a worker may be set up before the tokenizer is learned.
        self._writer = None

    def process(self, element: tuple[str, str, str], learned: Sequence[dict] = ()) -> Iterator[dict]:
        """Writes a shard. Yields its split and the counts of IdWriter.write.

        Args:
            element: see above.
            learned: results of LearnTokenizers; if one has an error, nothing is written.
        """
        if any(result["error"] for result in learned):
            return
        split, source, target = element
        self._writer = self._writer or _ids().IdWriter(*self._settings)
        yield {"split": split, **self._writer.write(source, target)}


def transformed_path(uri: str, source: str) -> str:
    """Returns the path for the ids of a shard of Examples: same split, shard number and number of shards."""
    folder, name = os.path.split(source)
    return os.path.join(uri, os.path.basename(folder), name.replace("data_tfrecord", "transformed_examples"))
