"""The server of `seq2serve serve`: TensorFlow Serving's REST and gRPC APIs, and a demo page."""
