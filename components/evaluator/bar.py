"""Bar: what a model must reach to be blessed; see verdict.py for the rule."""

from typing import Literal

Bar = Literal["strongest", "trivial", "none"]
