"""Machines meet before they train: the right ones are admitted, the others refused by name; one failure ends all.

The chief is in this thread, the workers are in others, and the processes that they start have a program without
TensorFlow.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import threading
import time

import pytest

from seq2serve.components.base import interrupt
from seq2serve.components.base.artifact import Model, Tokenizer, TransformedExamples
from seq2serve.components.base.component import Input, MachinesContext, Node, Output, component
from seq2serve.components.base.errors import Seq2ServeError, UserError
from seq2serve.components.infra_validator.client import free_port
from seq2serve.pipeline.running.machines import chief as chiefs
from seq2serve.pipeline.running.machines import worker as workers
from seq2serve.pipeline.running.machines.cluster import Cluster
from seq2serve.pipeline.running.machines.connection import Connection
from seq2serve.pipeline.running.machines.worker import work, worker_cluster


@component
def Train(model: Output[Model], tokenizer: Input[Tokenizer] | None, context: MachinesContext) -> None:
    """A component that uses machines; only its code counts here."""


NODES = [Node(Train, {}, {})]
LIMIT = 60  # seconds for a test
COMPLETE = "training is complete; the chief evaluates and exports the model"


@pytest.fixture
def root(tmp_path):
    """A pipeline root with two artifacts."""
    for name in ("Transform/transformed_examples/1", "Transform/tokenizer/1"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "data").write_text(name)
    return tmp_path / "runs"


@pytest.fixture
def inputs(root):
    folder = root / "Transform"
    return {
        "transformed_examples": TransformedExamples(str(folder / "transformed_examples" / "1"), {"max_length": 8}),
        "tokenizer": Tokenizer(str(folder / "tokenizer" / "1")),
    }


def free_pair():
    """Returns a port that is free, as is the next one."""
    while True:
        port = free_port()
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port + 1)):
            return port


@pytest.fixture
def make_cluster(monkeypatch, tmp_path):
    """Returns a function that makes the Clusters of some machines, which wait for each other for a short time."""

    def give_up(*_):
        raise AssertionError(f"the test takes more than {LIMIT} s")

    signal.signal(signal.SIGALRM, give_up)
    monkeypatch.setattr(workers, "_RETRY_SECONDS", 0.02)
    monkeypatch.setattr(chiefs, "CAUSE_SECONDS", 1)
    monkeypatch.setattr(workers, "CAUSE_SECONDS", 1)
    monkeypatch.syspath_prepend(pathlib.Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", str(pathlib.Path(__file__).parent))  # of the processes
    monkeypatch.setenv("READY", str(tmp_path / "ready"))  # each process leaves a file there
    (tmp_path / "ready").mkdir()

    def make(size):
        signal.alarm(LIMIT)
        first = free_pair()
        others: list[int] = []
        while len(others) < size - 1:
            others = sorted({*others, free_port()} - {first, first + 1})
        ports = [first, *others]
        names = ("chief", *(f"worker {index}" for index in range(size - 1)))
        addresses = tuple(f"127.0.0.1:{port}" for port in ports)
        machines = {"chief": addresses[:1], "worker": addresses[1:]}
        task = {"type": "chief", "index": 0}
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": machines, "task": task}))
        return [Cluster(names, addresses, index) for index in range(size)]

    yield make
    signal.alarm(0)


class Worker(threading.Thread):
    """Works for a chief in a thread; `result` is what it returns or raises."""

    def __init__(self, cluster, root):
        super().__init__(daemon=True)
        self.cluster, self.root, self.result = cluster, str(root), None
        self.start()

    def run(self):
        try:
            self.result = work(self.cluster, self.root)
        except BaseException as error:
            self.result = error

    def outcome(self):
        """Returns the result once there is one."""
        self.join(30)
        assert not self.is_alive()
        return self.result


def lead(root):
    return chiefs.led_machines(NODES, root)


def train(root, inputs, meanwhile=None, **arguments):
    """Runs the program on all machines; `meanwhile(chief)` runs in a thread."""
    with lead(root) as machines:
        if meanwhile:
            threading.Thread(target=meanwhile, args=(machines,), daemon=True).start()
        machines.run("program", inputs, arguments)


def wait_until(condition):
    while not condition():
        time.sleep(0.01)


def wait_for_processes(machines):
    """Waits until all processes run the program."""
    wait_until(lambda: len(os.listdir(os.environ["READY"])) == len(machines._cluster.names))


# Machines that may train together.


def test_every_machine_runs_the_program_on_its_own_copy_of_the_data(make_cluster, root, inputs, tmp_path, capfd):
    _, *others = make_cluster(3)
    elsewhere = tmp_path / "mounted elsewhere"
    shutil.copytree(root, elsewhere)
    threads = [Worker(cluster, folder) for cluster, folder in zip(others, (root, elsewhere), strict=True)]
    train(root, inputs, written=str(tmp_path / "uris"))
    assert [thread.outcome() for thread in threads] == [COMPLETE, COMPLETE]
    for index, folder in enumerate((root, root, elsewhere)):
        uris = json.loads((tmp_path / f"uris-{index}").read_text())
        assert uris == {key: str(folder / "Transform" / key / "1") for key in inputs}
    assert "worker 0 waits for chief (127.0.0.1:" in capfd.readouterr().err


def test_a_machine_copies_the_data_of_a_root_on_an_object_store(
    make_cluster, root, inputs, blobs, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for path in root.rglob("data"):
        blobs[f"memory://bucket/shared/{path.relative_to(root)}"] = path.read_bytes()
    _, other = make_cluster(2)
    thread = Worker(other, "memory://bucket/shared")
    train(root, inputs, written=str(tmp_path / "uris"))
    assert thread.outcome() == COMPLETE
    uris = json.loads((tmp_path / "uris-1").read_text())
    assert uris["tokenizer"] == str(tmp_path / "runs-memory-bucket-shared" / "Transform" / "tokenizer" / "1")


def test_a_run_that_trains_nothing_dismisses_the_machines_without_an_error(make_cluster, root):
    _, other = make_cluster(2)
    thread = Worker(other, root)
    with lead(root) as machines:
        wait_until(lambda: machines._workers)
    assert thread.outcome() == "the chief's run has ended"


def test_a_run_that_fails_before_training_ends_the_machines_with_its_reason(make_cluster, root):
    def fail(machines):
        wait_until(lambda: machines._workers)
        raise UserError("ExampleGen: no rows")

    _, other = make_cluster(2)
    thread = Worker(other, root)
    with contextlib.suppress(UserError), lead(root) as machines:
        fail(machines)
    assert isinstance(thread.outcome(), UserError)
    assert str(thread.outcome()) == "the chief's run has failed: ExampleGen: no rows"


def test_without_a_component_that_uses_machines_or_without_a_cluster_there_are_none(make_cluster, root, monkeypatch):
    make_cluster(2)
    with chiefs.led_machines([], root) as machines:
        assert machines is None
    monkeypatch.delenv("TF_CONFIG")
    with lead(root) as machines:
        assert machines is None


# Machines that may not.


@pytest.fixture
def refusal(make_cluster, root):
    """Returns a function that makes a change to the chief and returns why it then refuses a worker."""

    def refusal(change) -> str:
        _, other = make_cluster(2)
        with lead(root) as machines:
            change(machines)
            error = Worker(other, root).outcome()
        assert isinstance(error, UserError)
        assert error.code == "machine-refused"
        return str(error).removeprefix(f"{other.describe(1)} was refused by the chief: ")

    return refusal


def test_other_code_is_refused_with_the_files_that_differ(refusal, capfd):
    reason = refusal(lambda chief: chief._identity["code"].update({"seq2serve/models/training/loss.py": "0"}))
    assert reason == "other code: seq2serve/models/training/loss.py; install the same seq2serve on every machine"
    assert f"was refused by the chief: {reason}" in capfd.readouterr().err


def test_other_library_versions_are_refused_with_the_versions(refusal):
    reason = refusal(lambda chief: chief._identity["versions"].update(Python="2.7"))
    assert re.match(r"other libraries: Python 3\.\d+ instead of 2\.7; install the same versions", reason)


def test_code_that_a_machine_lacks_is_refused(refusal):
    reason = refusal(lambda chief: chief._names.append("nowhere.task:Task"))
    assert reason == "other code: No module named 'nowhere'; install the same packages on every machine"


def test_another_cluster_is_refused_with_both(refusal):
    def add_machine(chief):
        names, addresses = chief._cluster.names, chief._cluster.addresses
        chief._cluster = Cluster((*names, "worker 1"), (*addresses, "127.0.0.1:9"), 0)

    assert re.fullmatch(r"its TF_CONFIG names other machines: .* instead of .*, 127\.0\.0\.1:9", refusal(add_machine))


def test_a_machine_of_a_larger_cluster_is_refused_by_its_number(make_cluster, root, capfd):
    _, other = make_cluster(2)
    larger = Cluster((*other.names, "worker 1"), (*other.addresses, "127.0.0.1:9"), 2)
    with lead(root):
        error = Worker(larger, root).outcome()
    assert re.match("machine 2 was refused by the chief: its TF_CONFIG names other machines: ", str(error))
    assert str(error) in capfd.readouterr().err


def test_other_code_of_the_messages_is_refused(refusal):
    name = "seq2serve/pipeline/running/machines/worker.py"
    reason = refusal(lambda chief: chief._identity["code"].update({name: "0"}))
    assert reason.startswith(f"other code: {name}; ")


def test_a_pipeline_root_that_does_not_exist_is_refused_and_not_created(make_cluster, root, tmp_path):
    _, other = make_cluster(2)
    with lead(root):
        error = Worker(other, tmp_path / "missing").outcome()
    assert f"its pipeline root {tmp_path / 'missing'} does not exist; pass the chief's" in str(error)
    assert not (tmp_path / "missing").exists()


def test_a_second_machine_of_the_same_name_is_refused(make_cluster, root):
    _, other = make_cluster(2)
    with lead(root) as machines:
        first = Worker(other, root)
        wait_until(lambda: machines._workers)
        assert "another machine has joined under this name" in str(Worker(other, root).outcome())
    assert first.outcome() == "the chief's run has ended"


def test_a_machine_that_comes_after_training_has_begun_is_refused(make_cluster, root, inputs):
    _, other = make_cluster(2)
    on_time, late = Worker(other, root), []

    def join_late(machines):
        wait_for_processes(machines)
        joined, machines._workers = machines._workers, {}  # as if it had another name
        late.append(Worker(other, root).outcome())
        machines._workers = joined
        machines._events.put((1, {}))

    with pytest.raises(Seq2ServeError):
        train(root, inputs, join_late, **{"0": "wait", "1": "wait"})
    assert on_time.outcome()
    assert str(late[0]) == f"{other.describe(1)} was refused by the chief: it is too late: training has begun"


def test_other_data_end_the_run_with_the_name_of_the_input(make_cluster, root, inputs, tmp_path):
    _, other = make_cluster(2)
    shutil.copytree(root, tmp_path / "other")
    (tmp_path / "other" / "Transform" / "tokenizer" / "1" / "data").write_text("other pieces")
    thread = Worker(other, tmp_path / "other")
    with pytest.raises(UserError, match=r"has other data than the chief: tokenizer; give it the same") as error:
        train(root, inputs)
    assert (error.value.code, error.value.fields) == ("machine-data-differ", {"machine": "worker 0"})
    assert str(thread.outcome()) == f"{other.describe(1)} has other data than the chief: tokenizer"


def test_data_that_a_machine_does_not_reach_end_the_run_with_their_path(make_cluster, root, inputs, tmp_path):
    _, other = make_cluster(2)
    (tmp_path / "empty").mkdir()
    thread = Worker(other, tmp_path / "empty")
    with pytest.raises(UserError, match=r"there is no .*/empty/Transform/transformed_examples/1; "):
        train(root, inputs)
    assert "has other data than the chief: there is no " in str(thread.outcome())


def test_clocks_that_differ_are_a_warning_on_both_machines(make_cluster, root, capfd):
    _, other = make_cluster(2)
    with lead(root):
        connection = Connection(socket.create_connection(other.chief_endpoint))
        connection.send(index=1, addresses=list(other.addresses), time=time.time() - 3600)
        warning = connection.receive(10)["note"]
        connection.close()
    assert re.match(r"warning: the clock of worker 0 \(127\.0\.0\.1:\d+\) is 3[56]\d\d s behind the chief's", warning)
    assert warning in capfd.readouterr().err


def test_another_program_that_connects_is_ignored(make_cluster, root, inputs):
    _, other = make_cluster(2)

    def knock(machines):
        for noise in (b"GET / HTTP/1.1\r\n\r\n", b'{"index": "x"}\n', b'{"index": 1, "addresses": 2, "time": 3.0}\n'):
            with socket.create_connection(other.chief_endpoint) as sock:
                sock.sendall(noise)
        threads.append(Worker(other, root))

    threads = []
    train(root, inputs, knock)
    assert threads[0].outcome() == COMPLETE


# Machines that do not join, or that have the wrong command.


def test_workers_that_never_join_are_named_after_the_time_limit(make_cluster, root, inputs, monkeypatch, capfd):
    monkeypatch.setattr(chiefs, "WAIT_SECONDS", 0.3)
    make_cluster(3)
    message = r"worker 0 \(127.*\), worker 1 \(127.*\) did not join within 0\.005 minutes; start `seq2serve train-worke"
    with pytest.raises(Seq2ServeError, match=message) as error:
        train(root, inputs)
    assert (error.value.code, error.value.fields) == ("machine-missing", {"machines": ["worker 0", "worker 1"]})
    assert "Trainer waits for worker 0 (127.0.0.1:" in capfd.readouterr().err


def test_a_chief_that_never_answers_is_named_after_the_time_limit(make_cluster, root, monkeypatch):
    monkeypatch.setattr(workers, "WAIT_SECONDS", 0.3)
    _, other = make_cluster(2)
    with pytest.raises(
        Seq2ServeError, match=r"^chief \(127.*\) did not answer within 0\.005 minutes; run `seq2serve run"
    ):
        work(other, str(root))


@pytest.mark.parametrize("is_silent", [True, False])
def test_another_program_at_the_chiefs_port_is_no_chief(make_cluster, root, inputs, monkeypatch, is_silent):
    """It says nothing, or closes the connection; the chief has the port later."""
    monkeypatch.setattr(workers, "ANSWER_SECONDS", 0.1)
    _, other = make_cluster(2)
    with socket.create_server(other.chief_endpoint) as program:
        thread = Worker(other, root)
        sock, _ = program.accept()
        if not is_silent:
            sock.close()
        program.accept()[0].close()
        sock.close()
    train(root, inputs)
    assert thread.outcome() == COMPLETE


def test_a_worker_that_leaves_before_training_may_come_again(make_cluster, root, inputs, capfd):
    _, other = make_cluster(2)
    threads = []

    def join_twice(machines):
        workers._connect(other, str(root)).close()
        wait_until(lambda: not machines._workers)
        threads.append(Worker(other, root))

    with lead(root) as machines:
        join_twice(machines)
        machines.run("program", inputs, {})
    assert threads[0].outcome() == COMPLETE
    assert "has left; Trainer waits for it" in capfd.readouterr().err


def test_the_wrong_command_for_a_machine_is_an_error_that_names_the_right_one(make_cluster, root, monkeypatch):
    chief, other = make_cluster(2)
    for environment in ({"TF_CONFIG": chief.tf_config()}, {}):
        with pytest.raises(UserError, match="`seq2serve train-worker` is for the others") as error:
            worker_cluster(environment)
        assert error.value.code == "machine-not-worker"
    monkeypatch.setenv("TF_CONFIG", other.tf_config())
    with pytest.raises(UserError, match=r"machine is worker 1: run `seq2serve train-worker` here") as error, lead(root):
        pass
    assert error.value.code == "machine-not-chief"


@pytest.mark.parametrize("offset", [0, 1])
def test_a_port_of_the_chief_that_is_taken_is_an_error(make_cluster, root, offset):
    chief, _ = make_cluster(2)
    port = chief.chief_endpoint[1] - 1 + offset
    with socket.create_server(("127.0.0.1", port)), pytest.raises(UserError, match=f"^port {port}.* cannot be used"):  # noqa: SIM117
        with lead(root):
            pass


# The end of one process ends all.


@pytest.mark.parametrize(
    ("machine", "action", "reason"),
    [
        (1, "kill", "worker 0 .* has stopped: its training process was killed by signal 9 .*; run the same commands"),
        (0, "kill", "chief .* has stopped: its training process was killed by signal 9"),
        (1, "divide", "worker 0 .* has stopped: ZeroDivisionError: division by zero"),
        (0, "abort", "worker 0 .*, worker 1 .* have stopped: no report 1 s after that of chief .* killed by signal 6"),
        (0, "fail", "The loss is nan"),
        (1, "fail", "worker 0 .*: The loss is nan"),
    ],
)
def test_a_process_that_fails_ends_all_with_its_machine_and_reason(make_cluster, root, inputs, machine, action, reason):
    _, *others = make_cluster(3)
    threads = [Worker(cluster, root) for cluster in others]
    with pytest.raises(Seq2ServeError, match=reason) as error:
        train(root, inputs, **{**dict.fromkeys("012", "wait"), str(machine): action})
    assert error.value.code == ("loss-diverged" if action == "fail" else "machine-stopped")
    for thread in threads:
        assert type(thread.outcome()) is type(error.value)
        assert re.search(reason.partition(";")[0], str(thread.outcome()))


def test_the_machine_that_caused_a_failure_is_named_even_if_another_one_fails_first(make_cluster, root, inputs):
    """TensorFlow aborts the processes of other machines before the chief has noticed that a machine was lost."""
    _, *others = make_cluster(3)
    threads = [Worker(cluster, root) for cluster in others]

    def lose_worker_1(machines):
        wait_for_processes(machines)
        machines._workers[2].close()

    with pytest.raises(Seq2ServeError, match=r"^worker 1 .* has stopped: its connection has broken"):
        train(root, inputs, lose_worker_1, **{"0": "wait", "1": "abort", "2": "wait"})
    assert str(threads[0].outcome()).startswith(others[1].describe(2))


def test_a_machine_that_reports_nothing_is_named_and_not_those_that_have_lost_it(make_cluster, root, inputs):
    """As when its processes are stopped by a signal, or hang."""
    _, *others = make_cluster(3)
    threads = [Worker(cluster, root) for cluster in others]
    message = r"^worker 1 \S+ has stopped: no report 1 s after that of (chief|worker 0) .* killed by signal 6"
    with pytest.raises(Seq2ServeError, match=message):
        train(root, inputs, **{"0": "abort", "1": "abort", "2": "wait"})
    for thread in threads:
        assert re.match(message, str(thread.outcome()))


def test_a_chief_that_reports_nothing_is_named_on_the_others(make_cluster, root, inputs, monkeypatch):
    monkeypatch.setattr(chiefs, "CAUSE_SECONDS", 30)
    monkeypatch.setattr(workers, "CAUSE_SECONDS", 0)
    monkeypatch.setattr(workers, "ANSWER_SECONDS", 1)
    chief, other = make_cluster(2)
    thread = Worker(other, root)
    with pytest.raises(Seq2ServeError, match="its connection has broken"):
        train(root, inputs, **{"0": "wait", "1": "abort"})
    assert str(thread.outcome()).startswith(f"{chief.describe(0)} has stopped: it has said nothing since this machine")


def test_machines_that_do_not_start_or_connect_are_named_after_the_time_limit(make_cluster, root, inputs, monkeypatch):
    monkeypatch.setattr(chiefs, "WAIT_SECONDS", 4)
    for action, message in (
        ("hang", r"^worker 0 \S+ has stopped: the training process has not started within 0\.0667 minutes"),
        ("wait", r"^chief \S+, worker 0 \S+ have stopped: training processes have not connected within"),
    ):
        _, other = make_cluster(2)
        thread = Worker(other, root)
        with pytest.raises(Seq2ServeError, match=message):
            train(root, inputs, **{"0": "wait", "1": action})
        assert re.match(message, str(thread.outcome()))


def test_a_machine_that_does_not_read_its_data_is_named_after_the_time_limit(make_cluster, root, inputs, monkeypatch):
    monkeypatch.setattr(chiefs, "DATA_SECONDS", 0.3)
    _, other = make_cluster(2)
    silent = []
    with pytest.raises(Seq2ServeError, match=r"^worker 0 \S+ has stopped: it has not read the data within"):
        train(root, inputs, lambda _: silent.append(workers._connect(other, str(root))))


def test_different_numbers_of_gpus_are_an_error_with_both(make_cluster, root, inputs):
    _, other = make_cluster(2)
    thread = Worker(other, root)
    with pytest.raises(UserError, match=r"the same number of GPUs: .*worker 0 \(127.*\) 2") as error:
        train(root, inputs, **{"0": "wait", "1": "more GPUs"})
    assert error.value.code == "machine-gpus-differ"
    assert isinstance(thread.outcome(), UserError)
    assert str(thread.outcome()) == str(error.value)


@pytest.mark.usefixtures("heeds_ctrl_c")
@pytest.mark.parametrize("machines_ready", [True, False])
def test_ctrl_c_on_the_chief_interrupts_its_process_and_ends_all(make_cluster, root, inputs, machines_ready):
    _, other = make_cluster(2)
    thread = Worker(other, root)

    def press(machines):
        wait_until(lambda: machines._phase == "training")
        if machines_ready:
            wait_for_processes(machines)
        signal.raise_signal(signal.SIGINT)

    with interrupt.listening(), pytest.raises(KeyboardInterrupt):
        train(root, inputs, press, **{"0": "wait", "1": "wait"})
    assert isinstance(thread.outcome(), KeyboardInterrupt)


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_on_the_chief_before_training_ends_all(make_cluster, root):
    def press():
        with lead(root) as machines:
            wait_until(lambda: machines._workers)
            signal.raise_signal(signal.SIGINT)

    _, other = make_cluster(2)
    thread = Worker(other, root)
    with interrupt.listening(), pytest.raises(KeyboardInterrupt):
        press()
    assert isinstance(thread.outcome(), KeyboardInterrupt)


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_on_two_machines_lets_the_chief_save_and_its_workers_wait(make_cluster, root, inputs, tmp_path):
    """The chief's process saves for a second. Those of the workers end at once, as at the end of training."""
    _, *others = make_cluster(3)
    threads = [Worker(cluster, root) for cluster in others]

    def press(machines):
        wait_for_processes(machines)
        signal.raise_signal(signal.SIGINT)
        for index in (1, 2):  # the workers are in threads, which receive no signals
            machines._events.put((index, {"interrupted": True}))

    with interrupt.listening(), pytest.raises(KeyboardInterrupt):
        train(root, inputs, press, **{"0": "save"}, written=str(tmp_path / "saved"))
    assert [type(thread.outcome()) for thread in threads] == [KeyboardInterrupt] * 2
    assert (tmp_path / "saved-0").exists()


def test_ctrl_c_on_a_worker_interrupts_the_chiefs_process(make_cluster, root, inputs, capfd):
    """The worker is in a thread, which receives no signals, so its message is sent here."""
    _, other = make_cluster(2)
    thread = Worker(other, root)

    def press(machines):
        wait_for_processes(machines)
        machines._events.put((1, {"interrupted": True}))

    with pytest.raises(KeyboardInterrupt):
        train(root, inputs, press, **{"0": "wait", "1": "wait"})
    assert isinstance(thread.outcome(), KeyboardInterrupt)
    assert f"{other.describe(1)} was interrupted" in capfd.readouterr().err
