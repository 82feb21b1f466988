"""`seq2serve.run`: the command line's pipeline, results as values, errors as exceptions."""

import json
from pathlib import Path

import pyarrow
import pytest

import seq2serve
from seq2serve import _rows


def sections(settings) -> dict[str, dict[str, str]]:
    """Returns settings such as "model.d_model=32" as the arguments of `run`."""
    result: dict[str, dict[str, str]] = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        section, _, key = name.partition(".")
        result.setdefault(section, {})[key] = value
    return result


@pytest.fixture
def copy(finished_run, tmp_path):
    """A copy of the finished run: runs in it leave the metadata store of the original as other tests expect it."""
    return finished_run.copy(tmp_path / "copy")


@pytest.fixture
def pairs(copy):
    """The file of the finished run."""
    return copy.folder / "pairs.tsv"


@pytest.fixture
def options(copy):
    """The options of the finished run's command, with which everything is reused."""
    settings = [word.removeprefix("--set=") for word in copy.command() if word.startswith("--set=")]
    return {
        "preset": "demo",
        "pipeline_root": copy.folder / copy.root,
        "serving_dir": copy.folder / copy.serving,
        **sections(settings),
    }


def test_a_run_has_the_results_of_the_command_line_and_reuses_them(finished_run, pairs, options, capfd):
    options |= {"serving_dir": finished_run.folder / finished_run.serving}
    run = seq2serve.run(pairs, **options)
    before = finished_run.output("Evaluator", "evaluation")
    assert all(node.reused for node in run.nodes.values())
    assert (run.metrics, run.baselines) == (before.properties["model"], before.properties["baselines"])
    assert run.blessed
    assert Path(run.pushed).parent == options["serving_dir"]
    assert run.output("Trainer", "model").uri == finished_run.output("Trainer", "model").uri
    assert capfd.readouterr() == ("", "")


def test_the_config_of_a_run_repeats_it_and_options_win_over_it(pairs, options, tmp_path):
    folders = {name: options[name] for name in ("pipeline_root", "serving_dir")}
    first = seq2serve.run(pairs, **options)
    assert first.config.read_text() == (options["pipeline_root"] / "configs" / f"{first.id}.toml").read_text()
    run = seq2serve.run(config=first.config, **folders)
    assert all(node.reused for node in run.nodes.values())
    with pytest.raises(seq2serve.UserError) as error:
        seq2serve.run(config=first.config, source="english", preset="tiny", **folders)
    assert error.value.code == "column-missing"


def test_a_run_without_rows_and_without_data_in_a_config_is_an_error(tmp_path):
    with pytest.raises(seq2serve.UserError, match=r"^no data: name a file, or a config file whose table") as error:
        seq2serve.run(pipeline_root=tmp_path)
    assert error.value.code == "data-missing"


def test_a_run_can_be_loaded(pairs, options):
    run = seq2serve.run(pairs, **options)
    with seq2serve.load(run) as translate:
        assert translate("Open the door in the hall now.")


def test_a_run_has_the_warnings_that_the_command_line_prints(tmp_path, build_run):
    """Of a classifier, because everything runs, and its components take a fraction of a translator's time."""
    run = build_run(tmp_path, "classification")
    with (tmp_path / run.file).open("a", encoding="utf-8") as file:
        file.write("one field\n" * 3)
    settings = [word.removeprefix("--set=") for word in run.command("training.steps=1") if word.startswith("--set=")]
    options = {"preset": "demo", "task": "classification", "text": "sentence", "pipeline_root": tmp_path / run.root}
    rejected, location, *anomalies = seq2serve.run(tmp_path / run.file, **options, **sections(settings)).warnings
    assert rejected.startswith("3 rejected: ")
    assert location.startswith("rejected rows, with file and line: ")
    assert [line for line in anomalies if not line.startswith("test split: ")] == []  # answers at the maximum length


def test_a_version_that_servers_do_not_load_is_a_warning(pairs, options):
    serving = options["serving_dir"]
    (number,) = [path.name for path in serving.glob("[0-9]*")]
    config = serving / "models.config"
    before = config.read_text()
    config.write_text(before.replace("base_path", "model_version_policy { specific { versions: 1 } } base_path"))
    *_, warning = seq2serve.run(pairs, **options).warnings
    assert "model servers do not load version" in warning
    assert str(config) in warning
    assert int(number) > 1


def test_progress_prints_the_lines_of_the_command_line(pairs, options, capfd):
    seq2serve.run(pairs, **options, progress=True)
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines][:2] == [["ExampleGen", "reused"], ["StatisticsGen", "reused"]]
    assert len(lines) == 10


def test_a_report_is_written(pairs, options, tmp_path):
    run = seq2serve.run(pairs, **options)
    path = run.report(tmp_path / "report.html")
    assert f"Run {run.id}" in path.read_text(encoding="utf-8")


