"""Artifact and its types: the folders on disk that components pass to each other.

The docstring of each type is its layout on disk. Types, folders and files have TFX's names wherever TFX has one.
"""

import dataclasses
import os
from typing import ClassVar

SPLITS = ("train", "eval", "test")
CORPUS = "corpus"  # the column with a row's corpus, if there are several
WEIGHTS = "model.weights.h5"  # in the folder of a Keras model
PRETRAINED_SERVING = "Format-Serving-Pretrained"  # in a Model
BEFORE = "pretrained_prediction"  # in a line of predictions.jsonl
WEIGHT_FILES = (".safetensors", ".bin", ".npz")  # endings of the files with weights in other formats


@dataclasses.dataclass
class Artifact:
    """A typed folder with properties.

    If `read_in_place` is True, components read artifacts on an object store there, shard by shard; otherwise they get a
    local copy.

    If `by_content` is True, the fingerprint covers the files instead of the execution that wrote them, so an execution
    with the same result re-runs nothing after it. For artifacts with splits, the property `split_fingerprints` does
    that by split, for the components that read some of them (see `component.Splits`).

    Args:
        uri: path or URL of the folder; for RawFiles, the user's path.
        properties: JSON values that a reader needs without opening the folder. A component sets them on its outputs
            while it runs. They are immutable once the runner has published the artifact.
        fingerprint: hex SHA-256 of everything that determines the content, or of the content; set by the runner.
        id: number in the MetadataStore; 0 until published.
    """

    uri: str
    properties: dict = dataclasses.field(default_factory=dict)
    fingerprint: str = ""
    id: int = 0
    read_in_place: ClassVar[bool] = False
    by_content: ClassVar[bool] = False

    def path(self, *parts: str) -> str:
        """Returns the path of a file or folder inside the artifact."""
        return os.path.join(self.uri, *parts)


class RawFiles(Artifact):
    """The user's own files in their original location; they are never copied or changed.

    `uri` is the path, pattern or roles as the user wrote them. properties: `files`, a list of {"path", "bytes",
    "sha256"} with "split", "column" and "corpus" where the user set them. The fingerprint covers the files' contents,
    formats, roles and corpora, so renaming a file within its format changes nothing unless it names a corpus.

    Of a pattern, only files whose names end in one of `suffixes` count; all without any. With `has_roles_by_name`, the
    fingerprint covers the files' names, too.
    """

    suffixes: ClassVar[tuple[str, ...]] = ()
    has_roles_by_name: ClassVar[bool] = False


class SchemaFile(RawFiles):
    """A schema.pbtxt that the user maintains."""


class TokenizerSource(Artifact):
    """A tokenizer that is used instead of learning one."""


class TokenizerFiles(RawFiles, TokenizerSource):
    """A tokenizer from the user: a Tokenizer's folder, or a SentencePiece model."""


class BaseModel(Artifact):
    """A model whose weights training starts from (TFX: base_model)."""

    @property
    def keras_folder(self) -> str:
        """Returns the path of the folder with config.json, model.weights.h5 and tokenizer/."""
        return self.path("Format-Keras")


class ModelFiles(RawFiles, BaseModel):
    """The Format-Keras folder of an earlier Model."""

    @property
    def keras_folder(self) -> str:
        """Returns the path of the folder that has the weights; other files may lie elsewhere."""
        paths = [file["path"] for file in self.properties["files"]]
        return next(os.path.dirname(path) for path in paths if os.path.basename(path) == WEIGHTS)


class PretrainedFiles(RawFiles):
    """The folder of a pretrained model in another format: weights, their configuration, and its tokenizer."""

    suffixes = (".json", ".txt", ".spm", *WEIGHT_FILES)
    has_roles_by_name = True  # such as the vocabularies of source and target


class Examples(Artifact):
    """Rows as tf.Example records, in splits (TFX: Examples).

    Split-<split>/data_tfrecord-SSSSS-of-NNNNN   TFRecord of tf.Example, one bytes feature per column (UTF-8)
    rejects/rejects-SSSSS-of-NNNNN.jsonl         one object per rejected row: file, line (or row), reason, detail, text
    properties: splits (list), split_fingerprints {split: SHA-256 of its rows, in order and by shard}, columns (list),
    source (the user's name for the files), files_read (list of {"name", "bytes", "sha256"}, see
    storage/data_records.py), num_rows (rows read), num_examples {split: n}, num_rejected, num_rejected_by_reason
    {reason: n}; if columns are stored only to slice metrics by, slice_columns (list), which only the test split has;
    with several corpora, corpora {name: {split: n}}, and every row has the name of its corpus in the column CORPUS; if
    there are any, warnings (one line each), notes (list) about how files were read or skipped, and num_dropped_by_rule
    {setting: n}. num_rows is the sum of all examples, rejected and dropped rows.

    The shards of a split with files of its own depend on these files only.
    """

    read_in_place = True


