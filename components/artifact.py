"""Artifact and its types: what components hand to each other, on disk.

Comes in: a folder that a component has filled. Goes out: a typed, immutable reference to it.
Read next: component.py, which names these types in signatures. Each docstring below is the layout on disk;
names of types, folders and files are TFX's wherever TFX has one.
"""

import dataclasses
import importlib
import os
from typing import ClassVar

SPLITS = ("train", "eval", "test")


@dataclasses.dataclass
class Artifact:
    """A typed folder with properties.

    Of what lies on an object store, `read_in_place` says whether components read it there, shard by shard, or are given
    a copy; `compared`, whether components look for earlier ones beside it, so that the runner brings those, too.

    Args:
        uri: the folder, or its URL (or, for RawFiles, the user's path).
        properties: JSON values a reader wants without opening the folder. A component sets them on its outputs
            while it runs; once the runner has published the artifact nothing may change it.
        fingerprint: hex SHA-256 of what the artifact is made from; set by the runner.
        id: the MetadataStore's number; 0 until published.
    """

    uri: str
    properties: dict = dataclasses.field(default_factory=dict)
    fingerprint: str = ""
    id: int = 0
    read_in_place: ClassVar[bool] = False
    compared: ClassVar[bool] = False

    def path(self, *parts: str) -> str:
        """Returns the path of a file or folder inside the artifact."""
        return os.path.join(self.uri, *parts)

    def exists(self) -> bool:
        """Returns whether what was published is still there, so that it may be reused."""
        if not is_remote(self.uri):
            return os.path.isdir(self.uri)
        # No import statement: fingerprints follow those, and every component imports this file.
        return importlib.import_module("components.remote_files").has_files(self.uri)


def is_remote(uri: str) -> bool:
    """Returns whether this is a URL such as gs://bucket/runs, and no path."""
    return "://" in uri


class RawFiles(Artifact):
    """The user's own files, where they are: never copied, never changed.

    `uri` is the path, pattern or roles as the user gave them. properties: `files`, a list of {"path", "bytes",
    "sha256"} and, where given, {"split", "column"}. Its fingerprint is made of the files' contents, formats and roles,
    so a file renamed within its format changes nothing.
    """

    def exists(self) -> bool:
        """Returns True: the content was hashed when this run began."""
        return True


class SchemaFile(RawFiles):
    """A schema.pbtxt that the user keeps."""


class TokenizerFiles(RawFiles):
    """A tokenizer that the user brings: a Tokenizer's folder, or a SentencePiece model."""


class ModelFiles(RawFiles):
    """The Format-Keras folder of an earlier Model, whose weights training starts from."""


class Examples(Artifact):
    """Rows as tf.Example records, split (TFX: Examples).

    Split-<split>/data_tfrecord-SSSSS-of-NNNNN   TFRecord of tf.Example, one bytes feature a column (UTF-8)
    rejects/rejects-SSSSS-of-NNNNN.jsonl         one object a rejected row: file, line (or row), reason, detail, text
    properties: splits (list), columns (list), source (what the user called the files), num_rows (rows read),
    num_examples {split: n}, num_rejected, num_rejected_by_reason {reason: n}; where columns are kept to tell metrics
    apart by, slice_columns (list).
    """

    read_in_place = True


class ExampleStatistics(Artifact):
    """Statistics of Examples (TFX: ExampleStatistics).

    Split-<split>/FeatureStats.pb   serialised tensorflow_metadata DatasetFeatureStatisticsList, one dataset
    source.txt                      what the user called the files; drift is looked for between runs of the same
    properties: splits.
    """

    compared = True


class Schema(Artifact):
    """What the data should look like (TFX: Schema).

    schema.pbtxt   tensorflow_metadata Schema as text, made to be read, edited and kept in version control
    """


class ExampleAnomalies(Artifact):
    """Where the statistics break the schema (TFX: ExampleAnomalies).

    Split-<split>/SchemaDiff.pb   serialised tensorflow_metadata Anomalies
    properties: num_anomalies {split: n}, warnings (a line each).
    """


