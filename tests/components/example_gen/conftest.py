"""Fixtures of the tests of ExampleGen."""

import io

import pytest
from apache_beam.io.filesystems import FileSystems


@pytest.fixture
def bytes_read(monkeypatch):
    """Returns a function that returns how many bytes of .txt files have been read since its last call."""
    total, opened = 0, FileSystems.open

    class Counting(io.FileIO):
        def read(self, size=-1):
            nonlocal total
            chunk = super().read(size)
            total += len(chunk)
            return chunk

    def bytes_read() -> int:
        nonlocal total
        before, total = total, 0
        return before

    monkeypatch.setattr(
        FileSystems,
        "open",
        lambda path, *settings, **more: Counting(path) if path.endswith(".txt") else opened(path, *settings, **more),
    )
    return bytes_read
