"""Attention is drawn with its weights in its squares and its tokens on its axes."""

import numpy as np

from components.heat_map_image import draw
from models.heat_maps import HeatMap


def image(weights, rows=("a", "b"), columns=("x", "y", "z")):
    return draw(HeatMap("cross layer 1", list(rows), list(columns), np.asarray(weights, np.float32)))


def test_dark_is_where_the_weight_is():
    even, first, last = np.full((2, 3), 1 / 3), np.eye(3)[[0, 0]], np.eye(3)[[2, 2]]
    blank = image([np.zeros((2, 3))] * 2).astype(int)
    for weights in ([first, last], [last, first], [even, first]):
        drawn = image(weights)
        assert drawn.dtype == np.uint8
        assert drawn.shape == blank.shape
        darker = (blank - drawn).sum((0, 2))  # of each column of dots
        halves = np.split(darker, [len(darker) // 2])
        where = [np.argmax(half) / len(half) for half in halves]
        if weights[0] is not even:
            assert (where[0] < where[1]) == (weights[0] is first)
    assert blank.shape[2] == 3


def test_tokens_are_on_the_axes_as_they_are():
    """Whatever a token holds: markup of formulas, a line end, letters that the font may lack."""
    weights = np.full((1, 2, 3), 1 / 3)
    plain = image(weights)
    for tokens in (("$x^2$", "y", "z"), ("\\frac", "$", "%"), ("\n", "日本", "")):
        assert image(weights, columns=tokens).shape == plain.shape
        assert (image(weights, columns=tokens) != plain).any()
    assert (image(weights, rows=("other", "b")) != plain).any()
