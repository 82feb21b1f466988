"""Pipelines: what runs, in which order, where.

Comes in: a user's files and settings. Goes out: published artifacts, their lineage, and a pushed model.
Read next: dag.py (the components wired together), config.py, runner.py, metadata.py.
"""
