"""`seq2serve report`: a page that needs no network, for every task, for a failed run and for two runs."""

import base64
import copy
import dataclasses
import html.parser
import json
import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest
from typer.testing import CliRunner

from seq2serve.components.base.artifact import Model
from seq2serve.components.base.errors import UserError
from seq2serve.pipeline.commands.app import app
from seq2serve.pipeline.metadata.store import MetadataStore
from seq2serve.pipeline.report import page as report_page
from seq2serve.pipeline.report.facts import read_run
from seq2serve.pipeline.report.quality import compare_runs

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
SECTIONS = [
    *("verdict", "pipeline", "data", "training", "quality", "examples"),
    *("attention", "card", "lineage", "reproduce"),
]
VOID_TAGS = {"meta", "link", "br", "input", "img", "hr"}
URL_ATTRIBUTES = {"src", "href", "srcset", "data", "action", "poster", "xlink:href"}


class Page(html.parser.HTMLParser):
    """The content of a page: the text of each section, the URLs, the ids and the attributes of all tags."""

    def __init__(self, text):
        super().__init__()
        self.open, self.urls, self.texts, self.ids, self.attributes = [], [], {}, [], []
        self.feed(text)
        assert not self.open, f"tags without an end tag: {self.open}"

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.attributes.append((tag, values))
        self.urls += [v for name, v in attributes if name in URL_ATTRIBUTES and v and not v.startswith("#")]
        self.ids += [values["id"]] if "id" in values else []
        if tag not in VOID_TAGS:
            self.open.append((tag, values.get("id")))

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID_TAGS:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open, tag
        assert self.open.pop()[0] == tag, (tag, self.getpos())

    def handle_data(self, data):
        section = next((id for tag, id in self.open if tag == "section"), "")
        self.texts[section] = self.texts.get(section, "") + " " + " ".join(data.split())


def run_report(folder, *arguments, root="runs"):
    path = pathlib.Path(folder) / "page.html"
    options = ["--pipeline-root", str(root), "--output", str(path)]
    result = CliRunner().invoke(app, ["report", *map(str, arguments), *options])
    return result, path


@pytest.fixture(scope="module")
def page_of(finished_run_of, tmp_path_factory):
    """Returns a function that writes the report of a task's finished run, once, and returns the path of the page."""
    pages = {}

    def page_of(task):
        if task not in pages:
            result, pages[task] = run_report(tmp_path_factory.mktemp(task), root=finished_run_of(task).folder / "runs")
            assert result.exit_code == 0, result.output
        return pages[task]

    return page_of


@pytest.fixture
def any_page(any_finished_run, page_of):
    return any_finished_run, Page(page_of(any_finished_run.task).read_text(encoding="utf-8"))


# The report of one run.


def test_the_page_is_one_file_that_loads_nothing(any_page, page_of):
    finished_run, page = any_page
    assert page.urls == []
    text = page_of(finished_run.task).read_text(encoding="utf-8")
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", text)
    assert len(text) < 1_500_000


def test_the_page_has_every_section_and_a_link_to_it(any_page):
    _, page = any_page
    assert [name for name in page.ids if name in SECTIONS] == SECTIONS
    links = [values["href"][1:] for tag, values in page.attributes if tag == "a"]
    assert set(SECTIONS) <= set(links) <= set(page.ids)


def test_the_page_shows_the_results_of_the_run(any_page):
    finished_run, page = any_page
    for component in ("RawFiles", "ExampleGen", "Transform", "Trainer", "Pusher", "BulkInferrer"):
        assert f" {component} " in page.texts["pipeline"]
    assert "first run" in page.texts["pipeline"]
    assert finished_run.file in page.texts["data"]
    assert "640 rows read" in page.texts["data"]
    assert "✓ yes" in page.texts["verdict"]
    assert "✗" not in page.texts["verdict"]
    evaluation = finished_run.output("Evaluator", "evaluation").properties
    for name, value in evaluation["model"].items():
        assert name in page.texts["quality"]
        assert f"{value:.1f}" in page.texts["quality"] or f"{value:.3f}" in page.texts["quality"]
    for part in evaluation["slices"]:
        assert part["name"] in page.texts["quality"]
    for row in (*evaluation["examples"]["worst"], *evaluation["examples"]["best"]):
        assert " ".join(next(iter(row.values())).split()) in page.texts["examples"]
    assert f"{finished_run.output('Trainer', 'model').properties['num_parameters']:,} parameters" in page.texts["card"]
    accuracy = finished_run.output("Trainer", "model").properties["eval_accuracy"]
    assert f"accuracy {accuracy:.1f} %" in page.texts["card"]
    assert "1 encoder layers" not in page.texts["card"]
    assert "RawFiles" in page.texts["lineage"]
    assert "seq2serve run --config " in page.texts["reproduce"]
    steps = finished_run.output("Trainer", "model").properties["steps"]
    assert f"[training] steps = {steps} " in " ".join(page.texts["reproduce"].split())
    assert "produces the same results" in page.texts["reproduce"]


