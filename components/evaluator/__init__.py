"""Evaluator: Examples and a Model to a ModelEvaluation and a ModelBlessing."""
