"""Pipelines: which components run, in which order and where. Start with dag.py."""
