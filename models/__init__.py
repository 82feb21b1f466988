"""The Transformer, with its tokenizers, training, decoding and export; independent of the pipeline."""

import os

# The layers call TensorFlow directly, so a user's keras.json must not select another backend.
os.environ["KERAS_BACKEND"] = "tensorflow"
