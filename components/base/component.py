"""@component, Input, Output and Channel: the signature of a typed function is the whole specification of a component.

statistics_gen/component.py is a short example; pipeline/dag.py joins the components to a pipeline.
"""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Generic, Protocol, TypeVar

from seq2serve.components.base.artifact import Artifact, RawFiles

ArtifactType = TypeVar("ArtifactType", bound=Artifact)

# A parameter annotated `Input[Examples]` receives a published artifact; one annotated `Output[Model]` receives an empty
# folder to fill. `Input[Model] | None` with the default None is optional. Every other parameter except a `Context` is a
# setting and part of the fingerprint.
Input = Annotated[ArtifactType, "input"]
Output = Annotated[ArtifactType, "output"]


@dataclasses.dataclass(frozen=True)
class Splits:
    """The only splits of an input that a component reads: `Annotated[Input[Examples], Splits(("train", "eval"))]`.

    The component runs again only if the content of one of them changed. The artifact that it receives has only these
    in its property `splits`.
    """

    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Earlier(Generic[ArtifactType]):
    """An artifact that an earlier execution published in the pipeline root.

    Args:
        artifact: as it was published: with its properties, but its files may be at a URL, or deleted.
        execution: number of the execution.
        read: returns the artifact with files that can be read here; None if they were deleted. Lineage shows what was
            read.
    """

    artifact: ArtifactType
    execution: int
    read: Callable[[], ArtifactType | None]


# A parameter annotated `History[ModelEvaluation]` receives the artifacts of that type that are published in the
# pipeline root, newest first (TFX: a Resolver). They are not part of the fingerprint.
History = Annotated[tuple[Earlier[ArtifactType], ...], "history"]


@dataclasses.dataclass(frozen=True)
class EarlierExecution:
    """A completed execution of the same component with the same inputs, code and libraries, but other parameters.

    Args:
        parameters: parameter -> value as JSON.
        outputs: output key -> artifact as it was published; its files may be at a URL, or deleted.
        read: returns an artifact whose files can be read here; None if they were deleted.
    """

    parameters: Mapping[str, Any]
    outputs: Mapping[str, Artifact]
    read: Callable[[Artifact], Artifact | None]


class Machines(Protocol):
    """Several machines that run one program together; this one leads them."""

    def run(self, program: str, inputs: Mapping[str, Artifact], arguments: Mapping[str, Any]) -> None:
        """Runs a program in a new process on every machine, and returns when all have ended.

        Args:
            program: a module with `main(inputs, arguments, report)`. The environment variable TF_CONFIG tells it which
                machine it runs on; the first leads. It calls `report(devices=number of GPUs)` when it starts, and
                `report(joined=True)` once the programs are connected to each other.
            inputs: artifacts that all machines read, each from where it reaches them.
            arguments: JSON values.
        Raises:
            Seq2ServeError: a process failed, or a machine does not join or was lost; the message names it.
            KeyboardInterrupt: after Ctrl-C here or on another machine, once the leading process has ended.
        """


@dataclasses.dataclass(frozen=True)
class Context:
    """Resources of an execution that its result must not depend on; never part of a fingerprint.

    Args:
        beam_options: Beam pipeline options, verbatim, such as `--runner=FlinkRunner`.
        scratch: a folder that survives if the execution is killed and is removed when it completes. If the same
            execution (same fingerprint) runs again, it gets the folder with its previous content.
        verbose: whether to show output that is hidden by default.
        earlier: executions whose work this one may continue if its result is the same, newest first (TFX: a Resolver).
            Empty for a component that runs on Beam's workers.
        machines: those that work on this execution together; None for this machine alone.
    """

    beam_options: tuple[str, ...] = ()
    scratch: str = ""
    verbose: bool = False
    earlier: tuple[EarlierExecution, ...] = ()
    machines: Machines | None = None


# A component with a `BeamContext` runs on Beam's workers, which may be other machines, so artifacts on an object store
# are passed to it as URLs. Every other component reads a local copy and fills a local folder.
BeamContext = Annotated[Context, "beam"]


# A component with a `MachinesContext` can use several machines; it receives them if the environment names some.
MachinesContext = Annotated[Context, "machines"]


class Code:
    """A parameter that is code, such as a Task: an instance without state of a class with a name.

    Executions record the name. The source of the class and its bases, followed through their imports, is part of the
    fingerprint.
    """

    name: ClassVar[str]


