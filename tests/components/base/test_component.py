"""Components: a wrong connection fails when the pipeline is built, and the error names both ends."""

import dataclasses

import pytest

from seq2serve.components.base.artifact import Artifact, Examples, ExampleStatistics, Model, RawFiles
from seq2serve.components.base.component import Channel, Context, Input, Output, component, raw_files


@component
def Read(files: Input[RawFiles], examples: Output[Examples], columns: tuple[str, ...] = ("text",)) -> None:
    """Reads files."""


@component
def Learn(
    examples: Input[Examples], steps: int, model: Output[Model], statistics: Output[ExampleStatistics], context: Context
) -> None:
    """Trains a model."""


@component
def Keep(artifact: Input[Artifact], kept: Output[Artifact]) -> None:
    """Accepts any artifact."""


def read():
    return Read(files=raw_files("data.tsv"))


def test_the_signature_is_the_specification():
    assert Learn.name == "Learn"
    assert Learn.inputs == {"examples": Examples}
    assert Learn.outputs == {"model": Model, "statistics": ExampleStatistics}
    assert list(Learn.parameters) == ["steps"]
    assert Learn.context == "context"
    assert Read.context is None


def test_the_function_can_be_called_directly(tmp_path):
    calls = []

    @component
    def Note(model: Input[Model], context: Context) -> None:
        calls.append((model.uri, context.scratch))

    Note.function(model=Model(str(tmp_path)), context=Context(scratch="scratch"))
    assert calls == [(str(tmp_path), "scratch")]


def test_outputs_are_channels_that_name_their_origin():
    node = Learn(examples=read().outputs["examples"], steps=3)
    assert node.outputs["model"] == Channel(node, "model", Model)
    assert str(node.outputs["model"]) == "Learn.outputs['model'] (Model)"
    assert node.parameters == {"steps": 3}


def test_parameters_have_defaults_that_can_be_overridden():
    assert read().parameters == {"columns": ("text",)}
    assert Read(files=raw_files("data.tsv"), columns=("a", "b")).parameters == {"columns": ("a", "b")}


def test_raw_files_are_a_channel_without_a_component():
    channel = raw_files("data/*.tsv")
    assert channel.type is RawFiles
    assert channel.node.component is None
    assert channel.node.constant.uri == "data/*.tsv"
    assert channel.node.outputs == {"files": channel}
    assert str(channel) == "RawFiles.outputs['files'] (RawFiles)"


def test_a_wrong_type_names_both_ends():
    learn = Learn(examples=read().outputs["examples"], steps=3)
    message = r"Learn.outputs\['model'\] \(Model\) cannot feed Learn.inputs\['examples'\] \(Examples\)"
    with pytest.raises(TypeError, match=message):
        Learn(examples=learn.outputs["model"], steps=3)


def test_only_inputs_of_raw_files_accept_raw_files():
    message = r"RawFiles.outputs\['files'\] \(RawFiles\) cannot feed Learn.inputs\['examples'\]"
    with pytest.raises(TypeError, match=message):
        Learn(examples=raw_files("data.tsv"), steps=3)
    with pytest.raises(TypeError, match=r"Read.outputs\['examples'\] \(Examples\) cannot feed Read.inputs\['files'\]"):
        Read(files=read().outputs["examples"])


def test_a_subtype_can_feed_its_base_type():
    assert Keep(artifact=raw_files("data.tsv")).inputs["artifact"].type is RawFiles
    assert Keep(artifact=read().outputs["examples"]).inputs["artifact"].type is Examples


def test_a_base_type_cannot_feed_a_subtype():
    with pytest.raises(TypeError, match=r"Keep.outputs\['kept'\] \(Artifact\) cannot feed Read.inputs\['files'\]"):
        Read(files=Keep(artifact=raw_files("data.tsv")).outputs["kept"])


@pytest.mark.parametrize("value", [None, "runs/Read/examples/1", Examples("runs/Read/examples/1"), 3])
def test_an_input_must_be_a_channel(value):
    with pytest.raises(TypeError, match=r"Learn.inputs\['examples'\] \(Examples\) needs a channel, got"):
        Learn(examples=value, steps=3)


def test_a_missing_input_is_named():
    with pytest.raises(TypeError, match=r"Learn.inputs\['examples'\] \(Examples\) needs a channel, got None"):
        Learn(steps=3)


def test_an_optional_input_can_be_omitted_and_is_checked_otherwise():
    @component
    def Continue(examples: Input[Examples], model: Output[Model], base: Input[Model] | None = None) -> None:
        """Continues training from a model, if there is one."""

    examples = read().outputs["examples"]
    assert Continue.inputs == {"examples": Examples, "base": Model}
    assert list(Continue(examples=examples).inputs) == ["examples"]
    assert list(Continue(examples=examples, base=None).inputs) == ["examples"]
    base = Learn(examples=examples, steps=3).outputs["model"]
    assert Continue(examples=examples, base=base).inputs == {"examples": examples, "base": base}
    with pytest.raises(TypeError, match=r"cannot feed Continue.inputs\['base'\] \(Model\)"):
        Continue(examples=examples, base=examples)


def test_a_missing_parameter_is_named():
    with pytest.raises(TypeError, match="Learn needs a value for its parameter 'steps'"):
        Learn(examples=read().outputs["examples"])


@pytest.mark.parametrize("name", ["step", "model", "context"])
def test_an_unknown_argument_is_named_with_the_known_ones(name):
    with pytest.raises(TypeError, match=f"Learn has no input or parameter '{name}'; it has examples, steps"):
        Learn(examples=read().outputs["examples"], steps=3, **{name: 1})


def test_a_channel_cannot_be_a_parameter():
    message = r"Read.outputs\['examples'\] \(Examples\) cannot feed Learn's parameter 'steps', which is not an input"
    with pytest.raises(TypeError, match=message):
        Learn(examples=read().outputs["examples"], steps=read().outputs["examples"])


def test_a_parameter_without_annotation_is_an_error():
    with pytest.raises(TypeError, match="Loose: parameter 'steps' has no annotation"):

        @component
        def Loose(steps=3) -> None:
            """Has a parameter without a type."""


def test_a_node_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        read().inputs = {}
