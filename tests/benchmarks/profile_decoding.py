"""Profiles decoding, per part of the model and per operation, in the graph that the server runs.

    python tests/benchmarks/profile_decoding.py --batch=32 --beam=4

One call is traced operation by operation. Tracing takes time, so shares are more reliable than milliseconds. Also
prints the optimisations that were tried and did not help.
"""

import argparse
import collections
import re
import statistics
import tempfile
import timeit

import decode
import numpy as np
import tensorflow as tf

# Pattern -> part of the model. A node belongs to the first pattern that its name contains.
PARTS = {
    "/encoder": "encoder, cross-attention keys and values",
    "self_attention": "self-attention",
    "cross_attention": "cross-attention",
    "feed_forward": "feed-forward",
    "logits/": "logits",
    "choose/": "choosing tokens",
    r"while/body/_\d+/while": "loop, rest of a step",
    "": "outside the steps: growing caches, finished rows, results",
}

DID_NOT_HELP = """\
Tried without gain (4+4 layers, d_model 256, two cores; times relative to the current implementation):
- Writing keys and values into the cache row by row (tensor_scatter_nd_update): 1.4 times the time of a strided slice
  update for many rows, two thirds for one row. An update of four axes instead of two takes twice as long.
- Eigen's matrix products (Einsum) for projections: 2 to 5 times the time of oneDNN for one row, the same for 128 rows.
- Multiplying by the transposed output matrix, or with the matrix on the left: 1.5 times the time.
- Multiplying and summing instead of a matrix product: 4 times the time for the projections of one row. For attention
  it gains nothing for one row (a decoding takes 1.02 times the time), and takes 1.5 times the time for 32 rows.
- Transposing heads with TensorFlow's transpose: as fast as a gather of rows with one thread, several times slower with
  two.
- For one row, splitting every product in two halves (along either axis) on two inter-op threads: 0.45 to 0.57 ms per
  token for all products; unsplit ones take 0.50 ms with one thread and 0.64 ms with two. Waking the second thread costs
  as much as it gains.
- sparse_softmax_cross_entropy as the normaliser: about ten times the time of a softmax and its maximum.
- Top-k of the whole vocabulary: 3 to 5 times the time of top-k of the maxima of groups of 32, then of the best groups;
  groups of 50 to 100 are slower.
- Disabling oneDNN: 1.3 times the time with 128 rows (measured before the other optimisations).
- Two intra-op threads: every larger product waits until the second thread wakes. For one sentence greedy search takes
  1.1 to 1.2 times the time of one thread, a beam of 4 more than 1.7 times; for 32 sentences there is no gain. Two
  inter-op threads help, one for each half of a batch.
- A loop over groups of rows with parallel_iterations, instead of two loops: the groups wait for each other.
- Splitting the output matrix in two halves, for two inter-op threads: no gain above noise for one sentence.
The remaining time of one sentence is mostly the start-up of its matrix products, see above."""


def trace(directory: str, source: np.ndarray) -> list[tuple[str, str, int]]:
    """Runs the SavedModel in a session. Returns (name, kind, microseconds) of each operation."""
    v1 = tf.compat.v1
    with v1.Session(graph=tf.Graph()) as session:
        signature = v1.saved_model.load(session, ["serve"], directory).signature_def["serving_default"]
        outputs, feed = signature.outputs["ids"].name, {signature.inputs["source"].name: source}
        for _ in range(3):
            session.run(outputs, feed)
        options, metadata = v1.RunOptions(trace_level=v1.RunOptions.FULL_TRACE), v1.RunMetadata()
        session.run(outputs, feed, options=options, run_metadata=metadata)
    nodes = [node for device in metadata.step_stats.dev_stats for node in device.node_stats]
    return [(n.node_name, _kind(n), n.op_end_rel_micros - n.op_start_rel_micros) for n in nodes]


def products_alone(arguments: argparse.Namespace) -> float:
    """Times only the matrix products of a step of one row: a lower bound for a decoder with these products.

    Returns:
        Milliseconds per token.
    """
    d, dff, layers = arguments.d_model, arguments.dff, arguments.num_layers
    shapes = [(d, 3 * d), (d, d), (d, d), (d, d), (d, dff), (dff, d)] * layers + [(d, arguments.vocab)]
    matrices = [tf.random.normal(shape) for shape in shapes]
    rows = {width: tf.random.normal([1, width]) for width in (d, dff)}

    @tf.function
    def multiply(matrices):
        return tf.add_n([tf.matmul(rows[matrix.shape[0]], matrix)[0, 0] for matrix in matrices])

    multiply(matrices)
    return statistics.median(timeit.repeat(lambda: multiply(matrices), number=1, repeat=50)) * 1e3


def _kind(node) -> str:
    """Returns the kind of an operation from its label, `name = Kind(inputs)`."""
    return node.timeline_label.partition(" = ")[2].partition("(")[0] or "transfer"


def report(title: str, groups: list[tuple[str, int]], rows: int) -> None:
    """Prints the time of each group, largest first.

    Args:
        title: of the first column.
        groups: (group, microseconds) of each operation.
        rows: number of groups to print.
    """
    total, count = collections.Counter(), collections.Counter()
    for name, microseconds in groups:
        total[name] += microseconds
        count[name] += 1
    all_microseconds = sum(total.values())
    print(f"\n{title:52s}     ms  share  operations")
    for name, microseconds in total.most_common(rows):
        print(f"{name:52s} {microseconds / 1e3:6.1f} {microseconds / all_microseconds:6.0%} {count[name]:11d}")


def main() -> None:
    """Traces one call and prints its profile."""
    arguments = decode.parse(__doc__)
    source = decode.sources(arguments)
    with tempfile.TemporaryDirectory() as directory:
        decode.export(arguments, directory)
        nodes = trace(directory, source)
    parts = [
        (next(part for pattern, part in PARTS.items() if re.search(pattern, name)), time) for name, _, time in nodes
    ]
    report("part", parts, len(PARTS))
    report("operation", [(kind, time) for _, kind, time in nodes], 20)
    bound = products_alone(arguments)
    print(f"\nThe matrix products of one row, without other operations: {bound:.2f} ms per token.\n\n{DID_NOT_HELP}")


if __name__ == "__main__":
    main()
