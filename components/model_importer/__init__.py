"""ModelImporter: a pretrained model in another format to a Model and a Tokenizer."""
