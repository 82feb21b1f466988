"""`seq2serve.load`: a SavedModel as a Python function, on TensorFlow's C++ runtime, without Python TensorFlow."""

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from seq2serve.components.base.errors import UserError
from seq2serve.models.runtime.answers import (
    FINISH_REASONS,
    answer_names,
    count_cuts,
    default_options,
    describe_cuts,
)
from seq2serve.models.runtime.runtime import TensorFlowError
from seq2serve.models.runtime.saved_model import SERVING_DEFAULT, Signature
from seq2serve.pipeline.serving.location import load_runtime, saved_model

if TYPE_CHECKING:  # it imports much more than a model needs
    from seq2serve._run import Run

BATCH_ROWS = 32  # texts that are answered together; more gain little and take more memory
Pair = tuple[str, str] | Mapping[str, str]


def load(model: "str | os.PathLike[str] | Run", version: int | str | None = None) -> "LoadedModel":
    """Loads a model that answers as the model server would: strings in, strings out.

    Args:
        model: a serving folder such as "serving/translation", a SavedModel, a Trainer's model, or a URL such as
            gs://bucket/models/en_de of one of these; or a Run.
        version: number or label of a version in a serving folder; "stable" is the newest, which is the default.
    Returns:
        A LoadedModel, to be called with texts.
    Raises:
        UserError: there is no SavedModel or no such version, or the runtime cannot load it.
    """
    path = os.fspath(model) if isinstance(model, str | os.PathLike) else model.model
    with saved_model(path, version) as folder:
        return LoadedModel(folder, path)


