"""TrainingJob: what the training processes of several machines need to know, as JSON."""

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

from seq2serve.components.base import artifact
from seq2serve.components.base.artifact import BaseModel
from seq2serve.components.tasks.task import Task
from seq2serve.models.config import DecodingConfig, ModelConfig, Recipe, TrainingConfig


def recipe_of(sections: Mapping[str, Mapping[str, Any]]) -> Recipe:
    """Returns the recipe of which these are the `dataclasses.asdict`."""
    return Recipe(
        ModelConfig(**sections["model"]),
        TrainingConfig(**sections["training"]),
        DecodingConfig(**sections["decoding"]),
    )


@dataclasses.dataclass(frozen=True)
class TrainingJob:
    """A training that several processes share.

    Args:
        task, recipe, corpus_weights: see component.py.
        base_model: read by the chief only.
        scratch: the chief's folder of checkpoints and logs.
        continued: see session.TrainingSession.
    """

    task: Task
    recipe: Recipe
    base_model: BaseModel | None
    corpus_weights: dict[str, float] | None
    scratch: str
    continued: str

    def arguments(self) -> dict[str, Any]:
        """Returns the job as JSON values."""
        base, task = self.base_model, type(self.task)
        return {
            "task": [task.__module__, task.__qualname__],
            "recipe": dataclasses.asdict(self.recipe),
            "base_model": [type(base).__name__, base.uri, base.properties] if base else None,
            "corpus_weights": self.corpus_weights,
            "scratch": self.scratch,
            "continued": self.continued,
        }

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> "TrainingJob":
        """Returns the job of `arguments`."""
        module, name = arguments["task"]
        base = arguments["base_model"]
        return cls(
            task=getattr(importlib.import_module(module), name)(),
            recipe=recipe_of(arguments["recipe"]),
            base_model=getattr(artifact, base[0])(*base[1:]) if base else None,
            corpus_weights=arguments["corpus_weights"],
            scratch=arguments["scratch"],
            continued=arguments["continued"],
        )
