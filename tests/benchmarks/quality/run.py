"""Runs a quality benchmark, a config of this folder, through the whole pipeline on public data that you download.

    .venv/bin/python tests/benchmarks/quality/run.py sst2 --data ../shared/data

--data is the folder of the files that `<benchmark>.toml` names. The figures of each seed are written to
`results/<benchmark>.json`, and those of all benchmarks to the table of tests/benchmarks/README.md. Files and models
stay in --work.
"""

import argparse
import csv
import dataclasses
import gzip
import json
import pathlib
import statistics
import time
import tomllib
from typing import Any

from sacrebleu.metrics import BLEU

import seq2serve
from seq2serve.pipeline.commands.logs import set_up_logs
from seq2serve.pipeline.config import parse_setting

HERE = pathlib.Path(__file__).parent
README = HERE.parent / "README.md"
MARKERS = "<!-- quality: by tests/benchmarks/quality/run.py -->", "<!-- end of quality -->"


@dataclasses.dataclass(frozen=True)
class Cut:
    """A file that is cut in two before the pipeline reads it: the `first` lines or characters, and the rest.

    Lines of the head that are also in the rest are left out: ExampleValidator rejects a train split that overlaps with
    the test split.

    Args:
        file: relative to the folder of the data, gzipped.
        unit: of `first`, lines or characters.
        first: length of the head.
        head: name of the file for the head.
        tails: names of the files for the rest; each gets all of it.
    """

    file: str
    unit: str
    first: int
    head: str
    tails: list[str]

    def make(self, data: pathlib.Path, work: pathlib.Path) -> None:
        """Writes both parts into the folder `work`."""
        with gzip.open(data / self.file, "rt", encoding="utf-8", newline="\n") as file:
            text = file.read()
        head, rest = text[: self.first], text[self.first :]
        if self.unit == "lines":
            lines = text.split("\n")
            rest, test_lines = "\n".join(lines[self.first :]), set(lines[self.first :])
            head = "\n".join(line for line in lines[: self.first] if line not in test_lines)
        for name, part in ((self.head, head), *((tail, rest) for tail in self.tails)):
            (work / name).write_text(part, encoding="utf-8", newline="\n")


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A config file.

    Args:
        title: of its row in the README.
        to_beat: the best published figure.
        goal: the figure to reach.
        figures: name (see `figures_of`) -> decimals; the first one is compared with `to_beat`.
        task, preset, settings, start_from: as on the command line.
        files: as on the command line; {data} and {work} are replaced by the folders.
        seeds: of the runs, one each.
        cut: a file to cut in two, written to {work}.
        labelled: label -> file of its texts in Latin-1, one per line; together they are {work}/rows.csv.
        columns: column of the task -> column of the files.
    """

    title: str
    to_beat: str
    goal: str
    figures: dict[str, int]
    task: str
    files: list[str]
    settings: list[str]
    seeds: list[int]
    preset: str = "auto"
    cut: Cut | None = None
    labelled: dict[str, str] = dataclasses.field(default_factory=dict)
    columns: dict[str, str] = dataclasses.field(default_factory=dict)
    start_from: str = ""


def load(name: str) -> Benchmark:
    """Reads a config of this folder."""
    values = tomllib.loads((HERE / f"{name}.toml").read_text(encoding="utf-8"))
    return Benchmark(**{**values, "cut": Cut(**values["cut"]) if "cut" in values else None})


def run(benchmark: Benchmark, seed: int, data: pathlib.Path, work: pathlib.Path) -> dict:
    """Runs the pipeline with one seed. Returns its figures, the number of parameters, the minutes and the settings."""
    work.mkdir(parents=True, exist_ok=True)
    if benchmark.cut:
        benchmark.cut.make(data, work)
    if benchmark.labelled:
        _write_labelled(benchmark.labelled, data, work / "rows.csv")
    settings: dict[str, dict[str, Any]] = {"training": {"seed": seed}}
    for name, value in map(parse_setting, benchmark.settings):
        section, _, key = name.partition(".")
        settings.setdefault(section, {})[key] = value
    start = time.monotonic()
    root = work / f"seed-{seed}"  # one per seed: a model that is worse than the last one of its root is not pushed
    result = seq2serve.run(
        ",".join(benchmark.files).format(data=data, work=work),
        task=benchmark.task,
        preset=benchmark.preset,
        pipeline_root=root / "runs",
        serving_dir=root / "serving",
        progress=True,
        columns=benchmark.columns,
        start_from=benchmark.start_from,
        **settings,
    )
    config = tomllib.loads(result.config.read_text(encoding="utf-8"))
    del config["files"]  # paths of this machine
    return {
        "seed": seed,
        **figures_of(result, benchmark.task),
        "blessed": result.blessed,
        "parameters": result.output("Trainer", "model").properties["num_parameters"],
        "minutes": round((time.monotonic() - start) / 60, 1),
        "training_minutes": round(result.nodes["Trainer"].seconds / 60, 1),
        "config": config,
    }


def _write_labelled(files: dict[str, str], data: pathlib.Path, path: pathlib.Path) -> None:
    with open(path, "w", encoding="utf-8", newline="") as rows:
        writer = csv.writer(rows)
        writer.writerow(["text", "label"])
        for label, name in files.items():
            with gzip.open(data / name, "rt", encoding="latin-1") as file:
                writer.writerows([line.strip(), label] for line in file)


def figures_of(result: seq2serve.Run, task: str) -> dict[str, Any]:
    """Returns the metrics of the test split and the loss of the eval split; for translation also BLEU of the
    space-separated tokens, for classification also the F1 of each label. `baseline_<metric>` are those of the strongest
    baseline; `signatures` has those of sacreBLEU.
    """
    evaluation, model = result.output("Evaluator", "evaluation"), result.output("Trainer", "model").properties
    signatures = dict(evaluation.properties["signature"])
    baseline = {f"baseline_{name}": value for name, value in evaluation.properties["baseline"].items()}
    figures = {**evaluation.properties["model"], **baseline, "eval_loss": model["eval_loss"], "signatures": signatures}
    if task == "translation":
        lines = pathlib.Path(evaluation.path("predictions.jsonl")).read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        bleu = BLEU(tokenize="none", force=True)
        score = bleu.corpus_score([row["prediction"] for row in rows], [[row["target"] for row in rows]])
        figures["bleu_of_tokens"] = score.score
        signatures["bleu_of_tokens"] = str(bleu.get_signature())
    if task == "classification":
        by_label = json.loads(pathlib.Path(evaluation.path("metrics.json")).read_text(encoding="utf-8"))["tables"][0]
        figures |= {f"f1_{label}": float(f1) for label, *_, f1 in by_label["rows"]}
    return figures


def table() -> str:
    """Returns the table for the README, with a row for each benchmark that has results."""
    lines = ["| benchmark | to beat | ours | seeds | parameters | minutes |", "|---|---|---|---|---|---|"]
    for path in sorted(HERE.glob("*.toml")):
        results = HERE / "results" / f"{path.stem}.json"
        if not results.is_file():
            continue
        benchmark, runs = load(path.stem), json.loads(results.read_text(encoding="utf-8"))
        ours = "; ".join(_figure(name, decimals, runs) for name, decimals in benchmark.figures.items())
        cells = [f"`{path.stem}`: {benchmark.title}", benchmark.to_beat, f"{ours} (goal: {benchmark.goal})"]
        cells.append(", ".join(str(run["seed"]) for run in runs))
        cells += [f"{runs[0]['parameters']:,}", " + ".join(f"{run['minutes']:g}" for run in runs)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _figure(name: str, decimals: int, runs: list[dict]) -> str:
    """Returns the mean of a figure over the seeds, with its signature, if any; a | would end the cell of the table."""
    signature = runs[0]["signatures"].get(name, "").replace("|", "\\|")
    mean = statistics.mean(run[name] for run in runs)
    return f"{name.replace('_', ' ')} **{mean:.{decimals}f}**" + (f" (`{signature}`)" if signature else "")


def write_table(readme: pathlib.Path = README) -> None:
    """Writes the table between its markers in the README."""
    text = readme.read_text(encoding="utf-8")
    before, rest = text.split(MARKERS[0])
    readme.write_text(f"{before}{MARKERS[0]}\n{table()}\n{MARKERS[1]}{rest.split(MARKERS[1])[1]}", encoding="utf-8")


def main() -> None:
    """Runs one benchmark with all its seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=sorted(path.stem for path in HERE.glob("*.toml")))
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("quality"))
    arguments = parser.parse_args()
    set_up_logs(verbose=False)
    benchmark, work = load(arguments.benchmark), arguments.work.resolve() / arguments.benchmark
    runs = [run(benchmark, seed, arguments.data.resolve(), work) for seed in benchmark.seeds]
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / f"{arguments.benchmark}.json").write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
    write_table()
    for each in runs:
        print({name: each[name] for name in (*benchmark.figures, "seed", "minutes", "parameters")})


if __name__ == "__main__":
    main()
