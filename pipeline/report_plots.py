"""Plots: curves, lengths, labels, slices, each an SVG that lives in the page and takes its colours from it.

Comes in: numbers. Goes out: SVG text, drawn by Vega-Lite (vl-convert), which needs no network, browser or JavaScript.
Read next: report.html, which embeds them; report.css, whose variables are the colours, in light and in dark.

Plotly, Bokeh and Vega in the page would bring 1 to 5 MB of JavaScript; Matplotlib fixes its colours when it draws. An
SVG of Vega-Lite is some kilobytes, takes `var(--ink)` for a colour, and every mark carries its values as a label, which
screen readers read and report.js shows under the pointer.
"""

import functools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

WIDTH, HEIGHT = 300, 150  # of a plot without its axes: several fit side by side, and one fits a phone
MAX_POINTS = 120  # of a curve
MAX_BARS = 20
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
SERIES = [f"var(--series-{number})" for number in range(1, 5)]
_SI = {"format": "~s", "labelExpr": "datum.value === 0 ? '0' : datum.label"}  # 1k, and 0 where Vega writes 0k
_DASHES = [[1, 0], [4, 3]]
_CONFIG = {
    "background": None,
    "padding": {"left": 16, "top": 4, "right": 8, "bottom": 4},  # a page's font may be wider than the one at hand
    "font": _FONT,
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--quiet)",
        "titleColor": "var(--quiet)",
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "titleFontWeight": "normal",
        "labelFontSize": 11,
        "titleFontSize": 11,
        "labelLimit": 170,
    },
    "axisX": {"grid": False},
    "axisY": {"domain": False, "ticks": False, "tickCount": 4},
    "legend": {
        "labelColor": "var(--ink)",
        "titleColor": "var(--quiet)",
        "orient": "top",
        "title": None,
        "labelFontSize": 11,
        "labelLimit": 160,
        "symbolStrokeWidth": 2,
    },
    "range": {"category": SERIES},
    "line": {"strokeWidth": 1.8, "strokeCap": "round"},
}

Curve = Sequence[tuple[float, float]]  # (step, value)


def curves(title: str, series: Mapping[tuple[str, str], Curve]) -> str:
    """Draws curves over the steps of training.

    Args:
        title: of the plot.
        series: (colour's name, dash's name) -> points; such as a run and a split. A name that all share is left out.
    Returns:
        SVG.
    """
    rows = [
        {"step": step, "value": value, "colour": colour, "dash": dash, "said": _said(colour, dash, step, value)}
        for (colour, dash), points in series.items()
        for step, value in thinned(points)
        if math.isfinite(value)
    ]
    colours, dashes = (list(dict.fromkeys(key[i] for key in series)) for i in (0, 1))
    encoding = {
        "x": {"field": "step", "type": "quantitative", "axis": {"title": "step", "tickCount": 5, **_SI}},
        "y": {
            "field": "value",
            "type": "quantitative",
            "scale": {"zero": False},
            "axis": {"title": None, **({"format": "~g"} if _small(rows) else _SI)},
        },
        "color": _legend("colour", colours, SERIES),
        "strokeDash": _legend("dash", dashes, _DASHES),
        "description": {"field": "said", "type": "nominal"},
    }
    points = {"mark": {"type": "point", "filled": True, "size": 70, "opacity": 0}, "encoding": {"strokeDash": None}}
    layers = [{"mark": {"type": "line", "aria": False}}, points]
    return _svg(title, rows, encoding, layers)


def lengths(title: str, splits: Mapping[str, Sequence[tuple[float, float, float]]]) -> str:
    """Draws how long texts are: the share of texts for each doubling of the length.

    Args:
        title: of the plot.
        splits: split -> buckets of (smallest length, largest length, number of texts).
    Returns:
        SVG.
    """
    rows = []
    for split, buckets in splits.items():
        total = sum(count for _, _, count in buckets)
        for low, high, count in buckets:
            low = max(low, 1)
            share = count / total / math.log2((high + 1) / low)
            said = f"{split}, {low:,.0f} to {high:,.0f}: {100 * count / total:.0f} %"
            rows.append({"length": low, "share": share, "split": split, "said": said})
        rows.append({"length": max(high, 1) + 1, "share": 0, "split": split, "said": f"{split}: none longer"})
    encoding = {
        "x": {
            "field": "length",
            "type": "quantitative",
            "scale": {"type": "log", "base": 2, "nice": False},
            "axis": {"title": title, "format": "~s", "labelOverlap": True},
        },
        "y": {"field": "share", "type": "quantitative", "axis": None},  # of a doubling: a shape, no share to be read
        "color": _legend("split", list(splits), SERIES),
        "description": {"field": "said", "type": "nominal"},
    }
    points = {"mark": {"type": "point", "filled": True, "size": 70, "opacity": 0}}
    return _svg(title, rows, encoding, [{"mark": {"type": "line", "interpolate": "step-after", "aria": False}}, points])


