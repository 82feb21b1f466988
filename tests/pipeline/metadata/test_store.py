"""MetadataStore: atomic publishing, correct history and lineage, concurrent writers."""

import hashlib
import sys
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from seq2serve.components.base.artifact import Artifact, Examples, Model, RawFiles
from seq2serve.components.base.errors import Seq2ServeError, UserError
from seq2serve.pipeline.metadata.database import ARTIFACTS, EVENTS, EXECUTIONS, RUNS, absolute_url, sqlite_url
from seq2serve.pipeline.metadata.store import MetadataStore


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> MetadataStore:
    if request.param == "postgresql":
        return MetadataStore(request.getfixturevalue("postgres_url"))
    return MetadataStore(f"sqlite:///{tmp_path / 'metadata.sqlite'}")


def execute(store: MetadataStore, run_id: int, component: str, inputs: dict, **outputs: type[Artifact]) -> dict:
    """Records one COMPLETE execution; its outputs are in folders named after it."""
    made_of = f"{component} of {sorted(artifact.fingerprint for artifact in inputs.values())}"
    fingerprint = hashlib.sha256(made_of.encode()).hexdigest()
    execution_id = store.begin_execution(run_id, component, fingerprint, {"component": component}, "first run")
    made = {key: kind(f"/runs/{component}/{key}/{execution_id}", {}, fingerprint) for key, kind in outputs.items()}
    return store.publish(execution_id, inputs, made)


@pytest.fixture
def diamond(store: MetadataStore) -> dict[str, Artifact]:
    """Two files, each read by Read; Join makes a model from both; Judge and Push use the model; Stray has no inputs."""
    run_id = store.begin_run("diamond")
    files = {
        name: store.record_source(RawFiles(f"{name}.tsv", {"files": [{"path": f"/data/{name}.tsv"}]}, name))
        for name in "ab"
    }
    rows = {name: execute(store, run_id, "Read", {"files": files[name]}, rows=Examples)["rows"] for name in "ab"}
    model = execute(store, run_id, "Join", rows, model=Model)["model"]
    verdict = execute(store, run_id, "Judge", {"model": model, "rows": rows["a"]}, verdict=Artifact)["verdict"]
    pushed = execute(store, run_id, "Push", {"model": model, "verdict": verdict}, pushed=Artifact)["pushed"]
    stray = execute(store, run_id, "Stray", {}, stray=Artifact)["stray"]
    store.end_run(run_id, "COMPLETE")
    named = {"model": model, "verdict": verdict, "pushed": pushed, "stray": stray}
    return {"file a": files["a"], "file b": files["b"], "rows a": rows["a"], "rows b": rows["b"], **named}


# Lineage.


LINEAGES = [
    ("pushed", "backward", ["file a", "file b", "rows a", "rows b", "model", "verdict", "pushed"]),
    ("pushed", "forward", ["pushed"]),
    ("file a", "backward", ["file a"]),
    ("file a", "forward", ["file a", "rows a", "model", "verdict", "pushed"]),
    ("model", "backward", ["file a", "file b", "rows a", "rows b", "model"]),
    ("model", "forward", ["model", "verdict", "pushed"]),
    ("rows b", "forward", ["rows b", "model", "verdict", "pushed"]),
    ("stray", "backward", ["stray"]),
    ("stray", "forward", ["stray"]),
]


def test_lineage(store, diamond):
    for start, direction, expected in LINEAGES:
        ids = [row.artifact.id for row in store.lineage(diamond[start].id, direction)]
        assert ids == sorted(diamond[name].id for name in expected), (start, direction)


def test_lineage_has_the_component_and_the_sources_of_each_artifact(store, diamond):
    rows = {row.artifact.id: row for row in store.lineage(diamond["verdict"].id, "backward")}
    verdict = rows[diamond["verdict"].id]
    assert (verdict.component, verdict.run_id) == ("Judge", 1)
    assert set(verdict.sources) == {diamond["model"].id, diamond["rows a"].id}
    files = rows[diamond["file a"].id]
    assert (files.type, files.component, files.sources) == ("RawFiles", "", ())


