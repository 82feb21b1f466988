"""Whether a published artifact is still there, so that it can be reused."""

from seq2serve.components.base.artifact import Artifact, PushedModel, RawFiles
from seq2serve.components.pusher.store import GRAPH_FILE, open_store, version_path
from seq2serve.components.storage.files import has_files


def is_present(artifact: Artifact) -> bool:
    """Returns whether the files of an artifact exist; of a PushedModel, also those of the pushed version.

    A version that a rollback withdrew is present: otherwise, the next run would push it again.

    Imports Beam only for artifacts on an object store.

    Raises:
        OSError: the store cannot be reached.
    """
    if isinstance(artifact, RawFiles):
        return True  # they were read when this run began
    if isinstance(artifact, PushedModel):
        version = open_store(version_path(artifact.properties.get("pushed_destination", "")))
        return has_files(artifact.uri) and version.has(GRAPH_FILE)
    return has_files(artifact.uri)
