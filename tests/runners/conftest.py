"""Fixtures for tests of Beam's runners: the Beam components of a pipeline, run on a small corpus with Beam options."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.runners.flink_cluster import REPOSITORY, process_options

ROWS = [
    (f"Turn the {color} lamp {letter} on", f"Schalte {letter} {color} ein", ("calm", "loud")[letter < "n"])
    for letter in "abcdefghijklmnopqrstuvwxyzäöüßéèçñøþàâêîôû"
    for color in ("red", "green", "grün", "m²", "שלום", "👩\u200d👧")
]


@pytest.fixture
def corpus(tmp_path) -> pathlib.Path:
    """A file of 252 valid rows and two invalid ones."""
    path = tmp_path / "rows.tsv"
    lines = ["source\ttarget\tmood", *map("\t".join, ROWS), "too few", "too\tmany\tof\tthem"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def run_components(tmp_path, corpus, make_saved_model, monkeypatch):
    """Returns a function that runs ExampleGen, StatisticsGen, Transform and BulkInferrer with Beam options.

    The components work in a folder, or under a URL. The function returns {file: content} and {component: properties}.
    """
    import tensorflow as tf

    from seq2serve.components.base import artifact
    from seq2serve.components.base.component import Context
    from seq2serve.components.bulk_inferrer.component import BulkInferrer
    from seq2serve.components.example_gen import text_files
    from seq2serve.components.example_gen.component import ExampleGen
    from seq2serve.components.example_gen.config import InputConfig, SplitConfig
    from seq2serve.components.schema_gen.component import SchemaGen
    from seq2serve.components.statistics_gen.component import StatisticsGen
    from seq2serve.components.storage import beam_files, files
    from seq2serve.components.tasks.registry import get_task
    from seq2serve.components.transform.component import Transform
    from seq2serve.components.transform.preprocessing import Preprocessing
    from seq2serve.models.config import TokenizerConfig
    from seq2serve.pipeline.running.raw_files import resolve_raw_files

    monkeypatch.setattr(text_files, "SHARD_BYTES", 5000)
    saved_model = f"{make_saved_model(lambda text: tf.strings.upper(text, encoding='utf-8'))}/Format-Serving"
    raw_files = resolve_raw_files(artifact.RawFiles(str(corpus)))

    def run(*beam_options: str, url: str = "") -> tuple[dict[str, bytes], dict[str, dict]]:
        folder = tmp_path / f"run-{len(list(tmp_path.glob('run-*')))}"
        context, root = Context(beam_options), url or str(folder)

        def output(kind: type) -> artifact.Artifact:
            if not url:
                (folder / kind.__name__).mkdir(parents=True)
            return kind(f"{root}/{kind.__name__}")

        examples, statistics, schema = map(output, (artifact.Examples, artifact.ExampleStatistics, artifact.Schema))
        ids, tokenizer = map(output, (artifact.TransformedExamples, artifact.Tokenizer))
        predictions = output(artifact.InferenceResult)
        columns = {column: column for column in ("source", "target", "mood")}
        shares = SplitConfig(0.2, 0.2, seed=1)
        ExampleGen.function(raw_files, examples, columns, InputConfig(), shares, max_reject_share=0.1, context=context)
        StatisticsGen.function(examples, statistics, context, label_columns=("mood",))
        with files.local_copy(statistics.uri) as read, files.filled_folder(schema.uri) as written:
            SchemaGen.function(artifact.ExampleStatistics(read), artifact.Schema(written), ("mood",))
        preprocessing = Preprocessing(("source", "target"), 50, label_columns=("mood",))
        vocabulary = TokenizerConfig(kind="wordpiece", vocab_size=350)
        Transform.function(examples, schema, ids, tokenizer, preprocessing, vocabulary, context)
        if url:
            beam_files.upload(saved_model, f"{url}-pushed")
        pushed = artifact.PushedModel("", {"pushed_destination": f"{url}-pushed" if url else saved_model})
        task = get_task("translation")
        BulkInferrer.function(examples, pushed, predictions, task, "test", num_examples=0, context=context)
        if url:
            beam_files.download(url, str(folder))
        paths = [path for path in folder.rglob("*") if path.is_file()]
        artifacts = (examples, statistics, ids, tokenizer, predictions)
        properties = {type(artifact).__name__: artifact.properties for artifact in artifacts}
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}, properties

    return run


@pytest.fixture
def process_workers(tmp_path) -> tuple[str, ...]:
    """Beam options with which workers are processes on this machine."""
    return process_options(tmp_path, os.environ["SEQ2SERVE_BOOT"])


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> pathlib.Path:
    """The project as a wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("pipeline", "components", "models"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    options = ("--quiet", "--no-deps", "--no-build-isolation", f"--wheel-dir={folder}")
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def store(load_script, tmp_path_factory):
    """An object store with the buckets `bucket` and `closed`, to which this process and its children are directed."""
    store = load_script(pathlib.Path(__file__).with_name("object_store.py")).ObjectStore("bucket", "closed")
    store.denied.add("closed")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment(tmp_path_factory.mktemp("account")).items():
            patch.setenv(name, value)
        yield store
    store.shutdown()
