"""Fixtures that several tests share: tiny models, a trained model for tests of decoding, and a pipeline that has run.

Most fixtures return a function, so that a test passes its parameters where it uses them. TensorFlow is imported only
for tests that use a model.
"""

import dataclasses
import functools
import importlib.util
import itertools
import os
import pathlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import portalocker
import pytest

VOCAB_SIZE = 20

# Changes to a ModelConfig. Together they cover every kind of positions, norm position and activation.
UNSCALED = {"scale_embeddings": False, "layer_norm_epsilon": 1e-3}
GROUPED = {"num_kv_heads": 1, "rotary_layout": "interleaved"}
KINDS = [
    {"positions": "sinusoidal", "norm_first": True, "activation": "relu"},
    {"positions": "sinusoidal", "norm_first": False, "activation": "gelu"},
    {"positions": "learned", "norm_first": True, "activation": "swiglu", "embedding_norm": True},
    {"positions": "learned", "norm_first": False, "activation": "relu", "embedding_norm": True, **UNSCALED},
    {"positions": "rotary", "norm_first": True, "activation": "gelu"},
    {"positions": "rotary", "norm_first": False, "activation": "swiglu"},
    {"positions": "rotary", "norm_first": True, "activation": "silu", "norm": "rms", **GROUPED, "use_bias": False},
    {"positions": "sinusoidal", "norm_first": False, "activation": "gelu_tanh", **GROUPED, "output_bias": True},
]
# Those that only a translation model has.
RECURRENT = [
    {"decoder": "ssru", "sinusoids": "tensor2tensor", "norm_first": False, "activation": "relu", "output_bias": True},
    {"decoder": "ssru", "positions": "learned", "norm_first": True, "activation": "swiglu", "num_kv_heads": 1},
    {"decoder": "ssru", "positions": "rotary", "activation": "silu", "norm": "rms", "use_bias": False},
]

# A worker takes one file at a time. These take longest; neighbours begin with the finished runs of different tasks.
LONGEST = ("test_runs.py", "test_chat.py", "test_killed_runs.py", "test_trainer.py", "test_failed_runs.py")

if "PYTEST_XDIST_WORKER" in os.environ:
    # There is a worker per core; more threads of TensorFlow would only compete for the cores.
    os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")


def pytest_collection_modifyitems(items) -> None:
    """Runs the files that take longest first, so that at the end no worker waits for another."""
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(LONGEST)))


def name_of(kind: dict) -> str:
    """Returns the id of one of KINDS."""
    return "-".join(map(str, kind.values()))


@pytest.fixture(params=KINDS, ids=name_of)
def kind(request):
    """Each of KINDS: changes to a ModelConfig."""
    return request.param


@pytest.fixture(params=[*KINDS, *RECURRENT], ids=name_of)
def translator_kind(request):
    """Each of KINDS and RECURRENT: changes to the ModelConfig of a Transformer."""
    return request.param


# For slow tests of two models that share their code: in each half are all positions and both norm positions.


@pytest.fixture(params=[KINDS[0], KINDS[3], KINDS[5], KINDS[6], *RECURRENT], ids=name_of)
def first_half_of_translator_kinds(request):
    """Each of one half of KINDS, and each of RECURRENT: changes to the ModelConfig of a Transformer."""
    return request.param


@pytest.fixture(params=[KINDS[1], KINDS[2], KINDS[4], KINDS[7]], ids=name_of)
def second_half_of_kinds(request):
    """Each of the other half of KINDS."""
    return request.param


@pytest.fixture(scope="session")
def make_model():
    """Returns a function that builds a tiny model of a class; its keywords change the ModelConfig."""
    import keras

    from seq2serve.models.config import ModelConfig

    tiny = ModelConfig(num_encoder_layers=2, num_decoder_layers=2, d_model=16, num_heads=2, dff=32, dropout=0.0)

    def make(kind: type, vocab_size: int = VOCAB_SIZE, seed: int = 1, **changes):
        keras.utils.set_random_seed(seed)
        model = kind(dataclasses.replace(tiny, **changes), vocab_size)
        model.build()
        return model

    return make


@pytest.fixture(scope="session")
def make_transformer(make_model):
    """Returns a function that builds a tiny Transformer; its keywords change the ModelConfig."""
    from seq2serve.models.transformer.models import Transformer

    return functools.partial(make_model, Transformer)


