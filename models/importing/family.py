"""Family: what the importer has to know of a kind of pretrained model."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

# Bias of the logit of a piece that is never generated: low enough that it is never the best one, and high enough that
# an unknown character in a target costs the loss a few words, not a page.
NEVER = -20.0


class Source(NamedTuple):
    """Where a weight of ours comes from.

    Args:
        names: of their tensors.
        convert: makes our weight of them, in the same order.
    """

    names: tuple[str, ...]
    convert: Callable[..., np.ndarray]


def supported_options(
    config: Mapping[str, Any], supported: Mapping[str, tuple[Any, ...]], where: str
) -> dict[str, Any]:
    """Returns the values of options that ours can stand for.

    Args:
        config: the content of a configuration.
        supported: option -> its supported values; the first is that of a configuration without the option.
        where: name of the configuration, for the message.
    Raises:
        ValueError: an option has another value.
    """
    options = {name: config.get(name, values[0]) for name, values in supported.items()}
    for name, value in options.items():
        if value not in supported[name]:
            known = " or ".join(map(repr, supported[name]))
            raise ValueError(f"{where} has {name}={value!r}, which is not supported, only {known}")
    return options


class Family(Protocol):
    """A kind of pretrained model: one file in this folder, and a row in families.py.

    A model has a configuration, which families.py reads; each of these functions receives its content.
    """

    model_type: str  # as in the configuration
    config_name: str  # of the configuration, for messages
    model_class: str  # of models/transformer/models.py
    parts: tuple[str, ...]  # those of "encoder" and "decoder" that it has
    tokenizer_kind: str  # as in our tokenizer.json

    def settings(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the fields of our ModelConfig that the weights need.

        Raises:
            ValueError: the architecture has an option that ours lacks.
        """

    def labels(self, config: Mapping[str, Any]) -> list[str]:
        """Returns the labels of a classifier in the order of its outputs; empty without a head."""

    def tensors(self, folder: str) -> Iterator[tuple[str, np.ndarray]]:
        """Yields the name and the values, float32, of every tensor in a folder.

        Raises:
            ValueError: there are none, or a file is damaged.
        """

    def canonical_name(self, name: str) -> str:
        """Returns the name of a tensor without the differences between their releases."""

    def sources(self, config: Mapping[str, Any], orders: list[list[int]]) -> dict[str, Source]:
        """Returns the name of each weight of ours, as in training/warm_start.py -> where it comes from.

        Args:
            config: the content of the configuration.
            orders: what `import_tokenizer` returned.
        """

    def ignored(self, name: str) -> bool:
        """Returns whether a tensor is not part of what we import, such as the head of another task."""

    def import_tokenizer(self, folder: str, directory: str) -> list[list[int]]:
        """Writes our Tokenizer, and returns for each of its ids the row of their embeddings, -1 if there is none.

        Separate vocabularies of source and target are two such lists, and folders named after these columns.

        Args:
            folder: with their files.
            directory: an existing folder to write to.
        Raises:
            ValueError: the tokenizer is of another kind.
        """
