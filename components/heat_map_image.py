"""Draws attention: a square a head, the tokens on its axes.

Comes in: a models.heat_maps.HeatMap. Goes out: an image.
Read next: trainer_tensorboard.py, which shows it.
"""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from models.heat_maps import HeatMap

INCHES_A_TOKEN, MARGIN = 0.2, 1.2  # the margin has room for a token, which is what a piece of a word takes
DOTS_AN_INCH = 80


def draw(heat_map: HeatMap) -> np.ndarray:
    """Draws the heads of a layer side by side, uint8 [height, width, 3]."""
    heads, rows, columns = heat_map.weights.shape
    width, height = MARGIN + columns * INCHES_A_TOKEN, MARGIN + 0.3 + rows * INCHES_A_TOKEN
    # No pyplot: it keeps every figure it has made, and asks for a screen.
    figure = Figure(figsize=(width * heads, height), dpi=DOTS_AN_INCH)
    for head, weights in enumerate(heat_map.weights):
        left, bottom = (head * width + MARGIN - 0.1) / (heads * width), 0.1 / height
        axes = figure.add_axes((left, bottom, (width - MARGIN) / (heads * width), rows * INCHES_A_TOKEN / height))
        axes.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.set_title(f"head {head + 1}", fontsize=8)
        axes.xaxis.tick_top()
        # Of text as it is: a dollar sign begins no formula.
        axes.set_xticks(range(columns), heat_map.columns, rotation=90, fontsize=7, parse_math=False)
        axes.set_yticks(range(rows), heat_map.rows, fontsize=7, parse_math=False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