def test_raw_files_are_found_by_id_pattern_or_path(store, diamond):
    for name in ("1", "a.tsv", "/data/a.tsv"):
        assert store.find_artifact(name).id == diamond["file a"].id


def test_an_artifact_is_found_by_its_folder_or_a_file_in_it(store, diamond):
    for name in (diamond["model"].uri, diamond["model"].uri + "/", diamond["model"].path("Format-Serving", "x.pb")):
        assert store.find_artifact(name).id == diamond["model"].id


def test_the_newest_matching_artifact_is_found(store):
    store.record_source(RawFiles("a.tsv", {"files": []}, "old"))
    newest = store.record_source(RawFiles("a.tsv", {"files": []}, "new"))
    assert store.find_artifact("a.tsv") == Artifact("a.tsv", {"files": []}, "new", newest.id)


def test_an_unknown_artifact_is_bad_input(store, diamond):
    for name in ("99", "/nowhere", "", "-1"):
        with pytest.raises(UserError, match=f"no artifact '{name}'") as error:
            store.find_artifact(name)
        assert (error.value.code, error.value.fields) == ("artifact-unknown", {"name": name})


# Publishing.


def contents(store: MetadataStore, component: str) -> tuple[list[str], int, int]:
    """Returns the states of a component's executions, and the numbers of artifacts and events."""
    query = sa.select(EXECUTIONS.c.state).where(EXECUTIONS.c.component == component)
    states = [row.state for row in store._database.read(query)]
    counts = [store._database.read(sa.select(sa.func.count("*")).select_from(table)) for table in (ARTIFACTS, EVENTS)]
    return states, *(rows[0][0] for rows in counts)


def test_a_failed_publish_changes_nothing(store):
    run_id = store.begin_run("toy")
    execution_id = store.begin_execution(run_id, "Train", "f", {}, "first run")
    unknown = Examples("/nowhere", id=999)  # violates a foreign key in the last statement of the transaction
    with pytest.raises(sa.exc.IntegrityError):
        store.publish(execution_id, {"examples": unknown}, {"model": Model("/runs/Train/model/1")})
    assert contents(store, "Train") == (["RUNNING"], 0, 0)


def test_publish_after_a_sweep_is_an_error(store):
    execution_id = store.begin_execution(store.begin_run("toy"), "Train", "f", {}, "first run")
    store.end_execution(execution_id, "CANCELED", "killed")
    with pytest.raises(Seq2ServeError, match="marked as abandoned by another run; run again") as error:
        store.publish(execution_id, {}, {"model": Model("/runs/Train/model/1")})
    assert (error.value.code, error.value.fields) == ("execution-abandoned", {"execution": execution_id})
    assert contents(store, "Train") == (["CANCELED"], 0, 0)


def test_the_end_of_a_run_is_recorded_once(store):
    run_id = store.begin_run("toy")
    store.end_run(run_id, "COMPLETE")
    store.end_run(run_id, "CANCELED", "killed")
    assert [(run.state, run.message) for run in store.runs()] == [("COMPLETE", "")]


def test_published_outputs_are_read_with_their_types(store):
    execution_id = store.begin_execution(store.begin_run("toy"), "Train", "f", {"a": [1]}, "first run")
    made = store.publish(execution_id, {}, {"model": Model("/runs/Train/model/1", {"steps": [1, None, "ä"]}, "ff")})
    assert store.outputs(execution_id, {"model": Model}) == made
    assert made["model"].id > 0
    assert store.execution(execution_id).parts == {"a": [1]}


def test_the_same_files_are_recorded_once(store):
    first = store.record_source(RawFiles("a.tsv", {}, "f"))
    assert store.record_source(RawFiles("a.tsv", {}, "f")) == first
    assert store.record_source(RawFiles("a.tsv", {}, "g")).id != first.id


