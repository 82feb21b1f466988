"""Config files: everything in them is used, wrong ones are one clear message, and an effective one repeats its run."""

import dataclasses
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen.corpora import corpus_weights, parse_data
from seq2serve.components.tasks.registry import TASKS
from seq2serve.pipeline.config import PRESETS, preset, sections, setting_names
from seq2serve.pipeline.run_config import RunConfig, read_run_config

FULL = """
task = "classification"
preset = "tiny"

[files]
data = "reviews.csv"
schema = "../schema.pbtxt"
tokenizer = "spm.model"
warm_start = "/models/7"

[columns]
text = "review"
label = 2

[training]
steps = 500
learning_rate = 1e-3
optimizer = "muon"

[model]
norm_first = false
"""


@pytest.fixture
def write(tmp_path):
    """Returns a function that writes a config file and returns its path."""

    def write(text: str) -> Path:
        path = tmp_path / "config.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_everything_in_a_config_file_is_used(write, tmp_path):
    config = read_run_config(write(FULL))
    assert (config.task, config.preset, config.columns) == (
        "classification",
        "tiny",
        {"text": "review", "label": "2"},
    )
    assert (config.data, config.schema) == (str(tmp_path / "reviews.csv"), str(tmp_path.parent / "schema.pbtxt"))
    assert (config.tokenizer, config.warm_start) == (str(tmp_path / "spm.model"), "/models/7")
    tiny, full = preset("tiny", "classification"), config.pipeline_config()
    changes = {"steps": 500, "learning_rate": 0.001, "optimizer": "muon"}
    assert full.training == dataclasses.replace(tiny.training, **changes)
    assert full.model == dataclasses.replace(tiny.model, norm_first=False)
    assert (full.data, full.file_columns) == (tiny.data, {"text": "review", "label": "2"})


def test_an_empty_config_file_changes_nothing(write):
    assert read_run_config(write("")) == RunConfig()
    assert RunConfig().pipeline_config() == preset("auto", "translation")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("books/*.txt", "{0}/books/*.txt"),
        ("/data/pairs.tsv", "/data/pairs.tsv"),
        ("gs://bucket/pairs-*.tsv", "gs://bucket/pairs-*.tsv"),
        ("train=a.tsv,test=/b.tsv", "train={0}/a.tsv,test=/b.tsv"),
        ("train.source=a.en,train.target=sub/a.de", "train.source={0}/a.en,train.target={0}/sub/a.de"),
        ("source=a.en,target=gs://bucket/a.de", "source={0}/a.en,target=gs://bucket/a.de"),
        ("own.tsv:3,web.tsv:0.25", "train={0}/own.tsv:3,train={0}/web.tsv:0.25"),
        ("own.tsv:3,gs://b/web.tsv,test=t.tsv", "train={0}/own.tsv:3,train=gs://b/web.tsv:1,test={0}/t.tsv"),
        (
            "source=a.en,target=a.de,source=b.en,target=b.de",
            "{1}source={0}/a.en,{1}target={0}/a.de,{1}source={0}/b.en,{1}target={0}/b.de",
        ),
    ],
)
def test_relative_paths_are_relative_to_the_config_file(write, tmp_path, monkeypatch, data, expected):
    monkeypatch.chdir("/")
    assert read_run_config(write(f'[files]\ndata = "{data}"')).data == expected.format(tmp_path, "train.")


def test_the_last_model_stays_a_word_until_it_is_looked_up(write):
    assert read_run_config(write('[files]\nwarm_start = "last"')).warm_start == "last"


def test_the_effective_config_of_corpora_in_a_folder_with_a_comma_means_the_same(write, tmp_path, monkeypatch):
    folder = tmp_path / "my, folder"
    folder.mkdir()
    for name in ("own.tsv", "a,b.tsv"):
        (folder / name).write_text("x")
    monkeypatch.chdir(folder)
    chosen = RunConfig(data="own.tsv:3,a,b.tsv")
    again = read_run_config(write(chosen.effective_text({})))
    assert corpus_weights(again.data) == corpus_weights(chosen.data) == {"own": 3.0, "a,b": 1.0}
    assert [role.pattern for role in parse_data(again.data)] == [f"{folder}/own.tsv", f"{folder}/a,b.tsv"]


