"""Removes duplicate and unused nodes from the functions of an exported graph.

To load a model, and again to prepare each signature, TensorFlow processes all functions node by node. Python writes a
node for each use of a constant or a shape; half of a Transformer's nodes are duplicates.
"""

from collections.abc import Mapping

from tensorflow.core.framework import function_pb2, node_def_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry  # no public API tells which ops are stateful


def share_nodes(saved_model: saved_model_pb2.SavedModel) -> None:
    """Merges the nodes of each function that compute the same, and removes those whose result is not used.

    Stateful ops (variables, random numbers, assertions) do not change.

    Args:
        saved_model: changed in place.
    """
    for meta_graph in saved_model.meta_graphs:
        for function in meta_graph.graph_def.library.function:
            _merge_duplicates(function)
            _remove_unused(function)


def _merge_duplicates(function: function_pb2.FunctionDef) -> None:
    """Replaces references to duplicate nodes. Nodes are in topological order."""
    first: dict[bytes, str] = {}  # node without its name -> name of the first such node
    replacements: dict[str, str] = {}
    for node in function.node_def:
        node.input[:] = [_rename(name, replacements) for name in node.input]
        if not _is_stateful(node):
            replacements[node.name] = first.setdefault(_without_name(node), node.name)
    for results in (function.ret, function.control_ret):
        for key, name in results.items():
            results[key] = _rename(name, replacements)


def _remove_unused(function: function_pb2.FunctionDef) -> None:
    nodes = {node.name: node for node in function.node_def}
    used: set[str] = set()
    pending = [node.name for node in function.node_def if _is_stateful(node)]
    pending += map(_node_name, (*function.ret.values(), *function.control_ret.values()))
    while pending:
        name = pending.pop()
        if name in nodes and name not in used:  # otherwise an argument of the function, or already visited
            used.add(name)
            pending += map(_node_name, nodes[name].input)
    used_nodes = [node for node in function.node_def if node.name in used]
    del function.node_def[:]
    function.node_def.extend(used_nodes)


def _is_stateful(node: node_def_pb2.NodeDef) -> bool:
    definition = op_def_registry.get(node.op)
    return definition is None or definition.is_stateful


def _without_name(node: node_def_pb2.NodeDef) -> bytes:
    """Serialises a node without its name; the result is equal for nodes that compute the same."""
    anonymous = node_def_pb2.NodeDef()
    anonymous.CopyFrom(node)
    anonymous.ClearField("name")
    anonymous.ClearField("experimental_debug_info")
    return anonymous.SerializeToString(deterministic=True)


def _node_name(reference: str) -> str:
    """Returns the node of an input: `node:output:index`, an argument's name, or `^node` for a control dependency."""
    return reference.removeprefix("^").partition(":")[0]


def _rename(reference: str, replacements: Mapping[str, str]) -> str:
    node = _node_name(reference)
    return reference.replace(node, replacements.get(node, node), 1)
