"""Stock TF Serving, by its own rules, follows every push and rollback without an outage; see model_server.py."""

import itertools
import os
import shutil

import pytest

from seq2serve.components.pusher.server_files import MAX_REQUEST_ROWS
from seq2serve.components.pusher.versions import publish, rollback, served, versions
from tests.components.pusher.model_server import (
    MAX_RETRIES,
    MODEL_FILES,
    RETRY_SECONDS,
    BatchingQueue,
    ModelServer,
    RefusedError,
)

CHANGES = ("fsync", "mkdir", "rename", "replace", "rmdir", "unlink")  # the functions of os that change the folder


class KilledError(BaseException):
    """Stands for SIGKILL: nothing handles it."""


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "serving"


@pytest.fixture
def push(tmp_path, folder):
    """Returns a function that pushes a model whose files have a given content, and returns its version."""

    def push(content, keep=10):
        source = tmp_path / f"model-{content}"
        for name in MODEL_FILES:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_text(content, encoding="utf-8")
        return publish(str(folder), str(source), {}, keep)

    return push


@pytest.fixture
def before_each_change(monkeypatch):
    """Returns a function that calls a function, and another one before each change that it makes to the folder."""

    def run(function, observe):
        def observed(real, *arguments, **options):
            observe()
            return real(*arguments, **options)

        with monkeypatch.context() as patch:
            for name in CHANGES:
                real = getattr(os, name)
                patch.setattr(os, name, lambda *a, real=real, **o: observed(real, *a, **o))
            function()

    return run


def watch(server):
    """Lets a second pass; there must be no outage, and no configuration may be refused."""
    server.tick()
    assert server.available
    assert server.refusals == []


def settle(server):
    server.settle()
    assert server.refusals == []


def newest_content(folder):
    return (folder / str(versions(folder)[-1]) / MODEL_FILES[0]).read_text(encoding="utf-8")


def write_config(folder, settings):
    text = (
        f"model_config_list {{ config {{ name: 'x' base_path: '/serving' model_platform: 'tensorflow' {settings} }} }}"
    )
    (folder / "models.config").write_text(text, encoding="utf-8")


def specific(*numbers, **labels):
    listed = " ".join(f"versions: {number}" for number in numbers)
    entries = " ".join(f"version_labels {{ key: '{label}' value: {number} }}" for label, number in labels.items())
    return f"model_version_policy {{ specific {{ {listed} }} }} {entries}"


def test_a_push_and_a_rollback_take_effect_without_an_outage(push, folder, before_each_change):
    push("a")
    server = ModelServer(folder)
    assert server.answer() == "a"
    steps = [
        *((lambda: push("b"), "b"), (lambda: push("c"), "c"), (lambda: rollback(str(folder)), "b")),
        *((lambda: rollback(str(folder)), "a"), (lambda: push("d"), "d"), (lambda: rollback(str(folder)), "a")),
    ]
    for change, expected in steps:
        before_each_change(change, lambda: watch(server))
        settle(server)
        assert server.answer() == newest_content(folder) == expected
        assert server.available == versions(folder)[-1:]
        assert ModelServer(folder).answer() == expected


@pytest.mark.parametrize("seconds", [0, 1, 7], ids=lambda seconds: f"{seconds} s between changes")
def test_ten_pushes_in_quick_succession_end_with_the_newest_version(push, folder, before_each_change, seconds):
    """Old versions are deleted while the server loads them; the versions in memory stay until the newest is loaded."""
    push("first", keep=1)
    server = ModelServer(folder)

    def ten_pushes():
        for number in range(10):
            push(f"{number}", keep=1)
            watch(server)

    before_each_change(ten_pushes, lambda: [watch(server) for _ in range(seconds)])
    settle(server)
    assert server.answer() == "9"
    assert len(versions(folder)) == 2


def test_rolling_back_to_a_withdrawn_version_serves_it_again(push, folder, before_each_change):
    numbers = [push(content) for content in "abcd"]
    server = ModelServer(folder)
    for number, expected in zip([numbers[0], numbers[2], numbers[1], numbers[3]], "acbd", strict=True):
        before_each_change(lambda number=number: rollback(str(folder), number), lambda: watch(server))
        settle(server)
        assert server.answer() == newest_content(folder) == expected


