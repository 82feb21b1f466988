"""@component, Input, Output, Channel: a typed function is the whole specification of a component.

Comes in: a function whose parameters are annotated. Goes out: a Component, which called with channels gives a Node.
Read next: statistics_gen.py for a short component, pipeline/dag.py to see them joined, pipeline/runner.py for
how a Node is run.
"""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from components.artifact import Artifact, RawFiles

ArtifactType = TypeVar("ArtifactType", bound=Artifact)

# A component's parameter annotated `Input[Examples]` receives a published artifact; one annotated `Output[Model]`
# receives an empty folder to fill. Everything else but `Context` is a parameter and part of the fingerprint. An input
# annotated `Input[Model] | None`, with the default None, may be left out.
Input = Annotated[ArtifactType, "input"]
Output = Annotated[ArtifactType, "output"]


@dataclasses.dataclass(frozen=True)
class Context:
    """What an execution may use but its result must not depend on; never part of a fingerprint.

    Args:
        beam_options: Beam pipeline options, verbatim, such as `--runner=FlinkRunner`.
        scratch: a folder that outlives a killed execution and is removed when it completes; the same execution
            (same fingerprint) run again finds it as it was left.
        verbose: whether to show what is quiet by default.
    """

    beam_options: tuple[str, ...] = ()
    scratch: str = ""
    verbose: bool = False


# A component that asks for a `BeamContext` works through Beam's workers, which may be anywhere: of an artifact on an
# object store it is given the URL. Every other component is given a local copy to read, and a local folder to fill.
BeamContext = Annotated[Context, "beam"]


@dataclasses.dataclass(frozen=True)
class Channel:
    """A promise of one artifact: output `key` of `node`, of type `type`."""

    node: "Node"
    key: str
    type: type[Artifact]

    def __str__(self) -> str:
        return f"{self.node.id}.outputs[{self.key!r}] ({self.type.__name__})"


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """One use of a component in a pipeline.

    Args:
        component: what to run; None for files that exist before the pipeline does (see `raw_files`).
        inputs: input name -> Channel.
        parameters: parameter name -> value, defaults filled in.
        constant: for a node without a component, the artifact it stands for.
    """

    component: "Component | None"
    inputs: dict[str, Channel]
    parameters: dict[str, Any]
    constant: Artifact | None = None

    @property
    def id(self) -> str:
        """Returns the component's name, which is unique in a pipeline."""
        return self.component.name if self.component else type(self.constant).__name__

    @property
    def outputs(self) -> dict[str, Channel]:
        """Returns output name -> Channel."""
        types = self.component.outputs if self.component else {"files": type(self.constant)}
        return {key: Channel(self, key, artifact_type) for key, artifact_type in types.items()}


@dataclasses.dataclass(frozen=True)
class Component:
    """A function with its signature read: what goes in, what comes out, what can be set.

    `component.function` is the undecorated function; called with artifacts in temporary folders it is the
    component's own unit test. `optional` names the inputs that may be left out; `runs_beam` says whether it asks for a
    BeamContext.
    """

    function: Callable[..., None]
    inputs: dict[str, type[Artifact]]
    outputs: dict[str, type[Artifact]]
    parameters: dict[str, inspect.Parameter]
    context: str | None
    optional: frozenset[str] = frozenset()
    runs_beam: bool = False

    @property
    def name(self) -> str:
        """Returns the function's name, which is the component's."""
        return self.function.__name__

    def __call__(self, **arguments: Any) -> Node:
        """Joins the component to its inputs.

        Args:
            **arguments: a Channel for every input that is not optional, a value for every parameter that has no
                default.
        Returns:
            The Node, whose `outputs` feed the next component.
        Raises:
            TypeError: an input or parameter is missing, unknown or of the wrong type; names both ends.
        """
        known = {**self.inputs, **self.parameters}
        for key in arguments:
            if key not in known:
                raise TypeError(f"{self.name} has no input or parameter {key!r}; it has {', '.join(known)}")
        wanted = [key for key in self.inputs if key not in self.optional or arguments.get(key) is not None]
        inputs = {key: self._checked_input(key, arguments.get(key)) for key in wanted}
        parameters = {key: self._checked_parameter(key, arguments) for key in self.parameters}
        return Node(self, inputs, parameters)

    def _checked_input(self, key: str, channel: Any) -> Channel:
        wanted = f"{self.name}.inputs[{key!r}] ({self.inputs[key].__name__})"
        if not isinstance(channel, Channel):
            raise TypeError(f"{wanted} needs a channel, got {channel!r}")
        if not issubclass(channel.type, self.inputs[key]):
            raise TypeError(f"{channel} cannot feed {wanted}")
        return channel

    def _checked_parameter(self, key: str, arguments: dict[str, Any]) -> Any:
        parameter = self.parameters[key]
        value = arguments.get(key, parameter.default)
        if value is inspect.Parameter.empty:
            raise TypeError(f"{self.name} needs a value for its parameter {key!r}")
        if isinstance(value, Channel):
            raise TypeError(f"{value} cannot feed {self.name}'s parameter {key!r}, which is no artifact")
        return value


def component(function: Callable[..., None]) -> Component:
    """Makes a component of a function (TFX: the `@component` decorator of Python function components).

    Args:
        function: returns None. Its parameters, all keyword-capable, are annotated `Input[T]`, `Input[T] | None`,
            `Output[T]`, `Context`, `BeamContext` or with a plain type, which must serialise to JSON (frozen dataclasses
            of such are fine).
    Returns:
        A Component.
    Raises:
        TypeError: a parameter has no annotation.
    """
    inputs, outputs, parameters, context, optional, runs_beam = {}, {}, {}, None, set(), False
    hints = typing.get_type_hints(function, include_extras=True)
    for key, parameter in inspect.signature(function).parameters.items():
        if key not in hints:
            raise TypeError(f"{function.__name__}: parameter {key!r} has no annotation")
        hint = _without_none(hints[key])
        role = getattr(hint, "__metadata__", ("",))[0]
        if role in ("input", "output"):
            (inputs if role == "input" else outputs)[key] = typing.get_args(hint)[0]
            optional.update({key} if parameter.default is None else ())
        elif hints[key] in (Context, BeamContext):
            context, runs_beam = key, hints[key] == BeamContext
        else:
            parameters[key] = parameter
    return Component(function, inputs, outputs, parameters, context, frozenset(optional), runs_beam)


def _without_none(hint: Any) -> Any:
    """Returns T of `T | None`, any other annotation as it is."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint
    others = [other for other in typing.get_args(hint) if other is not types.NoneType]
    return others[0] if len(others) == 1 else hint


def raw_files(uri: str, artifact_type: type[RawFiles] = RawFiles) -> Channel:
    """Brings the user's own files into a pipeline (TFX: Importer).

    Args:
        uri: a path or a glob pattern. The runner finds and hashes the files when a run begins.
        artifact_type: RawFiles or a kind of them; a pipeline has one node of each.
    Returns:
        A Channel of that type.
    """
    return Node(None, {}, {}, constant=artifact_type(uri)).outputs["files"]
