"""`seq2serve serve`: version changes under load, errors at the start, and the demo page."""

import concurrent.futures
import itertools
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from seq2serve.components.base.errors import UserError
from seq2serve.components.infra_validator.client import free_port
from seq2serve.components.infra_validator.peers import compare_with_server
from seq2serve.components.infra_validator.trial import Exchange
from seq2serve.components.pusher.versions import publish, rollback
from seq2serve.models.export.export import export
from seq2serve.pipeline.serving.server import run_server

REPOSITORY = pathlib.Path(__file__).parents[3]
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


def test_no_request_fails_under_load_while_versions_are_pushed_and_rolled_back(models, running, tmp_path):
    """32 concurrent clients over REST and gRPC; memory stays flat. tests/benchmarks/serve.py is the long version."""
    folder, tags = str(tmp_path / "echo"), itertools.cycle(["two", "one"])
    models("two")
    publish(folder, models("one"), {}, 3)
    with running(folder) as server, concurrent.futures.ThreadPoolExecutor(32) as pool:
        end = time.monotonic() + 5

        def client(number):
            answers = set()
            for text in itertools.takewhile(lambda _: time.monotonic() < end, itertools.count()):
                text = f"{number} {text}"
                if number % 2:
                    answer = server.ask(text)
                else:
                    inputs = {"text": np.array([text.encode()], object)}
                    outputs = server.client.predict_by_grpc("serving_default", inputs)
                    answer = outputs["translation"][0].decode()
                tag, _, rest = answer.partition(":")
                answers.add(tag if rest == text else answer)
            return answers

        clients = [pool.submit(client, number) for number in range(32)]
        memory = []
        while time.monotonic() < end - 2:
            time.sleep(0.7)
            memory.append(server.memory_mib())
            model = models(next(tags))
            pathlib.Path(model, "assets.extra", "note").write_text(str(len(memory)))  # else it would be an old version
            publish(folder, model, {}, 3)
        served, _ = rollback(folder)
        assert set().union(*(client.result() for client in clients)) == {"one", "two"}
        assert server.memory_mib() < memory[0] + 24
        _, status = server.client.rest("GET", "/v1/models/echo")
        assert [int(version["version"]) for version in status["model_version_status"]] == [served]


def test_the_previous_version_stays_if_a_version_cannot_be_loaded(models, running, tmp_path):
    folder = tmp_path / "echo"
    first = publish(str(folder), models("one"), {}, 3)
    broken = shutil.copytree(models("two"), tmp_path / "broken")
    next(broken.glob("variables/variables.index")).write_bytes(b"")
    (broken / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"broken")
    with running(folder) as server:
        second = publish(str(folder), str(broken), {}, 3)
        states, end = [], time.monotonic() + 20
        while len(states) < 2 and time.monotonic() < end:
            time.sleep(0.1)
            states = server.client.rest("GET", "/v1/models/echo")[1]["model_version_status"]
        assert [(int(state["version"]), state["state"]) for state in states] == [(second, "END"), (first, "AVAILABLE")]
        assert "tf_serving_warmup_requests" in states[0]["status"]["error_message"]
        assert server.ask("hi") == "one:hi"


def test_ctrl_c_ends_the_server_cleanly(models, running):
    with running(models("one"), "--name", "echo") as server:
        server.process.send_signal(signal.SIGINT)
        out, err = server.process.communicate(timeout=30)
    assert (server.process.returncode, err) == (0, b"")
    assert b"Serving echo, version 1. Press Ctrl-C to stop." in out


@pytest.mark.parametrize("cause", ["rest port", "grpc port", "no version", "no folder"])
def test_an_error_at_the_start_is_one_message_with_exit_code_2(server, models, tmp_path, cause):
    ports = {"--port": free_port(), "--grpc-port": free_port()}
    ports |= {"rest port": {"--port": server.rest_port}, "grpc port": {"--grpc-port": server.grpc_port}}.get(cause, {})
    folder = {"no version": tmp_path, "no folder": tmp_path / "missing"}.get(cause, models("one"))
    options = [str(part) for option in ports.items() for part in option]
    command = [sys.executable, "-m", "seq2serve", "serve", str(folder), *options]
    process = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    address = "seq2serve: cannot listen on 127.0.0.1:"
    message = {
        "rest port": f"{address}{server.rest_port}: Address already in use; choose another --host or --port\n",
        "grpc port": f"{address}{server.grpc_port}; choose another port with --grpc-port\n",
        "no version": f"seq2serve: cannot serve {folder}: no versions in {folder}\n",
        "no folder": f"seq2serve: cannot serve {folder}: the folder does not exist\n",
    }[cause]
    assert (process.returncode, process.stderr) == (2, message)


