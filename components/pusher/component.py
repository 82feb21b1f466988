"""Pusher: publishes a blessed model as a new version in the serving folder."""

from seq2serve.components.base.artifact import InfraBlessing, Model, ModelBlessing, PushedModel
from seq2serve.components.base.component import Input, Output, component


@component
def Pusher(
    model: Input[Model],
    model_blessing: Input[ModelBlessing],
    infra_blessing: Input[InfraBlessing],
    pushed_model: Output[PushedModel],
    destination: str,
    task: str,
    keep_versions: int = 10,
) -> None:
    """Pushes the exported model as a new version, which becomes visible atomically (TFX: Pusher).

    The version number is the time in seconds, as in TFX, or one more than the newest version if that is greater, so
    numbers only grow. A model that a version already has, by the hash of its files, is not pushed again: not if only
    its evaluation changed, not if that version is withdrawn, and not if a push was killed just before its end.

    Args:
        model: Format-Serving/ is pushed.
        model_blessing, infra_blessing: the verdicts of Evaluator and InfraValidator; both must be positive.
        pushed_model: the record of the push.
        destination: the serving folder, such as /models/en_de or gs://bucket/models/en_de; created if it is missing.
            The server's configuration is written there if it is missing; see server_files.py.
        task: the name of the model's task; a serving folder holds models of one task.
        keep_versions: number of versions to keep, at least two; versions that models.config names are always kept.
    Raises:
        NotBlessedError: the model lacks a blessing; nothing was written.
        UserError: the destination is read-only, full or used by another task, or its models.config is broken; no new
            version is visible.
    Source: https://www.tensorflow.org/tfx/guide/pusher
    """
    from seq2serve.components.pusher.executor import push

    push(model, model_blessing, infra_blessing, pushed_model, destination, task, keep_versions)
