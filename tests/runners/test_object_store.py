"""A pipeline root at a gs:// URL, accessed through Beam's client: the results are the same as in a folder.

The object store is a test server on loopback; see object_store.py.
"""

import dataclasses
import re
import shutil
import signal
import subprocess
import sys

import pytest

from seq2serve.components.base import artifact
from seq2serve.components.base.artifact import Artifact
from seq2serve.pipeline.metadata.database import sqlite_url
from seq2serve.pipeline.metadata.store import MetadataStore

pytest.importorskip("google.cloud.storage", reason="needs the extra gcp: make test-dataflow")

ROOT, STATE = "gs://bucket/runs", "runs-gs-bucket-runs"
PROCESSES = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")
# Outputs with times, process ids or version numbers, which differ between two otherwise identical runs.
UNREPRODUCIBLE = ("Trainer/model_run", "InfraValidator/blessing", "Pusher/pushed_model")
# Files with the numbers of TensorFlow functions. If other processes do the work, this one traces fewer functions.
NUMBERED = ("Format-Serving/saved_model.pb", "Format-Serving/fingerprint.pb")
KILLED_IN = (
    "runs/ExampleGen/examples",
    "runs/StatisticsGen/statistics",
    "runs/Transform/transformed_examples",
    "runs/Trainer/model",
    "runs/Evaluator/evaluation",
    "runs/BulkInferrer/inference_result",
)


@pytest.fixture
def remote_run(new_finished_run, store):
    """A prepared run whose text, pipeline root and serving folder are in the store; nothing has run yet."""
    store.objects.clear()
    store.put(("bucket", "pairs.tsv"), (new_finished_run.folder / "pairs.tsv").read_bytes())
    return dataclasses.replace(new_finished_run, file="gs://bucket/pairs.tsv", root=ROOT, serving="gs://bucket/models")


@pytest.fixture(scope="module")
def expected(store, tmp_path_factory, build_run):
    """The results in a local folder: "<Component>/<key>/<file>" -> content."""
    local_run = build_run(tmp_path_factory.mktemp("local"), "translation")
    store.put(("bucket", "pairs.tsv"), (local_run.folder / "pairs.tsv").read_bytes())
    done = dataclasses.replace(local_run, file="gs://bucket/pairs.tsv").run()
    assert done.returncode == 0, done.stderr
    root = local_run.folder / "runs"
    files = [path for path in root.glob("[A-Z]*/**/*") if path.is_file()]
    return comparable({str(path.relative_to(root)): path.read_bytes() for path in files})


def comparable(files: dict[str, bytes]) -> dict[str, bytes]:
    """Removes the numbers of executions from paths, and the files that differ between otherwise identical runs."""
    left_out = (*UNREPRODUCIBLE, ".store")
    names = [name for name in files if not name.startswith(left_out) and not name.endswith(NUMBERED)]
    parts = {name: name.split("/", 3) for name in names}
    return {f"{component}/{key}/{rest}": files[name] for name, (component, key, _, rest) in parts.items()}


def run(remote_run, *beam_options: str) -> subprocess.CompletedProcess:
    return remote_run.execute([*remote_run.command(), "--", *beam_options])


def states(done: subprocess.CompletedProcess) -> dict[str, str]:
    """Returns component -> "ran" or "reused"."""
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(re.findall(r"^(\w+) +(ran|reused) ", done.stdout, re.MULTILINE))


def seq2serve(remote_run, *arguments: str) -> subprocess.CompletedProcess:
    return remote_run.execute([sys.executable, "-m", "seq2serve", *arguments, "--pipeline-root", ROOT])


def published(remote_run) -> list[Artifact]:
    """Returns the artifacts that the metadata store lists as published."""
    metadata = MetadataStore(sqlite_url(remote_run.folder / STATE / "metadata.sqlite"))
    kinds = [kind for kind in vars(artifact).values() if isinstance(kind, type) and issubclass(kind, Artifact)]
    return [published for kind in kinds for _, published in metadata.published(kind)]


