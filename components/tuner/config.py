"""The settings of Tuner."""

import dataclasses
from typing import Annotated

from seq2serve.models.config import Range


@dataclasses.dataclass(frozen=True)
class TunerConfig:
    """How long to search for the best settings."""

    trials: Annotated[int, Range(0, 1000)] = 0
    """Number of trainings with different settings, compared on the eval split. The best settings are used. With 0 and
    `minutes=0` there is no search: settings follow from the data by rule, or from the preset."""

    minutes: Annotated[float, Range(0)] = 0.0
    """Time for the search. With `trials`, too, it ends with the first of the two. Results depend on the speed of the
    machine. 0 disables it."""

    @property
    def searches(self) -> bool:
        """Returns whether there is a search."""
        return bool(self.trials or self.minutes)
