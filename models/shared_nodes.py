"""Takes out of an exported graph what its functions hold twice or never use.

Comes in: a SavedModel as a message. Goes out: the same, changed in place; it answers as before.
Read next: export.py, which calls it.

To load a model, and again to make each signature ready, TensorFlow goes through the functions of all of them, node by
node. Python writes a node for every number and every shape it comes upon: half of a Transformer's are repetitions.
"""

from collections.abc import Mapping
from typing import Any

from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry  # nothing public says which ops have a state


def share_nodes(saved_model: saved_model_pb2.SavedModel) -> None:
    """Leaves, in each function, one of the nodes that compute the same and none whose result nobody uses.

    Ops with a state (variables, random numbers, assertions) stay as they are.

    Args:
        saved_model: changed in place.
    """
    for meta_graph in saved_model.meta_graphs:
        for function in meta_graph.graph_def.library.function:
            _merge(function)
            _drop_unused(function)


def _merge(function: Any) -> None:
    """Names one node wherever one that computes the same was named. Nodes stand after those whose results they take."""
    first: dict[bytes, str] = {}
    same: dict[str, str] = {}
    for node in function.node_def:
        node.input[:] = [_rename(name, same) for name in node.input]
        if not _is_stateful(node):
            same[node.name] = first.setdefault(_what_it_computes(node), node.name)
    for results in (function.ret, function.control_ret):
        for key, name in results.items():
            results[key] = _rename(name, same)


def _drop_unused(function: Any) -> None:
    nodes = {node.name: node for node in function.node_def}
    used, ahead = set(), [node.name for node in function.node_def if _is_stateful(node)]
    ahead += map(_node_of, (*function.ret.values(), *function.control_ret.values()))
    while ahead:
        name = ahead.pop()
        if name in nodes and name not in used:  # else an argument of the function, or seen already
            used.add(name)
            ahead += map(_node_of, nodes[name].input)
    kept = [node for node in function.node_def if node.name in used]
    del function.node_def[:]
    function.node_def.extend(kept)


def _is_stateful(node: Any) -> bool:
    definition = op_def_registry.get(node.op)
    return definition is None or definition.is_stateful


def _what_it_computes(node: Any) -> bytes:
    """Returns all of a node but its name."""
    anonymous = type(node)()
    anonymous.CopyFrom(node)
    anonymous.ClearField("name")
    anonymous.ClearField("experimental_debug_info")
    return anonymous.SerializeToString(deterministic=True)


def _node_of(name: str) -> str:
    """An input is `node:output:index`, an argument's name, or `^node` for one that has to come first."""
    return name.removeprefix("^").partition(":")[0]


def _rename(name: str, names: Mapping[str, str]) -> str:
    node = _node_of(name)
    return name.replace(node, names.get(node, node), 1)
