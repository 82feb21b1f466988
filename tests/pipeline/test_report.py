"""`seq2serve report` shows a run on one page that needs no network: of every task, of a failed run, of two runs."""

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

from components.artifact import Model
from components.errors import UserError
from pipeline import report
from pipeline.__main__ import app
from pipeline.metadata import MetadataStore
from pipeline.report_quality import compare_runs
from pipeline.report_run import read_run

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
SECTIONS = [
    *("verdict", "pipeline", "data", "training", "quality", "examples"),
    *("attention", "card", "lineage", "reproduce"),
]
VOID = {"meta", "link", "br", "input", "img", "hr"}
FETCHES = {"src", "href", "srcset", "data", "action", "poster", "xlink:href"}


class Page(html.parser.HTMLParser):
    """What is in a page: the text of every section, what it would fetch, and the table cells."""

    def __init__(self, text):
        super().__init__()
        self.open, self.fetched, self.texts, self.ids, self.attributes = [], [], {}, [], []
        self.feed(text)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.attributes.append((tag, values))
        self.fetched += [v for name, v in attributes if name in FETCHES and v and not v.startswith("#")]
        self.ids += [values["id"]] if "id" in values else []
        if tag not in VOID:
            self.open.append((tag, values.get("id")))

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open, tag
        assert self.open.pop()[0] == tag, (tag, self.getpos())

    def handle_data(self, data):
        section = next((id for tag, id in self.open if tag == "section"), "")
        self.texts[section] = self.texts.get(section, "") + " " + " ".join(data.split())


def run_report(folder, *arguments, root="runs"):
    path = pathlib.Path(folder) / "page.html"
    where = ["--pipeline-root", str(root), "--output", str(path)]
    done = CliRunner().invoke(app, ["report", *map(str, arguments), *where])
    return done, path


@pytest.fixture(scope="module")
def page_of(house_of, tmp_path_factory):
    """Returns a function that reports on the house of a task, once, and gives the page's path."""
    pages = {}

    def page_of(task):
        if task not in pages:
            done, pages[task] = run_report(tmp_path_factory.mktemp(task), root=house_of(task).folder / "runs")
            assert done.exit_code == 0, done.output
        return pages[task]

    return page_of


@pytest.fixture
def any_page(any_house, page_of):
    return any_house, Page(page_of(any_house.task).read_text(encoding="utf-8"))


# A run.


def test_the_page_is_one_file_that_fetches_nothing(any_page, page_of):
    house, page = any_page
    assert page.fetched == []
    text = page_of(house.task).read_text(encoding="utf-8")
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", text)
    assert len(text) < 1_500_000


def test_every_section_is_there_and_links_lead_to_it(any_page):
    _, page = any_page
    assert [name for name in page.ids if name in SECTIONS] == SECTIONS
    links = [values["href"][1:] for tag, values in page.attributes if tag == "a"]
    assert set(SECTIONS) <= set(links) <= set(page.ids)


def test_it_shows_what_the_run_did(any_page):
    house, page = any_page
    for component in ("RawFiles", "ExampleGen", "Transform", "Trainer", "Pusher", "BulkInferrer"):
        assert f" {component} " in page.texts["pipeline"]
    assert "first run" in page.texts["pipeline"]
    assert house.file in page.texts["data"]
    assert "640 rows read" in page.texts["data"]
    assert "✓ yes" in page.texts["verdict"]
    assert "✗" not in page.texts["verdict"]
    evaluation = house.output("Evaluator", "evaluation").properties
    for name, value in evaluation["model"].items():
        assert name in page.texts["quality"]
        assert f"{value:.1f}" in page.texts["quality"] or f"{value:.3f}" in page.texts["quality"]
    for part in evaluation["slices"]:
        assert part["name"] in page.texts["quality"]
    for row in (*evaluation["examples"]["worst"], *evaluation["examples"]["best"]):
        assert " ".join(next(iter(row.values())).split()) in page.texts["examples"]
    assert f"{house.output('Trainer', 'model').properties['num_parameters']:,} parameters" in page.texts["card"]
    accuracy = house.output("Trainer", "model").properties["eval_accuracy"]
    assert f"accuracy {100 * accuracy:.1f} %" in page.texts["card"]
    assert "1 encoder layers" not in page.texts["card"]
    assert "RawFiles" in page.texts["lineage"]
    assert "seq2serve run " in page.texts["reproduce"]
    assert "it makes the same;" in page.texts["reproduce"]


def test_curves_and_lengths_are_drawn_and_say_their_values(any_page):
    house, page = any_page
    said = [values["aria-label"] for _, values in page.attributes if "aria-label" in values]
    assert any(re.match(r"train, step 120: \d", label) for label in said)
    assert any(re.match(r"validation, step 100: \d", label) for label in said)
    assert any(re.match(r"test, [\d,]+ to [\d,]+: \d+ %", label) for label in said)
    assert any(label.startswith("inside, train: ") for label in said) == (house.task == "classification")