def test_a_version_that_is_withdrawn_while_it_loads_needs_a_new_push_on_that_server(push, folder):
    """TF Serving tries a number that failed to load no second time until it has served another version."""
    push("a")
    server = ModelServer(folder)
    withdrawn = push("b")
    watch(server)
    rollback(str(folder))
    settle(server)
    assert server.answer() == "a"
    rollback(str(folder), withdrawn)
    settle(server)
    assert server.answer() == "a"
    assert ModelServer(folder).answer() == "b"  # after a restart
    rollback(str(folder))
    push("b")
    settle(server)
    assert server.answer() == "b"


@pytest.mark.parametrize(("load_threads", "most_seconds"), [(0, MAX_RETRIES * (RETRY_SECONDS + 10)), (2, 10)])
def test_a_second_load_thread_lets_a_newer_version_load_while_a_broken_one_is_retried(
    push, folder, load_threads, most_seconds
):
    push("a")
    server = ModelServer(folder, load_threads=load_threads)
    broken = push("b")
    for name in MODEL_FILES:
        (folder / str(broken) / name).unlink()
    for _ in range(10):
        watch(server)
    push("c")
    seconds = 0
    while server.answer() != "c" and seconds < 1000:
        watch(server)
        seconds += 1
    assert most_seconds / 10 < seconds <= most_seconds


@pytest.mark.parametrize("name", ["push", "push that deletes", "rollback", "rollback over two", "rollback forward"])
def test_after_a_kill_between_any_two_changes_servers_serve_a_complete_version(
    push, folder, tmp_path, before_each_change, name
):
    first, second, _, fourth = (push(content) for content in "abcd")
    rollback(str(folder))
    shutil.copytree(folder, tmp_path / "start")
    change, expected = {
        "push": (lambda: push("e"), "e"),
        "push that deletes": (lambda: push("e", keep=1), "e"),
        "rollback": (lambda: rollback(str(folder), second), "b"),
        "rollback over two": (lambda: rollback(str(folder), first), "a"),
        "rollback forward": (lambda: rollback(str(folder), fourth), "d"),
    }[name]
    for last_change in itertools.count():
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "start", folder)
        server, changes = ModelServer(folder), itertools.count()

        def watch_or_kill(server=server, changes=changes, last_change=last_change):
            watch(server)
            if next(changes) == last_change:
                raise KilledError

        try:
            before_each_change(change, watch_or_kill)
            break
        except KilledError:
            pass
        settle(server)
        assert server.answer() == newest_content(folder) == ModelServer(folder).answer()
        assert newest_content(folder) in ("c", expected)
        if newest_content(folder) != expected:
            before_each_change(change, lambda server=server: watch(server))
        settle(server)
        assert server.answer() == newest_content(folder) == expected
    assert last_change >= 2


def test_the_former_way_to_move_a_label_with_a_push_is_refused_and_ends_in_an_outage(push, folder):
    """The simulation can fail: this is what a seq2serve that wrote labels into models.config did."""
    first = push("a")
    write_config(folder, specific(first, stable=first))
    server = ModelServer(folder)
    second = push("b")
    write_config(folder, specific(second, stable=second))
    server.settle()
    assert set(server.refusals) == {f"Request to assign label to version {second}, which is not currently available"}
    assert server.answer() == server.answer(label="stable") == "a"
    shutil.rmtree(folder / str(first))
    server.settle()
    assert server.available == []


def test_an_operators_label_moves_in_two_edits(push, folder):
    """List both versions; once the new one is available, move the label and remove the old one."""
    first = push("a")
    write_config(folder, specific(first, stable=first))
    server = ModelServer(folder)
    second = push("b")
    settle(server)
    assert server.answer() == server.answer(label="stable") == "a"
    assert served(folder).numbers == (first,)
    for settings, expected in [
        (specific(first, second, stable=first), "a"),
        (specific(second, stable=second), "b"),
    ]:
        write_config(folder, settings)
        for _ in range(20):
            watch(server)
        assert server.answer(label="stable") == expected
        assert list(served(folder).numbers) == server.available
        assert served(folder).labels == server.labels
    for content in "cdefg":
        push(content, keep=1)
        watch(server)
    settle(server)
    assert server.available == [second]
    assert ModelServer(folder).answer(label="stable") == "b"
    with pytest.raises(RefusedError, match="not currently available"):
        ModelServer(folder, allow_unavailable=False)  # why compose.yaml passes the flag


