"""Components: what is joined wrongly fails when the pipeline is built, and the error names both ends."""

import dataclasses

import pytest

from components.artifact import Artifact, Examples, ExampleStatistics, Model, RawFiles
from components.component import Channel, Context, Input, Output, component, raw_files


@component
def Read(files: Input[RawFiles], examples: Output[Examples], columns: tuple[str, ...] = ("text",)) -> None:
    """Reads."""


@component
def Learn(
    examples: Input[Examples], steps: int, model: Output[Model], statistics: Output[ExampleStatistics], context: Context
) -> None:
    """Learns."""


@component
def Keep(artifact: Input[Artifact], kept: Output[Artifact]) -> None:
    """Keeps anything."""


def read():
    return Read(files=raw_files("data.tsv"))


def test_the_signature_is_the_spec():
    assert Learn.name == "Learn"
    assert Learn.inputs == {"examples": Examples}
    assert Learn.outputs == {"model": Model, "statistics": ExampleStatistics}
    assert list(Learn.parameters) == ["steps"]
    assert Learn.context == "context"
    assert Read.context is None


def test_the_function_stays_callable(tmp_path):
    seen = []

    @component
    def Note(model: Input[Model], context: Context) -> None:
        seen.append((model.uri, context.scratch))

    Note.function(model=Model(str(tmp_path)), context=Context(scratch="aside"))
    assert seen == [(str(tmp_path), "aside")]


def test_outputs_are_channels_that_say_where_they_come_from():
    node = Learn(examples=read().outputs["examples"], steps=3)
    assert node.outputs["model"] == Channel(node, "model", Model)
    assert str(node.outputs["model"]) == "Learn.outputs['model'] (Model)"
    assert node.parameters == {"steps": 3}


def test_defaults_are_filled_in_and_can_be_changed():
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


def test_raw_files_feed_only_what_reads_raw_files():
    message = r"RawFiles.outputs\['files'\] \(RawFiles\) cannot feed Learn.inputs\['examples'\]"
    with pytest.raises(TypeError, match=message):
        Learn(examples=raw_files("data.tsv"), steps=3)
    with pytest.raises(TypeError, match=r"Read.outputs\['examples'\] \(Examples\) cannot feed Read.inputs\['files'\]"):
        Read(files=read().outputs["examples"])


def test_a_subtype_may_feed_its_base():
    assert Keep(artifact=raw_files("data.tsv")).inputs["artifact"].type is RawFiles
    assert Keep(artifact=read().outputs["examples"]).inputs["artifact"].type is Examples


def test_a_base_may_not_feed_a_subtype():
    with pytest.raises(TypeError, match=r"Keep.outputs\['kept'\] \(Artifact\) cannot feed Read.inputs\['files'\]"):
        Read(files=Keep(artifact=raw_files("data.tsv")).outputs["kept"])


@pytest.mark.parametrize("value", [None, "runs/Read/examples/1", Examples("runs/Read/examples/1"), 3])
def test_an_input_needs_a_channel(value):
    with pytest.raises(TypeError, match=r"Learn.inputs\['examples'\] \(Examples\) needs a channel, got"):
        Learn(examples=value, steps=3)


def test_a_missing_input_is_named():
    with pytest.raises(TypeError, match=r"Learn.inputs\['examples'\] \(Examples\) needs a channel, got None"):
        Learn(steps=3)


def test_an_optional_input_may_be_left_out_and_is_checked_where_it_is_not():
    @component
    def GoOn(examples: Input[Examples], model: Output[Model], base: Input[Model] | None = None) -> None:
        """Goes on from a model, if there is one."""

    examples = read().outputs["examples"]
    assert GoOn.inputs == {"examples": Examples, "base": Model}
    assert list(GoOn(examples=examples).inputs) == list(GoOn(examples=examples, base=None).inputs) == ["examples"]
    base = Learn(examples=examples, steps=3).outputs["model"]
    assert GoOn(examples=examples, base=base).inputs == {"examples": examples, "base": base}
    with pytest.raises(TypeError, match=r"cannot feed GoOn.inputs\['base'\] \(Model\)"):
        GoOn(examples=examples, base=examples)


def test_a_missing_parameter_is_named():
    with pytest.raises(TypeError, match="Learn needs a value for its parameter 'steps'"):
        Learn(examples=read().outputs["examples"])


@pytest.mark.parametrize("name", ["step", "model", "context"])
def test_an_unknown_argument_is_named_with_what_there_is(name):
    with pytest.raises(TypeError, match=f"Learn has no input or parameter '{name}'; it has examples, steps"):
        Learn(examples=read().outputs["examples"], steps=3, **{name: 1})


def test_a_channel_is_no_parameter():
    message = r"Read.outputs\['examples'\] \(Examples\) cannot feed Learn's parameter 'steps'"
    with pytest.raises(TypeError, match=message):
        Learn(examples=read().outputs["examples"], steps=read().outputs["examples"])


def test_a_parameter_without_annotation_is_refused():
    with pytest.raises(TypeError, match="Loose: parameter 'steps' has no annotation"):

        @component
        def Loose(steps=3) -> None:
            """Has no types."""


def test_a_node_cannot_be_rewired():
    with pytest.raises(dataclasses.FrozenInstanceError):
        read().inputs = {}
