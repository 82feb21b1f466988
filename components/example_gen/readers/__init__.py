"""Row readers, one per file format."""
