"""The command line as a whole: complete and fast help, and one message and an exit code for every error."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from seq2serve.components.base.errors import NotBlessedError, UserError
from seq2serve.pipeline.commands.app import COMMANDS, app

REPOSITORY = Path(__file__).parents[3]
NAMES = [command.__name__.replace("_", "-") for command in COMMANDS]


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["demo", "--help"], ["lineage", "--help"]])
def test_help_imports_nothing_slow(arguments):
    code = f"""
import sys
sys.argv = ["seq2serve", *{arguments}]
from seq2serve.pipeline.commands.app import main
try:
    main()
finally:
    slow = {{"tensorflow", "apache_beam", "sqlalchemy", "keras", "numpy", "portalocker", "pyarrow"}} & set(sys.modules)
    assert not slow, slow
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage: seq2serve" in done.stdout


def test_help_lists_every_command_with_a_description(invoke):
    lines = [line.strip("│ ").split() for line in invoke("--help").stdout.splitlines()]
    described = {words[0] for words in lines if len(words) > 3}
    assert set(NAMES) - described == set()


@pytest.mark.parametrize("name", NAMES)
def test_the_help_of_a_command_lists_and_explains_its_parameters(invoke, name):
    text = invoke(name, "--help").stdout
    parameters = [
        parameter for parameter in typer.main.get_command(app).commands[name].params if parameter.name != "help"
    ]
    for parameter in parameters:
        is_option = parameter.param_type_name == "option"
        assert parameter.help, parameter.name
        assert (max(parameter.opts, key=len) if is_option else parameter.metavar) in text


def test_without_a_command_help_is_shown(invoke):
    assert "Usage" in invoke().stdout


def test_a_missing_argument_is_a_usage_error(invoke):
    outcome = invoke("lineage")
    assert (outcome.exit_code, outcome.error) == (2, None)
    assert "Missing argument 'ARTIFACT'" in outcome.message


def test_an_unknown_option_is_a_usage_error(invoke):
    outcome = invoke("run", "data.tsv", "--present", "tiny")
    assert (outcome.exit_code, outcome.error) == (2, None)
    assert "No such option: --present" in outcome.message


@pytest.mark.parametrize(
    ("error", "exit_code", "message"),
    [
        (UserError("bad row"), 2, "seq2serve: Toy: bad row\n"),
        (NotBlessedError("too weak"), 3, "seq2serve: Toy: too weak; see `seq2serve report`\n"),
        (KeyboardInterrupt(), 130, "seq2serve: interrupted; run the same command again to resume\n"),
    ],
)
def test_an_error_has_its_exit_code_and_one_message(command, toy, error, exit_code, message):
    toy.error = error
    outcome = command("run", "data.tsv")
    assert (outcome.exit_code, outcome.stderr) == (exit_code, message)


def test_an_exception_in_a_component_is_one_message_and_a_log(command, toy):
    toy.error = ZeroDivisionError("division by zero")
    outcome = command("run", "data.tsv")
    assert (outcome.exit_code, outcome.error.code) == (1, "component-failed")
    first, second = outcome.stderr.splitlines()
    assert first == "seq2serve: Toy failed: ZeroDivisionError: division by zero"
    log = Path(second.removeprefix("Stack trace: "))
    assert "in Toy" in log.read_text()


def test_verbose_shows_the_stack_trace(command, toy):
    toy.error = ZeroDivisionError("division by zero")
    outcome = command("run", "data.tsv", "-v")
    assert outcome.exit_code == 1
    assert "Traceback" in outcome.stderr
    assert "in Toy" in outcome.stderr
