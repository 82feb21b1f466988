"""The runner: fingerprints, raw files, pipeline roots."""