def test_brackets_in_the_folder_of_the_config_file_are_no_pattern(tmp_path):
    folder = tmp_path / "a[b]"
    (folder / "x").mkdir(parents=True)
    (folder / "config.toml").write_text('[files]\ndata = "*/pairs.tsv"')
    (folder / "x" / "pairs.tsv").write_text("source\ttarget\na\tb\n")
    from seq2serve.components.base.artifact import RawFiles
    from seq2serve.pipeline.running.raw_files import resolve_raw_files

    files = resolve_raw_files(RawFiles(read_run_config(folder / "config.toml").data))
    assert [file["path"] for file in files.properties["files"]] == [str(folder / "x" / "pairs.tsv")]


def test_values_win_over_those_below_them_one_by_one():
    base = RunConfig(
        "a", "s", "", "w", "", "classification", "tiny", {"text": "a", "label": "b"}, ("training.steps=1",)
    )
    top = RunConfig("b", "", "t", "", "", "", "demo", {"text": "c"}, ("training.steps=2",))
    expected = RunConfig("b", "s", "t", "w", "", "classification", "demo", {"text": "c", "label": "b"})
    assert top.over(base) == dataclasses.replace(expected, settings=("training.steps=1", "training.steps=2"))
    assert top.over(base).pipeline_config().training.steps == 2
    assert top.over(RunConfig()) == top


# Wrong files.


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("tasks = 'x'", "name-unknown", r": unknown key 'tasks' \(did you mean task\?\)\. There are: task, preset, f"),
        ("[trainig]\nsteps = 5", "name-unknown", r": unknown key 'trainig' \(did you mean training\?\)\. There are:"),
        ("[files]\ndate = 'x'", "name-unknown", r": unknown key 'files.date' \(did you mean files.data\?\)\. There a"),
        ("[training]\nstep = 5", "name-unknown", r": unknown setting 'training.step' \(did you mean training.steps\?"),
        ("[model]\nsteps = 5", "name-unknown", r": unknown setting 'model.steps' \(did you mean training.steps\?"),
        ("task = 'translate'", "name-unknown", r": unknown task 'translate' \(did you mean translation\?\)"),
        ("preset = 'tiney'", "name-unknown", r": unknown preset 'tiney' \(did you mean tiny\?\)"),
        ("[model]\npositions = 'rotaty'", "name-unknown", r": unknown value of model.positions 'rotaty' \(did you me"),
        ("[training]\nsteps = 'many'", "setting-invalid", r": setting training.steps must be a whole number, got 'ma"),
        ("[training]\nsteps = 5.5", "setting-invalid", r": setting training.steps must be a whole number, got '5.5'$"),
        ("[training]\nsteps = [5]", "setting-invalid", r": setting training.steps must be a text, a number, True or "),
        ("[model]\nnorm_first = 1", "setting-invalid", r": setting model.norm_first must be true or false, got '1'$"),
        ("[training]\nsteps = -1", "setting-out-of-range", r": setting training.steps must be at least 0, got -1$"),
        ("training = 5", "setting-invalid", r": training must be a table, got 5$"),
        ("task = 5", "setting-invalid", r": task must be a text, got 5$"),
        ("[files]\ndata = ['a']", "setting-invalid", r": files.data must be a text, got \['a'\]$"),
        ("[columns]\ntext = ' '", "setting-invalid", r": columns.text must be the name or the number .* got ' '$"),
        ("[columns]\ntext = true", "setting-invalid", r": columns.text must be the name or the number of a column"),
        ("[data]\nlabel = 'x'", "setting-replaced", r": setting data.label no longer exists: name the column of the"),
        ("\ntask = ", "config-malformed", r", line 2: not TOML: invalid value$"),
        ("\ntask = \npreset = 'x'", "config-malformed", r", line 2, column 8: not TOML: invalid value$"),
        ("\n\ntask = 'x", "config-malformed", r", line 3(, column \d+)?: not TOML: "),
        ("task = 'a'\ntask = 'b'", "config-malformed", r", line 2: not TOML: cannot overwrite a value$"),
    ],
)
def test_a_wrong_config_file_is_one_message_that_names_it(write, text, code, message):
    path = write(text)
    with pytest.raises(UserError, match=message) as error:
        read_run_config(path)
    assert str(error.value).startswith(str(path))
    assert (error.value.code, error.value.fields["path"]) == (code, str(path))


