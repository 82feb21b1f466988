"""`seq2serve.load`: a SavedModel as a Python function, on TensorFlow's C++ runtime, without Python TensorFlow."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from seq2serve.components.base.errors import UserError
from seq2serve.models.runtime.runtime import TensorFlowError
from seq2serve.models.runtime.saved_model import SERVING_DEFAULT, Signature
from seq2serve.pipeline.serving.location import load_runtime, saved_model

if TYPE_CHECKING:  # it imports much more than a model needs
    from seq2serve._run import Run

BATCH_ROWS = 32  # texts that are answered together; more gain little and take more memory
_CONFIG = "assets.extra/config.json"
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
        self._config = _read_config(folder)

    @property
    def signatures(self) -> dict[str, Signature]:
        """Returns signature name -> its inputs and outputs, each name -> dtype and shape."""
        return self._runtime.signatures

    @overload
    def __call__(self, text: str, **options: Any) -> Any: ...
    @overload
    def __call__(self, text: Sequence[str], **options: Any) -> list[Any]: ...
    def __call__(self, text: str | Sequence[str], *, n_best: int | None = None, **options: Any) -> Any:
        """Answers texts: a translation, a label or a continuation for each.

        Args:
            text: one text or several.
            n_best: of a translator, the number of translations for each text, best first; at most its beam size.
            **options: inputs of the signature `sample`, for all texts or one value for each: temperature, top_k, top_p,
                max_new_tokens, seed. Those that are left out are as in `serving_default`.
        Returns:
            For one text its answer, for several a list of answers. An answer is a string, with `n_best` a list of them.
        Raises:
            UserError: the model has no such option or signature, or a value is out of range.
        """
        texts = [text] if isinstance(text, str) else list(text)
        if n_best is not None:
            answers = self._n_best(texts, n_best, options)
        else:
            signature = "sample" if options else SERVING_DEFAULT
            inputs = {"text": texts, **(self._options(len(texts), options) if options else {})}
            answers = self._rows(signature, inputs, _answer_name(self._signature(signature)))
        return answers[0] if isinstance(text, str) else answers

    def predict(self, text: str | Sequence[str]) -> Any:
        """Returns every output of `serving_default`: a dict for one text, a list of dicts for several."""
        texts = [text] if isinstance(text, str) else list(text)
        rows = self._outputs(SERVING_DEFAULT, {"text": texts})
        return rows[0] if isinstance(text, str) else rows

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
        return self._by_row("score", texts)

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
        rows = self._by_row("attention", pairs)
        return [_unpadded(row) for row in rows] if isinstance(rows, list) else _unpadded(rows)

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
            raise UserError(
                f"{self.name} cannot answer: {error}", code="inputs-invalid", signature=signature
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

    def _n_best(self, texts: list[str], number: int, options: Mapping[str, Any]) -> list[list[str]]:
        self._signature("n_best")
        if options:
            raise UserError(
                f"n_best cannot be combined with {', '.join(options)}",
                code="option-unknown",
                option=next(iter(options)),
            )
        rows = self._rows("n_best", {"text": texts}, "translations")
        most = min(map(len, rows), default=number)
        if not 1 <= number <= most:
            raise UserError(
                f"n_best must be between 1 and the model's beam size, {most}, got {number}",
                code="option-out-of-range",
                option="n_best",
            )
        return [row[:number] for row in rows]

    def _options(self, rows: int, options: Mapping[str, Any]) -> dict[str, list]:
        """Returns a value per row for every option of `sample`."""
        names = [name for name in self._signature("sample").inputs if name != "text"]
        if unknown := next((name for name in options if name not in names), None):
            raise UserError(
                f"{self.name} has no option {unknown!r}; it has {', '.join(names)}",
                code="option-unknown",
                option=unknown,
            )
        # As `serving_default` sets them, see models/export/language_model.py.
        defaults = {"top_k": 0, "seed": 0, **self._config.get("decoding", {})}
        values = {name: options.get(name, defaults.get(name)) for name in names}
        return {name: _per_row(name, value, rows) for name, value in values.items()}

    def _by_row(self, signature: str, texts: Any) -> Any:
        names = list(self._signature(signature).inputs)
        is_one = isinstance(texts, str | Mapping) or (isinstance(texts, tuple) and len(names) > 1)
        rows = [_row(names, row) for row in ([texts] if is_one else texts)]
        outputs = self._outputs(signature, {name: [row[name] for row in rows] for name in names})
        return outputs[0] if is_one else outputs

    def _rows(self, signature: str, inputs: Mapping[str, Sequence], output: str) -> list[Any]:
        return [row[output] for row in self._outputs(signature, inputs)]

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


def _read_config(folder: str) -> dict[str, Any]:
    """Returns what the export recorded of the model; empty for a SavedModel from elsewhere."""
    try:
        with open(os.path.join(folder, _CONFIG), encoding="utf-8") as file:
            return json.load(file)
    except OSError:
        return {}


def _answer_name(signature: Signature) -> str:
    """Returns the output that is the answer: the one that is a string per row."""
    strings = [
        name for name, spec in signature.outputs.items() if spec.dtype == "string" and len(spec.shape or ()) == 1
    ]
    if len(strings) != 1:
        raise UserError(
            f"the model has {len(strings)} outputs of one string per text, so none is the answer; use `predict`",
            code="answer-ambiguous",
        )
    return strings[0]


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
