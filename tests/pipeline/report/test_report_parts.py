"""The parts of the report: the drawing of the pipeline, the plots, the model card, and the command to repeat a run."""

import dataclasses
import itertools
import math
import re
import shlex

import pytest

from seq2serve.components.base.artifact import ModelFiles
from seq2serve.components.tasks.bootstrap import MIN_ROWS
from seq2serve.components.tasks.classification.task import CLASSIFICATION
from seq2serve.pipeline.config import preset, with_settings
from seq2serve.pipeline.dag import make_pipeline
from seq2serve.pipeline.metadata.store import MetadataStore
from seq2serve.pipeline.report import card, plots
from seq2serve.pipeline.report.facts import read_run
from seq2serve.pipeline.report.graph import BOX, draw
from seq2serve.pipeline.report.reproduction import reproduction, run_settings, setting_of

DIAMOND = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c"), "e": ("a", "d")}


def graphs():
    pipeline = make_pipeline(
        preset("demo", "translation"), "text.tsv", "runs", "serving", "schema.pbtxt", "tokenizer.model"
    )
    full = {node.id: tuple(channel.node.id for channel in node.inputs.values()) for node in pipeline.nodes}
    return {"diamond": DIAMOND, "single": {"a": ()}, "empty": {}, "pipeline": full}


# The drawing.


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
def test_lines_lead_from_each_input_to_its_node(name):
    inputs = graphs()[name]
    drawing = draw(inputs)
    ends = {}
    for x1, y1, x2, y2 in drawing.lines:
        ends.setdefault((x1, y1), []).append((x2, y2))
    for node, sources in inputs.items():
        x, y = drawing.boxes[node]
        for source in sources:
            left, top = drawing.boxes[source]
            queue, reached = [(left + BOX[0] / 2, top + BOX[1])], set()
            while queue:
                point = queue.pop()
                reached.add(point)
                queue += ends.get(point, [])
            assert (x + BOX[0] / 2, y) in reached, (source, node)


def test_no_line_crosses_a_box():
    drawing = draw(graphs()["pipeline"])
    # Only lines that pass through a layer are vertical and as high as a box.
    middles = [(x1, (y1 + y2) / 2) for x1, y1, x2, y2 in drawing.lines if x1 == x2 and y2 - y1 == BOX[1]]
    assert middles, "no line passes through a layer"
    for x, y in middles:
        assert not any(left < x < left + BOX[0] and top < y < top + BOX[1] for left, top in drawing.boxes.values())


# The plots.


@pytest.fixture(scope="module")
def svgs():
    curve = [(step, math.exp(-step / 500)) for step in range(20, 3001, 20)]
    rows = [{"slice": "<b>", "series": "this model", "value": 5.0, "lower": 4.0, "upper": 6.0}]
    return {
        "curves": plots.curves("loss", {("train", ""): curve, ("validation", ""): curve[24::25]}),
        "lengths": plots.lengths("characters", {"train": [(0, 8, 10), (9, 40, 10)], "test": [(5, 5, 3)]}),
        "shares": plots.shares("share", {"train": {"good": 30, "bad": 10}, "test": {"bad": 1}}),
        "by_slice": plots.by_slice("bleu", [*rows, {"slice": "<b>", "series": "baseline", "value": 1.0}], 4.5),
    }


LABELS = {
    "curves": "validation, step 3,000: 0.002479",
    "lengths": "train, 9 to 40: 50 %",
    "shares": "bad, train: 10 rows",
    "by_slice": "this model, &lt;b&gt;: 5 (4 to 6)",
}


@pytest.mark.parametrize("name", LABELS)
def test_a_plot_has_the_colours_of_the_page_and_labels_with_its_values(svgs, name):
    svg = svgs[name]
    assert LABELS[name] in svg
    assert "var(--series-1)" in svg
    assert not re.search(r"(?:fill|stroke)=\"(?:#|rgb|black|white)", svg)
    assert "NaN" not in svg
    assert "<script" not in svg
    assert len(svg) < 60_000


