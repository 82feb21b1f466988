"""SavedModels on TensorFlow's C++ runtime through ctypes, without Python TensorFlow or Keras."""
