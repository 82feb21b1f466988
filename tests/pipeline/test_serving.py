"""`seq2serve serve` changes versions under load, says what keeps it from starting, and shows a page to try it."""

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

from components.infra_validator_child import Exchange
from components.infra_validator_peers import compare_with_server
from components.serving_client import free_port
from components.serving_folder import publish, rollback, versions
from models.export import export

REPOSITORY = pathlib.Path(__file__).parents[2]
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


def test_pushes_and_rollbacks_are_picked_up_under_load_without_a_failed_request(models, running, tmp_path):
    """Thirty-two clients at once, over REST and gRPC, in even memory; tests/benchmarks/serve.py does it for long."""
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
                    got = server.ask(text)
                else:
                    got = server.client.predict_by_grpc("serving_default", {"text": np.array([text.encode()], object)})
                    got = got["translation"][0].decode()
                tag, _, rest = got.partition(":")
                answers.add(tag if rest == text else got)
            return answers

        clients = [pool.submit(client, number) for number in range(32)]
        memory = []
        while time.monotonic() < end - 2:
            time.sleep(0.7)
            memory.append(server.memory_mib())
            publish(folder, models(next(tags)), {}, 3)
        _, copy = rollback(folder)
        assert set().union(*(client.result() for client in clients)) == {"one", "two"}
        assert server.memory_mib() < memory[0] + 24
        expected = [str(version) for version in (copy, versions(folder)[-2])]
        _, status = server.client.rest("GET", "/v1/models/echo")
        assert [version["version"] for version in status["model_version_status"]] == expected
        assert server.ask("hi", "/labels/stable") != server.ask("hi", "/labels/canary")


def test_a_version_that_cannot_be_loaded_leaves_the_one_before(models, running, tmp_path):
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
        assert server.ask("hi") == server.ask("hi", "/labels/stable") == "one:hi"


def test_ctrl_c_ends_it_well(models, running):
    with running(models("one"), "--name", "echo") as server:
        server.process.send_signal(signal.SIGINT)
        out, err = server.process.communicate(timeout=30)
    assert (server.process.returncode, err) == (0, b"")
    assert b"Serving echo, version 1, until Ctrl-C." in out


@pytest.mark.parametrize("which", ["rest", "grpc", "nothing"])
def test_what_keeps_it_from_starting_is_explained(server, models, tmp_path, which):
    ports = {"--port": free_port(), "--grpc-port": free_port()}
    ports.update({"rest": {"--port": server.rest_port}, "grpc": {"--grpc-port": server.grpc_port}}.get(which, {}))
    folder = str(tmp_path) if which == "nothing" else models("one")
    options = [str(part) for option in ports.items() for part in option]
    command = [sys.executable, "-m", "pipeline", "serve", folder, *options]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    message = "there is no version" if which == "nothing" else "cannot listen at 127.0.0.1:"
    assert (done.returncode, done.stderr.startswith("seq2serve: "), message in done.stderr) == (2, True, True)
    assert len(done.stderr.splitlines()) == 1


# The validator's comparison, and the page.


def test_the_validator_compares_with_a_server_over_rest_and_grpc(models, tmp_path):
    """`serve` in the place of the model server, for it takes the same requests."""
    binary = tmp_path / "tensorflow_model_server"
    binary.write_text(
        f"#!{sys.executable}\nimport os, sys\nflags = dict(flag[2:].split('=', 1) for flag in sys.argv[1:])\n"
        f"os.chdir({str(REPOSITORY)!r})\n"
        "serve = ['-m', 'pipeline', 'serve', flags['model_base_path'], '--name', flags['model_name']]\n"
        "ports = ['--port', flags['rest_api_port'], '--grpc-port', flags['port']]\n"
        "os.execv(sys.executable, [sys.executable, *serve, *ports])\n"
    )
    binary.chmod(0o755)
    texts = np.array([b"a", b"\xff", b""], object)
    outputs = {"same_bytes": texts, "length": np.array([1, 1, 0], np.int32)}
    only = Exchange("only", {"x": np.ones([2, 2], np.float32)}, {"doubled": np.full([2, 2], 2, np.float32)})
    saw = compare_with_server(str(binary), models("one"), [Exchange("encode", {"data": texts}, outputs), only], 60)
    assert saw == (
        "5 rows by the model server over REST, 0 unlike the C++ runtime's; "
        "5 rows by the model server over gRPC, 0 unlike the C++ runtime's"
    )


browser = next(filter(None, map(shutil.which, BROWSERS)), "")


def browse(server, text, profile):
    """Returns the page as a headless browser shows it after a text was typed."""
    url = f"http://127.0.0.1:{server.rest_port}/?text={text}"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--dump-dom"]
    command = [browser, *flags, "--virtual-time-budget=10000", url]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.skipif(not browser, reason="there is no headless browser")
def test_the_page_shows_answer_alternatives_and_attention(server, tmp_path):
    page = browse(server, "%3Cb%3Ehi", tmp_path)
    assert '<body data-ready="&lt;b&gt;hi">' in page  # nothing failed on the way
    assert ">one:&lt;b&gt;hi</div>" in page
    assert "<td>&lt;B&gt;HI</td>" in page
    assert "<th>Guten</th><th>Tag</th>" in page
    assert 'title="ten looks at Guten: 50 %"' in page
    assert '<section id="sampling" hidden="">' in page


@pytest.mark.skipif(not browser, reason="there is no headless browser")
def test_the_page_shows_labels_and_samples_where_the_signatures_have_them(echo_class, running, tmp_path):
    text = tf.TensorSpec([None], tf.string, "text")
    temperature, top_k = (tf.TensorSpec([None], *spec) for spec in ((tf.float32, "temperature"), (tf.int32, "top_k")))

    class Other(echo_class):
        """A model with classes, and one that samples."""

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
