"""The ops and functions of a graph that the model server cannot run, with reasons."""

from collections.abc import Collection, Iterable

from seq2serve.models.runtime.saved_model import MetaGraphDef, iterate_functions, iterate_nodes

# Only Python TensorFlow has kernels for these ops. The server loads a graph with them, and fails when it runs them.
PYTHON_OPS = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc"})
# XlaLaunch, _XlaCompile, XlaDot, XlaCallModule (from jax2tf) and others: the server disables XLA.
XLA_PREFIXES = ("Xla", "_Xla")
MUST_COMPILE = "_XlaMustCompile"  # tf.function(jit_compile=True) sets it on the function and on its calls


def unsupported_ops(meta_graph: MetaGraphDef, registered: Collection[str], runnable: Collection[str]) -> list[str]:
    """Finds the ops that the model server cannot run, in the graph and all its functions.

    Args:
        meta_graph: the meta graph of the SavedModel.
        registered: names of all ops of the C++ runtime and TF Text (`runtime.registered_ops`).
        runnable: names of the ops that have a CPU kernel (`runtime.ops_with_cpu_kernel`).
    Returns:
        One sentence per pair of function and op, with both names, in graph order.
    """
    functions = {function.signature.name for function in iterate_functions(meta_graph)}
    reasons = []
    for function, node in iterate_nodes(meta_graph):
        # A node can call a function by having its name as the op.
        reason = "" if node.op in functions else _reason_unsupported(node.op, registered, runnable)
        if reason:
            reasons.append(f"{_location(function)} uses the op {node.op}, {reason}")
    return _unique(reasons)


def functions_that_require_xla(meta_graph: MetaGraphDef) -> list[str]:
    """Finds the functions that require XLA, which the model server disables.

    Returns:
        One sentence per function or node, with its name.
    """
    reason = "compiled (jit_compile=True), but the model server disables XLA"
    reasons = [
        f"function {function.signature.name} is {reason}"
        for function in iterate_functions(meta_graph)
        if MUST_COMPILE in function.attr and function.attr[MUST_COMPILE].b
    ]
    reasons += [
        f"{_location(function)} has the node {node.name}, which is {reason}"
        for function, node in iterate_nodes(meta_graph)
        if MUST_COMPILE in node.attr and node.attr[MUST_COMPILE].b
    ]
    return _unique(reasons)


def _reason_unsupported(op: str, registered: Collection[str], runnable: Collection[str]) -> str:
    if op in PYTHON_OPS:
        return "which runs Python (tf.py_function, tf.numpy_function), but the model server has no Python"
    if op.startswith(XLA_PREFIXES):
        return "which needs XLA, but the model server disables XLA"
    if op not in registered:
        return "which is neither a TensorFlow core op nor a TF Text op, so the model server does not have it"
    if op not in runnable:
        return "which has no CPU kernel"
    return ""


def _location(function: str) -> str:
    return f"function {function}" if function else "the graph"


def _unique(reasons: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(reasons))