def test_the_marks_of_the_plots_have_labels_with_their_values(any_page):
    finished_run, page = any_page
    labels = [values["aria-label"] for _, values in page.attributes if "aria-label" in values]
    assert any(re.match(r"train, step 120: \d", label) for label in labels)
    assert any(re.match(r"validation, step 100: \d", label) for label in labels)
    assert any(re.match(r"test, [\d,]+ to [\d,]+: \d+ %", label) for label in labels)
    assert any(label.startswith("inside, train: ") for label in labels) == (finished_run.task == "classification")


def attention_maps(path):
    page = Page(path.read_text(encoding="utf-8"))
    (maps,) = [json.loads(values["data-maps"]) for _, values in page.attributes if "data-maps" in values]
    assert maps
    return maps


def weights(attention):
    """Returns the weights of a map, int [L, H, T, S]."""
    flat = np.frombuffer(base64.b64decode(attention["weights"]), np.uint8).astype(int)
    return flat.reshape(attention["layers"], attention["heads"], len(attention["target"]), len(attention["source"]))


def test_attention_maps_show_the_answers_of_the_model(page_of, finished_run):
    maps = attention_maps(page_of("translation"))
    predictions = pathlib.Path(finished_run.output("Evaluator", "evaluation").path("predictions.jsonl")).read_text()
    rows = [json.loads(line) for line in predictions.splitlines()]
    assert len(maps) == 4
    for attention in maps:
        assert (attention["layers"], attention["heads"]) == (1, 2)
        assert attention["target"][-1] == attention["source"][-1] == "</s>"
        source, target = ("".join(attention[side][:-1]).replace("▁", " ").strip() for side in ("source", "target"))
        assert target in [row["prediction"] for row in rows if row["source"] == source]
        assert abs(weights(attention).sum(-1) - 255).max() <= len(attention["source"])


def test_a_language_model_attends_backward_and_a_classifier_in_both_directions(page_of):
    for attention in attention_maps(page_of("language_model")):
        assert (attention["source"][0], attention["target"]) == ("<s>", attention["source"])
        assert not np.triu(weights(attention), 1).any()
        assert "up to [row]" in attention["caption"]
    for attention in attention_maps(page_of("classification")):
        assert (attention["source"][-1], attention["target"]) == ("</s>", attention["source"])
        assert np.triu(weights(attention), 1).any()


def test_the_confusion_matrix_is_shaded_by_the_share_of_each_row(page_of):
    page = Page(page_of("classification").read_text(encoding="utf-8"))
    styles = [values["style"] for tag, values in page.attributes if tag == "td" and "style" in values]
    shares = [float(style.removeprefix("--share:")) for style in styles]
    assert len(shares) == 9
    assert all(sum(shares[i : i + 3]) == pytest.approx(1, abs=0.01) or sum(shares[i : i + 3]) == 0 for i in (0, 3, 6))


def test_markup_in_the_data_is_escaped(tmp_path):
    store = _store(tmp_path)
    run = store.begin_run("translation")
    evil = "<script>alert(1)</script> {{ 7 * 7 }}"
    execution = store.begin_execution(
        run, "ExampleGen", "f" * 64, {"inputs": {}, "parameters": {}, "versions": {}}, evil
    )
    store.end_execution(execution, "FAILED", evil)
    store.end_run(run, "FAILED", evil)
    result, path = run_report(tmp_path, root=tmp_path / "runs")
    assert result.exit_code == 0, result.output
    text = path.read_text(encoding="utf-8")
    assert evil not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; {{ 7 * 7 }}" in text


