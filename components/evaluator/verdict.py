"""The verdict on a model: the rule of the blessing, its reason in words, and the next step if it is not blessed."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from seq2serve.components.evaluator.bar import Bar
from seq2serve.components.tasks.bootstrap import CONFIDENCE, MIN_ROWS, Comparison, compare
from seq2serve.components.tasks.data import PRETRAINED
from seq2serve.components.tasks.measurement import Measurement
from seq2serve.components.tasks.metric import Metric

_ACCEPT = "to accept it anyway, --set evaluation.bar=none or use another --pipeline-root"


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The evidence for the verdict on a model, by the metric that decides.

    Args:
        metric: the headline.
        value: that of the model.
        num_examples: number of test rows.
        is_perfect: whether every answer is right.
        baselines: the best trivial baseline and, unless it is the same, the strongest one, by name, each compared
            with the model. Empty if the test rows are too few to compare.
        values: baseline -> its headline, of the same baselines.
        last_blessed: the comparison with the last blessed model; None if there is none.
    """

    metric: Metric
    value: float
    num_examples: int
    is_perfect: bool
    baselines: Mapping[str, Comparison]
    values: Mapping[str, float]
    last_blessed: Comparison | None = None


def best(metric: Metric, baselines: Mapping[str, Measurement]) -> str:
    """Returns the name of the baseline with the best value of a metric; of equal ones, the first."""
    return max(baselines, key=lambda name: metric.sign * baselines[name].statistics.score(metric))


def collect(
    metric: Metric,
    model: Measurement,
    baselines: Mapping[str, Measurement],
    trivial: Collection[str],
    last_blessed: Comparison | None,
) -> Evidence:
    """Compares a model with the best trivial and with the strongest baseline by the paired bootstrap.

    Args:
        metric: the headline.
        model: its measurement.
        baselines: measurements on the same rows.
        trivial: the names of the trivial baselines; without any, the strongest one is used instead.
        last_blessed: the comparison with the last blessed model, if there is one.
    """
    decisive = best(metric, {name: baselines[name] for name in trivial or baselines})
    names = dict.fromkeys([decisive, best(metric, baselines)])
    num_examples = len(model.statistics)
    compared = {
        name: compare(model.statistics, baselines[name].statistics, metric)
        for name in names
        if num_examples >= MIN_ROWS
    }
    values = {name: baselines[name].statistics.score(metric) for name in names}
    value = model.statistics.score(metric)
    return Evidence(metric, value, num_examples, model.is_perfect, compared, values, last_blessed)


def is_blessed(evidence: Evidence, bar: Bar) -> bool:
    """Returns whether a model is good enough.

    A model is blessed if it is significantly better than the best trivial baseline, and not significantly worse than
    the strongest one and the last blessed model. A model whose every answer is right is always blessed, even if the
    test rows are too few or too uniform to tell it from a baseline.

    Args:
        evidence: see there.
        bar: "trivial" leaves out the strongest baseline; "none" blesses every model.
    """
    if bar == "none" or evidence.is_perfect:
        return True
    trivial, *others = evidence.baselines.values() or [None]
    rivals = [evidence.last_blessed, *(others if bar == "strongest" else [])]
    return trivial is not None and trivial.better and not any(rival.worse for rival in rivals if rival)


def reason(evidence: Evidence, bar: Bar, last_blessed: str, properties: Mapping[str, Any], start: str = "") -> str:
    """Returns the verdict in words, with the numbers, and if the model is not blessed the next step.

    Args:
        evidence: see there.
        bar: see `is_blessed`.
        last_blessed: where the evaluation of the last blessed model is.
        properties: of the Model, which tell whether longer training would help.
        start: the name of a pretrained model that it could start from; empty for none.
    """
    clauses = [_compared(evidence, name, comparison) for name, comparison in evidence.baselines.items()]
    if not clauses:
        numbers = ", ".join(f"{name} {evidence.metric.text(value)}" for name, value in evidence.values.items())
        clauses = [f"too few to compare it with a baseline ({numbers}), which needs at least {MIN_ROWS}"]
    rows = f"{evidence.num_examples:,} test row{'s' * (evidence.num_examples != 1)}"
    text = f"{evidence.metric.name} {evidence.metric.text(evidence.value)} on {rows}: {', '.join(clauses)}"
    if evidence.is_perfect:
        text = f"every answer is right; {text}"
    if evidence.last_blessed:
        text += f"; {_explain(evidence, last_blessed)}"
    if bar == "none":
        text += "; evaluation.bar=none blesses every model"
    return text if is_blessed(evidence, bar) else f"{text}. {_next_step(evidence, bar, properties, start)}"


def _compared(evidence: Evidence, name: str, comparison: Comparison) -> str:
    is_trivial = name == next(iter(evidence.baselines))
    relation = "significantly worse than" if comparison.worse else "not significantly worse than"
    if comparison.better or is_trivial:
        relation = "significantly better than" if comparison.better else "not significantly better than"
    text = evidence.metric.text
    lower, upper = map(text, comparison.interval)
    return f"{relation} {name} ({text(comparison.theirs)}; difference {lower} to {upper})"


def _explain(evidence: Evidence, place: str) -> str:
    """Returns a sentence about the comparison with the last blessed model."""
    comparison, text = evidence.last_blessed, evidence.metric.text
    assert comparison
    lower, upper = map(text, comparison.interval)
    numbers = (
        f"{text(comparison.ours)} against {text(comparison.theirs)} of the last blessed model "
        f"({place}) on {comparison.num_examples} shared test rows (paired bootstrap: {100 * CONFIDENCE:g} % confidence "
        f"interval of the difference {lower} to {upper})"
    )
    if comparison.worse:
        return f"significantly worse, p = {comparison.p_value:.3f}: {numbers}"
    return f"{'significantly better' if comparison.better else 'not significantly different'}: {numbers}"


def _next_step(evidence: Evidence, bar: Bar, properties: Mapping[str, Any], start: str) -> str:
    """Returns what to do about a model that is not blessed."""
    trivial = next(iter(evidence.baselines.values()), None)
    rivals = [*evidence.baselines.values(), *filter(None, [evidence.last_blessed])]
    is_worse = any(comparison.worse for comparison in rivals)
    sign = evidence.metric.sign
    if trivial is None or (not trivial.better and not is_worse and sign * (trivial.ours - trivial.theirs) > 0):
        return "Next: more test rows (a longer test file, or a larger data.test_share), to tell it from chance"
    checkpoints, longer = properties.get("checkpoints", {}), properties.get("longer_training", "")
    advice = "train longer (training.steps), or on more rows"
    if checkpoints and checkpoints["best_step"] < checkpoints["last_step"]:
        advice = (
            f"more training rows; longer training would probably not help, because {checkpoints['metric']} on the eval "
            f"split was best at step {checkpoints['best_step']} of {checkpoints['last_step']}"
        )
    elif longer:
        advice = f"the same command with --set {longer}, because {checkpoints['metric']} on the eval split was best at "
        advice += "the last step; or more training rows"
    if PRETRAINED in evidence.baselines and evidence.baselines[PRETRAINED].worse:
        advice = "--set training.steps=0 serves the pretrained model as it is; or a smaller training.learning_rate"
    if start:
        advice = f"the same command with --from {start}, a pretrained model; or {advice}"
    if evidence.last_blessed and evidence.last_blessed.worse:
        return f"Next: {advice}; {_ACCEPT}"
    accepts_less = bar == "strongest" and trivial.better
    return f"Next: {advice}; --set evaluation.bar={'trivial' if accepts_less else 'none'} accepts it"
