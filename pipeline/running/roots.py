"""The pipeline root of a folder or a URL."""

from seq2serve.components.base.uris import is_remote
from seq2serve.pipeline.running.root import PipelineRoot


def open_root(name: str, beam_options: tuple[str, ...] = ()) -> PipelineRoot:
    """Returns the pipeline root of a folder or a URL.

    Raises:
        UserError: it cannot be reached or written.
    """
    if not is_remote(name):
        return PipelineRoot(name)
    # It imports Beam, which a run in a local folder should not wait for.
    from seq2serve.pipeline.running.remote_root import RemoteRoot

    return RemoteRoot(name, beam_options)
