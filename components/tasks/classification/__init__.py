"""Classification: one of a few labels for a text, judged by accuracy."""