def test_a_syntax_error_has_its_line(write):
    with pytest.raises(UserError) as error:
        read_run_config(write("task = 'translation'\n[files\n"))
    assert error.value.fields["line"] == 2


def test_a_file_that_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"^config file not found: .*/nowhere\.toml$") as error:
        read_run_config(tmp_path / "nowhere.toml")
    assert (error.value.code, error.value.fields) == ("file-missing", {"path": str(tmp_path / "nowhere.toml")})
    with pytest.raises(UserError, match=r"^cannot read .*: Is a directory$"):
        read_run_config(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"task = '\xe9'")
    with pytest.raises(UserError, match=r"latin\.toml is not UTF-8 text, as TOML must be$"):
        read_run_config(tmp_path / "latin.toml")


def test_settings_that_contradict_each_other_only_count_with_those_of_the_command_line(write):
    config = read_run_config(write('preset = "tiny"\n[model]\nnum_heads = 7'))
    with pytest.raises(UserError, match=r"must be divisible by model.num_heads \(7\) \(set in .*model.num_heads\)$"):
        config.pipeline_config()
    assert RunConfig(settings=("model.d_model=14",)).over(config).pipeline_config().model.d_model == 14


JOINT = "preset = 'tiny'\n[model]\nnum_heads = 7\n[training]\nepochs = 2\n[columns]\nsource = 'target'"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (RunConfig(columns={"source": "a"}), ["model.num_heads"]),
        (RunConfig(columns={"source": "a"}, settings=("model.num_heads=9",)), []),  # the command line's own
        (RunConfig(columns={"source": "a"}, settings=("model.d_model=16",)), ["model.num_heads"]),
        (
            RunConfig(columns={"source": "a"}, settings=("model.num_heads=4", "training.minutes=5")),
            ["training.epochs"],
        ),
        (RunConfig(settings=("model.num_heads=4",)), ["columns.source"]),
        (RunConfig(columns={"x": "a"}, settings=("model.num_heads=4",)), []),
    ],
)
def test_an_error_found_after_reading_names_the_settings_of_the_config_file(write, options, named):
    path = write(JOINT)
    with pytest.raises(UserError) as error:
        options.over(read_run_config(path)).pipeline_config()
    suffix = f" (set in {path}: {', '.join(named)})" if named else ""
    assert str(error.value).endswith(suffix)
    assert str(error.value).count("set in") == bool(named)
    assert error.value.fields.get("config") == (str(path) if named else None)


def test_a_message_names_a_setting_by_its_whole_name(write):
    config = read_run_config(write("[model]\nd_model = 8\n[training]\nsteps = 5"))
    for message, named in (("model.d_model_x, x.training.steps.y", False), ("raise training.steps.", True)):
        with pytest.raises(UserError) as error, config.naming_file():
            raise UserError(message)
        assert ("set in" in str(error.value)) is named


# The effective config.


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", PRESETS)
def test_an_effective_config_has_every_setting_and_reads_as_the_same(write, name, task):
    config = RunConfig(data="/data/x.tsv", task=task, preset=name, settings=("training.seed=9", "data.delimiter=\t"))
    text = config.effective_text({})
    again = read_run_config(write(text))
    assert again.pipeline_config() == dataclasses.replace(
        config.pipeline_config(), columns=config.pipeline_config().file_columns
    )
    assert (again.data, again.task, again.preset) == (config.data, task, name)
    values = tomllib.loads(text)
    names = [f"{section}.{key}" for section in sections() for key in values.get(section, {})]
    open_settings = config.pipeline_config().automatic
    assert names == [name for name in setting_names() if name not in open_settings]
    assert again.effective_text({}) == text


