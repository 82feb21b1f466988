"""Reads the tensors in *.safetensors files, as Hugging Face's folders have them."""

import contextlib
import glob
import os
from collections.abc import Iterator

import numpy as np
import safetensors

_TENSORS = "*.safetensors"


def read_safetensors(folder: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the name and the values, float32, of every tensor of a folder.

    Raises:
        ValueError: there are none, or a file is damaged.
    """
    paths = sorted(glob.glob(os.path.join(glob.escape(folder), _TENSORS)))
    if not paths:
        pickles = [name for name in sorted(os.listdir(folder)) if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
        reason = f"; {', '.join(pickles)} may run code when it is read: convert it to safetensors" if pickles else ""
        raise ValueError(f"file not found: {folder}/{_TENSORS}{reason}")
    for path in paths:
        with _errors_of(path), safetensors.safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                yield name, file.get_tensor(name).astype(np.float32)


@contextlib.contextmanager
def _errors_of(path: str) -> Iterator[None]:
    try:
        yield
    except (safetensors.SafetensorError, TypeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
