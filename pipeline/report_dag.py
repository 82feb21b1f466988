"""The picture of a pipeline: where each component stands, so that data flows down and lines seldom cross.

Comes in: the names of nodes and what each takes from. Goes out: places of boxes and of the lines between them.
Read next: report.html, which draws them. The method is Sugiyama, Tagawa and Toda's (1981): layers, then order.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

BOX = (150, 44)  # width and height of a node, in pixels
LANE = 14  # width of a line that passes a layer by
GAP = (14, 34)  # between neighbours, between layers
_SWEEPS = 8


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A drawing.

    Args:
        width, height: of all of it, in pixels.
        boxes: node -> (left, top).
        lines: from the middle of a lower edge to the middle of an upper one: (x1, y1, x2, y2).
    """

    width: float
    height: float
    boxes: dict[str, tuple[float, float]]
    lines: list[tuple[float, float, float, float]]


# A place in a layer: a node, or (a node, the layer) where lines from that node pass the layer by, all in one lane.
_Place = str | tuple[str, int]


def draw(inputs: Mapping[str, Sequence[str]]) -> Drawing:
    """Lays a graph out.

    Args:
        inputs: node -> the nodes it takes from, each of which stands before it.
    """
    layer: dict[str, int] = {}
    for node, sources in inputs.items():
        layer[node] = max((layer[source] + 1 for source in sources), default=0)
    edges = _edges(inputs, layer)
    layers: list[list[_Place]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    for place in dict.fromkeys([*layer, *(place for edge in edges for place in edge)]):
        layers[layer[place] if isinstance(place, str) else place[1]].append(place)
    _order(layers, edges)
    return _placed(layers, edges)


def _edges(inputs: Mapping[str, Sequence[str]], layer: Mapping[str, int]) -> list[tuple[_Place, _Place]]:
    """Returns lines from one layer to the next."""
    edges: dict[tuple[_Place, _Place], None] = {}
    for node, sources in inputs.items():
        for source in sources:
            path: list[_Place] = [source, *((source, n) for n in range(layer[source] + 1, layer[node])), node]
            edges |= dict.fromkeys(itertools.pairwise(path))
    return list(edges)


def _order(layers: list[list[_Place]], edges: list[tuple[_Place, _Place]]) -> None:
    """Orders each layer by the mean place of its neighbours, down and up again."""
    above: dict[_Place, list[_Place]] = {}
    below: dict[_Place, list[_Place]] = {}
    for one, other in edges:
        above.setdefault(other, []).append(one)
        below.setdefault(one, []).append(other)
    for sweep in range(_SWEEPS):
        neighbours, rows = (above, layers[1:]) if sweep % 2 == 0 else (below, layers[-2::-1])
        for row in rows:
            place = {p: i / max(1, len(other) - 1) for other in layers for i, p in enumerate(other)}
            means = {p: _mean([place[n] for n in neighbours.get(p, [p])]) for p in row}
            row.sort(key=means.__getitem__)


def _placed(layers: list[list[_Place]], edges: list[tuple[_Place, _Place]]) -> Drawing:
    widths = [sum(_width(p) for p in row) + GAP[0] * (len(row) - 1) for row in layers]
    whole = max(widths, default=0)
    corners: dict[_Place, tuple[float, float]] = {}
    for number, (row, width) in enumerate(zip(layers, widths, strict=True)):
        x = (whole - width) / 2
        for place in row:
            corners[place] = (x, number * (BOX[1] + GAP[1]))
            x += _width(place) + GAP[0]
    lines = []
    for one, other in edges:
        (x1, y1), (x2, y2) = corners[one], corners[other]
        lines.append((x1 + _width(one) / 2, y1 + BOX[1], x2 + _width(other) / 2, y2))
    lines += [
        (x + LANE / 2, y, x + LANE / 2, y + BOX[1]) for place, (x, y) in corners.items() if isinstance(place, tuple)
    ]
    boxes = {place: corner for place, corner in corners.items() if isinstance(place, str)}
    return Drawing(whole, len(layers) * (BOX[1] + GAP[1]) - GAP[1], boxes, lines)


def _width(place: _Place) -> float:
    return BOX[0] if isinstance(place, str) else LANE


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
