"""Decodes with an exported SavedModel with random weights, through the C++ runtime; prints one JSON line.

speed.py runs it and the peers, which print lines of the same form. Like the peers, it generates exactly the given
number of tokens, so every program does the same work.
"""

import argparse
import json
import os
import statistics
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf

from seq2serve.models.config import ModelConfig
from seq2serve.models.decoding.beam_search import BeamSearch, LengthLimits
from seq2serve.models.decoding.fold import FoldedDecoder
from seq2serve.models.decoding.loop import generate
from seq2serve.models.runtime.runtime import SavedModelRuntime
from seq2serve.models.transformer.models import Transformer


def export(arguments: argparse.Namespace, directory: str) -> None:
    """Writes a SavedModel: `source` int32 [B, S] -> `ids` int32 [B, N, T]."""
    keras.utils.set_random_seed(1)
    layers, length = arguments.num_layers, arguments.target_length
    config = ModelConfig(layers, layers, arguments.d_model, arguments.num_heads, arguments.dff)
    model = Transformer(config, arguments.vocab)
    model.build()
    search = BeamSearch(arguments.beam, 1, 0.0)
    decoder = FoldedDecoder(model)

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32, name="source")])
    def serve(source):
        lengths = tf.fill([tf.shape(source)[0]], length)  # [B]
        return {"ids": generate(decoder, source, search, LengthLimits(lengths, lengths)).ids}

    module = tf.Module()
    module.weights = [variable.value for variable in (*model.weights, *decoder.weights)]
    tf.saved_model.save(module, directory, signatures={"serving_default": serve})


def parse(description: str) -> argparse.Namespace:
    """Parses sizes from the command line and sets the number of threads, which the runtime reads when it starts.

    The server's options are `--tensorflow_intra_op_parallelism=1 --tensorflow_inter_op_parallelism=THREADS`.
    """
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=formatter)
    sizes = {"num-layers": 4, "d-model": 256, "num-heads": 8, "dff": 1024, "vocab": 8000, "batch": 32, "beam": 1}
    work = {"source-length": 24, "target-length": 24, "repeat": 5, "threads": 1}
    for name, default in {**sizes, **work}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS=str(arguments.threads))
    return arguments


def sources(arguments: argparse.Namespace) -> np.ndarray:
    """Draws random ids, int32 [B, S]."""
    shape = (arguments.batch, arguments.source_length)
    return np.random.default_rng(0).integers(4, arguments.vocab, shape).astype(np.int32)


def main() -> None:
    """Measures and prints the median time of a batch."""
    arguments = parse(__doc__)
    source = sources(arguments)
    with tempfile.TemporaryDirectory() as directory:
        export(arguments, directory)
        runtime, seconds = SavedModelRuntime(directory), []
        runtime.run("serving_default", {"source": source})
        for _ in range(arguments.repeat):
            begin = time.perf_counter()
            ids = runtime.run("serving_default", {"source": source})["ids"]
            seconds.append(time.perf_counter() - begin)
    assert np.all(ids[:, 0, : arguments.target_length] != 0), "fewer tokens were generated than requested"
    rate = arguments.batch * arguments.target_length / statistics.median(seconds)
    print(
        json.dumps(
            {
                "program": "seq2serve",
                "threads": arguments.threads,
                "batch": arguments.batch,
                "beam": arguments.beam,
                "median_ms": round(statistics.median(seconds) * 1e3, 1),
                "target_tokens_per_second": round(rate, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