def test_the_report_of_a_custom_pipeline_shows_its_components_and_lineage(tmp_path):
    store = _store(tmp_path)
    run = store.begin_run("toy")
    parts = {"inputs": {}, "parameters": {}, "versions": {"toys": "1.0"}}
    execution = store.begin_execution(run, "Toy", "f" * 64, parts, "first run")
    (tmp_path / "model").mkdir()
    store.publish(execution, {}, {"model": Model(str(tmp_path / "model"), {}, "a" * 64)})
    store.end_run(run, "COMPLETE")
    result, path = run_report(tmp_path, root=tmp_path / "runs")
    assert result.exit_code == 0, result.output
    page = Page(path.read_text(encoding="utf-8"))
    assert "Toy" in page.texts["pipeline"]
    assert "first run" in page.texts["pipeline"]
    assert str(tmp_path / "model") in page.texts["lineage"]
    for section, note in (
        *(("data", "files of the run are unknown"), ("training", "No training curves"), ("quality", "No model")),
        *(("attention", "No maps"), ("card", "No model"), ("reproduce", "Run the original command again")),
    ):
        assert note in page.texts[section]


def test_a_run_with_a_time_limit_is_not_called_reproducible(finished_run, tmp_path):
    store = MetadataStore(f"sqlite:///{finished_run.folder / finished_run.root / 'metadata.sqlite'}")
    facts = read_run(store, 1, str(finished_run.folder / finished_run.root))
    step = facts.steps["Trainer"]
    parts = copy.deepcopy(step.origin.parts)
    parts["parameters"]["recipe"]["training"]["minutes"] = 5.0
    limited = dataclasses.replace(step, origin=dataclasses.replace(step.origin, parts=parts))
    after = dataclasses.replace(facts, steps=facts.steps | {"Trainer": limited})
    page = Page(report_page._render(report_page._values([facts, after])))
    assert page.texts["reproduce"].count("produces the same results") == 1
    assert page.texts["reproduce"].count("training.minutes depends on the machine") == 1
    assert "Trainer: training.minutes: 0.0 -> 5.0" in page.texts["differences"]
    assert "length examples bleu source copied" in " ".join(page.texts["quality"].split())


def test_a_rejected_row_is_shown_with_its_reason_and_details(finished_run, tmp_path):
    store = MetadataStore(f"sqlite:///{finished_run.folder / finished_run.root / 'metadata.sqlite'}")
    facts = read_run(store, 1, str(finished_run.folder / finished_run.root))
    (tmp_path / "rejects").mkdir()
    reject = {"file": "a.tsv", "line": 7, "reason": "wrong number of columns", "detail": "3 instead of 2", "text": "x"}
    (tmp_path / "rejects" / "rejects.jsonl").write_text(json.dumps(reject))
    step = facts.steps["ExampleGen"]
    examples = dataclasses.replace(facts.output("ExampleGen", "examples"), uri=str(tmp_path))
    steps = {"ExampleGen": dataclasses.replace(step, outputs={"examples": examples})}
    page = Page(report_page._render(report_page._values([dataclasses.replace(facts, steps=steps)])))
    assert "wrong number of columns (3 instead of 2)" in page.texts["data"]


# Failed runs, two runs, and no runs.


def _store(folder):
    (folder / "runs").mkdir()
    return MetadataStore(f"sqlite:///{folder / 'runs' / 'metadata.sqlite'}")


@pytest.fixture(scope="module")
def two_runs(finished_run_of, tmp_path_factory):
    """A root with a complete run, and a run that reused its results until the Pusher failed at another destination."""
    root = tmp_path_factory.mktemp("two") / "runs"
    root.mkdir()
    shutil.copy(finished_run_of("translation").folder / "runs" / "metadata.sqlite", root)
    store = MetadataStore(f"sqlite:///{root / 'metadata.sqlite'}")
    run = store.begin_run("translation")
    *reused, pusher, _ = store.executions_of_run(1)
    for execution in reused:
        store.record_reuse(run, execution, "nothing changed since run 1")
    parts = pusher.parts | {"parameters": {"destination": "/elsewhere"}}
    reason = f"parameter destination: {pusher.parts['parameters']['destination']} -> /elsewhere"
    failed = store.begin_execution(run, "Pusher", "0" * 64, parts, reason)
    message = "Pusher: cannot write to /elsewhere"
    store.end_execution(failed, "FAILED", message)
    store.end_run(run, "FAILED", message)
    (root / "configs").mkdir()
    (root / "configs" / f"{run}.toml").write_text('task = "translation"')
    return root


