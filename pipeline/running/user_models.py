"""The tokenizers and models that a person passes to a run, as patterns of their files."""

import glob
import os
from pathlib import Path

from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen.formats import parse_roles


def user_models(tokenizer: str, warm_start: str | os.PathLike[str] | None, with_optimizer: bool) -> dict[str, str]:
    """Returns the arguments `tokenizer` and `warm_start` of `make_pipeline`, patterns of files; empty for none.

    Args:
        tokenizer: a Tokenizer's folder, a SentencePiece model, or one per column such as source=DIR,target=DIR. If it
            is empty, a warm start uses the tokenizer of the earlier model.
        warm_start: folder of the Model, or of its Format-Keras, whose weights training starts from.
        with_optimizer: whether it starts from the state of the earlier model's optimizer, too.
    Raises:
        UserError: the folder has no weights, no configuration, no tokenizer, or no optimizer state where one is needed.
    """
    if warm_start is None:
        if with_optimizer:
            raise UserError(
                "setting training.warm_start_optimizer needs an earlier model: pass its folder with --warm-start",
                code="warm-start-missing",
                setting="training.warm_start_optimizer",
            )
        return {"tokenizer": _tokenizer_files(tokenizer), "warm_start": ""}
    folder = _keras_folder(Path(warm_start))
    model = f"{glob.escape(str(folder))}/**"
    if with_optimizer:
        model = f"model={model},optimizer={glob.escape(str(_checkpoints(folder)))}/ckpt-*"
    return {"tokenizer": _tokenizer_files(tokenizer or str(folder / "tokenizer")), "warm_start": model}


def _tokenizer_files(tokenizer: str) -> str:
    roles = [(role.column, Path(role.pattern)) for role in (parse_roles(tokenizer) if tokenizer else ())]
    if [column for column, _ in roles] == [""] and not (roles[0][1] / "tokenizer.json").exists():
        # The folder of a Tokenizer that has a folder per column.
        roles = [(path.parent.name, path.parent) for path in sorted(roles[0][1].glob("*/tokenizer.json"))] or roles
    patterns = [(column, f"{glob.escape(str(path))}/*" if path.is_dir() else path) for column, path in roles]
    return ",".join(f"{column}={pattern}" if column else str(pattern) for column, pattern in patterns)


def _keras_folder(folder: Path) -> Path:
    for candidate in (folder / "Format-Keras", folder):
        is_complete = all((candidate / name).is_file() for name in ("config.json", "model.weights.h5"))
        if is_complete and any((candidate / "tokenizer").glob("**/tokenizer.json")):
            return candidate
    raise UserError(
        f"no model to start from in {folder}: pass the folder of a Trainer's model, such as runs/Trainer/model/7, "
        f"which has weights and tokenizer in its Format-Keras; a pushed version has neither",
        code="model-missing",
        path=str(folder),
    )


def _checkpoints(keras_folder: Path) -> Path:
    """Returns the folder of the checkpoint after the last step of the training of a model."""
    model = keras_folder.absolute().parent
    folder = model.parent.parent / "model_run" / model.name / "checkpoints"
    if not any(folder.glob("ckpt-*.index")):
        raise UserError(
            f"no optimizer state for {keras_folder}: file not found: {folder}/ckpt-*; it is in the pipeline root in "
            "which the model was trained. Pass the model's folder there, or set training.warm_start_optimizer=false",
            code="optimizer-missing",
            path=str(folder),
        )
    return folder
