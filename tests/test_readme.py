"""The README files work as written: links resolve, commands exist, requests are answered, every code block runs.

Blocks that take long or need Docker or a cluster are checked against the program that would run them.
"""

import contextlib
import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import xml.etree.ElementTree

import pytest
import typer
from google.protobuf import text_format

from seq2serve.components.infra_validator.client import ServingClient, free_port
from seq2serve.components.model_importer.pretrained import Pretrained
from seq2serve.components.tasks.registry import DEFAULT_TASK
from seq2serve.models.runtime.server_config import model_server_config_pb2
from seq2serve.pipeline.commands.app import app
from seq2serve.pipeline.config import PRESETS, preset, with_settings
from seq2serve.pipeline.run_config import DEFAULT_PRESET, read_run_config
from seq2serve.pipeline.running.machines.cluster import read_cluster

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = ("", "pipeline", "components", "models", "tests", "tests/benchmarks", "notebooks")
READMES = [ROOT / folder / "README.md" for folder in FOLDERS]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = {"seq2serve", "make", "curl", "docker", "export", "pip", ".", ".venv/bin/python", ".peers/bin/python"}
# Folders, and what the notebooks' README needs to open them.
ELSEWHERE = {"python", "jupyter"}


def read(path):
    return path.read_text(encoding="utf-8")


def blocks(language, pages=READMES):
    """Returns the code blocks in a language."""
    return [block for page in pages for found, block in FENCE.findall(read(page)) if found == language]