def attention_maps(path):
    page = Page(path.read_text(encoding="utf-8"))
    (maps,) = [json.loads(values["data-maps"]) for _, values in page.attributes if "data-maps" in values]
    assert maps
    return maps


def weights(found):
    """Returns int [layers, heads, target, source] of one map."""
    flat = np.frombuffer(base64.b64decode(found["weights"]), np.uint8).astype(int)
    return flat.reshape(found["layers"], found["heads"], len(found["target"]), len(found["source"]))


def test_attention_is_of_the_models_own_answers(page_of, house):
    maps = attention_maps(page_of("translation"))
    predictions = pathlib.Path(house.output("Evaluator", "evaluation").path("predictions.jsonl")).read_text()
    rows = [json.loads(line) for line in predictions.splitlines()]
    assert len(maps) == 4
    for found in maps:
        assert (found["layers"], found["heads"]) == (1, 2)
        assert found["target"][-1] == found["source"][-1] == "</s>"
        source, target = ("".join(found[side][:-1]).replace("▁", " ").strip() for side in ("source", "target"))
        assert target in [row["prediction"] for row in rows if row["source"] == source]
        assert abs(weights(found).sum(-1) - 255).max() <= len(found["source"])


def test_a_language_model_looks_back_and_a_classifier_both_ways(page_of):
    for found in attention_maps(page_of("language_model")):
        assert (found["source"][0], found["target"]) == ("<s>", found["source"])
        assert not np.triu(weights(found), 1).any()
        assert "up to [row]" in found["said"]
    for found in attention_maps(page_of("classification")):
        assert (found["source"][-1], found["target"]) == ("</s>", found["source"])
        assert np.triu(weights(found), 1).any()


def test_confusion_is_shaded_by_its_share_of_the_row(page_of):
    page = Page(page_of("classification").read_text(encoding="utf-8"))
    styles = [values["style"] for tag, values in page.attributes if tag == "td" and "style" in values]
    shares = [float(style.removeprefix("--share:")) for style in styles]
    assert len(shares) == 9
    assert all(sum(shares[i : i + 3]) == pytest.approx(1, abs=0.01) or sum(shares[i : i + 3]) == 0 for i in (0, 3, 6))


def test_text_of_the_data_is_text_and_no_markup(tmp_path):
    store = _store(tmp_path)
    run = store.begin_run("translation")
    evil = "<script>alert(1)</script> {{ 7 * 7 }}"
    execution = store.begin_execution(
        run, "ExampleGen", "f" * 64, {"inputs": {}, "parameters": {}, "versions": {}}, evil
    )
    store.end_execution(execution, "FAILED", evil)
    store.end_run(run, "FAILED", evil)
    done, path = run_report(tmp_path, root=tmp_path / "runs")
    assert done.exit_code == 0, done.output
    text = path.read_text(encoding="utf-8")
    assert evil not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; {{ 7 * 7 }}" in text


def test_a_pipeline_of_ones_own_is_shown_as_far_as_it_is_like_others(tmp_path):
    store = _store(tmp_path)
    run = store.begin_run("toy")
    parts = {"inputs": {}, "parameters": {}, "versions": {"toys": "1.0"}}
    execution = store.begin_execution(run, "Toy", "f" * 64, parts, "first run")
    (tmp_path / "model").mkdir()
    store.publish(execution, {}, {"model": Model(str(tmp_path / "model"), {}, "a" * 64)})
    store.end_run(run, "COMPLETE")
    done, path = run_report(tmp_path, root=tmp_path / "runs")
    assert done.exit_code == 0, done.output
    page = Page(path.read_text(encoding="utf-8"))
    assert "Toy" in page.texts["pipeline"]
    assert "first run" in page.texts["pipeline"]
    assert str(tmp_path / "model") in page.texts["lineage"]
    for section, nothing in (
        *(("data", "does not know which files"), ("training", "Nothing was trained."), ("quality", "No model")),
        *(("attention", "There is no model"), ("card", "The run made no model."), ("reproduce", "run its")),
    ):
        assert nothing in page.texts[section]


def test_a_training_of_so_many_minutes_is_not_said_to_be_repeatable(house, tmp_path):
    store = MetadataStore(f"sqlite:///{house.folder / house.root / 'metadata.sqlite'}")
    facts = read_run(store, 1, str(house.folder / house.root))
    step = facts.steps["Trainer"]
    parts = copy.deepcopy(step.origin.parts)
    parts["parameters"]["recipe"]["training"]["minutes"] = 5.0
    timed = dataclasses.replace(step, origin=dataclasses.replace(step.origin, parts=parts))
    after = dataclasses.replace(facts, steps=facts.steps | {"Trainer": timed})
    page = Page(report._render(report._values([facts, after])))
    assert page.texts["reproduce"].count("it makes the same;") == 1
    assert page.texts["reproduce"].count("training.minutes depends on the machine") == 1
    assert "Trainer: training.minutes: 0.0 -> 5.0" in page.texts["differences"]
    assert "length examples bleu source copied" in " ".join(page.texts["quality"].split())