def test_a_label_with_the_latest_policy_loses_its_version_at_the_next_push(push, folder):
    """Why models/README.md tells operators to list versions together with labels."""
    first = push("a")
    write_config(folder, f"version_labels {{ key: 'stable' value: {first} }}")
    server = ModelServer(folder)
    assert server.answer(label="stable") == "a"
    push("b")
    settle(server)
    assert server.answer() == "b"
    with pytest.raises(RefusedError, match="Servable not found"):
        server.answer(label="stable")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "model_config_list { config { name: 'x' base_path: '/x' model_platform: 'tensorflow' labels: 1 } }",
            "Invalid",
        ),
        ("model_config_list { config { name: 'x' base_path: 'x' model_platform: 'tensorflow' } }", "absolute path"),
        ("model_config_list { config { name: 'x' base_path: '/x' } }", "neither model_type nor model_platform"),
        ("model_config_list { config { name: 'serving' base_path: '/serving' model_platform: 'other' } }", "platform"),
        ("", "Failed to read"),
        ("# Only a comment.", "Cannot transition"),
        ("model_config_list { config { name: 'x' base_path: '/x' } config { name: 'x' base_path: '/y' } }", "multiple"),
    ],
)
def test_the_simulation_refuses_what_the_server_refuses(push, folder, text, message):
    push("a")
    server = ModelServer(folder)
    (folder / "models.config").write_text(text, encoding="utf-8")
    server.settle()
    assert all(message in refusal for refusal in server.refusals)
    assert server.refusals
    assert server.answer() == "a"


def test_without_versions_or_without_the_folder(push, folder):
    """No version: all are unloaded. No folder: all stay, because storage may be away for a moment."""
    first = push("a")
    server = ModelServer(folder)
    os.rename(folder, folder.with_name("away"))
    server.settle()
    assert server.answer() == "a"
    os.rename(folder.with_name("away"), folder)
    os.rename(folder / str(first), folder / "other")
    server.settle()
    assert server.available == []


def test_requests_of_up_to_1024_rows_are_split_into_batches_of_at_most_32(push, folder):
    push("a")
    queue = BatchingQueue((folder / "batching_parameters.txt").read_text(encoding="utf-8"))
    assert [queue.batches(rows) for rows in (1, 3, 32, 33, 100)] == [[1], [4], [32], [32, 1], [32, 32, 32, 4]]
    assert queue.batches(MAX_REQUEST_ROWS) == [32] * 32
    with pytest.raises(RefusedError, match=f"Task size {MAX_REQUEST_ROWS + 1} is larger than maximum input batch size"):
        queue.batches(MAX_REQUEST_ROWS + 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("max_batch_size { value: 1024 }", "max_batch_size { value: 2048 }"), "Last entry in allowed_batch_sizes"),
        (("allowed_batch_sizes: 1024\n", ""), "Last entry in allowed_batch_sizes"),
        (
            ("max_execution_batch_size { value: 32 }", "max_execution_batch_size { value: 4096 }"),
            "greater than or equal",
        ),
        (("max_enqueued_batches { value: 100 }", ""), "must be positive"),
        (("num_batch_threads", "batch_threads"), "Invalid protobuf file"),
    ],
)
def test_the_simulation_refuses_batching_parameters_that_the_server_refuses(push, folder, change, message):
    push("a")
    text = (folder / "batching_parameters.txt").read_text(encoding="utf-8")
    assert change[0] in text
    with pytest.raises(RefusedError, match=message):
        BatchingQueue(text.replace(*change))


def test_without_splitting_more_than_32_rows_are_refused():
    """As the file was before: the simulation can fail."""
    queue = BatchingQueue(
        "max_batch_size { value: 32 } allowed_batch_sizes: [1, 32] max_enqueued_batches { value: 100 }"
    )
    assert queue.batches(32) == [32]
    with pytest.raises(RefusedError, match="Task size 33"):
        queue.batches(33)
