"""Corpus: the text of a task's demo."""

import dataclasses
from collections.abc import Callable

from seq2serve.components.storage.packages import Package


@dataclasses.dataclass(frozen=True)
class Corpus:
    """The demo corpus of a task, extracted from a published package; `language` matters to some tasks only.

    Args:
        package: the package.
        licence: of the package.
        fetch: language -> path or pattern of the text; it is extracted once and cached.
        serving_name: language -> name of the serving folder.
    """

    package: Package
    licence: str
    fetch: Callable[[str], str]
    serving_name: Callable[[str], str]