class Tokenizer(Artifact):
    """A tokenizer that works inside a TensorFlow graph (TFX: TransformGraph).

    tokenizer.json   kind and settings; see models/tokenizer.py
    spm.model        the SentencePiece model, of kinds "sentencepiece", "characters" and "bytes"
    wordpieces.json  the pieces, of kind "wordpiece"
    vocabulary.tsv   piece, id; for people
    properties: kind, vocab_size.

    Where columns have a tokenizer each, they are in folders named like the columns, and `vocab_size` is {column: n}.
    """


class TransformedExamples(Artifact):
    """Token ids, ready for training (TFX: Examples, transformed).

    Split-<split>/transformed_examples-SSSSS-of-NNNNN   TFRecord of tf.Example, one int64 list feature a text
        column, named <column>_ids, without begin and end markers; a label column's list holds one number
    properties: splits, num_examples {split: n}, num_truncated {column: n}, num_dropped, max_length (tokens),
    token_lengths {column: {"median", "p99", "max", "total"}} before anything was cut; where there is a label
    column, label_counts {column: {label: rows of the train split}}, in the order of the labels' ids.
    """


class Model(Artifact):
    """A trained model.

    Format-Serving/         the SavedModel: strings in, strings out; see models/export.py
    Format-Keras/           config.json, model.weights.h5 and tokenizer/ (a Tokenizer), to go on from
    properties: num_parameters; steps; exported_steps, of the checkpoints whose weights were averaged; eval_<metric>, on
    the eval split; where it was warm-started, warm_start {"taken", "fresh", "unused"},
    see models/warm_start.py.
    """


class ModelRun(Artifact):
    """What training left for people (TFX: ModelRun).

    logs/   TensorBoard event files
    """


class ModelEvaluation(Artifact):
    """How good the exported model is (TFX: ModelEvaluation).

    metrics.json        {"model": {metric: value}, "baseline": {...} (the one to beat), "baselines": {name: {...}},
        "intervals": {"model": {metric: [lower, upper]}, "baselines": {name: {...}}} of 95 % (see bootstrap.py),
        "slices": [{"by", "name", "num_examples", "model", "baseline", "intervals"}] (see slices.py),
        "examples": {"quality": what it is, "worst": [{column: text, "prediction", "quality"}], "best": [...]},
        "signature": {...}, "tables": [...] (see task.Table), "num_examples": n}
    predictions.jsonl   one object a test example: its columns, and its prediction or what the model said of it
    properties: what is in metrics.json.
    """

    compared = True


class ModelBlessing(Artifact):
    """The Evaluator's word on a model (TFX: ModelBlessing).

    BLESSED or NOT_BLESSED   a JSON object that says why
    properties: blessed (bool), reason; where an earlier blessed model was asked the same, last_blessed: a
    bootstrap.Comparison with it, its "evaluation" (number), and its headline in each of the ModelEvaluation's "slices".
    """

    compared = True


class InfraBlessing(Artifact):
    """The InfraValidator's word on a model (TFX: InfraBlessing).

    INFRA_BLESSED or INFRA_NOT_BLESSED   a JSON object with every check, what it saw, load time and latency
    properties: blessed (bool), reason.
    """


class PushedModel(Artifact):
    """The record of a push (TFX: PushedModel).

    pushed.json   {"destination": folder of the version, "version": n}
    properties: pushed_destination, pushed_version.
    """

    def exists(self) -> bool:
        """Returns whether both the record and the pushed version are still there.

        Only where that is an object store, this imports TensorFlow, which reaches it.
        """
        store = importlib.import_module("components.serving_store")
        version = self.properties.get("pushed_destination", "")
        return super().exists() and store.open_store(version).has(store.GRAPH_FILE)


class InferenceResult(Artifact):
    """Predictions of BulkInferrer (TFX: InferenceResult).

    predictions-SSSSS-of-NNNNN.jsonl   one object a row: key, the columns, the outputs (predicted_<name> where a column
        has that name)
    failures-SSSSS-of-NNNNN.jsonl      one object a failed row: key, reason
    """
