"""The summary of a run: warnings, literal answers, metrics next to the baselines, and commands that can be pasted."""

import json
import shlex

import pytest

from seq2serve.components.base.artifact import (
    ExampleAnomalies,
    Examples,
    ExampleStatistics,
    InferenceResult,
    Model,
    ModelEvaluation,
    PushedModel,
    TransformedExamples,
)
from seq2serve.pipeline.commands import findings_text
from seq2serve.pipeline.commands.summary_text import NUM_SHOWN, print_summary
from seq2serve.pipeline.config import preset
from seq2serve.pipeline.running.pipeline import NodeResult, Pipeline, RunResult

CONFIG = preset("demo", "translation")
REPORT = {
    "headline": {"metric": "bleu", "reason": ""},
    "model": {"bleu": 25.04, "chrf": 50.06},
    "baseline": {"bleu": 3.14, "chrf": 20.0},
    "baselines": {"source copied": {"bleu": 3.14, "chrf": 20.0}},
    "tables": [{"title": "By length", "header": ["words", "bleu"], "rows": [["1 to 9", "31.5"]]}],
    "signature": {"bleu": "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0", "chrf": "nrefs:1|nc:6"},
    "slices": [],
    "num_examples": 1442,
    "num_cut": {"texts": 3, "answers": 0},
}
CHECKPOINTS = {
    "metric": "bleu",
    "best_step": 100,
    "best": 26.0,
    "last_step": 200,
    "last": 25.5,
    "noise": 1.2,
    "export": "auto",
}
TRANSFORMED = {
    "num_examples": {"train": 1000, "eval": 30, "test": 30},
    "num_long": {"source": 0, "target": 0},
    "num_dropped": 0,
    "max_length": 64,
    "token_lengths": {"source": {"p99": 20, "max": 310}, "target": {"p99": 20, "max": 64}},
}


@pytest.fixture
def summary(tmp_path, monkeypatch, capsys):
    """Returns a function that prints the summary of a run with given answers, and returns the text."""
    root = tmp_path / "my runs"

    def summary(rows, columns=200, rejected=(), warnings=(), transformed=None, labels=None, pushed=True):
        inferred, version = root / "BulkInferrer", root / "serving" / "17"
        inferred.mkdir(parents=True, exist_ok=True)
        middle = len(rows) // 2
        for shard, part in enumerate((rows[:middle], rows[middle:])):
            lines = "".join(json.dumps(row) + "\n" for row in part)
            (inferred / f"predictions-{shard:05d}-of-00002.jsonl").write_text(lines)
        push = {"pushed": pushed, "pushed_destination": str(version), "pushed_version": 17}
        counts = {"num_rejected": len(rejected), "num_rejected_by_reason": dict(rejected)}
        outputs = {
            "ExampleGen": {"examples": Examples(str(root / "examples"), counts)},
            "StatisticsGen": {"statistics": ExampleStatistics("", {"label_counts": labels} if labels else {})},
            "ExampleValidator": {"anomalies": ExampleAnomalies("", {"warnings": list(warnings)})},
            "Transform": {"transformed_examples": TransformedExamples("", TRANSFORMED | (transformed or {}))},
            "Trainer": {"model": Model("", {"exported_steps": [200], "checkpoints": CHECKPOINTS, "warm_start": {}})},
            "Evaluator": {"evaluation": ModelEvaluation("", REPORT)},
            "Pusher": {"pushed_model": PushedModel("", push)},
            "BulkInferrer": {"inference_result": InferenceResult(str(inferred))},
        }
        nodes = {name: NodeResult(output, False, "first run", 1.0) for name, output in outputs.items()}
        monkeypatch.setenv("COLUMNS", str(columns))
        print_summary(RunResult(1, Pipeline("translation", str(root), ()), nodes, 95.4), CONFIG)
        return capsys.readouterr().out

    return summary


def rows(number):
    return [
        {"key": i, "source": f"source {i}", "target": f"target {i}", "translation": f"answer {i}"}
        for i in range(number)
    ]


def test_held_out_texts_are_shown_with_answer_and_reference(summary):
    """Eight texts are shown, evenly spaced over the split, each once."""
    lines = summary(rows(3 * NUM_SHOWN) * 2).splitlines()
    shown = [line for line in lines if "answer" in line and "source" in line]
    assert len(shown) == NUM_SHOWN
    for i in range(NUM_SHOWN):
        assert shown[i].split() == f"│ source {3 * i} │ answer {3 * i} │ target {3 * i} │".split()


def test_the_summary_says_whether_a_version_was_added(summary):
    assert "\nPushed version 17 to " in summary(rows(1))
    assert "\nVersion 17 already has this model: " in summary(rows(1), pushed=False)


