"""Plots of curves, lengths, labels and slices, as SVG in the colours of the page.

Plotly, Bokeh or Vega would add 1 to 5 MB of JavaScript to the page, and Matplotlib fixes the colours when it draws. An
SVG from Vega-Lite is a few kilobytes and accepts `var(--ink)` as a colour. Each mark has a label with its values, for
screen readers and for the tooltip of report.js.
"""

import functools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import vl_convert

WIDTH, HEIGHT = 300, 150  # of a plot without its axes: two or three fit side by side, and one fits on a phone
MAX_POINTS = 120  # per curve
MAX_BARS = 20
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
SERIES = [f"var(--series-{number})" for number in range(1, 5)]
_SI = {"format": "~s", "labelExpr": "datum.value === 0 ? '0' : datum.label"}  # 1k; 0 instead of Vega's 0k
_DASHES = [[1, 0], [4, 3]]
_CONFIG = {
    "background": None,
    "padding": {"left": 16, "top": 4, "right": 8, "bottom": 4},  # the font of the browser may be wider
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
    """Draws curves over the training steps.

    Args:
        title: title of the plot.
        series: (name of the colour, name of the dash pattern) -> points; for example, a run and a split.
    Returns:
        SVG. There is no legend for a colour or dash pattern that all curves share.
    """
    rows = [
        {"step": step, "value": value, "colour": colour, "dash": dash, "label": _curve_label(colour, dash, step, value)}
        for (colour, dash), points in series.items()
        for step, value in downsampled(points)
        if math.isfinite(value)
    ]
    colours, dashes = (list(dict.fromkeys(key[i] for key in series)) for i in (0, 1))
    encoding = {
        "x": {"field": "step", "type": "quantitative", "axis": {"title": "step", "tickCount": 5, **_SI}},
        "y": {
            "field": "value",
            "type": "quantitative",
            "scale": {"zero": False},
            "axis": {"title": None, **(_SI if _has_thousands(rows) else {"format": "~g"})},
        },
        "color": _legend("colour", colours, SERIES),
        "strokeDash": _legend("dash", dashes, _DASHES),
        "description": {"field": "label", "type": "nominal"},
    }
    points = {"mark": {"type": "point", "filled": True, "size": 70, "opacity": 0}, "encoding": {"strokeDash": None}}
    layers = [{"mark": {"type": "line", "aria": False}}, points]
    return _svg(title, rows, encoding, layers)


def lengths(title: str, splits: Mapping[str, Sequence[tuple[float, float, float]]]) -> str:
    """Draws the distribution of text lengths on a logarithmic axis, as the share of texts per doubling of the length.

    Args:
        title: title of the axis.
        splits: split -> buckets of (shortest length, longest length, number of texts).
    Returns:
        SVG.
    """
    rows = []
    for split, buckets in splits.items():
        total = sum(count for _, _, count in buckets)
        for low, high, count in buckets:
            low = max(low, 1)
            share = count / total / math.log2((high + 1) / low)
            label = f"{split}, {low:,.0f} to {high:,.0f}: {100 * count / total:.0f} %"
            rows.append({"length": low, "share": share, "split": split, "label": label})
        rows.append({"length": max(high, 1) + 1, "share": 0, "split": split, "label": f"{split}: none longer"})
    encoding = {
        "x": {
            "field": "length",
            "type": "quantitative",
            "scale": {"type": "log", "base": 2, "nice": False},
            "axis": {"title": title, "format": "~s", "labelOverlap": True},
        },
        "y": {"field": "share", "type": "quantitative", "axis": None},  # only the shape matters
        "color": _legend("split", list(splits), SERIES),
        "description": {"field": "label", "type": "nominal"},
    }
    points = {"mark": {"type": "point", "filled": True, "size": 70, "opacity": 0}}
    return _svg(title, rows, encoding, [{"mark": {"type": "line", "interpolate": "step-after", "aria": False}}, points])


def shares(title: str, splits: Mapping[str, Mapping[str, float]]) -> str:
    """Draws the share of each label in each split.

    Args:
        title: title of the axis.
        splits: split -> label -> number of rows. The first MAX_BARS labels are drawn, in the order of the first split.
    Returns:
        SVG.
    """
    labels = list(dict.fromkeys(label for counts in splits.values() for label in counts))[:MAX_BARS]
    rows = [
        {
            "name": label,
            "share": counts.get(label, 0) / max(1, sum(counts.values())),
            "split": split,
            "label": f"{label}, {split}: {counts.get(label, 0):,.0f} rows",
        }
        for split, counts in splits.items()
        for label in labels
    ]
    encoding = {
        "y": {"field": "name", "type": "nominal", "sort": labels, "axis": {"title": None}},
        "yOffset": {"field": "split", "sort": list(splits)},
        "x": {"field": "share", "type": "quantitative", "axis": {"title": title, "format": "%", "tickCount": 4}},
        "color": _legend("split", list(splits), SERIES),
        "description": {"field": "label", "type": "nominal"},
    }
    return _svg(title, rows, encoding, [{"mark": "bar"}], height={"step": 9})


def by_slice(title: str, rows: Sequence[Mapping[str, Any]], overall: float) -> str:
    """Draws a metric of each slice, with its interval, for several models.

    Args:
        title: name of the metric.
        rows: one row per slice and model, with the keys slice, series (name of the model) and value, and optionally
            lower and upper (bounds of the interval).
        overall: value for the whole split, drawn as a line.
    Returns:
        SVG.
    """
    names = list(dict.fromkeys(row["slice"] for row in rows))
    series = list(dict.fromkeys(row["series"] for row in rows))
    labelled = [row | {"label": f"{row['series']}, {row['slice']}: {row['value']:.4g}{_bounds(row)}"} for row in rows]
    encoding = {
        "y": {"field": "slice", "type": "nominal", "sort": names, "axis": {"title": None, "grid": True}},
        "yOffset": {"field": "series", "sort": series},
        "color": _legend("series", series, SERIES),
        "description": {"field": "label", "type": "nominal"},
    }
    x = {"type": "quantitative", "scale": {"zero": False}, "axis": {"title": title, "tickCount": 5}}
    no_encoding = dict.fromkeys(encoding)  # the line does not use the shared encoding
    layers = [
        {
            "mark": {"type": "rule", "color": "var(--quiet)", "strokeDash": [2, 3], "aria": False},
            "data": {"values": [{}]},
            "encoding": no_encoding | {"x": x | {"datum": overall}},
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
    return _svg(title, labelled, encoding, layers, height={"step": 12})


def downsampled(points: Curve) -> list[tuple[float, float]]:
    """Returns a curve of at most MAX_POINTS points: means of neighbours, each at the last of their steps."""
    size = max(1, math.ceil(len(points) / MAX_POINTS))
    groups = [points[max(0, end - size) : end] for end in range(len(points), 0, -size)][::-1]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def _curve_label(colour: str, dash: str, step: float, value: float) -> str:
    number = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{' '.join(filter(None, (colour, dash)))}, step {step:,.0f}: {number}"


def _bounds(row: Mapping[str, Any]) -> str:
    return f" ({row['lower']:.4g} to {row['upper']:.4g})" if row.get("lower") is not None else ""


def _has_thousands(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Returns whether values reach 1,000. SI prefixes would show smaller values in thousandths."""
    return max((abs(row["value"]) for row in rows), default=0) >= 1000


def _legend(field: str, names: list[str], values: list) -> dict:
    """Returns an encoding by name, without a legend if there is only one name."""
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
    return _render(json.dumps(spec))


@functools.cache
def _render(spec: str) -> str:
    return vl_convert.vegalite_to_svg(spec)
