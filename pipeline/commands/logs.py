"""Sets how much the libraries log, in this process and its children; by default they are silent."""

import logging
import os
import warnings

from seq2serve.pipeline.running.quiet import quiet_import

# Keras imports them, where installed, for galleries of images and wrappers of scikit-learn, which no command uses. They
# take three of the eight CPU seconds of importing TensorFlow.
UNUSED_BY_KERAS = ("matplotlib", "sklearn")


def set_up_logs(verbose: bool) -> None:
    """Sets the log levels of the libraries; call it before TensorFlow or Beam is imported.

    Args:
        verbose: True shows the informational messages of Python and TensorFlow. False hides these and all warnings:
            only seq2serve prints, and its errors are exceptions.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0" if verbose else "3")
    os.environ.setdefault("GRPC_VERBOSITY", "INFO" if verbose else "NONE")
    logging.basicConfig(level=logging.INFO if verbose else logging.CRITICAL)
    if not verbose:
        warnings.simplefilter("ignore")
        quiet_import("tensorflow", without=UNUSED_BY_KERAS)