def test_a_model_that_is_not_blessed_is_a_run_with_a_reason(pairs, options, tmp_path):
    options |= {"serving_dir": tmp_path / "other", "training": {**options["training"], "steps": 2}}
    run = seq2serve.run(pairs, **options)
    assert not run.blessed
    assert run.pushed is None
    assert "not significantly better than source copied" in run.reason
    assert "Next: " in run.reason
    assert run.metrics["chrf"] > 0
    assert seq2serve.load(run)("Open")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"presett": "tiny"}, "option-unknown"),
        ({"preset": "tini"}, "name-unknown"),
        ({"task": "translate"}, "name-unknown"),
        ({"training": 5}, "settings-invalid"),
        ({"training": {"stepps": 5}}, "name-unknown"),
        ({"training": {"steps": "many"}}, "setting-invalid"),
        ({"data": {"delimiter": None}}, "setting-invalid"),
        ({"data": {"slices": ["a", "b"]}}, "setting-invalid"),
        ({"warm_start": "nowhere"}, "model-missing"),
        ({"config": "nowhere.toml"}, "file-missing"),
        ({"columns": {"sourse": "a"}}, "name-unknown"),
        ({"columns": ["a", "b"]}, "settings-invalid"),
        ({"columns": {"source": "a"}, "source": "b"}, "column-repeated"),
        ({"source": ""}, "column-unnamed"),
        ({"beam_options": ["stray"]}, "beam-option-malformed"),
        ({"serving_dir": "pairs.tsv"}, "serving-dir-unwritable"),
    ],
)
def test_bad_options_are_errors_before_anything_runs(tmp_path, monkeypatch, changes, code):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.tsv").write_text("source\ttarget\na\tb\n")
    with pytest.raises(seq2serve.UserError) as error:
        seq2serve.run("pairs.tsv", **changes)
    assert error.value.code == code
    assert not list(tmp_path.glob("runs/*/*"))


def test_settings_of_a_tokenizer_cannot_change_that_of_an_earlier_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.tsv").write_text("source\ttarget\na\tb\n")
    (tmp_path / "model" / "tokenizer").mkdir(parents=True)
    for name in ("config.json", "model.weights.h5", "tokenizer/tokenizer.json"):
        (tmp_path / "model" / name).write_text(
            '{"kind": "sentencepiece", "vocab_size": 900, "class": "Transformer", "config": {}}'
        )
    with pytest.raises(seq2serve.UserError) as error:
        seq2serve.run("pairs.tsv", warm_start="model", tokenizer={"vocab_size": 500})
    assert (error.value.code, error.value.fields["settings"]) == ("tokenizer-fixed", ["tokenizer.vocab_size"])


def test_bad_input_is_an_error_that_names_the_component(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(seq2serve.UserError, match=r"file not found: .missing\.tsv."):
        seq2serve.run("missing.tsv", preset="tiny")
    rows = [{"source": "a", "target": "b"}] * 3
    with pytest.raises(seq2serve.UserError, match=r"^ExampleGen: "):
        seq2serve.run(rows, preset="tiny", source="english")


# Rows in memory.

ROWS = [{"source": "Öffne", "target": "Open", "n": 1}, {"source": "a\tb\nc", "target": "", "n": None}]


def test_dicts_are_written_as_json_lines_once(tmp_path):
    path = _rows.write_rows(ROWS, str(tmp_path))
    with open(path, encoding="utf-8") as file:
        assert [json.loads(line) for line in file] == ROWS
    assert _rows.write_rows(iter(ROWS), str(tmp_path)) == path
    assert len(list((tmp_path / "inputs").iterdir())) == 1
    assert _rows.write_rows(ROWS[:1], str(tmp_path)) != path


def test_tables_are_written_as_parquet(tmp_path):
    table = pyarrow.table({"source": ["a", "b"], "target": ["c", "d"]})
    path = _rows.write_rows(table.replace_schema_metadata({"pandas": "anything"}), str(tmp_path))
    assert pyarrow.parquet.read_table(path).equals(table)
    assert _rows.write_rows(table, str(tmp_path)) == path


@pytest.mark.parametrize(
    ("rows", "fields"),
    [
        ([], {}),
        ([{"source": "a"}, ("b", "c")], {"row": 2}),
        ([{"source": {1, 2}}], {"row": 1}),
        ([{"source": float("nan")}], {"row": 1}),
    ],
)
def test_rows_that_cannot_be_written_are_errors(tmp_path, rows, fields):
    with pytest.raises(seq2serve.UserError) as error:
        _rows.write_rows(rows, str(tmp_path))
    assert error.value.code == ("row-invalid" if fields else "rows-empty")
    assert error.value.fields == fields
    assert not list((tmp_path / "inputs").iterdir())


def test_rows_in_memory_become_examples(tmp_path, monkeypatch):
    """Up to ExampleValidator: a column is wrong on purpose, so that nothing is trained."""
    monkeypatch.chdir(tmp_path)
    rows = [{"source": f"text {number} {'x' * number}", "target": f"Text {number}"} for number in range(40)]
    with pytest.raises(seq2serve.UserError) as error:
        seq2serve.run(rows, preset="tiny", data={"eval_share": 0.2, "test_share": 0.2}, schema="missing.pbtxt")
    assert error.value.code == "file-missing"
    (path,) = (tmp_path / "runs" / "inputs").iterdir()
    assert len(path.read_text().splitlines()) == 40
