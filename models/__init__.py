"""The Transformer and what it needs to learn and to serve; knows nothing of pipelines.

Comes in: token ids or text. Goes out: a trained model and a SavedModel that maps strings to strings.
Read next: config.py (sizes), layers.py, transformer.py, decoding.py, export.py.
"""

import os

# The layers call TensorFlow itself; a person's own keras.json must not choose another backend under them.
os.environ["KERAS_BACKEND"] = "tensorflow"
