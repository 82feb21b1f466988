"""A pipeline root on an object store, reached by Beam's own client of gs://: what comes of it is what a folder gives.

The store is a stand-in on loopback; see object_store.py.
"""

import dataclasses
import re
import shutil
import signal
import subprocess
import sys

import pytest

from components.artifact import Artifact
from pipeline.database import sqlite_url
from pipeline.metadata import MetadataStore

pytest.importorskip("google.cloud.storage", reason="needs the extra gcp: make test-dataflow")

ROOT, STATE = "gs://bucket/runs", "runs-gs-bucket-runs"
PROCESSES = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")
# Outputs that hold times, process numbers or versions, and so differ between two runs that are the same.
OF_THE_MOMENT = ("Trainer/model_run", "InfraValidator/blessing", "Pusher/pushed_model")
# So do these: functions are numbered by how many were made before, which are fewer where other processes do the work.
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
def house(new_house, store):
    """A house whose text is in the store, with nothing else there."""
    store.objects.clear()
    store.put(("bucket", "pairs.tsv"), (new_house.folder / "pairs.tsv").read_bytes())
    return dataclasses.replace(new_house, file="gs://bucket/pairs.tsv", root=ROOT, serving="gs://bucket/models")


@pytest.fixture(scope="module")
def expected(store, tmp_path_factory, build_house):
    """What a folder gives: "<Component>/<key>/<file>" -> content."""
    house = build_house(tmp_path_factory.mktemp("here"), "translation")
    store.put(("bucket", "pairs.tsv"), (house.folder / "pairs.tsv").read_bytes())
    done = dataclasses.replace(house, file="gs://bucket/pairs.tsv").run()
    assert done.returncode == 0, done.stderr
    root = house.folder / "runs"
    files = [path for path in root.glob("[A-Z]*/**/*") if path.is_file()]
    return comparable({str(path.relative_to(root)): path.read_bytes() for path in files})


def comparable(files: dict[str, bytes]) -> dict[str, bytes]:
    """Leaves out the numbers of executions, and what differs between two runs that are the same."""
    left_out = (*OF_THE_MOMENT, ".store")
    names = [name for name in files if not name.startswith(left_out) and not name.endswith(NUMBERED)]
    parts = {name: name.split("/", 3) for name in names}
    return {f"{component}/{key}/{rest}": files[name] for name, (component, key, _, rest) in parts.items()}


def run(house, *beam_options: str) -> subprocess.CompletedProcess:
    return house.execute([*house.command(), "--", *beam_options])


def verbs(done: subprocess.CompletedProcess) -> dict[str, str]:
    """Returns component -> "ran" or "reused"."""
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(re.findall(r"^(\w+) +(ran|reused) ", done.stdout, re.MULTILINE))


def seq2serve(house, *arguments: str) -> subprocess.CompletedProcess:
    return house.execute([sys.executable, "-m", "pipeline", *arguments, "--pipeline-root", ROOT])


def published(house) -> list[Artifact]:
    """Returns what the house's store says is whole."""
    history = MetadataStore(sqlite_url(house.folder / STATE / "metadata.sqlite"))
    return [a for kind in Artifact.__subclasses__() for a in history.published([kind.__name__])]


def assert_only_whole(house, store):
    """Under the root is nothing but what is published, and here nothing is left of how it was made."""
    whole = tuple(f"{artifact.uri}/" for artifact in published(house))
    assert [name for name in store.under(ROOT) if not f"{ROOT}/{name}".startswith(whole)] == [".store"]
    assert not [path for name in (".staging", ".scratch") for path in (house.folder / STATE / name).iterdir()]


def test_workers_in_other_processes_give_what_a_folder_gives(house, store, expected):
    """Text, pipeline root and serving folder are in the store, where workers reach them as Dataflow's would."""
    done = run(house, *PROCESSES)
    assert set(verbs(done).values()) == {"ran"}
    assert "Held-out texts, answered by the pushed SavedModel" in done.stdout
    there = store.under(ROOT)
    assert comparable(there) == expected
    assert_only_whole(house, store)
    (version,) = {name.split("/")[0] for name in store.under("gs://bucket/models") if name[:1].isdecimal()}
    assert f"Version {version} is in gs://bucket/models/{version}" in done.stdout

    assert set(verbs(run(house)).values()) == {"reused"}
    assert store.under(ROOT) == there
    (model,) = [artifact for artifact in published(house) if "/Trainer/model/" in artifact.uri]
    assert "gs://bucket/pairs.tsv" in seq2serve(house, "lineage", model.uri).stdout
    assert "COMPLETE" in seq2serve(house, "runs").stdout
    ask = house.execute(
        [sys.executable, "-m", "pipeline", "predict", "--model", "gs://bucket/models", "Open the door."]
    )
    assert ask.returncode == 0, ask.stderr
    shutil.rmtree(house.folder / STATE / "Trainer")  # as on a machine that trained nothing
    assert seq2serve(house, "report", "1").returncode == 0
    page = (house.folder / "report-1.html").read_text()
    assert page.count("<svg") > 5, "curves, lengths and attention, of copies"


def test_killed_anywhere_nothing_half_written_is_used(house, store, expected):
    for place in KILLED_IN:
        process = subprocess.Popen(
            house.command(), cwd=house.folder, env=house.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        store.watch = lambda key, place=place, process=process: key[1].startswith(place) and process.kill()
        errors = process.communicate()[1].decode()
        store.watch = lambda key: None
        assert process.returncode == -signal.SIGKILL, (place, errors)
        assert store.under(f"gs://bucket/{place}"), "something of it is there"
        assert not [a.uri for a in published(house) if a.uri.startswith(f"gs://bucket/{place}")], "not taken for whole"
    assert verbs(run(house))["SchemaGen"] == "reused"
    assert comparable(store.under(ROOT)) == expected
    assert_only_whole(house, store)


@pytest.mark.parametrize(
    ("bucket", "reason"), [("closed", "does not have storage.objects access"), ("none", "not exist")]
)
def test_a_bucket_that_cannot_be_used_is_said_at_once(house, bucket, reason):
    done = dataclasses.replace(house, root=f"gs://{bucket}/runs").run()
    assert done.returncode == 2
    assert reason in done.stderr
    assert done.stderr.startswith(f"seq2serve: the pipeline root gs://{bucket}/runs cannot be used: ")
    assert done.stderr.count("\n") == 1
    assert not done.stdout


def test_workers_behind_the_job_service_write_the_same_bytes(run_components, store):
    worker = f"{sys.executable} -m apache_beam.runners.worker.sdk_worker_main"
    options = ("--runner=PortableRunner", "--job_endpoint=embed", f"--environment_config={worker}")
    there = run_components(
        *options, "--environment_type=beam:env:harness_subprocess_python:v1", url="gs://bucket/parts"
    )
    assert there == run_components()
