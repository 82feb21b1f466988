"""Weights of pretrained models in other formats: their architecture, tensors and tokenizer, as ours."""
