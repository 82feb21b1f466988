"""What the notebooks share: a small English-German corpus, and figures that are legible on black and on white."""

import itertools
import pathlib
import random
import re
import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from seq2serve.pipeline.commands.logs import set_up_logs
from seq2serve.pipeline.metadata.store import Ancestry

# Commands for a smart home. The German verb may have two parts, the second at the very end; the time moves to the
# front; the article depends on a noun that comes later. So attention has to look across the sentence.
ORDERS = {
    "Turn on": ("Schalte", "ein"),
    "Turn off": ("Schalte", "aus"),
    "Open": ("Öffne", ""),
    "Close": ("Schließe", ""),
    "Lock": ("Schließe", "ab"),
    "Check": ("Prüfe", ""),
}
THINGS = {
    "light": ("das", "Licht"),
    "lamp": ("die", "Lampe"),
    "door": ("die", "Tür"),
    "window": ("das", "Fenster"),
    "heating": ("die", "Heizung"),
    "camera": ("die", "Kamera"),
    "sensor": ("den", "Sensor"),
    "fan": ("den", "Ventilator"),
}
QUALITIES = {"": "", "old": "alt", "new": "neu"}
PLACES = {
    "kitchen": "in der Küche",
    "bedroom": "im Schlafzimmer",
    "garden": "im Garten",
    "cellar": "im Keller",
    "office": "im Büro",
}
TIMES = {"": "", "now": "jetzt", "at {} o'clock": "um {} Uhr", "for {} minutes": "{} Minuten lang"}
NUM_PAIRS = 1500

# Settings with which the preset `tiny` learns this corpus in seconds.
SETTINGS = {
    "tokenizer": {"vocab_size": 600},
    "model": {"num_encoder_layers": 1, "num_decoder_layers": 1, "dff": 128, "dropout": 0},
    "training": {
        "optimizer": "muon",
        "steps": 150,
        "learning_rate": 0.01,
        "schedule": "cosine",
        "warmup_steps": 20,
        "checkpoint_steps": 50,
    },
}

INK, WARM, GREY = "#2a7fc9", "#d9722e", "#7a7a7a"
# From transparent to blue; for signed values from orange through transparent to blue.
_FADE = LinearSegmentedColormap.from_list("fade", [f"{INK}00", f"{INK}ff"])
_SIGNED = LinearSegmentedColormap.from_list(
    "signed", [(0, f"{WARM}ff"), (0.5, f"{WARM}00"), (0.5, f"{INK}00"), (1, f"{INK}ff")]
)


def pairs() -> list[tuple[str, str]]:
    """Returns NUM_PAIRS different (English, German) commands, the same in every call."""
    candidates = [
        _pair(*parts) for parts in itertools.product(ORDERS, QUALITIES, THINGS, PLACES, TIMES, range(2, 12, 3))
    ]
    return random.Random(1).sample(sorted(set(candidates)), NUM_PAIRS)


def write_corpus(path: str | pathlib.Path) -> None:
    """Writes the pairs as a TSV file with the columns `english` and `german`."""
    rows = "".join(f"{english}\t{german}\n" for english, german in pairs())
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(path).write_text("english\tgerman\n" + rows, encoding="utf-8")


def _pair(order: str, quality: str, thing: str, place: str, time: str, number: int) -> tuple[str, str]:
    verb, rest = ORDERS[order]
    article, noun = THINGS[thing]
    ending = ("en" if article == "den" else "e") if quality else ""
    english = [order, "the", quality, thing, "in the", place, time.format(number)]
    german = [verb, TIMES[time].format(number), article, QUALITIES[quality] + ending, noun, PLACES[place], rest]
    return tuple(f"{' '.join(filter(None, words))}." for words in (english, german))


