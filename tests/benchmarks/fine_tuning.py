"""Compares the speed of fine-tuning an encoder of MiniLM's size with that of transformers and torch.

    make .peers/installed
    .venv/bin/python tests/benchmarks/fine_tuning.py

Both programs train a classifier on the same batches, alternately (A B A B), torch with its better number of threads.
"""

import argparse
import json
import pathlib
import sys
import time

import numpy as np

HERE = pathlib.Path(__file__).parent
# all-MiniLM-L6-v2; the weights, which have no effect on the speed, are random.
SIZES = {"layers": 6, "width": 384, "heads": 12, "hidden": 1536, "positions": 512, "vocabulary": 30522}
ROWS, LONGEST, SHORTEST, BATCHES = 32, 32, 20, 4  # with both markers; a tenth and a half of the positions is padding
WARMUP, STEPS = 5, 20


def batches() -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns batches of random ids, int32 [B, S], padded with 0, and their labels, int32 [B]."""
    generator, made = np.random.default_rng(0), []
    for _ in range(BATCHES):
        ids = generator.integers(1000, SIZES["vocabulary"], (ROWS, LONGEST)).astype(np.int32)
        lengths = generator.integers(SHORTEST, LONGEST + 1, (ROWS, 1))
        ids = np.where(np.arange(LONGEST) < lengths, ids, 0)
        made.append((ids, generator.integers(0, 2, ROWS).astype(np.int32)))
    return made


def timed(step) -> float:
    """Calls `step(ids, labels)` for every batch, several times, and returns tokens per second, without padding."""
    made, seconds, tokens = batches(), [], []
    for number in range(WARMUP + STEPS):
        ids, labels = made[number % BATCHES]
        begin = time.perf_counter()
        step(ids, labels)
        seconds.append(time.perf_counter() - begin)
        tokens.append(np.count_nonzero(ids))
    return sum(tokens[WARMUP:]) / sum(seconds[WARMUP:])


def ours(_threads: int) -> float:
    """Trains our EncoderClassifier. The first token of each row is the begin marker, which it adds itself."""
    import keras

    from seq2serve.models.config import ModelConfig, TrainingConfig
    from seq2serve.models.training.loss import MaskedCrossEntropy
    from seq2serve.models.training.optimizer import make_optimizer
    from seq2serve.models.transformer.models import EncoderClassifier

    keras.utils.set_random_seed(1)
    config = ModelConfig(
        num_encoder_layers=SIZES["layers"],
        d_model=SIZES["width"],
        num_heads=SIZES["heads"],
        dff=SIZES["hidden"],
        attention_dropout=0.1,
        activation="gelu",
        norm_first=False,
        positions="learned",
        embedding_norm=True,
        scale_embeddings=False,
        max_positions=SIZES["positions"],
        begin_marker=True,
    )
    model = EncoderClassifier(config, SIZES["vocabulary"], 2)
    model.build()
    training = TrainingConfig(steps=500, learning_rate=1e-4, warmup_steps=50, schedule="cosine", average_decay=0.0)
    model.compile(make_optimizer(training), loss=MaskedCrossEntropy(0.0, pad_id=-1), jit_compile=False)
    return timed(lambda ids, labels: model.train_on_batch(ids[:, 1:], labels))


def theirs(threads: int) -> float:
    """Trains BertForSequenceClassification of transformers."""
    import torch
    import transformers

    torch.set_num_threads(threads)
    torch.manual_seed(1)
    config = transformers.BertConfig(
        vocab_size=SIZES["vocabulary"],
        hidden_size=SIZES["width"],
        num_hidden_layers=SIZES["layers"],
        num_attention_heads=SIZES["heads"],
        intermediate_size=SIZES["hidden"],
        max_position_embeddings=SIZES["positions"],
        num_labels=2,
    )
    model = transformers.BertForSequenceClassification(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step(ids: np.ndarray, labels: np.ndarray) -> None:
        inputs = torch.tensor(ids, dtype=torch.long)
        answer = model(inputs, attention_mask=(inputs != 0).long(), labels=torch.tensor(labels, dtype=torch.long))
        answer.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return timed(step)


PROGRAMS = {"ours": ours, "theirs": theirs}


def main() -> None:
    """Runs both programs alternately, or one of them and prints its line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", choices=PROGRAMS, help="run only this program, in this environment")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.program:
        rate = PROGRAMS[arguments.program](arguments.threads)
        print(json.dumps({"program": arguments.program, "target_tokens_per_second": round(rate, 1)}))
        return
    sys.path.insert(0, str(HERE))
    from speed import ROOT, compare

    script, peer = str(HERE / "fine_tuning.py"), str(ROOT / ".peers/bin/python")
    programs = {"seq2serve": [sys.executable, script, "--program=ours"]}
    for threads in (1, 2):
        programs[f"transformers, {threads} threads"] = [peer, script, "--program=theirs", f"--threads={threads}"]
    compare("fine-tuning", programs, arguments.rounds)


if __name__ == "__main__":
    main()
