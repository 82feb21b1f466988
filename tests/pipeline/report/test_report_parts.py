"""The parts of the report: the drawing of the pipeline, the plots, the model card, and the command to repeat a run."""

import itertools
import math
import pathlib
import re
import shlex

import pytest

from seq2serve.components.tasks.bootstrap import MIN_ROWS
from seq2serve.pipeline.config import preset
from seq2serve.pipeline.dag import make_pipeline
from seq2serve.pipeline.metadata.store import MetadataStore
from seq2serve.pipeline.report import card, plots
from seq2serve.pipeline.report.facts import read_run
from seq2serve.pipeline.report.graph import BOX, draw
from seq2serve.pipeline.report.reproduction import effective_config, reproduction, setting_of
from seq2serve.pipeline.run_config import read_run_config
from seq2serve.pipeline.running.fingerprint import as_json

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
        ("ExampleGen", "columns.source", ""),
        ("Evaluator", "num_examples", "evaluation.num_examples"),
        ("BulkInferrer", "num_examples", ""),
        ("Pusher", "destination", ""),
    ],
)
def test_the_setting_of_a_parameter(component, parameter, setting):
    assert setting_of(component, parameter) == setting


def test_the_config_file_of_the_command_makes_the_components_of_the_run(any_finished_run):
    root = str(any_finished_run.folder / any_finished_run.root)
    facts = read_run(MetadataStore(f"sqlite:///{root}/metadata.sqlite"), 1, root)
    program, command, option, path, *folders = shlex.split(reproduction(facts))
    assert (program, command, option) == ("seq2serve", "run", "--config")
    assert effective_config(facts) == pathlib.Path(path).read_text(encoding="utf-8")
    serving = str(any_finished_run.folder / any_finished_run.serving)
    assert folders == ["--pipeline-root", root, "--serving-dir", serving]
    config = read_run_config(path)
    assert config.data == str(any_finished_run.folder / any_finished_run.file)
    nodes = make_pipeline(config.pipeline_config(), config.data, root, serving).nodes
    parameters = {node.id: as_json(node.id, node.parameters) for node in nodes if node.component}
    assert parameters == {name: step.parameters for name, step in facts.steps.items()}