def test_a_long_curve_is_downsampled_to_means_and_keeps_its_last_step():
    points = [(step, float(step % 2)) for step in range(100_001)]
    curve = plots.downsampled(points)
    assert len(curve) <= plots.MAX_POINTS
    assert curve[-1][0] == 100_000
    assert all(value == pytest.approx(0.5, abs=0.01) for _, value in curve)
    assert plots.downsampled(points[:5]) == points[:5]


def test_the_step_axis_starts_at_0_without_a_prefix(svgs):
    assert ">0</text>" in svgs["curves"]
    assert ">0k</text>" not in svgs["curves"]
    assert ">1k</text>" in svgs["curves"]


def test_the_weakest_slice_is_chosen_among_slices_with_enough_rows():
    row = {"by": "label", "name": "bad", "model": {"accuracy": 12.0}, "intervals": {}, "num_examples": 3}
    large = row | {"name": "good", "model": {"accuracy": 80.0}, "intervals": {"accuracy": (70.0, 90.0)}}
    quality = {"headline": "accuracy", "higher_is_better": True, "decimals": 1, "slices": [{"rows": [row, large]}]}
    (line,) = card._weakest_slice(quality)
    assert "label good, accuracy 80.0" in line
    assert f"slices with at least {MIN_ROWS}" in line


# The command.


@pytest.mark.parametrize(
    ("component", "parameter", "setting"),
    [
        ("Trainer", "recipe.training.steps", "training.steps"),
        ("Transform", "tokenizer_config.vocab_size", "tokenizer.vocab_size"),
        ("Transform", "preprocessing.max_length", "data.max_length"),
        ("ExampleGen", "split_config.eval_share", "data.eval_share"),
        ("ExampleGen", "columns.source", "data.source"),
        ("Evaluator", "num_examples", "evaluation.num_examples"),
        ("BulkInferrer", "num_examples", ""),
        ("Pusher", "destination", ""),
    ],
)
def test_the_setting_of_a_parameter(component, parameter, setting):
    assert setting_of(component, parameter) == setting


def test_the_command_repeats_the_settings_of_the_run(any_finished_run):
    store = MetadataStore(f"sqlite:///{any_finished_run.folder / any_finished_run.root / 'metadata.sqlite'}")
    facts = read_run(store, 1, str(any_finished_run.folder / any_finished_run.root))
    arguments = shlex.split(reproduction(facts))
    assert arguments[:3] == ["seq2serve", "run", str(any_finished_run.folder / any_finished_run.file)]
    options = list(itertools.pairwise(arguments[3:]))
    (name,) = [value for option, value in options if option == "--preset"]
    changed = [value for option, value in options if option == "--set"]
    changed += [f"data.{column}={dict(options).get(f'--{column}', column)}" for column in facts.task.columns]
    assert _settings(with_settings(preset(name, any_finished_run.task), changed), facts) == run_settings(facts)
    settings = [word.removeprefix("--set=") for word in any_finished_run.command() if word.startswith("--set=")]
    text = ["data.text=sentence"] if facts.task is CLASSIFICATION else []
    assert _settings(with_settings(preset("demo", any_finished_run.task), settings + text), facts) == run_settings(
        facts
    )


@pytest.mark.parametrize("uri", ["{0}/Format-Keras/**", "model={0}/Format-Keras/**,optimizer={0}/checkpoints/ckpt-*"])
def test_the_command_names_the_folder_of_the_earlier_model(finished_run, uri):
    store = MetadataStore(f"sqlite:///{finished_run.folder / finished_run.root / 'metadata.sqlite'}")
    facts = read_run(store, 1, str(finished_run.folder / finished_run.root))
    user_files = {**facts.user_files, "ModelFiles": ModelFiles(uri.format("runs/7"))}
    arguments = shlex.split(reproduction(dataclasses.replace(facts, user_files=user_files)))
    assert arguments[arguments.index("--warm-start") + 1] == "runs/7/Format-Keras"


def _settings(config, facts):
    return {name: config.value(name) for name in run_settings(facts)}
