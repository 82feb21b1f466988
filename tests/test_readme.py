"""What README.md shows works as it stands there: links lead somewhere, commands are real, requests are answered.

Comes in: README.md and those of other folders. Goes out: every code block, run on the small demo's model or, where that
would take long or needs what is not here (Docker, a cluster), held against what would run it.
Read next: pipeline/test_serving_rest.py and test_serving_grpc.py for everything else that the server takes.
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

from components.serving_client import ServingClient, free_port
from pipeline.__main__ import app
from pipeline.config import PRESETS, preset, with_settings

ROOT = pathlib.Path(__file__).parents[1]
READMES = sorted([*ROOT.glob("*.md"), *(ROOT / "notebooks").glob("*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language, text=README):
    """Returns the code blocks in a language."""
    return [block for found, block in FENCE.findall(text) if found == language]


def words_of(line):
    """Splits a line of shell into words, operators such as > apart, comments left out."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, "#"
    return list(lexer)


def commands():
    """Returns every command of the shell blocks as a list of words; what stands after an operator is one of its own."""
    found = []
    for block in blocks("sh"):
        for line in block.replace("\\\n", " ").splitlines():
            command = []
            for word in [*words_of(line), ";"]:
                if word not in (";", "|", "||", "&&"):
                    command.append(word)
                elif command:
                    found.append(command[: command.index(">")] if ">" in command else command)
                    command = []
    return found


def commands_of(program):
    """Returns the arguments of each command of a program."""
    return [rest for name, *rest in commands() if name == program]


# Blocks.


def test_every_block_is_under_a_test():
    languages = {language for language, _ in FENCE.findall(README)}
    assert languages <= {"sh", "python", "text"}, "teach this file how to check the others"
    known = {"seq2serve", "make", "curl", "docker", "export", "pip", ".", ".venv/bin/python"}
    assert {command[0] for command in commands()} <= known, "teach this file how to check the others"


@pytest.mark.parametrize("arguments", commands_of("seq2serve"), ids=" ".join)
def test_the_command_line_takes_what_the_readme_types(arguments):
    known = typer.main.get_command(app).commands
    name, *rest = arguments
    given = known[name].make_context(name, rest).params
    if given.get("settings"):
        with_settings(preset(given.get("preset_name", "demo"), given["task"]), given["settings"])
    assert given.get("preset_name", "demo") in PRESETS


@pytest.mark.parametrize("arguments", commands_of("make"), ids=" ".join)
def test_make_knows_its_targets(arguments):
    done = subprocess.run(["make", "--dry-run", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", commands_of(".venv/bin/python"), ids=" ".join)
def test_scripts_are_there_and_have_their_options(arguments):
    script, *words = arguments
    if script == "-m":
        script, *words = f"{words[0].replace('.', '/')}.py", *words[1:]
    assert (ROOT / script).is_file()
    beside = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / script).parent.glob("*.py")
    )  # what it imports
    options = [word.partition("=")[0].removeprefix("--") for word in words if word.startswith("--")]
    assert not [option for option in options if not re.search(rf'"(--)?{option}"', beside)]


def test_extras_are_the_projects():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for verb, package in commands_of("pip"):
        assert verb == "install"
        assert set(re.fullmatch(r"seq2serve\[([\w,]+)\]", package)[1].split(",")) <= set(extras)


def test_variables_are_read_by_the_command_line():
    options = typer.main.get_command(app).commands["run"].params
    for (assignment,) in commands_of("export"):
        assert assignment.partition("=")[0] in {option.envvar for option in options}


def test_compose_files_are_those_that_a_push_writes(house):
    for arguments in commands_of("docker"):
        assert arguments[:2] == ["compose", "-f"]
        file = house.folder / house.serving / pathlib.PurePath(arguments[2]).name
        assert file.is_file()


def test_tables_in_text_blocks_are_tables():
    for block in blocks("text"):
        tabs = {line.count("\t") for line in block.splitlines()}
        assert len(tabs) == 1


def test_the_drawing_names_the_components_in_their_order():
    from pipeline.dag import make_pipeline

    (drawing,) = (block for block in blocks("text") if "ExampleGen" in block)
    nodes = make_pipeline(preset("demo", "translation"), "a", "b", "c").nodes
    places = [drawing.find(node.id) for node in nodes if node.component]
    assert -1 not in places
    assert places[0] == min(places)
    assert places[-1] == max(places)


# Links and pictures.


def anchors(path):
    """Returns what a page's headings are called in links, as GitHub does."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", READMES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", text):
        path, _, anchor = "".join(link).partition("#")
        if "://" in path:
            continue
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), anchor


@pytest.mark.parametrize("picture", sorted(ROOT.glob("notebooks/*.svg")), ids=lambda path: path.name)
def test_pictures_show_what_there_is(picture):
    from pipeline.dag import make_pipeline

    drawn = " ".join(xml.etree.ElementTree.fromstring(picture.read_text(encoding="utf-8")).itertext())
    nodes = make_pipeline(preset("demo", "translation"), "a", "b", "c").nodes
    places = [drawn.find(node.id) for node in nodes if node.component]
    assert -1 not in places, "it lacks a component: make picture"
    assert places == sorted(places), "components have another order now: make picture"
    assert "http" not in re.sub(r"https?://(www\.w3\.org|127\.0\.0\.1)", "", picture.read_text(encoding="utf-8"))


# Requests.


@pytest.fixture(scope="module")
def at_our_ports(house):
    """Serves the small demo's model; yields a function that puts its ports in the place of the README's."""
    rest, rpc = free_port(), free_port()
    command = [sys.executable, "-m", "pipeline", "serve", house.serving, "--name", "translation"]
    command += ["--port", str(rest), "--grpc-port", str(rpc)]
    output = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, cwd=house.folder, env=house.environment, **output)
    with contextlib.ExitStack() as stack:
        stack.callback(server.wait)
        stack.callback(server.terminate)
        client = stack.enter_context(ServingClient("translation", rest, rpc))
        assert client.wait_until_ready(120, lambda: server.poll() is None)
        yield lambda text: text.replace("localhost:8501", f"localhost:{rest}").replace(
            "localhost:8500", f"localhost:{rpc}"
        )


def curls():
    """Returns the commands that begin with curl, each on one line."""
    lines = "".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("curl ")]


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
def test_the_readmes_curl_is_answered(at_our_ports):
    assert curls(), "no curl in the README"
    for command in curls():
        done = subprocess.run(["sh", "-c", at_our_ports(f"{command} -s")], capture_output=True, text=True, check=True)
        (answer,) = json.loads(done.stdout)["predictions"]
        assert answer, command


@pytest.mark.skipif(not blocks("python"), reason="the README shows no Python")
def test_the_readmes_python_is_answered(at_our_ports):
    for block in blocks("python"):
        done = subprocess.run(
            [sys.executable, "-c", at_our_ports(block)], capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
