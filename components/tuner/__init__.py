"""Tuner: chooses the settings of model and training."""
