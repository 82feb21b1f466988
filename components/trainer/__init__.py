"""Trainer: token ids to a trained and exported Model."""
