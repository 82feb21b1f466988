"""A run with a search: Trainer takes its result, the report and the lineage show it, and the run's config has it."""

import re

from seq2serve.components.tuner.trials import read_trials
from seq2serve.pipeline.run_config import read_run_config


def test_a_search_decides_about_the_settings_that_nobody_made(finished_run, tmp_path):
    run = finished_run.copy(tmp_path / "run")
    command = [
        word
        for word in run.command("tuner.trials=2", "evaluation.bar=none")
        if not word.startswith("--set=training.learning_rate=")
    ]
    done = run.execute(command)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^Transform +reused ", done.stdout, re.MULTILINE)
    trials = read_trials(run.output("Tuner", "tuner_results").uri)
    rates = {trial.number: trial.settings["training.learning_rate"] for trial in trials}
    best = min(trials, key=lambda trial: trial.value)
    assert [list(trial.settings) for trial in trials] == [["training.learning_rate"]] * 2
    assert rates[0] == 0.003  # of the preset
    model = run.output("Trainer", "model")
    assert model.properties["recipe"]["training"]["learning_rate"] == rates[best.number]
    assert model.properties["eval_loss"] == best.value

    config = read_run_config(max((run.folder / "runs" / "configs").glob("*.toml")))
    assert f"training.learning_rate={rates[best.number]}" in config.settings
    assert "tuner.trials=0" in config.settings
    assert not config.pipeline_config().searched()

    lineage = run.execute([*command[:3], "lineage", model.uri]).stdout
    assert "HyperParameters" in lineage
    assert run.execute([*command[:3], "report", "--output", "page.html"]).returncode == 0
    page = (run.folder / "page.html").read_text(encoding="utf-8")
    assert "trial 0" in page
    for trial in trials:
        assert f'<td class="number">{trial.number}</td>' in page
        assert f"{trial.value:.3f}" in page
    assert page.count("✓ best") == 1
