"""BulkInferrer: Examples and a PushedModel to an InferenceResult."""