@pytest.fixture(scope="module")
def side_by_side(two_runs, tmp_path_factory):
    """The report of both runs."""
    result, path = run_report(tmp_path_factory.mktemp("both"), 1, 2, root=two_runs)
    assert result.exit_code == 0, result.output
    return path


def test_the_report_of_a_failed_run_covers_the_components_that_finished(side_by_side):
    page = Page(side_by_side.read_text(encoding="utf-8"))
    assert "Pusher: cannot write to /elsewhere" in page.texts[""]
    assert "9 of 10 steps reused" not in page.texts[""]
    assert "8 of 9 steps reused" in page.texts[""]
    assert "Pushed ✗ no Pusher: cannot write" in " ".join(page.texts["verdict"].split())
    assert page.texts["data"].count("640 rows read") == page.texts["quality"].count("70 test examples") == 2
    assert "--serving-dir /elsewhere" in page.texts["reproduce"]


def test_two_runs_are_shown_side_by_side(side_by_side):
    page = Page(side_by_side.read_text(encoding="utf-8"))
    differences = " ".join(page.texts["differences"].split())
    assert re.search(r"Pusher: parameter destination: \S+ -> /elsewhere", differences)
    assert "BulkInferrer: only in run 1" in differences
    assert "On the 70 test rows that both models answered" in differences
    assert "Run 2 is not significantly different. 0 answers changed." in differences
    for section in set(SECTIONS) - {"training"}:
        assert "Run 1" in page.texts[section]
        assert "Run 2" in page.texts[section]
    labels = [values["aria-label"] for _, values in page.attributes if "aria-label" in values]
    assert any(label.startswith("run 1 train, step 20: ") for label in labels)
    assert any(label.startswith("run 2 validation, step 50: ") for label in labels)


