"""A pipeline root: where its artifacts are, and the local folder of its state."""

from typing import NamedTuple

from seq2serve.components.base.uris import absolute_uri, is_remote
from seq2serve.pipeline.running.artifact_store import ArtifactStore, LocalArtifacts
from seq2serve.pipeline.running.state_folder import StateFolder, state_folder


class PipelineRoot(NamedTuple):
    """A pipeline root.

    Args:
        state: locks, staging, scratch, logs and configs, on this machine.
        artifacts: on a disk or in an object store.
    """

    state: StateFolder
    artifacts: ArtifactStore


def open_root(name: str, beam_options: tuple[str, ...] = ()) -> PipelineRoot:
    """Returns the pipeline root of a folder or a URL; creates its folders if they are missing.

    Args:
        name: the folder or the URL, as the user gave it.
        beam_options: Beam's own, verbatim; some of them configure credentials.
    Raises:
        UserError: it cannot be reached or written.
        Seq2ServeError: its disk is full.
    """
    state = StateFolder(state_folder(name))
    artifacts: ArtifactStore = LocalArtifacts(state)
    if is_remote(name):
        # It imports Beam, which a run in a local folder should not wait for.
        from seq2serve.pipeline.running.remote_artifacts import RemoteArtifacts

        artifacts = RemoteArtifacts(absolute_uri(name), state, beam_options)
    state.create()
    return PipelineRoot(state, artifacts)
