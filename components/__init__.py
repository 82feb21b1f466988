"""Components: typed functions that turn artifacts into artifacts, one a file.

Comes in: artifacts published by earlier components. Goes out: new artifacts, immutable once published.
Read next: artifact.py (what is on disk), component.py (the contract), then example_gen.py onward in data order.
"""