def test_an_effective_config_has_the_settings_that_were_chosen_and_then_leaves_none_open(write):
    config = RunConfig(data="/data/x.tsv", task="classification", settings=("training.steps=70",))
    automatic = config.pipeline_config().automatic
    chosen = {name: config.pipeline_config().value(name) for name in automatic} | {"model.d_model": 40}
    again = read_run_config(write(config.effective_text(chosen)))
    assert automatic
    assert again.pipeline_config().automatic == ()
    assert (again.pipeline_config().model.d_model, again.pipeline_config().training.steps) == (40, 70)


@pytest.mark.parametrize("limit", ["training.minutes=5", "training.epochs=2"])
def test_the_effective_config_of_a_training_without_a_number_of_steps_leaves_none_open(write, limit):
    config = RunConfig(task="classification", settings=(limit,))
    chosen = {name: config.pipeline_config().value(name) for name in config.pipeline_config().automatic}
    assert "training.steps" not in chosen
    assert read_run_config(write(config.effective_text(chosen))).pipeline_config().automatic == ()


def test_an_effective_config_has_absolute_paths(tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    config = RunConfig("train=a.tsv,test=b*.tsv", "s.pbtxt", "source=t,target=u", "runs/Trainer/model/7")
    text = config.effective_text({})
    monkeypatch.chdir("/")
    again = read_run_config(write(text))
    assert again.data == f"train={tmp_path}/a.tsv,test={tmp_path}/b*.tsv"
    assert (again.schema, again.warm_start) == (f"{tmp_path}/s.pbtxt", f"{tmp_path}/runs/Trainer/model/7")
    assert again.tokenizer == f"source={tmp_path}/t,target={tmp_path}/u"


@pytest.mark.parametrize("brought", [{"tokenizer": "spm.model"}, {"warm_start": "runs/Trainer/model/7"}])
def test_settings_that_a_brought_tokenizer_does_not_use_are_left_out(brought):
    config = RunConfig(**brought, settings=("tokenizer.placeholders=4", "training.steps=5"))
    values = tomllib.loads(config.effective_text({}))
    assert values["tokenizer"] == {"placeholders": 4}
    assert "tokenizer" not in tomllib.loads(dataclasses.replace(config, settings=()).effective_text({}))


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip))
@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_can_be_written(write, name):
    config = RunConfig(columns={"source": name, "target": f"not {name}"})
    assert read_run_config(write(config.effective_text({}))).columns == config.columns


@pytest.mark.parametrize("name", ["auto", "tiny"])
def test_the_effective_config_repeats_a_search_until_its_result_is_known_and_then_the_result(write, name):
    run = RunConfig(task="classification", preset=name, settings=("tuner.trials=20", "model.dropout=0.15"))
    before = read_run_config(write(run.effective_text({}))).pipeline_config()
    assert before.tuner.trials == 20
    assert before.searched() == run.pipeline_config().searched()
    assert before.model.dropout == 0.15
    config = run.pipeline_config()
    names = {*config.searched(), *config.automatic} - {"training.minutes"}
    chosen = {setting: config.value(setting) for setting in names} | {"training.steps": 77}
    after = read_run_config(write(run.effective_text(chosen))).pipeline_config()
    assert (after.tuner.searches, after.searched(), after.automatic) == (False, (), ())
    assert {setting: after.value(setting) for setting in names} == chosen


@pytest.mark.parametrize(
    ("given", "start", "warm_start", "tokenizer"),
    [
        ({"start_from": "minilm"}, "minilm", "", ""),
        ({"warm_start": "last"}, "", "last", "t"),
        ({}, "", "w", "t"),
    ],
)
def test_the_start_of_the_command_line_replaces_that_of_the_file(given, start, warm_start, tokenizer):
    chosen = RunConfig(**given).over(RunConfig(warm_start="w", tokenizer="t"))
    assert (chosen.start_from, chosen.warm_start, chosen.tokenizer) == (start, warm_start, tokenizer)
    assert RunConfig(warm_start="w").over(RunConfig(start_from="minilm")).start_from == ""