def test_an_error_at_the_start_has_a_code_and_fields(server, models, tmp_path):
    ports, used = {"port": free_port(), "grpc_port": free_port()}, server.rest_port
    for folder, changes, code, fields in [
        (str(tmp_path / "missing"), {}, "folder-missing", {"path": str(tmp_path / "missing")}),
        (str(tmp_path), {}, "model-unservable", {"path": str(tmp_path)}),
        (models("one"), {"port": used}, "address-unavailable", {"host": "127.0.0.1", "port": used}),
        (models("one"), {"grpc_port": used}, "address-unavailable", {"host": "127.0.0.1", "port": used}),
    ]:
        with pytest.raises(UserError) as error:
            run_server("echo", folder, "127.0.0.1", **ports | changes)
        assert (error.value.code, error.value.fields) == (code, fields)


# The comparison of the InfraValidator.


def test_the_infra_validator_compares_outputs_with_a_server_over_rest_and_grpc(models, tmp_path):
    """`seq2serve serve` replaces the model server, because it has the same API."""
    binary = tmp_path / "tensorflow_model_server"
    binary.write_text(
        f"#!{sys.executable}\nimport os, sys\nflags = dict(flag[2:].split('=', 1) for flag in sys.argv[1:])\n"
        f"os.chdir({str(REPOSITORY)!r})\n"
        "serve = ['-m', 'seq2serve', 'serve', flags['model_base_path'], '--name', flags['model_name']]\n"
        "ports = ['--port', flags['rest_api_port'], '--grpc-port', flags['port']]\n"
        "os.execv(sys.executable, [sys.executable, *serve, *ports])\n"
    )
    binary.chmod(0o755)
    texts = np.array([b"a", b"\xff", b""], object)
    outputs = {"same_bytes": texts, "length": np.array([1, 1, 0], np.int32)}
    only = Exchange("only", {"x": np.ones([2, 2], np.float32)}, {"doubled": np.full([2, 2], 2, np.float32)})
    result = compare_with_server(str(binary), models("one"), [Exchange("encode", {"data": texts}, outputs), only], 60)
    assert result == (
        "5 rows by the model server over REST, 0 of them different from the C++ runtime; "
        "5 rows by the model server over gRPC, 0 of them different from the C++ runtime"
    )


# The demo page.

browser = next(filter(None, map(shutil.which, BROWSERS)), "")


def browse(server, text, profile):
    """Returns the DOM of the page in a headless browser, with the results for a text."""
    url = f"http://127.0.0.1:{server.rest_port}/?text={text}"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--dump-dom"]
    command = [browser, *flags, "--virtual-time-budget=10000", url]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.skipif(not browser, reason="needs a headless browser")
def test_the_page_shows_the_answer_alternatives_and_attention(server, tmp_path):
    page = browse(server, "%3Cb%3Ehi", tmp_path)
    assert '<body data-ready="&lt;b&gt;hi">' in page  # set only if nothing failed
    assert ">one:&lt;b&gt;hi</div>" in page
    assert "<td>&lt;B&gt;HI</td>" in page
    assert "<th>Guten</th><th>Tag</th>" in page
    assert 'title="ten attends to Guten: 50 %"' in page
    assert '<section id="sampling" hidden="">' in page


@pytest.mark.skipif(not browser, reason="needs a headless browser")
def test_the_page_shows_labels_and_samples_if_the_model_has_the_signatures(echo_class, running, tmp_path):
    text = tf.TensorSpec([None], tf.string, "text")
    temperature, top_k = (tf.TensorSpec([None], *spec) for spec in ((tf.float32, "temperature"), (tf.int32, "top_k")))

    class Other(echo_class):
        """A model with labels and a signature for sampling."""

        def signatures(self):
            return {"serving_default": self.label, "sample": self.sample}

        @tf.function(input_signature=[text])
        def label(self, text):
            size = tf.shape(text)[0]
            best = {"label": tf.fill([size], "good"), "probability": tf.fill([size], 0.75)}
            labels, probabilities = tf.constant([["bad", "good"]]), tf.constant([[0.25, 0.75]])
            return {**best, "labels": tf.tile(labels, [size, 1]), "probabilities": tf.tile(probabilities, [size, 1])}

        @tf.function(input_signature=[text, temperature, top_k])
        def sample(self, text, temperature, top_k):
            return {"completion": tf.strings.join([text, tf.strings.as_string(top_k)], " at ")}

    export(Other("other"), str(tmp_path / "model"), ["a"])
    with running(tmp_path / "model", "--name", "echo") as server:
        page = browse(server, "hi", tmp_path)
    assert '<body data-ready="hi">' in page
    assert ">good</div>" in page
    assert re.search(r"<th>good</th>.* 75.0 %.*<th>bad</th>.* 25.0 %", page)
    assert '<section id="nbest" hidden="">' in page
    assert '<section id="attention" hidden="">' in page
    assert '<input name="temperature" type="number" step="any">' in page
    assert '<p id="sample">hi at 40</p>' in page
