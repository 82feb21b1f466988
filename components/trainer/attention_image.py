"""Attention maps as images: one square per head, with the tokens on its axes."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from seq2serve.models.decoding.attention_maps import AttentionMap

INCHES_PER_TOKEN, MARGIN = 0.2, 1.2  # the margin has room for a token
DOTS_PER_INCH = 80


def draw(attention_map: AttentionMap) -> np.ndarray:
    """Draws the heads of a layer side by side, uint8 [height, width, 3]."""
    heads, rows, columns = attention_map.weights.shape
    width, height = MARGIN + columns * INCHES_PER_TOKEN, MARGIN + 0.3 + rows * INCHES_PER_TOKEN
    # Not pyplot, which keeps every figure and needs a display.
    figure = Figure(figsize=(width * heads, height), dpi=DOTS_PER_INCH)
    for head, weights in enumerate(attention_map.weights):
        left, bottom = (head * width + MARGIN - 0.1) / (heads * width), 0.1 / height
        axes = figure.add_axes((left, bottom, (width - MARGIN) / (heads * width), rows * INCHES_PER_TOKEN / height))
        axes.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.set_title(f"head {head + 1}", fontsize=8)
        axes.xaxis.tick_top()
        # parse_math=False: a dollar sign does not begin a formula.
        axes.set_xticks(range(columns), attention_map.columns, rotation=90, fontsize=7, parse_math=False)
        axes.set_yticks(range(rows), attention_map.rows, fontsize=7, parse_math=False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