class ExampleStatistics(Artifact):
    """Statistics of Examples (TFX: ExampleStatistics).

    Split-<split>/FeatureStats.pb   serialised tensorflow_metadata DatasetFeatureStatisticsList, one dataset; with
        several corpora "All Examples" and then a dataset for each, such as "corpus_own", as TFDV names slices
    properties: splits; source, the user's name for the files: drift is computed between runs on the same files; with
    several corpora, corpora {name: {split: {"rows": n, "mean_characters": {text column: mean}, "labels": {label column:
    {label: n}}}}}; with label columns, label_counts {column: {split: {label: n}}}, the most
    frequent first, and label_conflicts {column: {"num_texts": n, "examples": {text: {label: n}}}} for equal texts with
    different labels.
    """


class Schema(Artifact):
    """The expected shape of the data (TFX: Schema).

    schema.pbtxt   tensorflow_metadata Schema as text, to be read, edited and kept in version control
    """

    by_content = True


class ExampleAnomalies(Artifact):
    """Differences between the statistics and the schema (TFX: ExampleAnomalies).

    Split-<split>/SchemaDiff.pb   serialised tensorflow_metadata Anomalies
    properties: num_anomalies {split: n}, warnings (one line each).
    """


class Tokenizer(TokenizerSource):
    """A tokenizer that runs inside a TensorFlow graph (TFX: TransformGraph).

    tokenizer.json   kind and settings; see models/tokenizers/tokenizer.py
    spm.model        the SentencePiece model, for the kinds "sentencepiece", "characters", "bytes" and "opus-mt"
    wordpieces.json  the pieces, for the kind "wordpiece"
    vocab.txt        the pieces, for the kind "bert"
    source.spm, target.spm   the SentencePiece models of both languages, for the kind "opus-mt", whose spm.model has all
        their pieces
    vocabulary.tsv   piece and id, for people
    data.json        the data that it was learned from; see storage/data_records.py
    properties: kind, vocab_size; notices, if the vocabulary differs from the settings.

    If columns have separate tokenizers, each has a folder with the column's name, and `vocab_size` is {column: n}.
    """


class TransformedExamples(Artifact):
    """Token ids, ready for training (TFX: Examples, transformed).

    Split-<split>/transformed_examples-SSSSS-of-NNNNN   TFRecord of tf.Example; one int64 list feature per text
        column, named <column>_ids, without begin and end markers; for a label column the list holds one id, and with
        several corpora corpus_ids the number of the corpus, from 0
    properties: splits (train and eval), num_examples {split: n}, num_truncated {column: n}, num_dropped (rows),
    num_long {column: n}
    (texts beyond the limit, cut or dropped with their row), max_length (tokens), token_lengths {column: {"median",
    "p99", "max", "total"}} and num_tokens {split: {column: n}} before truncation; with a label column, label_counts
    {column: {label: rows of the train split}}, in the order of the label ids; with several corpora, corpora {name: rows
    of the train split}, in the order of their numbers; data, see storage/data_records.py; settings {name: value}, those
    that were chosen from the data, and reason, one line.
    """


class HyperParameters(Artifact):
    """The settings that Tuner chose (TFX: HyperParameters).

    best_hyperparameters.json   name of a setting -> value, such as {"training.steps": 1500}
    properties: settings, the same; reason, one line.
    """

    by_content = True


class TunerResults(Artifact):
    """The trials of Tuner's search (TFX: TunerResults). Not part of HyperParameters, which counts by its content.

    trials.json       a list of trials, see tuner/trials.py; empty without a search
    logs/trial-<n>/   TensorBoard event files of a trial, for the HParams tab
    properties: trials, the same list; after a search, metric, the name of the objective, and best, the number of the
    best trial, None if none was complete.
    """


