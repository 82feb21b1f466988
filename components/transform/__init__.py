"""Transform: Examples to a Tokenizer and token ids; TransformByTokenizer: the same with the user's tokenizer."""