def begin() -> None:
    """Keeps libraries quiet, and makes figures transparent, with text that is legible on white and on black.

    Call it before anything imports TensorFlow.
    """
    set_up_logs(verbose=False)
    plt.rcParams.update(
        {
            "figure.facecolor": "none",
            "axes.facecolor": "none",
            "savefig.facecolor": "none",
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "font.size": 9,
            "axes.titlesize": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": plt.cycler(color=[INK, WARM, "#4c9f70", "#a56cc1"]),
            "legend.frameon": False,
            **{f"{name}.color": GREY for name in ("text", "xtick", "ytick")},
            **{f"axes.{name}color": GREY for name in ("label", "edge", "title")},
        }
    )


def passages() -> list[dict[str, str]]:
    """Returns the paragraphs and list items of the project's README files: `text`, and as `label` the folder."""
    repository = pathlib.Path(__file__).parents[1]
    rows = []
    for label in ("pipeline", "components", "models", "tests"):
        prose = re.sub(
            r"```.*?```", "", (repository / label / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL
        )
        texts = [" ".join(part.split()) for part in re.split(r"\n\s*\n|\n(?=\s*- )", prose)]
        rows += [{"text": text, "label": label} for text in texts if len(text) > 60 and not text.startswith(("|", "#"))]
    return rows


def heatmap(
    axes: Axes,
    values: np.ndarray,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    title: str = "",
    digits: int = 0,
) -> None:
    """Draws a matrix; 0 is transparent.

    Args:
        axes: to draw on.
        values: float [rows, columns]; blue above 0, orange below.
        rows, columns: names; without them the axis shows numbers.
        title: of the figure.
        digits: after the point, of the values printed in the cells; 0 prints none.
    """
    values = np.asarray(values, float)
    size = np.abs(values[np.isfinite(values)]).max(initial=1e-9)
    signed = values.min() < 0
    axes.imshow(values, cmap=_SIGNED if signed else _FADE, vmin=-size if signed else 0, vmax=size, aspect="auto")
    if columns:
        axes.set_xticks(range(len(columns)), columns, rotation=90 if len(columns) > 4 else 0)
    if rows:
        axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.set_title(title)
    for spine in axes.spines.values():
        spine.set(visible=True, linewidth=0.5)
    if digits:
        for (row, column), value in np.ndenumerate(values):
            color = "white" if abs(value) > size / 2 else GREY
            axes.text(column, row, f"{value:.{digits}f}", ha="center", va="center", fontsize=8, color=color)


def draw_lineage(axes: Axes, ancestries: Sequence[Ancestry]) -> None:
    """Draws artifacts as boxes, each to the right of those that it was made from.

    Args:
        axes: to draw on.
        ancestries: from `MetadataStore.lineage`, oldest first.
    """
    column: dict[int, int] = {}
    for ancestry in ancestries:
        column[ancestry.artifact.id] = 1 + max((column.get(source, -1) for source in ancestry.sources), default=-1)
    members = {x: [i for i in column if column[i] == x] for x in set(column.values())}
    position = {i: (x, members[x].index(i) - (len(members[x]) - 1) / 2) for i, x in column.items()}
    for ancestry in ancestries:
        x, y = position[ancestry.artifact.id]
        name = "\n".join(textwrap.wrap(f"{ancestry.component or 'input'}:", 16))
        box = {"boxstyle": "round,pad=0.4", "facecolor": f"{INK}22", "edgecolor": INK}
        axes.text(
            x, y, f"{name}\n{ancestry.type}\n#{ancestry.artifact.id}", ha="center", va="center", fontsize=7, bbox=box
        )
        for source in set(ancestry.sources) & set(position):
            bend = -0.2 * np.sign(y) if x - position[source][0] > 1 else 0  # around the boxes in between
            arrow = {"arrowstyle": "-|>", "color": GREY, "alpha": 0.7, "shrinkA": 36, "shrinkB": 36}
            axes.annotate("", (x, y), position[source], arrowprops={**arrow, "connectionstyle": f"arc3,rad={bend}"})
    axes.set(xlim=(-0.6, max(column.values()) + 0.6), ylim=(-1.6, 1.6))
    axes.axis("off")