class Model(BaseModel):
    """A trained model, or the one that ModelImporter made of a pretrained one.

    Format-Serving/         the SavedModel: strings in, strings out; see models/export/
    Format-Keras/           config.json, model.weights.h5 and tokenizer/ (a Tokenizer), for further training; data.json,
        the data that it was trained on (see storage/data_records.py), with that of its base_model
    Format-Serving-Pretrained/   the SavedModel before training, if it was that of a pretrained model without new layers
    properties: recipe, the settings of model, training and decoding; num_parameters; lowercase, whether it writes lower
    case only; headline {"metric", "reason"}, which
    ranked the checkpoints (see Headline in tasks/task.py); steps; longer_training, the setting that doubles the length
    of training; exported_steps, the steps of the averaged
    checkpoints; checkpoints {"metric", "best_step", "best", "last_step", "last", "noise", "export"}, the best
    and the last evaluation; eval_<metric>, measured on the eval split; for a warm start, warm_start {"taken", "fresh",
    "unused"}, see models/training/warm_start.py; if it starts from a pretrained model, pretrained, the properties of
    the Model of ModelImporter.

    That of ModelImporter has only Format-Keras, and the properties source, licence, family, labels (of its head),
    loaded, initialised and ignored (names of weights), num_parameters and hashes {file: SHA-256}.
    """


class ModelRun(Artifact):
    """Training logs, and the state of training after its last step (TFX: ModelRun).

    logs/          TensorBoard event files
    checkpoints/   a TensorFlow checkpoint ckpt-<step>, from which a longer training or the optimizer of a warm start
        continues; kept/ has the weights of earlier checkpoints that a longer training may export
    """


class ModelEvaluation(Artifact):
    """Metrics of the exported model (TFX: ModelEvaluation).

    metrics.json        {"headline": {"metric", "reason"} (see Headline in tasks/task.py), "model": {metric: value},
        "baselines": {name: {...}}, "strongest": name, "baseline": metrics of the strongest one,
        "intervals": {"model": {metric: [lower, upper]}, "baselines": {name: {...}}} of 95 % (see tasks/bootstrap.py),
        "slices": [{"by", "name", "num_examples", "model", "baseline", "intervals"}] (see evaluator/slices.py); for
            the rows that the last blessed model answered, also "last_blessed", its metrics on them; for the others, new
            rows, "base_model", the metrics of the model that training started from, if it can be queried,
        "examples": {"quality": name of the measure, "worst": [{column: text, "prediction", "quality"}], "best": [...]},
        "signature": {...}, "tables": [...] (see ResultTable in tasks/implementation.py), "num_examples": n,
        "lowercase": whether case is ignored, because the model writes lower case only,
        "num_cut": {"texts": n, "answers": n} (see models/runtime/answers.py)}
    predictions.jsonl   one object per test example: its columns, the prediction or the model's scores for it, and
        pretrained_prediction, the answer before training of a pretrained model
    properties: the content of metrics.json.
    """


class ModelBlessing(Artifact):
    """The Evaluator's verdict on a model (TFX: ModelBlessing).

    BLESSED or NOT_BLESSED   a JSON object with the reason
    properties: blessed (bool), reason, metric (the headline), baselines {name: a bootstrap.Comparison with the model},
    of the best trivial one and the strongest one, empty if the test rows are too few; if an earlier blessed model
    answered enough of the same rows, last_blessed: a bootstrap.Comparison with that model, its "evaluation" (number),
    and its metric in each of the ModelEvaluation's "slices".
    """


class InfraBlessing(Artifact):
    """The InfraValidator's verdict on a model (TFX: InfraBlessing).

    INFRA_BLESSED or INFRA_NOT_BLESSED   a JSON object with every check, its result, load time and latency
    properties: blessed (bool), reason.
    """


class PushedModel(Artifact):
    """The record of a push (TFX: PushedModel).

    pushed.json   {"destination": folder of the version, "version": n}
    properties: pushed (bool), False if a version already had the model, so that none was added; pushed_destination and
    pushed_version, of the version that has it.
    """


class InferenceResult(Artifact):
    """Predictions of BulkInferrer (TFX: InferenceResult).

    predictions-SSSSS-of-NNNNN.jsonl   one object per row: key, the columns, the outputs (an output is named
        predicted_<name> if a column has its name)
    failures-SSSSS-of-NNNNN.jsonl      one object per failed row: key, reason
    """
