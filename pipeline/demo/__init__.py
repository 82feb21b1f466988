"""The demo corpora, pinned by hash."""
