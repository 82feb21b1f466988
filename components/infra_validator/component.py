"""InfraValidator: tests a model in the model server's runtime before it is pushed."""

from typing import Annotated

from seq2serve.components.base.artifact import Examples, InfraBlessing, Model
from seq2serve.components.base.component import Input, Output, Splits, component


@component
def InfraValidator(
    model: Input[Model],
    examples: Annotated[Input[Examples], Splits(("test",))],
    blessing: Output[InfraBlessing],
    num_sentences: int = 32,
    time_limit: int = 300,
    model_server: str = "tensorflow_model_server",
) -> None:
    """Tests the exported model in a process with the model server's C++ runtime and without Python TensorFlow.

    A model that fails is not an error: it is not blessed, the blessing records the reason, and Pusher does not push it.
    Source: https://www.tensorflow.org/tfx/guide/infra_validator

    Args:
        model: Format-Serving/ is tested.
        examples: sentences of the test split are sent to `serving_default`. Each input is read from the column of the
            same name, or from the first column if there is none.
        blessing: INFRA_BLESSED or INFRA_NOT_BLESSED.
        num_sentences: number of sentences to send, first one by one and then in one batch.
        time_limit: seconds for all checks in the process; a model that hangs is not blessed.
        model_server: name or path of TensorFlow Model Server. If it is installed, its answers must be the same.
    """
    from seq2serve.components.infra_validator.executor import validate_model

    validate_model(model, examples, blessing, num_sentences, time_limit, model_server)
