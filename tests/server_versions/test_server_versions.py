"""Exported models load in the C++ runtimes of older TensorFlow releases, which TF Serving links, and answer alike.

`make test-server-versions` creates an environment with TensorFlow and TF Text for each release.
"""

import os
import pickle
import re
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest

from seq2serve.components.pusher.server_files import SERVER_VERSION
from seq2serve.components.tasks.registry import TASKS
from seq2serve.models.config import DecodingConfig, ModelConfig, TokenizerConfig
from seq2serve.models.export.export import LOWEST_VERSIONS, export
from seq2serve.models.export.language_model import LanguageModelServingModule
from seq2serve.models.export.warmup import read_warmup_requests
from seq2serve.models.tokenizers.tokenizer import learn_tokenizer, load_tokenizer
from seq2serve.models.transformer.models import DecoderLanguageModel
from tests.server_versions.answer import answers

FOLDER = Path(__file__).parent
RELEASES = sorted(path.stem.removeprefix("tensorflow-") for path in FOLDER.glob("tensorflow-*.lock"))
ENVIRONMENTS = os.environ.get("SEQ2SERVE_SERVERS", "")  # the folder of the environments .server-RELEASE
TOKENIZERS = ("wordpiece", "characters", "bytes")  # the demo models use SentencePiece
needs_environments = pytest.mark.skipif(not ENVIRONMENTS, reason="make test-server-versions installs TensorFlow")


def language_model(kind: str, folder: Path) -> str:
    """Exports a small, untrained language model with a kind of tokenizer, and returns its folder."""
    keras.utils.set_random_seed(1)  # before loading: it discards the resources of tokenizers
    (folder / kind).mkdir()
    words = [(word, 10) for word in ("the", "light", "in", "hall", "is", "on", "lamp")]
    learn_tokenizer(words, TokenizerConfig(kind=kind, vocab_size=300), str(folder / kind))
    tokenizer = load_tokenizer(str(folder / kind))
    model = DecoderLanguageModel(ModelConfig(1, 1, d_model=16, num_heads=2, dff=32), tokenizer.vocab_size)
    model.build()
    exported = str(folder / kind / "exported")
    module = LanguageModelServingModule(model, tokenizer, DecodingConfig(max_new_tokens=6))
    export(module, exported, ["the light", "grün 日本語 \U0001f469", ""])
    return exported


@pytest.fixture(scope="module")
def models(finished_run_of, tmp_path_factory):
    """Folder of a SavedModel -> its warm-up requests, which call every signature."""
    folder = tmp_path_factory.mktemp("tokenizers")
    exported = [finished_run_of(task).output("Trainer", "model").path("Format-Serving") for task in TASKS]
    exported += [language_model(kind, folder) for kind in TOKENIZERS]
    return {
        path: [
            (request.signature, {name: np.asarray(value).tolist() for name, value in request.inputs.items()})
            for request in read_warmup_requests(path)
        ]
        for path in exported
    }


@needs_environments
@pytest.mark.parametrize("release", RELEASES)
def test_every_model_loads_and_answers_as_in_the_release_that_exported_it(models, tmp_path, release):
    (tmp_path / "requests").write_bytes(pickle.dumps(models))
    python = Path(ENVIRONMENTS, f".server-{release}", "bin", "python")
    subprocess.run([python, FOLDER / "answer.py", tmp_path / "requests", tmp_path / "answers"], check=True)
    old = pickle.loads((tmp_path / "answers").read_bytes())
    for folder, requests in models.items():
        assert isinstance(old[folder], list), f"{folder}: {old[folder]}"
        for request, answer, expected in zip(requests, old[folder], answers(folder, requests), strict=True):
            assert answer.keys() == expected.keys()
            for name, values in expected.items():
                if np.asarray(values).dtype.kind == "f":
                    np.testing.assert_allclose(answer[name], values, rtol=1e-3, atol=1e-4, err_msg=str(request))
                else:
                    assert answer[name] == values, request


@needs_environments
def test_an_environment_has_the_release_of_its_name_and_reports_a_model_that_fails(tmp_path):
    (tmp_path / "requests").write_bytes(pickle.dumps({str(tmp_path): []}))
    for release in RELEASES:
        python = Path(ENVIRONMENTS, f".server-{release}", "bin", "python")
        code = "import importlib.metadata as m; print(m.version('tensorflow'), m.version('tensorflow-text'))"
        installed = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        assert [version.rpartition(".")[0] for version in installed] == [release, release]
        subprocess.run([python, FOLDER / "answer.py", tmp_path / "requests", tmp_path / "answers"], check=True)
        assert pickle.loads((tmp_path / "answers").read_bytes()) == {
            str(tmp_path): f"no SavedModel: {tmp_path}/saved_model.pb: No such file or directory"
        }


def test_the_lowest_version_that_a_model_records_and_that_of_compose_yaml_are_tested():
    assert set(LOWEST_VERSIONS.values()) == {RELEASES[0]}
    assert re.match(r"\d+\.\d+", SERVER_VERSION)[0] in RELEASES
    for release in RELEASES:
        lock = (FOLDER / f"tensorflow-{release}.lock").read_text(encoding="utf-8")
        for library in LOWEST_VERSIONS:
            assert re.search(rf"^{library}=={re.escape(release)}\.", lock, re.MULTILINE)