class LoadedModel:
    """A SavedModel, ready to answer. It may be called from several threads at once.

    Args:
        folder: of the SavedModel, on this machine.
        name: what error messages call it; the folder if empty.
    Raises:
        UserError: the runtime cannot load it.
    """

    def __init__(self, folder: str, name: str = ""):
        self.name = name or folder
        self._runtime = load_runtime(folder, self.name)
        self._defaults = {name: default_options(folder, name) for name in self.signatures}

    @property
    def signatures(self) -> dict[str, Signature]:
        """Returns signature name -> its inputs and outputs, each name -> dtype and shape."""
        return self._runtime.signatures

    @overload
    def __call__(self, text: str, **options: Any) -> Any: ...
    @overload
    def __call__(self, text: Sequence[str], **options: Any) -> list[Any]: ...
    def __call__(self, text: str | Sequence[str], **options: Any) -> Any:
        """Answers texts: a translation, a label or a continuation for each.

        It warns (UserWarning) if texts were cut because they are too long, or answers at the maximum length.

        Args:
            text: one text or several.
            **options: inputs of the signature with options, for all texts or one value for each. Of a translator, these
                are those of `translate`: beam_size, n_best, length_penalty, min_length, max_length; of a language
                model, those of `sample`: temperature, top_k, top_p, max_new_tokens, seed. Those that are left out are
                as in `serving_default`.
        Returns:
            For one text its answer, for several a list of answers. An answer is a string; with `n_best` it is a list of
            at most that many different strings, best first.
        Raises:
            UserError: the model has no such option, or a value is out of range.
        """
        texts = [text] if isinstance(text, str) else list(text)
        signature = self._signature_with(options) if options else SERVING_DEFAULT
        rows = self._outputs(signature, {"text": texts, **self._options(signature, len(texts), options)})
        _warn_of_cuts(rows, stacklevel=3)
        answers = _answers(self._signature(signature), rows)
        if "n_best" not in options:
            answers = [answer[0] if isinstance(answer, list) else answer for answer in answers]
        return answers[0] if isinstance(text, str) else answers

    def predict(self, text: str | Sequence[str]) -> Any:
        """Returns every output of `serving_default`: a dict for one text, a list of dicts for several."""
        rows, is_one = self._by_row(SERVING_DEFAULT, text)
        return rows[0] if is_one else rows

    def score(self, texts: "str | Pair | Sequence[str] | Sequence[Pair]") -> Any:
        """Scores texts, or of a translator pairs of source and target.

        Args:
            texts: a text or several; of a translator, a pair or several, each (source, target) or a dict of both.
        Returns:
            The outputs of the signature `score` such as log_probability (nats) and tokens: a dict for one, a list of
            dicts for several.
        Raises:
            UserError: the model has no signature `score`, or a pair is incomplete.
        """
        rows, is_one = self._by_row("score", texts)
        return rows[0] if is_one else rows

    def embed(self, text: str | Sequence[str]) -> np.ndarray:
        """Embeds texts with the encoder of a classifier, for semantic search or clustering.

        Args:
            text: one text or several.
        Returns:
            float32 [D] for one text, [texts, D] for several; each of length 1, so that a dot product is a cosine.
        Raises:
            UserError: the model has no signature `embed`.
        """
        rows, is_one = self._by_row("embed", text)
        if not rows:
            return self.run("embed", {"text": []})["embedding"]
        return rows[0]["embedding"] if is_one else np.stack([row["embedding"] for row in rows])

    def attention(self, pairs: "Pair | Sequence[Pair]") -> Any:
        """Returns a translator's cross-attention between source and target tokens.

        Args:
            pairs: a pair or several, each (source, target) or a dict of both.
        Returns:
            {"source_tokens": list of S pieces, "target_tokens": list of T pieces, "attention": float32 [layers, heads,
            T, S]}, without padding; a list of them for several pairs.
        Raises:
            UserError: the model has no signature `attention`, or a pair is incomplete.
        """
        rows, is_one = self._by_row("attention", pairs)
        maps = [_unpadded(row) for row in rows]
        return maps[0] if is_one else maps

    def run(self, signature: str, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Calls a signature with arrays, in one batch.

        Args:
            signature: its name.
            inputs: input name -> array or nested list; dimension 0 is the batch.
        Returns:
            Output name -> array; strings as an object array of bytes.
        Raises:
            UserError: the signature does not exist, inputs do not fit it, or the graph failed.
        """
        try:
            return self._runtime.run(signature, inputs)
        except (ValueError, TensorFlowError) as error:
            reason = str(error).partition("\n")[0]  # the rest names nodes of the graph
            raise UserError(
                f"{self.name} cannot answer: {reason}", code="inputs-invalid", signature=signature
            ) from error

    def close(self) -> None:
        """Frees the model; a second call does nothing."""
        self._runtime.close()

    def __enter__(self) -> "LoadedModel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"LoadedModel({self.name!r}, signatures={list(self.signatures)})"

    def _signature(self, name: str) -> Signature:
        if name not in self.signatures:
            raise UserError(
                f"{self.name} has no signature {name!r}; it has {', '.join(self.signatures)}",
                code="signature-missing",
                signature=name,
            )
        return self.signatures[name]

    def _signature_with(self, options: Mapping[str, Any]) -> str:
        """Returns the name of the signature that takes texts with these options."""
        known = {name: list(signature.inputs) for name, signature in self.signatures.items()}
        known = {name: inputs for name, inputs in known.items() if "text" in inputs and len(inputs) > 1}
        names = [option for inputs in known.values() for option in inputs if option != "text"]
        if unknown := next((option for option in options if option not in names), None):
            raise UserError(
                f"{self.name} has no option {unknown!r}; it has {', '.join(names) or 'none'}",
                code="option-unknown",
                option=unknown,
            )
        return next(name for name, inputs in known.items() if set(options) <= set(inputs))

    def _options(self, signature: str, rows: int, options: Mapping[str, Any]) -> dict[str, list]:
        """Returns a value per row for every option of a signature."""
        names = [name for name in self._signature(signature).inputs if name != "text"]
        values = {name: options.get(name, self._defaults[signature].get(name)) for name in names}
        return {name: _per_row(name, value, rows) for name, value in values.items()}

    def _by_row(self, signature: str, texts: Any) -> tuple[list[dict[str, Any]], bool]:
        """Returns the outputs for each row, and whether there is only one, outside of a list; warns of cuts."""
        names = list(self._signature(signature).inputs)
        is_one = isinstance(texts, str | Mapping) or (isinstance(texts, tuple) and len(names) > 1)
        inputs = [_row(names, row) for row in ([texts] if is_one else texts)]
        rows = self._outputs(signature, {name: [row[name] for row in inputs] for name in names})
        _warn_of_cuts(rows, stacklevel=4)
        return rows, is_one

    def _outputs(self, signature: str, inputs: Mapping[str, Sequence]) -> list[dict[str, Any]]:
        """Returns a dict of outputs for each row; texts of similar length are answered together."""
        number = len(next(iter(inputs.values())))
        lengths = [sum(len(str(values[i])) for values in inputs.values()) for i in range(number)]
        order = sorted(range(number), key=lengths.__getitem__)
        rows: list[dict[str, Any]] = [{} for _ in range(number)]
        for first in range(0, number, BATCH_ROWS):
            chosen = order[first : first + BATCH_ROWS]
            answers = self.run(signature, {name: [values[i] for i in chosen] for name, values in inputs.items()})
            for position, index in enumerate(chosen):
                rows[index] = {name: _plain(values[position]) for name, values in answers.items()}
        return rows


def _answers(signature: Signature, rows: list[dict[str, Any]]) -> list[Any]:
    """Returns the answer of each row: the output of one string per text or, if there is none, of several."""
    names = answer_names(signature) or answer_names(signature, rank=2)
    if len(names) != 1:
        raise UserError(
            f"the model has {len(names)} outputs of strings, so none is the answer; use `predict`",
            code="answer-ambiguous",
        )
    if FINISH_REASONS not in signature.outputs:
        return [row[names[0]] for row in rows]
    # A place without an answer has no finish reason.
    return [
        [answer for answer, reason in zip(row[names[0]], row[FINISH_REASONS], strict=True) if reason] for row in rows
    ]


def _warn_of_cuts(rows: list[dict[str, Any]], stacklevel: int) -> None:
    """Warns the caller of a method of LoadedModel, `stacklevel` frames above, if texts or answers were cut."""
    columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
    for sentence in describe_cuts(*count_cuts(columns), len(rows)):
        warnings.warn(sentence, UserWarning, stacklevel=stacklevel)


def _row(names: list[str], row: Any) -> dict[str, str]:
    values = (
        [row] if isinstance(row, str) else [row.get(name) for name in names] if isinstance(row, Mapping) else [*row]
    )
    if len(values) != len(names) or not all(isinstance(value, str) for value in values):
        raise UserError(f"expected {' and '.join(names)}, all of them texts, got {row!r}", code="inputs-invalid")
    return dict(zip(names, values, strict=True))


def _per_row(name: str, value: Any, rows: int) -> list:
    values = list(value) if isinstance(value, Sequence | np.ndarray) else [value] * rows
    if len(values) != rows or any(one is None for one in values):
        raise UserError(
            f"option {name} must be a number, or one for each of {rows} texts, got {value!r}",
            code="option-out-of-range",
            option=name,
        )
    return values


def _plain(value: Any) -> Any:
    """Returns a text, a number or nested lists of texts; arrays of numbers stay arrays."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.ndarray) and value.dtype == object:
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _unpadded(row: dict[str, Any]) -> dict[str, Any]:
    source, target = row["source_length"], row["target_length"]
    return {
        "source_tokens": row["source_tokens"][:source],
        "target_tokens": row["target_tokens"][:target],
        "attention": row["attention"][:, :, :target, :source],
    }
