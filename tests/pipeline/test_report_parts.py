"""The report's parts: the picture of the pipeline, the plots, the command that makes a run again."""

import itertools
import math
import re
import shlex

import pytest

from components.bootstrap import MIN_ROWS
from components.task_classification import CLASSIFICATION
from pipeline import report_card, report_plots
from pipeline.config import preset, with_settings
from pipeline.dag import make_pipeline
from pipeline.metadata import MetadataStore
from pipeline.report_command import reproduction, run_settings, setting_of
from pipeline.report_dag import BOX, draw
from pipeline.report_run import read_run

DIAMOND = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c"), "e": ("a", "d")}


def graphs():
    pipeline = make_pipeline(preset("demo", "translation"), "text.tsv", "runs", "serving", "kept.pbtxt", "their.model")
    whole = {node.id: tuple(channel.node.id for channel in node.inputs.values()) for node in pipeline.nodes}
    return {"diamond": DIAMOND, "alone": {"a": ()}, "nothing": {}, "pipeline": whole}


# The picture.


@pytest.mark.parametrize("name", graphs())
def test_no_two_boxes_overlap_and_data_flows_down(name):
    inputs = graphs()[name]
    drawing = draw(inputs)
    assert drawing.boxes.keys() == inputs.keys()
    for (x1, y1), (x2, y2) in itertools.combinations(drawing.boxes.values(), 2):
        assert abs(x1 - x2) >= BOX[0] or abs(y1 - y2) >= BOX[1]
    for node, sources in inputs.items():
        assert all(drawing.boxes[source][1] + BOX[1] < drawing.boxes[node][1] for source in sources)
    assert all(0 <= x <= drawing.width - BOX[0] for x, _ in drawing.boxes.values())


@pytest.mark.parametrize("name", graphs())
def test_lines_lead_from_every_source_to_what_takes_from_it(name):
    inputs = graphs()[name]
    drawing = draw(inputs)
    below = {}
    for x1, y1, x2, y2 in drawing.lines:
        below.setdefault((x1, y1), []).append((x2, y2))
    for node, sources in inputs.items():
        x, y = drawing.boxes[node]
        for source in sources:
            left, top = drawing.boxes[source]
            waiting, seen = [(left + BOX[0] / 2, top + BOX[1])], set()
            while waiting:
                at = waiting.pop()
                seen.add(at)
                waiting += below.get(at, [])
            assert (x + BOX[0] / 2, y) in seen, (source, node)


def test_no_line_crosses_a_box():
    drawing = draw(graphs()["pipeline"])
    middles = [(x1, (y1 + y2) / 2) for x1, y1, x2, y2 in drawing.lines if x1 == x2 and y2 - y1 == BOX[1]]
    assert middles, "some pass a layer by"
    for x, y in middles:
        assert not any(left < x < left + BOX[0] and top < y < top + BOX[1] for left, top in drawing.boxes.values())


# The plots.


@pytest.fixture(scope="module")
def plots():
    curve = [(step, math.exp(-step / 500)) for step in range(20, 3001, 20)]
    rows = [{"slice": "<b>", "who": "this model", "value": 5.0, "lower": 4.0, "upper": 6.0}]
    return {
        "curves": report_plots.curves("loss", {("train", ""): curve, ("validation", ""): curve[24::25]}),
        "lengths": report_plots.lengths("characters", {"train": [(0, 8, 10), (9, 40, 10)], "test": [(5, 5, 3)]}),
        "shares": report_plots.shares("share", {"train": {"good": 30, "bad": 10}, "test": {"bad": 1}}),
        "by_slice": report_plots.by_slice("bleu", [*rows, {"slice": "<b>", "who": "baseline", "value": 1.0}], 4.5),
    }


SAID = {
    "curves": "validation, step 3,000: 0.002479",
    "lengths": "train, 9 to 40: 50 %",
    "shares": "bad, train: 10 rows",
    "by_slice": "this model, &lt;b&gt;: 5 (4 to 6)",
}


@pytest.mark.parametrize("name", SAID)
def test_a_plot_takes_its_colours_from_the_page_and_says_its_values(plots, name):
    svg = plots[name]
    assert SAID[name] in svg
    assert "var(--series-1)" in svg
    assert not re.search(r"(?:fill|stroke)=\"(?:#|rgb|black|white)", svg)
    assert "NaN" not in svg
    assert "<script" not in svg
    assert len(svg) < 60_000


def test_a_long_curve_is_thinned_to_means_and_ends_where_it_ends():
    points = [(step, float(step % 2)) for step in range(100_001)]
    thinned = report_plots.thinned(points)
    assert len(thinned) <= report_plots.MAX_POINTS
    assert thinned[-1][0] == 100_000
    assert all(value == pytest.approx(0.5, abs=0.01) for _, value in thinned)
    assert report_plots.thinned(points[:5]) == points[:5]


def test_the_axis_of_steps_begins_at_0_without_a_unit(plots):
    assert ">0</text>" in plots["curves"]
    assert ">0k</text>" not in plots["curves"]
    assert ">1k</text>" in plots["curves"]


def test_the_slices_beside_which_the_weakest_is_the_weakest_are_said():
    row = {"by": "label", "name": "bad", "model": {"accuracy": 12.0}, "intervals": {}, "num_examples": 3}
    large = row | {"name": "good", "model": {"accuracy": 80.0}, "intervals": {"accuracy": (70.0, 90.0)}}
    found = {"headline": "accuracy", "higher_is_better": True, "decimals": 1, "slices": [{"rows": [row, large]}]}
    (line,) = report_card._weakest(found)
    assert "label good, accuracy 80.0" in line
    assert f"slices of at least {MIN_ROWS}" in line


# The command.


@pytest.mark.parametrize(
    ("component", "parameter", "setting"),
    [
        ("Trainer", "recipe.training.steps", "training.steps"),
        ("Transform", "tokenizer_config.vocab_size", "tokenizer.vocab_size"),
        ("Transform", "preprocessing.max_length", "data.max_length"),
        ("ExampleGen", "splitting.eval_share", "data.eval_share"),
        ("ExampleGen", "columns.source", "data.source"),
        ("Evaluator", "num_examples", "evaluation.num_examples"),
        ("BulkInferrer", "num_examples", ""),
        ("Pusher", "destination", ""),
    ],
)
def test_a_parameter_is_named_as_the_setting_that_it_is_made_of(component, parameter, setting):
    assert setting_of(component, parameter) == setting


def test_the_command_sets_what_was_set(any_house):
    store = MetadataStore(f"sqlite:///{any_house.folder / any_house.root / 'metadata.sqlite'}")
    facts = read_run(store, 1, str(any_house.folder / any_house.root))
    words = shlex.split(reproduction(facts))
    assert words[:3] == ["seq2serve", "run", str(any_house.folder / any_house.file)]
    options = list(itertools.pairwise(words[3:]))
    (name,) = [value for option, value in options if option == "--preset"]
    changed = [value for option, value in options if option == "--set"]
    changed += [f"data.{column}={dict(options).get(f'--{column}', column)}" for column in facts.task.columns]
    assert _settings(with_settings(preset(name, any_house.task), changed), facts) == run_settings(facts)
    given = [word.removeprefix("--set=") for word in any_house.command() if word.startswith("--set=")]
    text = ["data.text=sentence"] if facts.task is CLASSIFICATION else []
    assert _settings(with_settings(preset("demo", any_house.task), given + text), facts) == run_settings(facts)


def _settings(config, facts):
    return {name: getattr(getattr(config, name.split(".")[0]), name.split(".")[1]) for name in run_settings(facts)}
