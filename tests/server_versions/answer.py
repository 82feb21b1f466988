"""Answers the warm-up requests of SavedModels on the C++ runtime of the TensorFlow that is installed.

It runs in an environment of its own, which has neither Python TensorFlow in the process nor the packages of the tests:

    python answer.py REQUESTS ANSWERS

REQUESTS: a pickle of folder of a SavedModel -> list of (signature, input name -> nested list).
ANSWERS: a pickle of folder -> list of (output name -> nested list), or the error message of a model that fails.
"""

import pickle
import sys

from seq2serve.models.runtime.runtime import SavedModelRuntime, TensorFlowError


def answers(folder: str, requests: list) -> list | str:
    """Returns the answers of one model, or the error message."""
    try:
        with SavedModelRuntime(folder) as runtime:
            outputs = [runtime.run(signature, inputs) for signature, inputs in requests]
    except (ValueError, TensorFlowError) as error:
        return str(error)
    return [{name: array.tolist() for name, array in answer.items()} for answer in outputs]


if __name__ == "__main__":
    with open(sys.argv[1], "rb") as file:
        models = pickle.load(file)
    with open(sys.argv[2], "wb") as file:
        pickle.dump({folder: answers(folder, requests) for folder, requests in models.items()}, file)
