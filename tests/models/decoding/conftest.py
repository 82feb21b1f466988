"""Runs the graphs of decoding without TensorFlow's graph optimiser, which takes longer than the searches themselves.

The exported graphs of ../export are compared with Python after optimisation, in the C++ runtime.
"""

import pytest


@pytest.fixture(scope="module", autouse=True)
def without_graph_optimiser():
    """Disables the graph optimiser for a module."""
    import tensorflow as tf

    before = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options({**before, "disable_meta_optimizer": True})
    yield
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False, **before})