def test_a_rejected_row_is_shown_with_its_reason_and_what_else_is_known_of_it(house, tmp_path):
    store = MetadataStore(f"sqlite:///{house.folder / house.root / 'metadata.sqlite'}")
    facts = read_run(store, 1, str(house.folder / house.root))
    (tmp_path / "rejects").mkdir()
    reject = {"file": "a.tsv", "line": 7, "reason": "wrong number of columns", "detail": "3 instead of 2", "text": "x"}
    (tmp_path / "rejects" / "rejects.jsonl").write_text(json.dumps(reject))
    step = facts.steps["ExampleGen"]
    examples = dataclasses.replace(facts.output("ExampleGen", "examples"), uri=str(tmp_path))
    only = {"ExampleGen": dataclasses.replace(step, outputs={"examples": examples})}
    page = Page(report._render(report._values([dataclasses.replace(facts, steps=only)])))
    assert "wrong number of columns (3 instead of 2)" in page.texts["data"]


# Runs that did not complete, and none.


def _store(folder):
    (folder / "runs").mkdir()
    return MetadataStore(f"sqlite:///{folder / 'runs' / 'metadata.sqlite'}")


@pytest.fixture(scope="module")
def two_runs(house_of, tmp_path_factory):
    """A root in which, after a run that completed, one reused all but the Pusher, which could not push elsewhere."""
    root = tmp_path_factory.mktemp("two") / "runs"
    root.mkdir()
    shutil.copy(house_of("translation").folder / "runs" / "metadata.sqlite", root)
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
    return root


@pytest.fixture(scope="module")
def side_by_side(two_runs, tmp_path_factory):
    """The page of both."""
    done, path = run_report(tmp_path_factory.mktemp("both"), 1, 2, root=two_runs)
    assert done.exit_code == 0, done.output
    return path


def test_a_run_that_failed_is_shown_as_far_as_it_got(side_by_side):
    page = Page(side_by_side.read_text(encoding="utf-8"))
    assert "Pusher: cannot write to /elsewhere" in page.texts[""]
    assert "9 of 10 steps reused" not in page.texts[""]
    assert "8 of 9 steps reused" in page.texts[""]
    assert "✗ no Pusher: Pusher: cannot write" in " ".join(page.texts["verdict"].split())
    assert page.texts["data"].count("640 rows read") == page.texts["quality"].count("70 test examples") == 2
    assert "--serving-dir /elsewhere" in page.texts["reproduce"]


def test_two_runs_stand_side_by_side(side_by_side):
    page = Page(side_by_side.read_text(encoding="utf-8"))
    differences = " ".join(page.texts["differences"].split())
    assert re.search(r"Pusher: parameter destination: \S+ -> /elsewhere", differences)
    assert "BulkInferrer: only in run 1" in differences
    assert "On 70 test texts that both models were asked" in differences
    assert "run 2 is not significantly different. 0 answers differ." in differences
    for section in set(SECTIONS) - {"training"}:
        assert "Run 1" in page.texts[section]
        assert "Run 2" in page.texts[section]
    said = [values["aria-label"] for _, values in page.attributes if "aria-label" in values]
    assert any(label.startswith("run 1 train, step 20: ") for label in said)
    assert any(label.startswith("run 2 validation, step 50: ") for label in said)


def test_answers_that_changed_are_found(house, tmp_path):
    """Two models that differ in two answers, one to the better and one to the worse."""
    before = read_run(MetadataStore(f"sqlite:///{house.folder / house.root / 'metadata.sqlite'}"), 1, "")
    evaluation = before.output("Evaluator", "evaluation")
    lines = [json.loads(line) for line in pathlib.Path(evaluation.path("predictions.jsonl")).read_text().splitlines()]
    wrong = next(i for i, row in enumerate(lines) if row["prediction"] != row["target"])
    other = (wrong + 1) % len(lines)
    lines[wrong]["prediction"], lines[other]["prediction"] = lines[wrong]["target"], "nothing of the kind"
    (tmp_path / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    shutil.copy(evaluation.path("metrics.json"), tmp_path)
    step = before.steps["Evaluator"]
    outputs = {"evaluation": dataclasses.replace(evaluation, uri=str(tmp_path))}
    after = dataclasses.replace(before, steps=before.steps | {"Evaluator": dataclasses.replace(step, outputs=outputs)})
    found = compare_runs(before, after)
    assert found["num_changed"] == 2
    assert [after["source"] for _, after in found["better"]] == [lines[wrong]["source"]]
    assert [after["prediction"] for _, after in found["worse"]] == ["nothing of the kind"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((7,), "no run 7 here; `seq2serve runs` lists them"),
        ((1, 7), "no run 7 here"),
        ((1, 2, 3), "one run or two, not 3"),
    ],
)
def test_what_cannot_be_shown_is_said(two_runs, tmp_path, arguments, message):
    done, path = run_report(tmp_path, *arguments, root=two_runs)
    assert done.exit_code == 2
    assert message in done.stderr
    assert not path.exists()


