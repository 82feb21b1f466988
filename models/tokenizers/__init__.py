"""Tokenizers that run inside a TensorFlow graph: SentencePiece, WordPiece, characters and bytes."""
