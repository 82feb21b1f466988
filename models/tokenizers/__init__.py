"""Tokenizers that run inside a TensorFlow graph: SentencePiece, WordPiece, BERT's, characters and bytes."""
