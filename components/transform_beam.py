"""What Transform runs on Beam's workers: words counted, tokenizers learned, texts turned into ids.

Comes in: shards of Examples. Goes out: tokenizers, then shards of TransformedExamples.
Read next: transform_text.py for the work itself, models/dataset.py for what reads the ids.

TensorFlow is imported by what is called here: where the workers are other processes, this one has no need of it.
"""

import collections
import os
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence

import apache_beam as beam

from models.config import TokenizerConfig

if typing.TYPE_CHECKING:
    from components.transform import Preprocessing

WordCounts = tuple[str, collections.Counter]  # of one tokenizer, by its name


class LearnTokenizers(beam.PTransform):
    """Paths of shards of the train split -> {"name", "vocab_size", "error"} of each tokenizer, learned and written.

    Args:
        columns: name of a tokenizer -> the columns it is learned from. The name is its folder, "" for `uri` itself.
        config: of each.
        uri: folder of the Tokenizer artifact.
    """

    def __init__(self, columns: Mapping[str, Sequence[str]], config: TokenizerConfig, uri: str):
        super().__init__()
        self._columns, self._config, self._uri = columns, config, uri

    def expand(self, paths: beam.PCollection) -> beam.PCollection:
        """Returns one element a tokenizer; its error is empty unless none could be learned."""
        return (
            paths
            | beam.Reshuffle()
            | beam.ParDo(CountWords(self._columns))
            | beam.CombinePerKey(AddCounters())
            | beam.ParDo(LearnTokenizer(self._config, self._uri))
        )


class CountWords(beam.DoFn):
    """Path of a shard -> for each tokenizer the Counter of its words, those between white space.

    Args:
        columns: as for LearnTokenizers.
    """

    def __init__(self, columns: Mapping[str, Sequence[str]]):
        self._columns = columns

    def process(self, path: str) -> Iterator[WordCounts]:
        from components.transform_text import count_words

        yield from count_words(path, self._columns).items()


class LearnTokenizer(beam.DoFn):
    """(name of a tokenizer, its words) -> {"name", "vocab_size", "error"}; the tokenizer is written.

    Args:
        config, uri: as for LearnTokenizers.
    """

    def __init__(self, config: TokenizerConfig, uri: str):
        self._config, self._uri = config, uri

    def process(self, element: WordCounts) -> Iterator[dict]:
        from components.remote_files import filled_folder
        from models.tokenizer import learn_tokenizer

        name, words = element
        folder, size, reason = os.path.join(self._uri, name) if name else self._uri, 0, ""
        try:
            with filled_folder(folder) as here:
                size = learn_tokenizer(words.items(), self._config, here)
        except ValueError as error:
            reason = str(error)
        yield {"name": name, "vocab_size": size, "error": reason}


class CountLabels(beam.DoFn):
    """(split, path of a shard) -> (split, {label: rows}).

    Args:
        column: of the labels.
    """

    def __init__(self, column: str):
        self._column = column

    def process(self, element: tuple[str, str]) -> Iterator[tuple[str, dict[str, int]]]:
        from components.transform_text import count_labels

        split, path = element
        yield split, dict(count_labels(path, self._column))


class AddCounters(beam.CombineFn):
    """Adds up Counters. One worker holds them all in the end, as SentencePiece must, too."""

    def create_accumulator(self) -> collections.Counter:
        return collections.Counter()

    def add_input(self, accumulator: collections.Counter, counter: collections.Counter) -> collections.Counter:
        accumulator.update(counter)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[collections.Counter]) -> collections.Counter:
        result = collections.Counter()
        for accumulator in accumulators:
            result.update(accumulator)
        return result

    def extract_output(self, accumulator: collections.Counter) -> collections.Counter:
        return accumulator


class WriteIds(beam.DoFn):
    """(split, path of a shard, path to write) -> the shard with ids for texts, in the same order; yields its counts.

    Args:
        preprocessing, labels, tokenizer_uri: as for IdWriter.
    """

    def __init__(self, preprocessing: "Preprocessing", labels: dict[str, list[str]], tokenizer_uri: str):
        self._settings = preprocessing, labels, tokenizer_uri

    def setup(self) -> None:
        # Made with the first shard, and then kept: a worker may be set up before the tokenizer has been learned.
        self._writer = None

    def process(self, element: tuple[str, str, str], learned: Sequence[dict] = ()) -> Iterator[dict]:
        """Writes one shard, and yields its split with what IdWriter.write returns.

        Args:
            element: see above.
            learned: what LearnTokenizers returned; nothing is written if a tokenizer is missing.
        """
        from components.transform_text import IdWriter

        if any(found["error"] for found in learned):
            return
        split, source, target = element
        self._writer = self._writer or IdWriter(*self._settings)
        yield {"split": split, **self._writer.write(source, target)}


def transformed_path(uri: str, source: str) -> str:
    """Returns where the ids of a shard of Examples go: the same split, number and total."""
    folder, name = os.path.split(source)
    return os.path.join(uri, os.path.basename(folder), name.replace("data_tfrecord", "transformed_examples"))
