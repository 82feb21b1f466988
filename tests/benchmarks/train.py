"""Trains an encoder-decoder for some steps on the same batches as the peer; prints one JSON line.

speed.py runs it and the peer, which prints a line of the same form.
"""

import argparse
import json
import statistics
import time

import keras
import numpy as np
import tensorflow as tf

from seq2serve.models.config import ModelConfig, TrainingConfig
from seq2serve.models.training.loss import MaskedCrossEntropy
from seq2serve.models.training.optimizer import make_optimizer
from seq2serve.models.transformer.models import Transformer


def flops_of_products(config: ModelConfig, vocab: int, source: int, target: int, rows: int) -> float:
    """Counts the floating-point operations of the matrix products of one step: forward once, backward twice."""
    d, dff = config.d_model, config.dff
    encoder = source * (4 * d * d + 2 * d * dff + 2 * source * d)
    decoder = target * (6 * d * d + 2 * d * dff + 2 * target * d + 2 * source * d) + source * 2 * d * d
    products = config.num_encoder_layers * encoder + config.num_decoder_layers * decoder + target * d * vocab
    return 3 * 2 * rows * products


def ceiling() -> float:
    """Measures the rate of one large float32 matrix product, in operations per second."""
    size, seconds = 4096, []
    left = tf.random.normal([size, size])
    for _ in range(5):
        begin = time.perf_counter()
        float(tf.matmul(left, left)[0, 0])
        seconds.append(time.perf_counter() - begin)
    return 2 * size**3 / statistics.median(seconds)


def main() -> None:
    """Measures and prints the rate of training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", required=True, help=".npz with src_0, tgt_0, src_1, ...")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=8)
    arguments = parser.parse_args()
    arrays = np.load(arguments.batches)
    count = sum(name.startswith("src_") for name in arrays.files)
    batches = [tuple(tf.constant(arrays[f"{side}_{i}"], tf.int32) for side in ("src", "tgt")) for i in range(count)]
    keras.utils.set_random_seed(1)
    config, vocab = ModelConfig(4, 4, 256, 8, 1024), 8000
    model = Transformer(config, vocab)
    model.build()
    optimizer = make_optimizer(TrainingConfig(learning_rate=1e-4, average_decay=0, clip_norm=1e9))
    model.compile(optimizer, loss=MaskedCrossEntropy(0.1), jit_compile=False)
    seconds, tokens = [], []
    for i in range(arguments.warmup + arguments.steps):
        source, target = batches[i % count]
        begin = time.perf_counter()
        model.train_on_batch({"source": source, "target": target[:, :-1]}, target[:, 1:])
        seconds.append(time.perf_counter() - begin)
        tokens.append(int(np.count_nonzero(target[:, 1:])))
    seconds, tokens = seconds[arguments.warmup :], tokens[arguments.warmup :]
    work = [flops_of_products(config, vocab, s.shape[1], t.shape[1] - 1, s.shape[0]) for s, t in batches]
    rate = statistics.mean(work) * arguments.steps / sum(seconds)
    print(
        json.dumps(
            {
                "program": "seq2serve",
                "parameters": model.count_params(),
                "target_tokens_per_second": round(sum(tokens) / sum(seconds), 1),
                "gflops": round(rate / 1e9, 1),
                "share_of_ceiling": round(rate / ceiling(), 3),
            }
        )
    )


if __name__ == "__main__":
    main()