def test_a_run_of_an_older_version_is_said_to_be_one(tmp_path):
    store = _store(tmp_path)
    run = store.begin_run("translation")
    parts = {"inputs": {}, "parameters": {"recipe": {"model": {}}}, "versions": {}}
    store.end_execution(store.begin_execution(run, "Trainer", "f" * 64, parts, ""), "FAILED", "")
    done, _ = run_report(tmp_path, root=tmp_path / "runs")
    assert (done.exit_code, "run its command again" in done.stderr) == (2, True)


def test_where_nothing_ran_there_is_nothing_to_show(tmp_path):
    done, _ = run_report(tmp_path, root=tmp_path / "nowhere")
    assert (done.exit_code, "no runs in" in done.stderr) == (2, True)
    _store(tmp_path)
    done, _ = run_report(tmp_path, root=tmp_path / "runs")
    assert (done.exit_code, "no runs in" in done.stderr) == (2, True)


def test_a_page_that_cannot_be_written_is_said(tmp_path):
    """Where there is no such folder, before the page is made."""
    _store(tmp_path).begin_run("toy")
    for path, why in ((tmp_path / "none" / "page.html", "its folder does not exist"), (tmp_path, "Is a directory")):
        where = ["--pipeline-root", str(tmp_path / "runs"), "--output", str(path)]
        done = CliRunner().invoke(app, ["report", *where])
        assert (done.exit_code, why in done.stderr, "--output" in done.stderr) == (2, True, True)
    with pytest.raises(UserError, match="its folder does not exist"):
        report.write_report(None, [1], "", str(tmp_path / "none" / "page.html"))


# In a browser.

browser = next(filter(None, map(shutil.which, BROWSERS)), "")

# Looks at the page in a frame as narrow as a phone, uses its keyboard, and writes down what happened.
PROBE = """<!doctype html><meta charset="utf-8"><iframe width="360" height="800" src="page.html"></iframe><script>
document.querySelector("iframe").addEventListener("load", ({ target }) => {
  const page = target.contentDocument, seen = { width: page.documentElement.scrollWidth };
  const press = (element, key) => element.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  seen.ready = page.body.dataset.ready;
  seen.paper = target.contentWindow.getComputedStyle(page.body).backgroundColor;
  const figure = page.querySelector("#training figure");
  figure.focus();
  press(figure, "ArrowRight");
  seen.tip = page.getElementById("tip").textContent;
  const map = page.querySelector(".map");
  if (map) {
    const head = page.querySelector("select.head");
    head.value = "0,1";
    head.dispatchEvent(new Event("change"));
    press(map, "ArrowRight");
    seen.readout = page.querySelector(".readout").textContent;
    seen.cells = map.querySelectorAll("td").length;
    seen.pressed = page.querySelector(".heads [aria-pressed='true']").getAttribute("aria-label");
  }
  document.body.dataset.seen = JSON.stringify(seen);
});
</script>"""


def look(page, profile, *flags):
    """Returns what PROBE saw."""
    (page.parent / "probe.html").write_text(PROBE, encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--dump-dom"]
    command = [browser, *options, "--allow-file-access-from-files", "--virtual-time-budget=8000", *flags]
    done = subprocess.run(
        [*command, (page.parent / "probe.html").as_uri()], capture_output=True, check=True, timeout=60
    )
    (seen,) = re.findall(r'data-seen="([^"]*)"', done.stdout.decode())
    return json.loads(html.unescape(seen))


@pytest.mark.skipif(not browser, reason="there is no headless browser")
def test_a_browser_shows_it_on_a_phone_and_by_keyboard_in_light_and_dark(page_of, side_by_side, tmp_path):
    light = look(page_of("translation"), tmp_path)
    dark = look(side_by_side, tmp_path, "--blink-settings=preferredColorScheme=0")
    for seen in (light, dark):
        assert seen["ready"] == "yes"
        assert seen["width"] <= 360
        assert re.fullmatch(r"(run 1 )?train, step 20: \d.*", seen["tip"])
        assert re.fullmatch(r"Before it wrote “.+” it gave “.+” \d+ % of its attention\.", seen["readout"])
        assert seen["pressed"] == "layer 1, head 2"
        assert seen["cells"] > 10
    assert light["paper"] != dark["paper"]