def test_rejected_rows_and_warnings_come_first(summary):
    lines = summary(rows(1), rejected=[("empty source", 7)], warnings=["train: 99 % are of one label"]).splitlines()
    assert lines[0] == "  7 rejected: empty source"
    assert lines[1].startswith("  rejected rows, with file and line: ")
    assert lines[2] == "warning: train: 99 % are of one label"
    assert lines[3].startswith("warning: test split: 3 of 1442 texts were longer than the model reads")
    assert lines[4].startswith("Held-out texts")


def test_texts_beyond_the_limit_are_said_and_a_large_share_is_in_a_box(summary):
    few = {"num_long": {"source": 10, "target": 0}, "num_dropped": 10}
    assert summary(rows(1), transformed=few).startswith("warning: 10 of 1,070 rows (0.9 %) were dropped, because a ")
    many = {"num_long": {"source": 0, "target": 530}, "num_truncated": {"source": 0, "target": 530}}
    first, second, *_ = summary(rows(1), transformed=many).splitlines()
    assert first.startswith("╭─ WARNING ─")
    assert "530 of 1,060 texts in target (50.0 %) were cut after data.max_length=64 tokens" in second


def test_the_label_table_counts_the_rows_of_all_splits(summary):
    labels = {"label": {"train": {"good": 60, "[bold]bad": 30}, "test": {"good": 9, "so so": 1}}}
    lines = [line.replace("│", " ").split() for line in summary(rows(1), labels=labels).splitlines()]
    assert lines[0] == ["Labels", "in", "the", "column", "label:", "3"]
    assert [*lines[4:7]] == [["good", "69", "69.0%"], ["[bold]bad", "30", "30.0%"], ["so", "so", "1", "1.0%"]]


def test_a_long_label_table_shows_the_most_frequent_and_the_rarest_labels(summary):
    labels = {"label": {"train": {f"intent_{number:02d}_{'x' * 90}": 100 - number for number in range(77)}}}
    lines = summary(rows(1), columns=80, labels=labels).splitlines()
    table = lines[: next(number for number, line in enumerate(lines) if line.startswith("└")) + 1]
    assert len(table) < 30
    assert max(map(len, table)) <= 80
    shown = [line.split()[1][:9] for line in table if "intent_" in line]
    assert shown == [f"intent_{number:02d}" for number in [*range(15), *range(72, 77)]]
    (rest,) = (line.replace("│", "").split() for line in table if "more" in line)
    assert rest[:3] == ["(57", "more", "labels)"]
    assert int(rest[3].replace(",", "")) == sum(100 - number for number in range(15, 72))


def test_markup_in_texts_is_printed_literally(summary):
    row = {"source": "[bold]a[/bold] :smile:", "translation": "[/] {x} \\", "target": "[red] 日本語"}
    assert "│ [bold]a[/bold] :smile: │ [/] {x} \\   │ [red] 日本語     │" in summary([row])


def test_metrics_are_shown_next_to_the_baselines_with_their_signatures(summary):
    text = summary(rows(2))
    assert "Test set, 1442 examples" in text
    lines = [line.replace("│", " ").split() for line in text.splitlines()]
    assert ["bleu", "25.0", "3.1"] in lines
    assert ["chrf", "50.1", "20.0"] in lines
    assert "bleu: nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0\n" in text


def test_the_metric_that_decides_is_shown_with_the_reason_if_it_is_not_the_usual_one(summary, monkeypatch):
    assert "  headline: bleu\n" in summary(rows(2))
    monkeypatch.setitem(REPORT, "headline", {"metric": "chrf", "reason": "texts are [short]"})
    assert "  headline: chrf, because texts are [short]\n" in summary(rows(2))


def test_tables_of_the_evaluation_are_shown(summary):
    lines = [line.replace("│", " ").split() for line in summary(rows(2)).splitlines()]
    assert ["1", "to", "9", "31.5"] in lines
    assert ["By", "length"] in lines


def tables_of(number, prefix=""):
    """Returns the tables of a classifier with some labels; each is once taken for the next one."""
    names = [f"{prefix}{i:02d}" for i in range(number)]
    matrix = [[str(50 if i == j else (i + 1) * (j == (i + 1) % number)) for j in range(number)] for i in range(number)]
    return [
        {"title": "By label", "header": ["label", "F1"], "rows": [[name, f"{i}.5"] for i, name in enumerate(names)]},
        {
            "title": "Confusion matrix: right label (down), predicted label (across)",
            "header": ["", *names],
            "rows": [[name, *row] for name, row in zip(names, matrix, strict=True)],
            "is_matrix": True,
        },
    ]