@dataclasses.dataclass(frozen=True)
class Channel:
    """A reference to an artifact that does not exist yet: output `key` of `node`, of type `type`."""

    node: "Node"
    key: str
    type: type[Artifact]

    def __str__(self) -> str:
        return f"{self.node.id}.outputs[{self.key!r}] ({self.type.__name__})"


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """A component in a pipeline.

    Args:
        component: the component to run; None for files that exist before the pipeline runs (see `raw_files`).
        inputs: input name -> Channel.
        parameters: parameter name -> value, including defaults.
        constant: the artifact of a node without a component.
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
        artifact_types = self.component.outputs if self.component else {}
        if self.constant is not None:
            artifact_types = {"files": type(self.constant)}
        return {key: Channel(self, key, artifact_type) for key, artifact_type in artifact_types.items()}


@dataclasses.dataclass(frozen=True)
class Component:
    """A function and its parsed signature: inputs, outputs and parameters.

    `function` is the undecorated function; unit tests call it with artifacts in temporary folders. `context` is the
    name of its Context parameter, if any. `optional` contains the names of optional inputs; `runs_beam` is True if
    the context is a BeamContext, `uses_machines` if it is a MachinesContext. `splits` has input name -> the splits that
    it reads, of inputs with `Splits`; `histories` has parameter name -> type of the earlier artifacts that it receives.
    """

    function: Callable[..., None]
    inputs: dict[str, type[Artifact]]
    outputs: dict[str, type[Artifact]]
    parameters: dict[str, inspect.Parameter]
    context: str | None
    optional: frozenset[str] = frozenset()
    runs_beam: bool = False
    splits: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    histories: Mapping[str, type[Artifact]] = dataclasses.field(default_factory=dict)
    uses_machines: bool = False

    @property
    def name(self) -> str:
        """Returns the name of the component, which is that of its function."""
        return self.function.__name__

    def __call__(self, **arguments: Any) -> Node:
        """Connects the component to its inputs.

        Args:
            **arguments: a Channel for every required input, a value for every parameter without a default.
        Returns:
            The Node, whose `outputs` feed the next component.
        Raises:
            TypeError: an input or parameter is missing, unknown or of the wrong type; the message names both ends.
        """
        known = {**self.inputs, **self.parameters}
        for key in arguments:
            if key not in known:
                raise TypeError(f"{self.name} has no input or parameter {key!r}; it has {', '.join(known)}")
        connected = [key for key in self.inputs if key not in self.optional or arguments.get(key) is not None]
        inputs = {key: self._checked_input(key, arguments.get(key)) for key in connected}
        parameters = {key: self._checked_parameter(key, arguments) for key in self.parameters}
        return Node(self, inputs, parameters)

    def _checked_input(self, key: str, channel: Any) -> Channel:
        target = f"{self.name}.inputs[{key!r}] ({self.inputs[key].__name__})"
        if not isinstance(channel, Channel):
            raise TypeError(f"{target} needs a channel, got {channel!r}")
        if not issubclass(channel.type, self.inputs[key]):
            raise TypeError(f"{channel} cannot feed {target}")
        return channel

    def _checked_parameter(self, key: str, arguments: dict[str, Any]) -> Any:
        parameter = self.parameters[key]
        value = arguments.get(key, parameter.default)
        if value is inspect.Parameter.empty:
            raise TypeError(f"{self.name} needs a value for its parameter {key!r}")
        if isinstance(value, Channel):
            raise TypeError(f"{value} cannot feed {self.name}'s parameter {key!r}, which is not an input")
        return value


def component(function: Callable[..., None]) -> Component:
    """Turns a function into a component (TFX: the `@component` decorator of Python function components).

    Args:
        function: returns None. Its parameters can be passed by keyword and are annotated `Input[T]`, `Input[T] | None`,
            `Output[T]`, `History[T]`, `Context`, `BeamContext`, `MachinesContext` or with a plain type; inputs also
            with `Splits`. Values of a plain type must be serialisable as JSON; frozen dataclasses of JSON values are,
            too. A Code is recorded by name.
    Returns:
        A Component.
    Raises:
        TypeError: a parameter has no annotation.
    """
    inputs: dict[str, type[Artifact]] = {}
    outputs: dict[str, type[Artifact]] = {}
    parameters: dict[str, inspect.Parameter] = {}
    optional: set[str] = set()
    splits: dict[str, tuple[str, ...]] = {}
    histories: dict[str, type[Artifact]] = {}
    context, context_type = None, None
    hints = typing.get_type_hints(function, include_extras=True)
    for key, parameter in inspect.signature(function).parameters.items():
        if key not in hints:
            raise TypeError(f"{function.__name__}: parameter {key!r} has no annotation")
        hint = _without_none(hints[key])
        role, *more = getattr(hint, "__metadata__", ("",))
        splits.update((key, entry.names) for entry in more if isinstance(entry, Splits))
        if role in ("input", "output"):
            (inputs if role == "input" else outputs)[key] = typing.get_args(hint)[0]
            optional.update({key} if parameter.default is None else ())
        elif role == "history":
            earlier, _ = typing.get_args(typing.get_args(hint)[0])  # of tuple[Earlier[T], ...]
            (histories[key],) = typing.get_args(earlier)
        elif hints[key] in (Context, BeamContext, MachinesContext):
            context, context_type = key, hints[key]
        else:
            parameters[key] = parameter
    return Component(
        function,
        inputs,
        outputs,
        parameters,
        context,
        optional=frozenset(optional),
        runs_beam=context_type == BeamContext,
        splits=splits,
        histories=histories,
        uses_machines=context_type == MachinesContext,
    )


def _without_none(hint: Any) -> Any:
    """Returns T for `T | None`, and any other annotation unchanged."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint
    members = [member for member in typing.get_args(hint) if member is not types.NoneType]
    return members[0] if len(members) == 1 else hint


def raw_files(uri: str, artifact_type: type[RawFiles] = RawFiles) -> Channel:
    """Brings the user's own files into a pipeline (TFX: Importer).

    Args:
        uri: a path or a glob pattern. The runner finds and hashes the files at the start of a run.
        artifact_type: RawFiles or a subclass; a pipeline has at most one node per type.
    Returns:
        A Channel of that type.
    """
    return Node(None, {}, {}, constant=artifact_type(uri)).outputs["files"]