def words_of(line):
    """Splits a line of shell into words, operators such as > separately, without comments."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, "#"
    return list(lexer)


def commands():
    """Returns every command of the shell blocks as a list of words, without redirections."""
    result = []
    for line in "".join(blocks("sh")).replace("\\\n", " ").splitlines():
        command = []
        for word in [*words_of(line), ";"]:
            if word not in (";", "|", "||", "&&"):
                command.append(word)
            elif command:
                result.append(command[: command.index(">")] if ">" in command else command)
                command = []
    return result


def commands_of(*programs):
    """Returns the arguments of each command of a program."""
    arguments = [rest for name, *rest in commands() if name in programs]
    assert arguments, f"no README has a command of {programs}: remove its test"
    return arguments


# Blocks.


def test_the_readme_is_short():
    assert len(read(READMES[0]).splitlines()) <= 200


def test_every_readme_is_listed_here_and_linked_from_the_top():
    tracked = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert sorted(ROOT / line for line in tracked.splitlines()) == sorted(READMES)
    reached, waiting = set(), [READMES[0]]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", read(page)) if "://" not in link]
        targets = {(page.parent / link).resolve() for link in links if link.endswith(".md")}
        waiting += targets - reached
    assert reached == set(READMES)


def test_every_block_is_tested():
    languages = {language for page in READMES for language, _ in FENCE.findall(read(page))}
    assert languages <= {"sh", "python", "toml", "text"}, "add a test for the others"
    assert {command[0] for command in commands()} <= PROGRAMS | ELSEWHERE, "add a test for the others"


@pytest.mark.parametrize("arguments", commands_of("seq2serve"), ids=" ".join)
def test_the_command_line_accepts_the_commands(arguments):
    known = typer.main.get_command(app).commands
    name, *rest = arguments
    parameters = known[name].make_context(name, rest).params
    name = parameters.get("preset_name") or DEFAULT_PRESET
    assert name in PRESETS
    if parameters.get("settings"):
        with_settings(preset(name, parameters.get("task") or DEFAULT_TASK), parameters["settings"])


def test_the_config_file_is_valid(tmp_path):
    (block,) = blocks("toml")
    (tmp_path / "config.toml").write_text(block, encoding="utf-8")
    config = read_run_config(tmp_path / "config.toml")
    assert config.data.startswith(str(tmp_path))
    assert config.pipeline_config().task == config.task


@pytest.mark.parametrize("arguments", commands_of("make"), ids=" ".join)
def test_make_has_the_targets(arguments):
    done = subprocess.run(["make", "--dry-run", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", commands_of(".venv/bin/python", ".peers/bin/python"), ids=" ".join)
def test_scripts_exist_and_have_the_options(arguments):
    script, *words = arguments
    if script == "-m":
        script, *words = f"{words[0].replace('.', '/')}.py", *words[1:]
    assert (ROOT / script).is_file()
    siblings = "".join(read(path) for path in (ROOT / script).parent.glob("*.py"))  # which it may import
    options = [word.partition("=")[0].removeprefix("--") for word in words if word.startswith("--")]
    assert not [option for option in options if not re.search(rf'"(--)?{option}"', siblings)]


def test_extras_exist():
    extras = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]["optional-dependencies"]
    for verb, package in commands_of("pip"):
        assert verb == "install"
        assert set(re.fullmatch(r"seq2serve\[([\w,]+)\]", package)[1].split(",")) <= set(extras)


def test_variables_are_read_by_the_command_line():
    options = typer.main.get_command(app).commands["run"].params
    for (assignment,) in commands_of("export"):
        name, _, value = assignment.partition("=")
        assert name in {option.envvar for option in options} or read_cluster({name: value})


def test_compose_files_are_written_by_a_push(finished_run):
    for arguments in commands_of("docker"):
        assert arguments[:2] == ["compose", "-f"]
        file = finished_run.folder / finished_run.serving / pathlib.PurePath(arguments[2]).name
        assert file.is_file()


def test_model_servers_can_read_the_configuration_of_fixed_versions():
    (config,) = (block for block in blocks("text") if "model_config_list" in block)
    server = text_format.Parse(config, model_server_config_pb2.ModelServerConfig())  # unknown fields are errors
    (model,) = server.model_config_list.config
    assert set(model.version_labels.values()) == set(model.model_version_policy.specific.versions)


def test_the_dag_has_the_components_in_their_order():
    from seq2serve.pipeline.dag import make_pipeline

    (drawing,) = (block for block in blocks("text") if "ExampleGen" in block)
    nodes = make_pipeline(preset(DEFAULT_PRESET, "translation"), "a", "b", "c").nodes
    positions = [drawing.find(node.id) for node in nodes if node.component]
    assert -1 not in positions
    assert positions[0] == min(positions)
    assert positions[-1] == max(positions)


def test_the_table_of_components_is_complete():
    from seq2serve.pipeline.dag import make_pipeline

    nodes = make_pipeline(preset(DEFAULT_PRESET, "translation"), "a", "b", "c").nodes
    pretrained = Pretrained(pathlib.Path("bert"), "a shelf", "MIT")
    more = make_pipeline(preset(DEFAULT_PRESET, "classification"), "a", "b", "c", pretrained=pretrained).nodes
    assert {node.id for node in more if node.component} - {node.id for node in nodes} == {
        "ModelImporter",
        "TransformByTokenizer",
    }
    rows = re.findall(r"^\| \[(\w+)\]\(\w+/component\.py\)", read(ROOT / "components" / "README.md"), re.MULTILINE)
    names = [node.id for node in nodes if node.component]
    names.insert(names.index("Transform"), "ModelImporter")
    assert rows == names


def test_where_to_add_what_names_files_that_exist():
    table = read(READMES[0]).partition("| to add | edit |")[2]
    paths = re.findall(r"`((?:pipeline|components|models)/[\w/.<>]*)`", table)
    assert len(paths) > 10
    for path in paths:
        assert list(ROOT.glob(path.replace("<task>", "*"))), path


# Links and pictures.


def anchors(path):
    """Returns the anchors of a page's headings, as on GitHub."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", read(path)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", READMES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_resolves(page):
    for link in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", FENCE.sub("", read(page))):
        path, _, anchor = "".join(link).partition("#")
        if "://" in path:
            continue
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), anchor


