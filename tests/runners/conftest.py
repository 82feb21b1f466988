"""What tests of other runners share: every Beam component of a pipeline on a small corpus, run as Beam options say.

Comes in: Beam options. Goes out: every byte and every property of what the components made.
Read next: test_portable.py.
"""

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
    """A file of 252 rows, and two that are no rows."""
    path = tmp_path / "rows.tsv"
    lines = ["source\ttarget\tmood", *map("\t".join, ROWS), "too few", "too\tmany\tof\tthem"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def run_components(tmp_path, corpus, plant, monkeypatch):
    """Returns a function that runs ExampleGen, StatisticsGen, Transform and BulkInferrer with Beam options.

    What comes back is file name -> content, and component -> properties. They work in a folder, or under a URL.
    """
    import tensorflow as tf

    from components import artifact, remote_files, text_files
    from components.bulk_inferrer import BulkInferrer
    from components.component import Context
    from components.example_gen import ExampleGen, Splitting
    from components.file_formats import Reading
    from components.schema_gen import SchemaGen
    from components.statistics_gen import StatisticsGen
    from components.transform import Preprocessing, Transform
    from models.config import TokenizerConfig
    from pipeline.fingerprint import resolve_raw_files

    monkeypatch.setattr(text_files, "SHARD_BYTES", 5000)
    saved_model = f"{plant(lambda text: tf.strings.upper(text, encoding='utf-8'))}/Format-Serving"
    files = resolve_raw_files(artifact.RawFiles(str(corpus)))

    def run(*beam_options: str, url: str = "") -> tuple[dict[str, bytes], dict[str, dict]]:
        folder = tmp_path / f"run-{len(list(tmp_path.glob('run-*')))}"
        context, root = Context(beam_options), url or str(folder)

        def made(kind: type) -> artifact.Artifact:
            if not url:
                (folder / kind.__name__).mkdir(parents=True)
            return kind(f"{root}/{kind.__name__}")

        examples, statistics, schema = map(made, (artifact.Examples, artifact.ExampleStatistics, artifact.Schema))
        ids, tokenizer = map(made, (artifact.TransformedExamples, artifact.Tokenizer))
        answers = made(artifact.InferenceResult)
        columns = {column: column for column in ("source", "target", "mood")}
        shares = Splitting(0.2, 0.2, seed=1)
        ExampleGen.function(files, examples, columns, Reading(), shares, max_reject_share=0.1, context=context)
        StatisticsGen.function(examples, statistics, context, label_columns=("mood",))
        with remote_files.fetched_folder(statistics.uri) as read, remote_files.filled_folder(schema.uri) as written:
            SchemaGen.function(artifact.ExampleStatistics(read), artifact.Schema(written), ("mood",))
        preprocessing = Preprocessing(("source", "target"), 50, label_columns=("mood",))
        vocabulary = TokenizerConfig(kind="wordpiece", vocab_size=350)
        Transform.function(examples, schema, ids, tokenizer, preprocessing, vocabulary, context)
        if url:
            remote_files.upload(saved_model, f"{url}-pushed")
        pushed = artifact.PushedModel("", {"pushed_destination": f"{url}-pushed" if url else saved_model})
        BulkInferrer.function(examples, pushed, answers, "translation", "test", num_examples=0, context=context)
        if url:
            remote_files.download(url, str(folder))
        paths = [path for path in folder.rglob("*") if path.is_file()]
        artifacts = (examples, statistics, ids, tokenizer, answers)
        properties = {type(artifact).__name__: artifact.properties for artifact in artifacts}
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}, properties

    return run


@pytest.fixture
def process_workers(tmp_path) -> tuple[str, ...]:
    """Beam options under which workers are processes of this machine."""
    return process_options(tmp_path, os.environ["SEQ2SERVE_BOOT"])


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> pathlib.Path:
    """Our code as a wheel."""
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
    """An object store, of which this process and those it starts are told: of its bucket, and one that is closed."""
    store = load_script(pathlib.Path(__file__).with_name("object_store.py")).ObjectStore("bucket", "closed")
    store.denied.add("closed")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment(tmp_path_factory.mktemp("account")).items():
            patch.setenv(name, value)
        yield store
    store.shutdown()
