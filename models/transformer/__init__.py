"""The Transformer (Vaswani et al. 2017): layers, attention, blocks, models and the training step."""