def test_latest_returns_the_newest_complete_execution_of_the_pipeline(store):
    run_id, other = store.begin_run("toy"), store.begin_run("other")
    assert store.latest("toy", "Train") is None
    execute(store, run_id, "Train", {}, model=Model)
    execute(store, other, "Train", {"x": store.record_source(RawFiles("a", {}, "f"))}, model=Model)
    store.begin_execution(run_id, "Train", "running", {}, "")
    assert store.latest("toy", "Train").run_id == run_id


def test_any_text_can_be_stored(store):
    text = "a\0b ä€😀 it's 100 %s :x"
    run_id = store.begin_run("toy")
    execution_id = store.begin_execution(run_id, "Train", "f", {"a": text}, text)
    store.publish(execution_id, {}, {"model": Model("/runs/1", {"a": text})})
    store.end_run(run_id, "FAILED", text)
    assert store.execution(execution_id).parts == {"a": text}
    assert store.outputs(execution_id, {})["model"].properties == {"a": text}
    assert store.runs()[0].message.replace("\\0", "\0") == text


@pytest.mark.parametrize("name", ["q?x", "p%41q", "100% [old] #1"])
def test_the_file_of_a_store_can_have_any_name(tmp_path, name):
    url = sqlite_url(tmp_path / name)
    MetadataStore(url).begin_run("toy")
    assert len(MetadataStore(url).runs()) == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert absolute_url(url) == url


@pytest.mark.parametrize(
    ("url", "code", "message"),
    [
        ("sqlite:///{folder}/nowhere/metadata.sqlite", "metadata-store-unusable", "unable to open database file"),
        (
            "postgresql://joe:secret@/runs?host={folder}",
            "metadata-store-unusable",
            r"joe:\*\*\*@.*No such file or directory",
        ),
        ("sqlite://", "metadata-url-invalid", "the URL of the metadata store is invalid: pass one of SQLite "),
        ("sqlite:///:memory:", "metadata-url-invalid", None),
        ("sqlite://folder/metadata.sqlite", "metadata-url-invalid", None),
        ("mysql://joe:secret@localhost/runs", "metadata-url-invalid", None),
        ("postgresql:joe:secret", "metadata-url-invalid", None),
    ],
)
def test_a_store_that_cannot_be_opened_is_bad_input(tmp_path, url, code, message):
    pytest.importorskip("psycopg", reason="needs the extra postgres")
    with pytest.raises(UserError, match=message) as error:
        MetadataStore(url.format(folder=tmp_path))
    assert error.value.code == code
    assert "secret" not in str(error.value)
    assert "secret" not in str(error.value.fields)
    assert "\n" not in str(error.value)


def test_a_missing_driver_is_an_error_with_a_fix(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UserError, match=r"pip install 'seq2serve\[postgres\]'") as error:
        MetadataStore("postgresql://localhost/runs")
    assert error.value.code == "driver-missing"


def test_a_store_waits_for_a_restarting_server(postgres, postgres_url):
    store = MetadataStore(postgres_url)
    postgres.stop()
    starting = threading.Timer(1.0, postgres.start)
    starting.start()
    assert store.begin_run("toy") == 1
    starting.join()


# Concurrency.


def test_concurrent_writers_lose_nothing(store):
    """Every thread has its own store on the same database, like a process."""
    url, failures = str(store), []

    def work(number: int) -> None:
        try:
            own_store = MetadataStore(url)
            run_id = own_store.begin_run(f"run {number}")
            for step in range(5):
                source = own_store.record_source(RawFiles("shared.tsv", {}, "f"))
                execute(own_store, run_id, f"Step{number}x{step}", {"files": source}, model=Model)
            own_store.end_run(run_id, "COMPLETE")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert {run.state for run in store.runs()} == {"COMPLETE"}
    shared = store.find_artifact("shared.tsv")
    assert len(store.lineage(shared.id, "forward")) == 1 + 6 * 5


def test_a_reader_does_not_wait_for_a_writer(store, diamond):
    with store._database.write() as connection:
        connection.execute(sa.insert(RUNS), {"pipeline": "open", "state": "RUNNING", "started": 0.0})
        reader = MetadataStore(str(store))
        assert [run.pipeline for run in reader.runs()] == ["diamond"]