def shares(title: str, splits: Mapping[str, Mapping[str, float]]) -> str:
    """Draws which labels there are: the share of each in each split.

    Args:
        title: of the plot.
        splits: split -> label -> rows; the first split's order is kept, and of it the first MAX_BARS labels.
    Returns:
        SVG.
    """
    labels = list(dict.fromkeys(label for counts in splits.values() for label in counts))[:MAX_BARS]
    rows = [
        {
            "label": label,
            "share": counts.get(label, 0) / max(1, sum(counts.values())),
            "split": split,
            "said": f"{label}, {split}: {counts.get(label, 0):,.0f} rows",
        }
        for split, counts in splits.items()
        for label in labels
    ]
    encoding = {
        "y": {"field": "label", "type": "nominal", "sort": labels, "axis": {"title": None}},
        "yOffset": {"field": "split", "sort": list(splits)},
        "x": {"field": "share", "type": "quantitative", "axis": {"title": title, "format": "%", "tickCount": 4}},
        "color": _legend("split", list(splits), SERIES),
        "description": {"field": "said", "type": "nominal"},
    }
    return _svg(title, rows, encoding, [{"mark": "bar"}], height={"step": 9})


def by_slice(title: str, rows: Sequence[Mapping[str, Any]], overall: float) -> str:
    """Draws a metric slice by slice, with its interval, beside others.

    Args:
        title: the metric's name.
        rows: of each slice and each that was measured: `slice`, `who`, `value`, and perhaps `lower` and `upper`.
        overall: the value of the whole split, a line.
    Returns:
        SVG.
    """
    names = list(dict.fromkeys(row["slice"] for row in rows))
    who = list(dict.fromkeys(row["who"] for row in rows))
    said = [row | {"said": f"{row['who']}, {row['slice']}: {row['value']:.4g}{_bounds(row)}"} for row in rows]
    encoding = {
        "y": {"field": "slice", "type": "nominal", "sort": names, "axis": {"title": None, "grid": True}},
        "yOffset": {"field": "who", "sort": who},
        "color": _legend("who", who, SERIES),
        "description": {"field": "said", "type": "nominal"},
    }
    x = {"type": "quantitative", "scale": {"zero": False}, "axis": {"title": title, "tickCount": 5}}
    off = dict.fromkeys(encoding)
    layers = [
        {
            "mark": {"type": "rule", "color": "var(--quiet)", "strokeDash": [2, 3], "aria": False},
            "data": {"values": [{}]},
            "encoding": off | {"x": x | {"datum": overall}},
        },
        {
            "mark": {"type": "rule", "strokeWidth": 2, "aria": False},
            "encoding": {"x": x | {"field": "lower"}, "x2": {"field": "upper"}},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 50, "opacity": 1},
            "encoding": {"x": x | {"field": "value"}},
        },
    ]
    return _svg(title, said, encoding, layers, height={"step": 12})


def thinned(points: Curve) -> list[tuple[float, float]]:
    """Returns at most MAX_POINTS points of a curve, each the mean of neighbours; the last one is the last."""
    size = max(1, math.ceil(len(points) / MAX_POINTS))
    groups = [points[max(0, end - size) : end] for end in range(len(points), 0, -size)][::-1]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def _said(colour: str, dash: str, step: float, value: float) -> str:
    number = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{' '.join(filter(None, (colour, dash)))}, step {step:,.0f}: {number}"


def _bounds(row: Mapping[str, Any]) -> str:
    return f" ({row['lower']:.4g} to {row['upper']:.4g})" if row.get("lower") is not None else ""


def _small(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Returns whether values are so small that SI prefixes would turn them into thousandths."""
    return max((abs(row["value"]) for row in rows), default=0) < 1000


def _legend(field: str, names: list[str], values: list) -> dict:
    """Returns an encoding by name; without a legend where there is nothing to tell apart."""
    scale = {"domain": names, "range": [values[i % len(values)] for i in range(len(names))]}
    return {"field": field, "type": "nominal", "scale": scale, **({"legend": None} if len(names) < 2 else {})}


def _svg(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    encoding: dict,
    layers: list[dict],
    height: int | dict = HEIGHT,
) -> str:
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "description": title,
        "width": WIDTH,
        "height": height,
        "data": {"values": list(rows)},
        "encoding": encoding,
        "layer": layers,
        "config": _CONFIG,
    }
    return _drawn(json.dumps(spec))


@functools.cache
def _drawn(spec: str) -> str:
    import vl_convert

    return vl_convert.vegalite_to_svg(spec)