def test_the_comparison_of_two_runs_lists_the_answers_that_changed(finished_run, tmp_path):
    """The second model improves one answer and worsens another."""
    before = read_run(MetadataStore(f"sqlite:///{finished_run.folder / finished_run.root / 'metadata.sqlite'}"), 1, "")
    evaluation = before.output("Evaluator", "evaluation")
    lines = [json.loads(line) for line in pathlib.Path(evaluation.path("predictions.jsonl")).read_text().splitlines()]
    wrong = next(i for i, row in enumerate(lines) if row["prediction"] != row["target"])
    other = (wrong + 1) % len(lines)
    lines[wrong]["prediction"], lines[other]["prediction"] = lines[wrong]["target"], "something else"
    (tmp_path / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    shutil.copy(evaluation.path("metrics.json"), tmp_path)
    step = before.steps["Evaluator"]
    outputs = {"evaluation": dataclasses.replace(evaluation, uri=str(tmp_path))}
    after = dataclasses.replace(before, steps=before.steps | {"Evaluator": dataclasses.replace(step, outputs=outputs)})
    comparison = compare_runs(before, after)
    assert comparison["num_changed"] == 2
    assert [line["source"] for _, line in comparison["better"]] == [lines[wrong]["source"]]
    assert [line["prediction"] for _, line in comparison["worse"]] == ["something else"]


@pytest.mark.parametrize("arguments", [(7,), (1, 7), (1, 2, 3)])
def test_a_missing_run_or_too_many_runs_are_errors_and_no_page_is_written(two_runs, tmp_path, arguments):
    result, path = run_report(tmp_path, *arguments, root=two_runs)
    assert (result.exit_code, path.exists()) == (2, False)


def test_a_missing_run_is_an_error_with_its_number(two_runs, tmp_path):
    store = MetadataStore(f"sqlite:///{two_runs / 'metadata.sqlite'}")
    for run_ids in ([7], [1, 7]):
        with pytest.raises(UserError) as error:
            report_page.write_report(store, run_ids, str(two_runs), str(tmp_path / "page.html"))
        assert (error.value.code, error.value.fields) == ("run-missing", {"run": 7})


def test_a_root_without_runs_is_an_error(tmp_path):
    result, path = run_report(tmp_path, root=tmp_path / "nowhere")
    assert (result.exit_code, path.exists()) == (2, False)
    _store(tmp_path)
    result, path = run_report(tmp_path, root=tmp_path / "runs")
    assert (result.exit_code, path.exists()) == (2, False)


def test_a_run_of_another_version_is_an_error(tmp_path):
    store = _store(tmp_path)
    run = store.begin_run("translation")
    parts = {"inputs": {}, "parameters": {}}
    store.end_execution(store.begin_execution(run, "Trainer", "f" * 64, parts, ""), "FAILED", "")
    message = (
        "^Run 1: made by another version of seq2serve, which did not record '.+'; run the command of the run again$"
    )
    with pytest.raises(UserError, match=message) as error:
        report_page.write_report(store, [run], str(tmp_path / "runs"), str(tmp_path / "page.html"))
    assert (error.value.code, error.value.fields) == ("run-outdated", {"runs": [run]})
    result, path = run_report(tmp_path, root=tmp_path / "runs")
    assert (result.exit_code, path.exists()) == (2, False)


def test_a_missing_output_folder_is_an_error_before_the_run_is_read(tmp_path):
    path = tmp_path / "none" / "page.html"
    message = f"^cannot write {path}: the folder {path.parent} does not exist; create it, or choose .* with --output$"
    with pytest.raises(UserError, match=message) as error:
        report_page.write_report(None, [1], "", str(path))
    assert (error.value.code, error.value.fields) == ("folder-missing", {"path": str(path)})


def test_an_output_path_that_cannot_be_written_is_an_error(tmp_path):
    store = _store(tmp_path)
    store.begin_run("toy")
    message = f"^cannot write {tmp_path}: Is a directory; choose another file with --output$"
    with pytest.raises(UserError, match=message) as error:
        report_page.write_report(store, [1], str(tmp_path / "runs"), str(tmp_path))
    assert (error.value.code, error.value.fields) == ("file-unwritable", {"path": str(tmp_path)})


@pytest.mark.parametrize("output", ["none/page.html", "."])
def test_the_command_fails_if_the_page_cannot_be_written(tmp_path, output):
    _store(tmp_path).begin_run("toy")
    options = ["--pipeline-root", str(tmp_path / "runs"), "--output", str(tmp_path / output)]
    assert CliRunner().invoke(app, ["report", *options]).exit_code == 2


# In a browser.

browser = next(filter(None, map(shutil.which, BROWSERS)), "")

# Opens the page in a frame as narrow as a phone, presses keys, and records the effects.
PROBE = """<!doctype html><meta charset="utf-8"><iframe width="360" height="800" src="page.html"></iframe><script>
document.querySelector("iframe").addEventListener("load", ({ target }) => {
  const page = target.contentDocument, state = { width: page.documentElement.scrollWidth };
  const press = (element, key) => element.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  state.ready = page.body.dataset.ready;
  state.paper = target.contentWindow.getComputedStyle(page.body).backgroundColor;
  const figure = page.querySelector("#training figure");
  figure.focus();
  press(figure, "ArrowRight");
  state.tip = page.getElementById("tip").textContent;
  const map = page.querySelector(".map");
  if (map) {
    const head = page.querySelector("select.head");
    head.value = "0,1";
    head.dispatchEvent(new Event("change"));
    press(map, "ArrowRight");
    state.readout = page.querySelector(".readout").textContent;
    state.cells = map.querySelectorAll("td").length;
    state.pressed = page.querySelector(".heads [aria-pressed='true']").getAttribute("aria-label");
  }
  document.body.dataset.state = JSON.stringify(state);
});
</script>"""


def probe(page, profile, *flags):
    """Returns what PROBE recorded."""
    (page.parent / "probe.html").write_text(PROBE, encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--dump-dom"]
    command = [browser, *options, "--allow-file-access-from-files", "--virtual-time-budget=8000", *flags]
    process = subprocess.run(
        [*command, (page.parent / "probe.html").as_uri()], capture_output=True, check=True, timeout=60
    )
    (state,) = re.findall(r'data-state="([^"]*)"', process.stdout.decode())
    return json.loads(html.unescape(state))


@pytest.mark.skipif(not browser, reason="needs a headless browser")
def test_the_page_works_on_a_phone_with_the_keyboard_and_in_dark_mode(page_of, side_by_side, tmp_path):
    light = probe(page_of("translation"), tmp_path)
    dark = probe(side_by_side, tmp_path, "--blink-settings=preferredColorScheme=0")
    for state in (light, dark):
        assert state["ready"] == "yes"
        assert state["width"] <= 360
        assert re.fullmatch(r"(run 1 )?train, step 20: \d.*", state["tip"])
        assert re.fullmatch(
            r"When the model generated “.+”, it gave \d+ % of its attention to “.+”\.", state["readout"]
        )
        assert state["pressed"] == "layer 1, head 2"
        assert state["cells"] > 10
    assert light["paper"] != dark["paper"]
