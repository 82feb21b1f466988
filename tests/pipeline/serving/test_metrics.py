"""Metrics: Prometheus' text format."""

import re

from seq2serve.pipeline.serving.metrics import Metrics


def test_labels_are_escaped():
    metrics = Metrics()
    metrics.count(":a:b", model='say "hi"\n\\')
    assert metrics.render() == '# TYPE :a:b counter\n:a:b{model="say \\"hi\\"\\n\\\\"} 1\n'


def test_a_histogram_has_cumulative_buckets_a_sum_and_a_count():
    metrics = Metrics()
    for seconds in (1e-6, 1e-6, 0.001, 10_000):
        metrics.observe(":latency", seconds, API="Predict")
    text = metrics.render()
    buckets = [(limit, int(number)) for limit, number in re.findall(r'_bucket\{API="Predict",le="(.+)"\} (\d+)', text)]
    assert (buckets[0], buckets[-1], len(buckets)) == (("10", 2), ("+Inf", 4), 34)
    assert [number for _, number in buckets] == sorted(number for _, number in buckets)
    limits = [float(limit) for limit, _ in buckets]
    assert limits == sorted(limits)
    assert dict(buckets)[next(limit for limit, _ in buckets if float(limit) >= 1000)] == 3
    assert ':latency_sum{API="Predict"} 1e+10' in text
    assert ':latency_count{API="Predict"} 4' in text
