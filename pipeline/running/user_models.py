"""The tokenizers and models that a person passes to a run, as patterns of their files."""

import glob
import os
from pathlib import Path

from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen.formats import parse_roles


def tokenizer_files(tokenizer: str) -> str:
    """Returns the pattern of the files of a tokenizer, with their roles if there is one per column; empty for none.

    Args:
        tokenizer: a Tokenizer's folder, a SentencePiece model, or one per column such as source=DIR,target=DIR.
    """
    roles = [(role.column, Path(role.pattern)) for role in (parse_roles(tokenizer) if tokenizer else ())]
    if [column for column, _ in roles] == [""] and not (roles[0][1] / "tokenizer.json").exists():
        # The folder of a Tokenizer that has a folder per column.
        roles = [(path.parent.name, path.parent) for path in sorted(roles[0][1].glob("*/tokenizer.json"))] or roles
    patterns = [(column, f"{glob.escape(str(path))}/*" if path.is_dir() else path) for column, path in roles]
    return ",".join(f"{column}={pattern}" if column else str(pattern) for column, pattern in patterns)


def model_files(folder: str | os.PathLike[str] | None) -> str:
    """Returns the pattern of the files of a Model, or of its Format-Keras, to start from; empty for None.

    Raises:
        UserError: the folder has no weights, no configuration or no tokenizer.
    """
    if folder is None:
        return ""
    folder = Path(folder)
    for candidate in (folder / "Format-Keras", folder):
        is_complete = all((candidate / name).is_file() for name in ("config.json", "model.weights.h5"))
        if is_complete and any((candidate / "tokenizer").glob("**/tokenizer.json")):
            return f"{glob.escape(str(candidate))}/**"
    raise UserError(
        f"no model to start from in {folder}: pass the folder of a Trainer's model, such as runs/Trainer/model/7, "
        f"which has weights and tokenizer in its Format-Keras; a pushed version has neither",
        code="model-missing",
        path=str(folder),
    )
