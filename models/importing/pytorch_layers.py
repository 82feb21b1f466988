"""Sources of our weights in the layers of PyTorch, whose matrices are [D_out, D_in]."""

import numpy as np

from seq2serve.models.importing.family import Source


def linear(kernel: str, bias: str, *theirs: str) -> dict[str, Source]:
    """Returns the sources of a projection; several of theirs are side by side in ours.

    Args:
        kernel, bias: names of our weights.
        theirs: names of modules of the class Linear.
    """
    return {
        kernel: Source(tuple(f"{name}.weight" for name in theirs), lambda *matrices: np.concatenate(matrices).T),
        bias: Source(tuple(f"{name}.bias" for name in theirs), lambda *biases: np.concatenate(biases)),
    }


def feed_forward(ours: str, first: str, second: str) -> dict[str, Source]:
    """Returns the sources of our layer FeedForward, from two modules of the class Linear."""
    return {
        **linear(f"{ours}.kernel_1", f"{ours}.bias_1", first),
        **linear(f"{ours}.kernel_2", f"{ours}.bias_2", second),
    }


def norm(ours: str, theirs: str) -> dict[str, Source]:
    """Returns the sources of our layer LayerNormalization, from a module of the class LayerNorm."""
    return {
        f"{ours}.gamma": Source((f"{theirs}.weight",), np.asarray),
        f"{ours}.beta": Source((f"{theirs}.bias",), np.asarray),
    }
