"""Which ops and functions the model server can run, and why it cannot run the others.

Comes in: the graph of a SavedModel and what the C++ runtime can run. Goes out: a sentence for each refusal.
Read next: infra_validator_child.py, which asks.
"""

from collections.abc import Collection, Iterable

from tensorboard.compat.proto.meta_graph_pb2 import MetaGraphDef

from models.saved_model import iterate_functions, iterate_nodes

# Their kernels live in Python's half of TensorFlow; the server loads a graph with them and fails when they are reached.
PYTHON_OPS = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc"})
# XlaLaunch, _XlaCompile, XlaDot, XlaCallModule (what jax2tf writes) and so on: the server switches XLA off.
XLA_PREFIXES = ("Xla", "_Xla")
MUST_COMPILE = "_XlaMustCompile"  # set by tf.function(jit_compile=True) on the function and on calls of it


def refused_ops(meta_graph: MetaGraphDef, registered: Collection[str], runnable: Collection[str]) -> list[str]:
    """Finds the ops that the model server cannot run, in the graph and in all its functions.

    Args:
        meta_graph: the SavedModel's.
        registered: names of all ops of the C++ runtime and TF Text (`runtime.registered_ops`).
        runnable: those of them with a CPU kernel (`runtime.ops_with_cpu_kernel`).
    Returns:
        A sentence for each op and function, with both names, in the order of the graph.
    """
    functions = {function.signature.name for function in iterate_functions(meta_graph)}
    reasons = []
    for function, node in iterate_nodes(meta_graph):
        # A function may be called by a node whose op is the function's own name.
        reason = "" if node.op in functions else _refusal(node.op, registered, runnable)
        if reason:
            reasons.append(f"{_place(function)} uses the op {node.op}, {reason}")
    return _once(reasons)


def refused_functions(meta_graph: MetaGraphDef) -> list[str]:
    """Finds the functions that must be compiled by XLA, which the model server switches off.

    Returns:
        A sentence for each function, with its name.
    """
    why = "compiled (jit_compile=True), and the model server switches XLA off"
    reasons = [
        f"function {function.signature.name} is {why}"
        for function in iterate_functions(meta_graph)
        if MUST_COMPILE in function.attr and function.attr[MUST_COMPILE].b
    ]
    reasons += [
        f"{_place(function)} has the node {node.name}, which is {why}"
        for function, node in iterate_nodes(meta_graph)
        if MUST_COMPILE in node.attr and node.attr[MUST_COMPILE].b
    ]
    return _once(reasons)


def _refusal(op: str, registered: Collection[str], runnable: Collection[str]) -> str:
    if op in PYTHON_OPS:
        return "which runs Python (tf.py_function, tf.numpy_function), and the model server has none"
    if op.startswith(XLA_PREFIXES):
        return "which needs XLA, and the model server switches it off"
    if op not in registered:
        return "which is neither a core op of TensorFlow nor one of TF Text, so the model server does not know it"
    if op not in runnable:
        return "which has no kernel for the CPU"
    return ""


def _place(function: str) -> str:
    return f"function {function}" if function else "the graph"


def _once(reasons: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(reasons))
