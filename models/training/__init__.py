"""Training: batches, loss, optimizer, saving and warm start."""
