"""A pipeline root on an object store, reached by Beam's own client of gs://: what comes of it is what a folder gives.

The store is a stand-in on loopback; see object_store.py.
"""

import dataclasses
import pathlib
import re
import subprocess

import pytest

from components.artifact import Artifact
from pipeline.metadata import MetadataStore

pytest.importorskip("google.cloud.storage", reason="needs the extra gcp: make test-dataflow")

ROOT, STATE, TEXT = "gs://bucket/runs", "runs-gs-bucket-runs", "gs://bucket/pairs.tsv"
PROCESSES = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")
# Outputs that hold times, process numbers or versions, and so differ between two runs that are the same.
OF_THE_MOMENT = ("Trainer/model_run", "InfraValidator/blessing", "Pusher/pushed_model")
# So do these: functions are numbered by how many were made before, which are fewer where other processes do the work.
NUMBERED = ("Format-Serving/saved_model.pb", "Format-Serving/fingerprint.pb")
KILLED_IN = (
    "ExampleGen/examples",
    "StatisticsGen/statistics",
    "Transform/transformed_examples",
    "Trainer/model",
    "Evaluator/evaluation",
    "BulkInferrer/inference_result",
)


@pytest.fixture(scope="module")
def store(load_script, tmp_path_factory):
    """An object store with a text in it, of which this process and those it starts are told."""
    script = load_script(pathlib.Path(__file__).with_name("object_store.py"))
    store = script.ObjectStore("bucket", "closed")
    store.denied.add("closed")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment(tmp_path_factory.mktemp("account")).items():
            patch.setenv(name, value)
        yield store
    store.shutdown()


@pytest.fixture
def house(new_house, store):
    """A house whose text is in the store, with nothing else there."""
    store.objects.clear()
    store.put(("bucket", "pairs.tsv"), (new_house.folder / "pairs.tsv").read_bytes())
    return dataclasses.replace(new_house, file=TEXT, root=ROOT)


@pytest.fixture(scope="module")
def expected(store, tmp_path_factory, load_script):
    """What a folder gives: "<Component>/<key>/<file>" -> content."""
    conftest = load_script(pathlib.Path(__file__).parents[1] / "conftest.py")
    house = conftest.build(tmp_path_factory.mktemp("here"), "translation")
    store.put(("bucket", "pairs.tsv"), (house.folder / "pairs.tsv").read_bytes())
    done = dataclasses.replace(house, file=TEXT).run()
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


def published(house) -> list[Artifact]:
    """Returns what the house's store says is whole."""
    history = MetadataStore(f"sqlite:///{house.folder / STATE / 'metadata.sqlite'}")
    return [a for kind in Artifact.__subclasses__() for a in history.published([kind.__name__])]


def test_workers_in_other_processes_give_what_a_folder_gives(house, store, expected):
    done = run(house, *PROCESSES)
    assert set(verbs(done).values()) == {"ran"}
    assert "Held-out texts, answered by the pushed SavedModel" in done.stdout
    there = store.under(ROOT)
    assert comparable(there) == expected
    folders = {name.rsplit("/", 1)[0] for name in there}
    assert all(any(f"{ROOT}/{folder}".startswith(a.uri) for a in published(house)) for folder in folders - {".store"})
    again = run(house)
    assert set(verbs(again).values()) == {"reused"}
    assert store.under(ROOT) == there


def test_killed_anywhere_nothing_half_written_is_used(house, store, expected):
    for place in KILLED_IN:
        process = subprocess.Popen(
            house.command(), cwd=house.folder, env=house.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        store.watch = lambda key, place=place, process=process: f"runs/{place}/" in key[1] and process.kill()
        errors = process.communicate()[1].decode()
        store.watch = lambda key: None
        assert process.returncode == -9, (place, errors)
        assert any(f"{place}/" in name for name in store.under(ROOT)), "something of it is there"
        assert not [a.uri for a in published(house) if f"{place}/" in a.uri], "and is not taken for whole"
    done = run(house)
    assert verbs(done)["SchemaGen"] == "reused"
    there = store.under(ROOT)
    assert comparable(there) == expected
    whole = tuple(f"{a.uri}/" for a in published(house))
    assert all(f"{ROOT}/{name}".startswith(whole) for name in there if name != ".store"), "the dead have left nothing"
    assert not list((house.folder / STATE / ".staging").iterdir())
