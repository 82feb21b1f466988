"""The drawing of a pipeline: positions of the components, so that data flows down and few lines cross.

The layout is that of Sugiyama et al. 1981: layers, then an order within each layer by the mean position of the
neighbours. A graph library is not worth a dependency for a dozen nodes.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from statistics import fmean

BOX = (150, 44)  # width and height of a node, in pixels
LANE = 14  # width of a line that passes through a layer
GAP = (14, 34)  # between neighbours in a layer, between layers
_SWEEPS = 8


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A drawing.

    Args:
        width, height: size, in pixels.
        boxes: node -> (left, top).
        lines: (x1, y1, x2, y2), from the middle of a lower edge to the middle of an upper edge.
    """

    width: float
    height: float
    boxes: dict[str, tuple[float, float]]
    lines: list[tuple[float, float, float, float]]


# A slot in a layer: a node, or (node, layer) for the lane in which all lines from that node pass through the layer.
_Slot = str | tuple[str, int]


def draw(inputs: Mapping[str, Sequence[str]]) -> Drawing:
    """Computes the layout of a graph.

    Args:
        inputs: node -> its input nodes, which precede it in the mapping.
    """
    layer: dict[str, int] = {}
    for node, sources in inputs.items():
        layer[node] = max((layer[source] + 1 for source in sources), default=0)
    edges = _edges(inputs, layer)
    layers: list[list[_Slot]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    for slot in dict.fromkeys([*layer, *(slot for edge in edges for slot in edge)]):
        layers[layer[slot] if isinstance(slot, str) else slot[1]].append(slot)
    _order(layers, edges)
    return _drawing(layers, edges)


def _edges(inputs: Mapping[str, Sequence[str]], layer: Mapping[str, int]) -> list[tuple[_Slot, _Slot]]:
    """Splits the edges of the graph into edges from one layer to the next."""
    edges: dict[tuple[_Slot, _Slot], None] = {}
    for node, sources in inputs.items():
        for source in sources:
            path: list[_Slot] = [source, *((source, n) for n in range(layer[source] + 1, layer[node])), node]
            edges |= dict.fromkeys(itertools.pairwise(path))
    return list(edges)


def _order(layers: list[list[_Slot]], edges: list[tuple[_Slot, _Slot]]) -> None:
    """Orders each layer by the mean position of its neighbours, alternately from top to bottom and back."""
    above: dict[_Slot, list[_Slot]] = {}
    below: dict[_Slot, list[_Slot]] = {}
    for upper, lower in edges:
        above.setdefault(lower, []).append(upper)
        below.setdefault(upper, []).append(lower)
    for sweep in range(_SWEEPS):
        neighbours, rows = (above, layers[1:]) if sweep % 2 == 0 else (below, layers[-2::-1])
        for row in rows:
            position = {slot: i / max(1, len(slots) - 1) for slots in layers for i, slot in enumerate(slots)}
            means = {slot: fmean([position[n] for n in neighbours.get(slot, [slot])]) for slot in row}
            row.sort(key=means.__getitem__)


def _drawing(layers: list[list[_Slot]], edges: list[tuple[_Slot, _Slot]]) -> Drawing:
    """Centres each layer and computes coordinates."""
    widths = [sum(_width(slot) for slot in row) + GAP[0] * (len(row) - 1) for row in layers]
    total_width = max(widths, default=0)
    corners: dict[_Slot, tuple[float, float]] = {}
    for number, (row, width) in enumerate(zip(layers, widths, strict=True)):
        x = (total_width - width) / 2
        for slot in row:
            corners[slot] = (x, number * (BOX[1] + GAP[1]))
            x += _width(slot) + GAP[0]
    lines = []
    for upper, lower in edges:
        (x1, y1), (x2, y2) = corners[upper], corners[lower]
        lines.append((x1 + _width(upper) / 2, y1 + BOX[1], x2 + _width(lower) / 2, y2))
    lines += [
        (x + LANE / 2, y, x + LANE / 2, y + BOX[1]) for slot, (x, y) in corners.items() if isinstance(slot, tuple)
    ]
    boxes = {slot: corner for slot, corner in corners.items() if isinstance(slot, str)}
    return Drawing(total_width, len(layers) * (BOX[1] + GAP[1]) - GAP[1], boxes, lines)


def _width(slot: _Slot) -> float:
    return BOX[0] if isinstance(slot, str) else LANE
