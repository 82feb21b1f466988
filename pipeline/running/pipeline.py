"""Pipeline: components joined by channels; RunResult and NodeResult: the outcome of running one."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from seq2serve.components.base.artifact import Artifact
from seq2serve.components.base.component import Node


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """Components joined by channels, in the order in which they run.

    Args:
        name: executions are compared with earlier ones of the pipeline of this name.
        pipeline_root: the folder of artifacts and metadata, or a URL for the artifacts.
        nodes: every node, raw files included, each after the nodes that feed it.
        config: name -> value of the settings that components chose so far -> content of a config file that makes the
            same pipeline; the runner keeps it with the run. None for no file.
    Raises:
        TypeError: two nodes share an id, or a node comes before one that feeds it.
    """

    name: str
    pipeline_root: str
    nodes: tuple[Node, ...]
    config: Callable[[Mapping[str, Any]], str] | None = None

    def __post_init__(self) -> None:
        earlier: dict[str, Node] = {}
        for node in self.nodes:
            if node.id in earlier:
                raise TypeError(f"pipeline {self.name}: two nodes are named {node.id}")
            for key, channel in node.inputs.items():
                if earlier.get(channel.node.id) is not channel.node:
                    raise TypeError(
                        f"pipeline {self.name}: {channel} feeds {node.id}.inputs[{key!r}], but {channel.node.id} does "
                        f"not come before {node.id} in nodes"
                    )
            earlier[node.id] = node


@dataclasses.dataclass(frozen=True)
class NodeResult:
    """The outcome of one node: its published outputs, whether they were reused, why, and how long it took."""

    outputs: dict[str, Artifact]
    reused: bool
    reason: str
    seconds: float


@dataclasses.dataclass(frozen=True)
class RunResult:
    """A run that completed. `nodes`: node id -> NodeResult, in the pipeline's order, without raw files."""

    run_id: int
    pipeline: Pipeline
    nodes: dict[str, NodeResult]
    seconds: float

    def output(self, component: str, key: str) -> Artifact:
        """Returns a published artifact, such as `output("Pusher", "pushed_model")`."""
        return self.nodes[component].outputs[key]