def assert_nothing_half_written(remote_run, store):
    """Asserts that the root has only published artifacts, and that no staged or scratch files are left locally."""
    complete = tuple(f"{artifact.uri}/" for artifact in published(remote_run))
    assert [name for name in store.under(ROOT) if not f"{ROOT}/{name}".startswith(complete)] == [".store"]
    assert not [path for name in (".staging", ".scratch") for path in (remote_run.folder / STATE / name).iterdir()]


def test_workers_in_other_processes_have_the_results_of_a_local_run(remote_run, store, expected):
    """Workers access text, pipeline root and serving folder in the store, as Dataflow's workers would."""
    done = run(remote_run, *PROCESSES)
    assert set(states(done).values()) == {"ran"}
    assert "Held-out texts" in done.stdout
    objects = store.under(ROOT)
    assert comparable(objects) == expected
    assert_nothing_half_written(remote_run, store)
    (version,) = {name.split("/")[0] for name in store.under("gs://bucket/models") if name[:1].isdecimal()}
    assert f"gs://bucket/models/{version}" in done.stdout

    assert set(states(run(remote_run)).values()) == {"reused"}
    assert store.under(ROOT) == objects
    (model,) = [artifact for artifact in published(remote_run) if "/Trainer/model/" in artifact.uri]
    assert "gs://bucket/pairs.tsv" in seq2serve(remote_run, "lineage", model.uri).stdout
    assert "COMPLETE" in seq2serve(remote_run, "runs").stdout
    predict = ["predict", "--model", "gs://bucket/models", "Open the door."]
    predicted = remote_run.execute([sys.executable, "-m", "seq2serve", *predict])
    assert predicted.returncode == 0, predicted.stderr
    shutil.rmtree(remote_run.folder / STATE / "Trainer")  # as on another machine than the one that trained
    assert seq2serve(remote_run, "report", "1").returncode == 0
    page = (remote_run.folder / "report-1.html").read_text()
    assert page.count("<svg") > 5, "curves, lengths and attention, from downloaded copies"


def test_a_run_killed_while_it_uploads_leaves_nothing_that_is_used(remote_run, store, expected):
    for prefix in KILLED_IN:
        process = subprocess.Popen(
            remote_run.command(),
            cwd=remote_run.folder,
            env=remote_run.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        store.watch = lambda key, prefix=prefix, process=process: key[1].startswith(prefix) and process.kill()
        errors = process.communicate()[1].decode()
        store.watch = lambda key: None
        assert process.returncode == -signal.SIGKILL, (prefix, errors)
        assert store.under(f"gs://bucket/{prefix}"), "it was killed before its first upload"
        assert not [a.uri for a in published(remote_run) if a.uri.startswith(f"gs://bucket/{prefix}")]
    assert states(run(remote_run))["SchemaGen"] == "reused"
    assert comparable(store.under(ROOT)) == expected
    assert_nothing_half_written(remote_run, store)


@pytest.mark.parametrize(
    ("bucket", "reason"), [("closed", "does not have storage.objects access"), ("none", "not exist")]
)
def test_an_unusable_bucket_is_an_error_before_anything_runs(remote_run, bucket, reason):
    done = dataclasses.replace(remote_run, root=f"gs://{bucket}/runs").run()
    assert done.returncode == 2
    assert reason in done.stderr
    assert done.stderr.startswith(f"seq2serve: the pipeline root gs://{bucket}/runs cannot be used: ")
    assert done.stderr.count("\n") == 1
    assert not done.stdout


def test_workers_behind_the_job_service_write_the_same_bytes(run_components, store):
    worker = f"{sys.executable} -m apache_beam.runners.worker.sdk_worker_main"
    options = ("--runner=PortableRunner", "--job_endpoint=embed", f"--environment_config={worker}")
    environment = "--environment_type=beam:env:harness_subprocess_python:v1"
    assert run_components(*options, environment, url="gs://bucket/parts") == run_components()
