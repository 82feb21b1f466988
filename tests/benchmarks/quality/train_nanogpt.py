"""The peer of tinyshakespeare.toml: a GPT of the same size and budget in torch, with nanoGPT's recipe for CPUs.

    .peers/bin/python tests/benchmarks/quality/train_nanogpt.py --data ../shared/data

Karpathy's recipe: pre-norm decoder without biases, learned positions, tied embeddings; AdamW (1e-3, beta_2 0.99, weight
decay 0.1), 100 steps of warm-up, cosine decay to a tenth, clipping at 1; every 250 steps 20 batches of each split are
evaluated. Prints one JSON line: the loss over the whole validation split, and the seconds including the evaluations.
"""

import argparse
import gzip
import json
import math
import pathlib
import time

import torch
from torch import nn
from torch.nn import functional

CONTEXT, BATCH, STEPS, WIDTH, HEADS, LAYERS = 64, 12, 2000, 128, 4, 4
TRAIN_CHARACTERS = 1_003_854


class Block(nn.Module):
    """Causal self-attention and feed-forward, each after a norm and around a residual connection."""

    def __init__(self):
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(WIDTH, bias=False), nn.LayerNorm(WIDTH, bias=False)
        self.projections, self.output = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.inner, self.outer = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float [B, T, D] -> [B, T, D]."""
        projected = self.projections(self.norm_1(x)).chunk(3, -1)  # three of [B, T, D]
        heads = [part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in projected]  # [B, H, T, D / H]
        attended = functional.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.output(attended.transpose(1, 2).flatten(-2))
        return x + self.outer(functional.gelu(self.inner(self.norm_2(x))))


class GPT(nn.Module):
    """Embeddings, blocks, a norm, and the tied output projection."""

    def __init__(self, vocab_size: int):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab_size, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks, self.norm = nn.Sequential(*(Block() for _ in range(LAYERS))), nn.LayerNorm(WIDTH, bias=False)
        for name, weight in self.named_parameters():
            if weight.dim() > 1:
                last = name.endswith(("output.weight", "outer.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * LAYERS) if last else 0.02)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Int [B, T] -> logits, float [B, T, V]."""
        x = self.blocks(self.tokens(ids) + self.positions.weight[: ids.shape[1]])
        return self.norm(x) @ self.tokens.weight.T


def batch(ids: torch.Tensor, starts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns inputs and labels, int [B, CONTEXT]: rows that begin at `starts`, and the same shifted by one."""
    rows = torch.stack([ids[start : start + CONTEXT + 1] for start in starts.tolist()])
    return rows[:, :-1], rows[:, 1:]


def loss(model: GPT, rows: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Returns the mean cross-entropy in nats per character."""
    return functional.cross_entropy(model(rows[0]).flatten(0, 1), rows[1].flatten())


def draw(ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns a batch of rows from random positions of the text."""
    return batch(ids, torch.randint(len(ids) - CONTEXT, (BATCH,)))


def train(model: GPT, splits: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Takes STEPS steps, with the evaluations of nanoGPT, whose results are not used."""
    matrices = [weight for weight in model.parameters() if weight.dim() > 1]
    vectors = [weight for weight in model.parameters() if weight.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99))
    for step in range(STEPS):
        if step % 250 == 0:
            with torch.no_grad():
                for ids in splits:
                    [loss(model, draw(ids)) for _ in range(20)]
        cosine = 0.5 * (1 + math.cos(math.pi * (step - 100) / (STEPS - 100)))
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * step / 100 if step < 100 else 1e-4 + cosine * 9e-4
        loss(model, draw(splits[0])).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def main() -> None:
    """Trains one model and prints its loss."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    text = gzip.decompress((arguments.data / "tinyshakespeare/input.txt.gz").read_bytes()).decode()
    number = {character: i for i, character in enumerate(sorted(set(text)))}
    ids = torch.tensor([number[character] for character in text])
    splits = ids[:TRAIN_CHARACTERS], ids[TRAIN_CHARACTERS:]
    model = GPT(len(number))
    start = time.monotonic()
    train(model, splits)
    seconds = time.monotonic() - start
    with torch.no_grad():
        rows = batch(splits[1], torch.arange(0, len(splits[1]) - CONTEXT, CONTEXT))
        value = loss(model, rows).item()
    print(json.dumps({"validation_loss": value, "seconds": seconds, "seed": arguments.seed}))


if __name__ == "__main__":
    main()
