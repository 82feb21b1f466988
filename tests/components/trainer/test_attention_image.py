"""Images of attention maps show the weights as shades and the tokens on the axes."""

import numpy as np

from seq2serve.components.trainer.attention_image import draw
from seq2serve.models.decoding.attention_maps import AttentionMap


def image(weights, rows=("a", "b"), columns=("x", "y", "z")):
    return draw(AttentionMap("cross layer 1", list(rows), list(columns), np.asarray(weights, np.float32)))


def test_the_darkest_column_is_the_one_with_the_weight():
    even, first, last = np.full((2, 3), 1 / 3), np.eye(3)[[0, 0]], np.eye(3)[[2, 2]]  # [rows, columns] of one head
    blank = image([np.zeros((2, 3))] * 2).astype(int)
    assert blank.shape[2] == 3
    for weights in ([first, last], [last, first], [even, first]):
        drawn = image(weights)
        assert drawn.dtype == np.uint8
        assert drawn.shape == blank.shape
        darkness = (blank - drawn).sum((0, 2))  # [W], of each column of pixels
        darkest = [np.argmax(head) / len(head) for head in np.split(darkness, [len(darkness) // 2])]
        if weights[0] is not even:
            assert (darkest[0] < darkest[1]) == (weights[0] is first)


def test_tokens_on_the_axes_may_contain_any_characters():
    """Formula markup, a line break, characters that the font may lack."""
    weights = np.full((1, 2, 3), 1 / 3)
    plain = image(weights)
    for tokens in (("$x^2$", "y", "z"), ("\\frac", "$", "%"), ("\n", "日本", "")):
        assert image(weights, columns=tokens).shape == plain.shape
        assert (image(weights, columns=tokens) != plain).any()
    assert (image(weights, rows=("other", "b")) != plain).any()