@pytest.fixture(scope="session")
def make_language_model(make_model):
    """Returns a function that builds a tiny DecoderLanguageModel; its keywords change the ModelConfig."""
    from seq2serve.models.transformer.models import DecoderLanguageModel

    return functools.partial(make_model, DecoderLanguageModel)


@pytest.fixture(scope="session")
def random_ids():
    """Returns a function that draws rows of random ids, int32 [B, T]: `end` follows each row, then padding of 0."""

    def draw(lengths, seed: int = 0, end: tuple[int, ...] = ()) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return _pad([[*rng.integers(4, VOCAB_SIZE, length), *end] for length in lengths])

    return draw


@pytest.fixture(scope="session")
def train():
    """Returns a function that fits a model to (inputs, labels) batches with the loss and optimizer of the project."""
    import tensorflow as tf

    from seq2serve.models.config import TrainingConfig
    from seq2serve.models.training.loss import MaskedCrossEntropy
    from seq2serve.models.training.optimizer import make_optimizer

    def fit(model, batches, steps: int, label_smoothing: float = 0.0, learning_rate: float = 5e-3) -> None:
        batches = iter(batches)
        first = next(batches)
        spec = tf.nest.map_structure(lambda array: tf.TensorSpec([None, None], array.dtype), first)
        data = tf.data.Dataset.from_generator(lambda: itertools.chain([first], batches), output_signature=spec)
        config = TrainingConfig(steps=steps, warmup_steps=steps // 5, learning_rate=learning_rate, average_decay=0.0)
        model.compile(make_optimizer(config), loss=MaskedCrossEntropy(label_smoothing), jit_compile=False)
        model.fit(data.prefetch(8), steps_per_epoch=steps, verbose=0)

    return fit


def _pad(rows: list[list[int]]) -> np.ndarray:
    width = max(map(len, rows))
    return np.array([[*row, *[0] * (width - len(row))] for row in rows], np.int32)


def _batch(rows: list[tuple[list[int], list[int]]]):
    """Pads (source, target) rows and adds the markers, as models/training/batches.py does."""
    sources, targets = zip(*rows, strict=True)
    inputs = {"source": _pad([[*row, 3] for row in sources]), "target": _pad([[2, *row] for row in targets])}
    return inputs, _pad([[*row, 3] for row in targets])


@pytest.fixture(scope="session")
def task_batches():
    """Returns a function that yields endless training batches: random sources, and as targets what `rule` returns."""

    def batches(rule, longest: int = 8, size: int = 64, seed: int = 0):
        rng = np.random.default_rng(seed)
        while True:
            sources = [rng.integers(4, VOCAB_SIZE, rng.integers(1, longest + 1)).tolist() for _ in range(size)]
            yield _batch([(source, rule(source, rng)) for source in sources])

    return batches


@pytest.fixture(scope="session")
def decode():
    """Returns a function that generates in a graph, as the server does; a limit is one number or one per row."""
    import tensorflow as tf

    from seq2serve.models.decoding.beam_search import BeamSearch, LengthLimits
    from seq2serve.models.decoding.fold import FoldedDecoder
    from seq2serve.models.decoding.loop import generate
    from seq2serve.models.decoding.state import Result

    @functools.cache
    def graph(model, search: BeamSearch):
        signature = [tf.TensorSpec([None, None], tf.int32), LengthLimits(*[tf.TensorSpec([None], tf.int32)] * 2)]
        decoder = FoldedDecoder(model)
        return tf.function(
            lambda source, limits: generate(decoder, source, search, limits), input_signature=signature, autograph=False
        )

    def decode(model, source, search: BeamSearch, maximum=20, minimum=0) -> Result:
        limits = LengthLimits(*(np.broadcast_to(np.int32(limit), len(source)) for limit in (minimum, maximum)))
        return Result(*(tensor.numpy() for tensor in graph(model, search)(source, limits)))

    return decode


@pytest.fixture(scope="session")
def log_probability_of():
    """Returns a function that sums the log probabilities (nats) of texts, int32 [B, T], under a language model."""
    import tensorflow as tf

    def total(model, ids) -> float:
        logits = model(tf.pad(ids, [[0, 0], [1, 0]], constant_values=2)[:, :-1])
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(ids, logits)
        return -float(tf.reduce_sum(tf.where(ids == 0, 0.0, losses)))

    return total


def noisy_reversal(source: list[int], rng: np.random.Generator) -> list[int]:
    """Reverses a sequence; each token may be replaced by its neighbour, repeated or dropped, at random."""
    target = []
    for token in reversed(source):
        token ^= int(rng.random() < 0.3)
        target += [token] * ((rng.random() < 0.9) + (rng.random() < 0.1))
    return target


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Returns a function (name, fill) -> folder: one of the workers fills it, the others wait and read it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def once(name: str, fill: Callable[[pathlib.Path], None]) -> pathlib.Path:
        folder, done = shared / name, shared / f"{name}.done"
        folder.mkdir(exist_ok=True)
        with (shared / f"{name}.lock").open("w") as lock:
            portalocker.lock(lock, portalocker.LOCK_EX)
            if not done.exists():
                fill(folder)
                done.touch()
        return folder

    return once


@pytest.fixture(scope="session")
def reverser(make_transformer, train, task_batches, once):
    """A Transformer that has learned to reverse sequences of up to six tokens."""
    model = make_transformer(num_encoder_layers=1, num_decoder_layers=1, d_model=32, dff=64)

    def fill(folder: pathlib.Path) -> None:
        train(model, task_batches(lambda source, rng: source[::-1], longest=6), steps=400)
        model.save_weights(folder / "model.weights.h5")

    model.load_weights(once("reverser", fill) / "model.weights.h5")
    return model


@pytest.fixture(scope="session")
def make_noisy_reverser(make_transformer):
    """Returns a function that builds a Transformer for `noisy_reversal`; its keywords change the ModelConfig."""
    return functools.partial(make_transformer, d_model=32, dff=64, seed=3)


@pytest.fixture(scope="session")
def train_noisy_reverser(make_noisy_reverser, train, task_batches):
    """Returns a function that trains a Transformer on `noisy_reversal`; its keywords change the ModelConfig."""

    def trained(**changes):
        model = make_noisy_reverser(**changes)
        train(model, task_batches(noisy_reversal), steps=300, label_smoothing=0.1)
        return model

    return trained


@pytest.fixture(scope="session")
def noisy_reverser(make_noisy_reverser, train_noisy_reverser, once):
    """A Transformer that has learned an ambiguous task, so that several outputs have similar scores."""
    layers = {"num_encoder_layers": 1, "num_decoder_layers": 1}
    model = make_noisy_reverser(**layers)

    def fill(folder: pathlib.Path) -> None:
        train_noisy_reverser(**layers).save_weights(folder / "model.weights.h5")

    model.load_weights(once("noisy_reverser", fill) / "model.weights.h5")
    return model


# A corpus from a small grammar: sentences for a control panel, and their word-by-word translations.
THINGS = {
    "light": "das Licht",
    "lamp": "die Lampe",
    "door": "die Tür",
    "window": "das Fenster",
    "heating": "die Heizung",
    "camera": "die Kamera",
    "sensor": "den Sensor",
    "speaker": "den Lautsprecher",
}
PLACES = {
    "kitchen": "in der Küche",
    "bedroom": "im Schlafzimmer",
    "garden": "im Garten",
    "cellar": "im Keller",
    "hall": "im Flur",
}
ORDERS = {"Check": "Prüfe {}", "Open": "Öffne {}", "Turn on": "Schalte {} ein", "Turn off": "Schalte {} aus"}
ENDS = {"now": "jetzt", "at {} o'clock": "um {} Uhr", "for {} minutes": "für {} Minuten", "please": "bitte"}

# The demo preset, reduced until it trains in seconds and still learns the grammar.
SMALL_DEMO = (
    "data.eval_share=0.1",
    "data.test_share=0.1",
    "tokenizer.vocab_size=400",
    "model.num_encoder_layers=1",
    "model.num_decoder_layers=1",
    "model.d_model=32",
    "model.num_heads=2",
    "model.dff=64",
    "model.dropout=0.1",
    "training.steps=120",
    "training.batch_tokens=1024",
    "training.learning_rate=0.01",
    "training.warmup_steps=20",
    "training.average_decay=0.9",
    "training.checkpoint_steps=50",
    "training.eval_examples=0",  # tracing the graphs of evaluation takes longer than all the steps
    "decoding.beam_size=2",
)


def interface_text() -> str:
    """Returns the text of a TSV file of 640 pairs."""
    rows = ["source\ttarget"]
    for number, (order, thing, place, end) in enumerate(itertools.product(ORDERS, THINGS, PLACES, ENDS)):
        time = number % 12 + 1
        phrase = f"{THINGS[thing]} {PLACES[place]} {ENDS[end].format(time)}"
        rows.append(f"{order} the {thing} in the {place} {end.format(time)}.\t{ORDERS[order].format(phrase)}.")
    return "\n".join(rows) + "\n"


def labelled_text() -> str:
    """Returns the text of a CSV file of 640 labelled sentences, in a column whose name differs from the task's."""
    rooms = {"garden": "outside", "hall": "in, out"}
    rows = [line.partition("\t")[0] for line in interface_text().splitlines()[1:]]
    labels = [next((label for room, label in rooms.items() if room in row), "inside") for row in rows]
    return "sentence,label\n" + "".join(f'"{row}","{label}"\n' for row, label in zip(rows, labels, strict=True))


def plain_text() -> str:
    """Returns 640 sentences, each a paragraph."""
    return "\n\n".join(line.partition("\t")[0] for line in interface_text().splitlines()[1:]) + "\n"


# Name of a folder, with characters that are special in patterns, in URLs or in a shell.
SPECIAL_NAME = "my [old] 100%41 *what?"

# Task -> name of a file, a function that returns its text, and further arguments of the command line.
FILES = {
    # With the default of 256, InfraValidator decodes its longest text for 522 steps, five times.
    # Attention to the source takes more steps to learn than labels do.
    "translation": ("pairs.tsv", interface_text, ("--set=data.max_length=64", "--set=training.steps=200")),
    "classification": ("sentences.csv", labelled_text, ("--text", "sentence")),
    "language_model": (
        "text.txt",
        plain_text,
        # Sentences of a template are no contest for n-grams, so a model of 120 steps is held to the trivial bar.
        (
            "--set=data.unit=paragraph",
            "--set=model.max_positions=32",
            "--set=decoding.max_new_tokens=16",
            "--set=evaluation.bar=trivial",
        ),
    ),
}


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A folder with a text, a pipeline root and a serving folder, in which the command line runs.

    Args:
        folder: the current folder of every command.
        file: the text; relative to the folder, as the next two are.
        root: the pipeline root.
        serving: the serving folder.
        task: its name.
        start: the folder of a pretrained model to fine-tune; empty to train from scratch.
    """

    folder: pathlib.Path
    file: str = "pairs.tsv"
    root: str = "runs"
    serving: str = "serving"
    task: str = "translation"
    start: str = ""

    def command(self, *settings: str, python: tuple[str, ...] = ("-m", "seq2serve")) -> list[str]:
        """Returns the command that runs the reduced demo on the text, or a fine-tuning."""
        scratch = ["--preset", "demo", *(f"--set={setting}" for setting in SMALL_DEMO), *FILES[self.task][2]]
        start = ["--from", self.start] if self.start else scratch
        folders = ["--task", self.task, "--pipeline-root", self.root, "--serving-dir", self.serving]
        changes = [f"--set={setting}" for setting in settings]
        return [sys.executable, *python, "run", self.file, *start, *folders, *changes]

    def execute(self, command: list[str]) -> subprocess.CompletedProcess:
        """Runs a command in the folder and waits for it."""
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )

    def run(self, *settings: str, python: tuple[str, ...] = ("-m", "seq2serve")) -> subprocess.CompletedProcess:
        """Runs the pipeline and waits for it."""
        return self.execute(self.command(*settings, python=python))

    @property
    def environment(self) -> dict[str, str]:
        """Returns the environment of every command."""
        return dict(os.environ)

    def output(self, component: str, key: str):
        """Returns the artifact that the last completed execution of a component published."""
        from seq2serve.pipeline.metadata.database import sqlite_url
        from seq2serve.pipeline.metadata.store import MetadataStore

        store = MetadataStore(sqlite_url(self.folder / self.root / "metadata.sqlite"))
        return store.outputs(store.latest(self.task, component).id, {})[key]

    def copy(self, folder: pathlib.Path) -> "FinishedRun":
        """Copies the folder. Published artifacts stay in the original: the store has their absolute paths."""
        # Those of SQLite come and go while another worker reads the database.
        shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns("*.sqlite-shm", "*.sqlite-wal"))
        return dataclasses.replace(self, folder=folder)


@pytest.fixture
def heeds_ctrl_c():
    """Enables SIGINT for this process and those it starts; a shell makes its background processes ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def build(folder: pathlib.Path, task: str) -> FinishedRun:
    """Writes the text of a task; nothing has run yet."""
    name, text, _ = FILES[task]
    (folder / name).write_text(text(), encoding="utf-8")
    return FinishedRun(folder, name, task=task)


@pytest.fixture(scope="session")
def build_run():
    """Returns a function (folder, task) that prepares a run of a task in a folder; nothing has run yet."""
    return build


@pytest.fixture
def new_run_of(tmp_path):
    """Returns a function that prepares a run of a task, in a folder whose name has special characters."""
    folder = tmp_path / SPECIAL_NAME
    folder.mkdir()
    return functools.partial(build, folder)


@pytest.fixture
def new_finished_run(new_run_of):
    """A prepared run of translation; nothing has run yet."""
    return new_run_of("translation")


@pytest.fixture(scope="session")
def load_script():
    """Returns a function that loads a script, which is in no package, as a module."""

    def load_script(path: pathlib.Path):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load_script


@pytest.fixture(scope="session")
def memory_file_system(load_script):
    return load_script(pathlib.Path(__file__).with_name("memory_file_system.py"))


@pytest.fixture
def blobs(memory_file_system):
    """The object store at memory://, which Beam reaches in this process: URL -> content; empty at first."""
    memory_file_system.BLOBS.clear()
    return memory_file_system.BLOBS


@pytest.fixture(scope="session")
def finished_run_of(once):
    """Returns a function task -> FinishedRun in which a pipeline has completed.

    Workers share it: the first one runs the pipeline, the others wait. Read from it, and make changes in a copy.
    """

    @functools.cache
    def finished_run_of(task: str) -> FinishedRun:
        def fill(folder: pathlib.Path) -> None:
            done = build(folder, task).run()
            assert done.returncode == 0, done.stderr
            (folder / "stdout.txt").write_text(done.stdout, encoding="utf-8")

        return FinishedRun(once(task, fill), FILES[task][0], task=task)

    return finished_run_of


@pytest.fixture(scope="session")
def finished_run(finished_run_of):
    """The finished run of translation."""
    return finished_run_of("translation")


@pytest.fixture(params=FILES)
def any_finished_run(request, finished_run_of):
    """The finished run of each task."""
    return finished_run_of(request.param)


@pytest.fixture(scope="session")
def events():
    """Returns a function that reads the events of a ModelRun as TensorBoard does.

    It returns {(run, tag): [(step, value)]} and {(run, tag): plugin}.
    """
    from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    def events(model_run):
        values, plugins = {}, {}
        for name in ("train", "validation"):
            accumulator = EventAccumulator(model_run.path("logs", name), {TENSORS: 0}).Reload()  # 0: all, not a sample
            for tag in accumulator.Tags()["tensors"]:
                points = accumulator.Tensors(tag)
                values[name, tag] = [(event.step, make_ndarray(event.tensor_proto)) for event in points]
                plugins[name, tag] = accumulator.SummaryMetadata(tag).plugin_data.plugin_name
        return values, plugins

    return events


@pytest.fixture(scope="session")
def curves(events):
    """Returns a function that reads the curves of a ModelRun as {(run, tag): [(step, value)]}, without throughput."""

    def curves(model_run):
        values, plugins = events(model_run)
        return {
            key: [(step, float(value)) for step, value in points]
            for key, points in values.items()
            if plugins[key] == "scalars" and key[1] != "tokens_per_second"
        }

    return curves


@pytest.fixture
def make_saved_model(tmp_path):
    """Returns a function that writes a SavedModel whose answer is a function of text, tf.string [B] -> [B]."""
    import tensorflow as tf

    def make_saved_model(answer) -> str:
        module = tf.Module()

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
        def serve(text):
            return {"translation": answer(text), "score": tf.cast(tf.strings.length(text), tf.float32)}

        module.serve = serve
        folder = tmp_path / f"saved-model-{len(list(tmp_path.glob('saved-model-*')))}"
        tf.saved_model.save(module, str(folder / "Format-Serving"), signatures={"serving_default": serve})
        return str(folder)

    return make_saved_model
