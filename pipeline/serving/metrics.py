"""Counters and latencies of the server in Prometheus' text format, under TF Serving's names.

Source: tensorflow_serving/util/prometheus_exporter.cc and servables/tensorflow/util.cc; a name like
/tensorflow/serving/request_count becomes :tensorflow:serving:request_count.
"""

import bisect
import collections
import threading

PATH = "/monitoring/prometheus/metrics"
REQUEST_COUNT, REQUEST_LATENCY = ":tensorflow:serving:request_count", ":tensorflow:serving:request_latency"
RUNTIME_LATENCY = ":tensorflow:serving:runtime_latency"
GRAPH_RUNS, GRAPH_RUN_TIME = ":tensorflow:core:graph_runs", ":tensorflow:core:graph_run_time_usecs"
LOAD_ATTEMPTS = ":tensorflow:cc:saved_model:load_attempt_count"

_LIMITS = [10 * 1.8**exponent for exponent in range(33)]  # of the latency buckets, in microseconds: up to 24 minutes


class Metrics:
    """Counters and histograms; all methods are thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: dict[str, dict[str, int]] = collections.defaultdict(dict)
        self._buckets: dict[str, dict[str, list[int]]] = collections.defaultdict(dict)
        self._sums: dict[tuple[str, str], float] = collections.Counter()

    def count(self, name: str, amount: int = 1, **labels: str) -> None:
        """Adds to a counter."""
        with self._lock:
            cells, key = self._counters[name], _write_labels(labels)
            cells[key] = cells.get(key, 0) + amount

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Adds a latency to a histogram."""
        key, microseconds = _write_labels(labels), 1e6 * seconds
        with self._lock:
            buckets = self._buckets[name].setdefault(key, [0] * (len(_LIMITS) + 1))
            buckets[bisect.bisect_left(_LIMITS, microseconds)] += 1
            self._sums[name, key] += microseconds

    def render(self) -> str:
        """Returns all metrics as text."""
        lines = []
        with self._lock:
            for name, cells in sorted(self._counters.items()):
                lines.append(f"# TYPE {name} counter")
                lines += [f"{name}{{{key}}} {value}" for key, value in sorted(cells.items())]
            for name, histograms in sorted(self._buckets.items()):
                lines.append(f"# TYPE {name} histogram")
                for key, buckets in sorted(histograms.items()):
                    total = 0
                    for limit, number in zip([*_LIMITS, None], buckets, strict=True):
                        total += number
                        bound = "+Inf" if limit is None else f"{limit:g}"
                        lines.append(f'{name}_bucket{{{key}{"," if key else ""}le="{bound}"}} {total}')
                    lines += [f"{name}_sum{{{key}}} {self._sums[name, key]:g}", f"{name}_count{{{key}}} {total}"]
        return "\n".join(lines) + "\n"


def _write_labels(labels: dict[str, str]) -> str:
    return ",".join(f'{name}="{_escape(text)}"' for name, text in labels.items())


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
