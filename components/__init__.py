"""Components: typed functions that turn artifacts into artifacts, in a folder each, and the contract they share."""
