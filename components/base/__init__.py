"""The contract that components share: artifacts, signatures, errors, interrupts and progress."""