@pytest.mark.parametrize("picture", sorted(ROOT.glob("notebooks/*.svg")), ids=lambda path: path.name)
def test_pictures_show_the_components(picture):
    from seq2serve.pipeline.dag import make_pipeline

    text = " ".join(xml.etree.ElementTree.fromstring(read(picture)).itertext())
    nodes = make_pipeline(preset("demo", "translation"), "a", "b", "c").nodes
    positions = [text.find(node.id) for node in nodes if node.component]
    assert -1 not in positions, "a component is missing: make picture"
    assert positions == sorted(positions), "the order of components has changed: make picture"
    assert "http" not in re.sub(r"https?://(www\.w3\.org|127\.0\.0\.1)", "", read(picture))


# Requests and Python.


@pytest.fixture(scope="module")
def with_our_ports(finished_run):
    """Serves the shrunken demo's model; yields a function that replaces the ports in a text."""
    rest, rpc = free_port(), free_port()
    command = [sys.executable, "-m", "seq2serve", "serve", finished_run.serving, "--name", "translation"]
    command += ["--port", str(rest), "--grpc-port", str(rpc)]
    output = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, cwd=finished_run.folder, **output)
    with contextlib.ExitStack() as stack:
        stack.callback(server.wait)
        stack.callback(server.terminate)
        client = stack.enter_context(ServingClient("translation", rest, rpc))
        assert client.wait_until_ready(120, lambda: server.poll() is None)
        yield lambda text: text.replace("localhost:8501", f"localhost:{rest}").replace(
            "localhost:8500", f"localhost:{rpc}"
        )


def run_python(block, folder):
    """Runs a block in a folder and returns the lines that it prints."""
    (folder / "example.py").write_text(block, encoding="utf-8")
    done = subprocess.run([sys.executable, "example.py"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def curls():
    """Returns the commands that begin with curl, each on one line."""
    lines = "".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("curl ")]


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_every_curl_is_answered(with_our_ports):
    assert curls()
    for command in curls():
        shell = ["sh", "-c", with_our_ports(f"{command.partition(' #')[0]} -s")]
        done = subprocess.run(shell, capture_output=True, text=True, check=True)
        (answer,) = json.loads(done.stdout)["predictions"]
        assert answer, command


def test_the_grpc_client_is_answered(with_our_ports, tmp_path):
    (block,) = (block for block in blocks("python") if "localhost" in block)
    assert run_python(with_our_ports(block), tmp_path)[0]


def test_the_python_api_runs(finished_run, tmp_path):
    """With the settings of the finished run, so that nothing is trained again."""
    (block,) = blocks("python", READMES[:1])
    call = 'source="english", target="german", training={"steps": 5000}'
    assert call in block
    copy = finished_run.copy(tmp_path / "copy")
    words = [word.removeprefix("--set=").partition("=") for word in copy.command() if word.startswith("--set=")]
    settings: dict[str, dict[str, str]] = {}
    for name, _, value in words:
        section, _, key = name.partition(".")
        settings.setdefault(section, {})[key] = value
    serving = str(finished_run.folder / finished_run.serving)
    run = block.replace(call, f'preset="demo", serving_dir={serving!r}, **{settings}').replace("n_best=3", "n_best=2")
    warnings, metrics, _, n_best, scores = run_python(run, copy.folder)
    assert warnings == "[]"
    assert metrics.split()[1] == "True"
    assert len(n_best) > 2
    assert "log_probability" in scores
    assert (copy.folder / "report.html").is_file()


def test_a_component_of_ones_own_runs(tmp_path):
    (block,) = blocks("python", [ROOT / "components" / "README.md"])
    (tmp_path / "pairs.tsv").write_text("source\ttarget\na\tb\n", encoding="utf-8")
    assert run_python(block, tmp_path)[-1] == "1"


def test_every_python_block_is_run():
    assert len(blocks("python")) == 3  # by the three tests above
