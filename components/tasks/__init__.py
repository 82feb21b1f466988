"""Tasks: the applications of the Transformer, each with its columns, model, metrics and baselines."""
