"""Shows where the time of decoding goes, per part and per operation, in the graph that the server runs.

    python tests/benchmarks/profile_decoding.py --batch=32 --beam=4

One call is traced operation by operation, which itself takes time: shares mean more than milliseconds. Prints as well
what was tried to make decoding faster and did not help.
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

# The first of these patterns that a node's name holds says to which part it belongs.
PARTS = {
    "/encoder": "encoder and what the decoder makes of its output",
    "self_attention": "self-attention",
    "cross_attention": "cross-attention",
    "feed_forward": "feed-forward",
    "logits/": "logits",
    "choose/": "choosing tokens",
    r"while/body/_\d+/while": "loop and the rest of a step",
    "": "between the loops: room, rows that are done, results",
}

DID_NOT_HELP = """\
Tried, and not worth it (4+4 layers, d_model 256, two cores):
- Keys and values scattered into the cache row by row (tensor_scatter_nd_update): 1.4 times as long as a strided slice
  update for many rows (and two thirds for one); an update of four axes instead of two takes twice as long.
- Eigen's matrix products (Einsum) for projections: one row takes 2 to 5 times as long as oneDNN, 128 rows the same.
- The product of the transposed output matrix, or with the matrix on the left: 1.5 times as long.
- Multiply and sum instead of a matrix product: 4 times as long for the projections of one row. (For attention of one
  row it is the faster, and is what the loop does for few rows; for 32 rows it takes half as long again.)
- Transposing heads with TensorFlow's transpose: as fast as a gather of rows with one thread, several times as long with
  two.
- For one row, every product in two halves (of either axis) on two inter-op threads: 0.45 to 0.57 ms a token for all
  products where whole ones take 0.50 with one thread, 0.64 with two. The gain of a second core goes into waking it.
- sparse_softmax_cross_entropy for the normaliser: some ten times as long as a softmax and its maximum.
- Top-k of the whole vocabulary: 3 to 5 times as long as that of the maxima of groups of 32 and then of the best groups;
  groups of 50 to 100 are slower.
- oneDNN switched off: 1.3 times as long with 128 rows (measured before the rest was made faster).
- Two intra-op threads: every larger product waits for the second thread to wake. For one sentence greedy search takes
  1.1 to 1.2 times as long as with one thread, a beam of 4 more than 1.7 times; for 32 it gains nothing. What does help
  is two inter-op threads, one for each half of a batch.
- A loop over groups of rows with parallel_iterations, instead of two loops: the groups wait for each other.
- The output matrix in two halves, for two inter-op threads: no gain for one sentence that exceeds the noise.
What is left of the time of one sentence is mostly the start-up of its matrix products, see above."""


def trace(directory: str, source: np.ndarray) -> list[tuple[str, str, int]]:
    """Runs the SavedModel in a session and returns each operation's name, kind and microseconds."""
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
    """Times the matrix products of a step of one row and nothing else: no decoder made of them can be faster.

    Returns:
        Milliseconds a token.
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
    """Labels look like `name = Kind(inputs)`."""
    return node.timeline_label.partition(" = ")[2].partition("(")[0] or "transfer"


def report(title: str, groups: list[tuple[str, int]], rows: int) -> None:
    """Prints the sums of microseconds a group, largest first."""
    total, count = collections.Counter(), collections.Counter()
    for name, microseconds in groups:
        total[name] += microseconds
        count[name] += 1
    whole = sum(total.values())
    print(f"\n{title:52s}     ms  share  operations")
    for name, microseconds in total.most_common(rows):
        print(f"{name:52s} {microseconds / 1e3:6.1f} {microseconds / whole:6.0%} {count[name]:11d}")


def main() -> None:
    """Traces one call."""
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
    alone = products_alone(arguments)
    print(f"\nThe matrix products of one row alone, nothing between them: {alone:.2f} ms a token.\n\n{DID_NOT_HELP}")


if __name__ == "__main__":
    main()
