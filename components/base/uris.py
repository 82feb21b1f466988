"""URIs: paths on this machine, and URLs such as gs://bucket/runs."""

import os


def is_remote(uri: str) -> bool:
    """Returns whether this is a URL rather than a path."""
    return "://" in uri


def absolute_uri(uri: str) -> str:
    """Returns an absolute path, or the URL without a slash at its end: one name for a folder, from everywhere."""
    return uri.rstrip("/") if is_remote(uri) else os.path.abspath(uri)