@pytest.mark.parametrize("columns", [80, 100])
def test_tables_of_77_labels_fit_the_terminal_as_the_worst_labels_and_pairs(summary, monkeypatch, columns):
    prefix = "card_payment_not_recognised_or_wrong_"  # 39 characters with the number
    monkeypatch.setitem(REPORT, "tables", tables_of(77, prefix))
    text = summary(rows(2), columns=columns)
    tables = text[text.index("By label") : text.index("Pushed version")].splitlines()
    assert max(map(len, tables)) <= columns
    assert len(tables) < 70
    joined = " ".join(" ".join(line.replace("│", " ").split()) for line in tables)
    assert "By label: the 15 lowest in F1 of 77; the report has all" in joined
    assert "Confusion matrix: the 10 most frequent of 77 pairs with errors; the report has all" in joined
    shares = [line.replace("│", " ").split()[-2:] for line in tables if line.rstrip(" │").endswith("%")]
    assert shares == [[str(count), f"{count / (50 + count):.0%}"] for count in range(77, 67, -1)]
    assert "…" not in joined, "two shortened labels may look the same"


def test_a_confusion_matrix_that_fits_is_shown_whole(summary, monkeypatch):
    monkeypatch.setitem(REPORT, "tables", tables_of(3))
    lines = [line.replace("│", " ").split() for line in summary(rows(2), columns=80).splitlines()]
    assert ["00", "50", "1", "0"] in lines
    monkeypatch.setitem(REPORT, "tables", tables_of(3, "x" * 25))
    assert "3 most frequent of 3 pairs" in " ".join(summary(rows(2), columns=80).split())


def test_commands_can_be_pasted(summary, tmp_path):
    """Each command is one line at any terminal width, and a path with a space is quoted."""
    text = summary(rows(2), columns=40)
    commands = dict(line.strip().split(": ", 1) for line in text.partition("Next:\n")[2].splitlines())
    root = f"{tmp_path}/my runs"
    assert {title: shlex.split(command) for title, command in commands.items()} == {
        "Training curves": ["seq2serve", "tensorboard", "--pipeline-root", root],
        "Report": ["seq2serve", "report", "--pipeline-root", root],
        "Lineage": ["seq2serve", "lineage", "--pipeline-root", root, f"{root}/serving/17"],
        "Translate": ["seq2serve", "predict", "--model", f"{root}/serving/17", "source 0"],
        "Serve": ["seq2serve", "serve", f"{root}/serving"],
    }


def test_a_withdrawn_version_is_reported_and_the_commands_name_its_folder(summary, tmp_path):
    serving = tmp_path / "my runs" / "serving"
    (serving / "withdrawn-17").mkdir(parents=True)
    (serving / "withdrawn-17" / "saved_model.pb").touch()
    text = summary(rows(1))
    assert f"Warning: version 17 is withdrawn; `seq2serve rollback '{serving}' 17` serves it again\n" in text
    assert f"--model '{serving}/withdrawn-17'" in text


def test_a_version_that_servers_do_not_load_is_reported(summary, tmp_path):
    serving = tmp_path / "my runs" / "serving"
    (serving / "17").mkdir(parents=True)
    (serving / "17" / "saved_model.pb").touch()
    model = "base_path: '/serving' model_platform: 'tensorflow' model_version_policy { specific { versions: 16 } }"
    config = f"model_config_list {{ config {{ {model} }} }}"
    (serving / "models.config").write_text(config, encoding="utf-8")
    assert "Warning: model servers do not load version 17: " in summary(rows(1))


@pytest.mark.parametrize(
    ("sources", "prompt"),
    [
        (["long " * 20, "It's 5 o'clock; `rm *` costs $5", "short"], "It's 5 o'clock; `rm *` costs $5"),
        (["--help", "over\ntwo  lines"], "over two lines"),
        (["a word " * 20], "a word a word a word a word a word a word a word a word a"),
        (["字" * 100], "字" * 60),
        (["bell \a"], "Turn on the light."),
        ([], "Turn on the light."),
    ],
)
def test_the_example_command_has_a_held_out_text(summary, sources, prompt):
    text = summary([{"source": source, "target": "x", "translation": "y"} for source in sources])
    (line,) = [line for line in text.partition("Next:\n")[2].splitlines() if line.startswith("  Translate: ")]
    assert shlex.split(line.removeprefix("  Translate: "))[4:] == [prompt]


def test_the_best_checkpoint_and_the_exported_one_are_said(summary):
    sentence = (
        "eval bleu was best at step 100 (26), by 0.5 better than at the last step 200 (25.5), which is within noise "
        "(1.2); exported: step 200 (training.export=auto)"
    )
    assert f"  {sentence}\n" in summary(rows(1))


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["validate", "a.csv", "--text", "t"], ["run", "a.csv", "--text", "t", "--from", "m"]),
        (["run", "--preset", "demo", "a.csv"], ["run", "a.csv", "--from", "m"]),
        (["run", "a.csv", "--preset=demo", "--", "--x=y"], ["run", "a.csv", "--from", "m", "--", "--x=y"]),
    ],
)
def test_the_suggested_command_starts_from_the_model_without_a_preset(arguments, command):
    assert findings_text.with_start(arguments, "m") == command
