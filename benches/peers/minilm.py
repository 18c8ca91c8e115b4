#!/usr/bin/env python3
"""SAELens's TopK autoencoder on the rows of an inscape store, with SAELens's defaults.

usage: minilm.py STORE HOOK [--tokens 1440000] [--width 3072] [--k 32] [--train-rows 0.9] [--batch 4096] [--seed 0]

Trains with `SAETrainer` on the first rows in a new random order every pass, measures the rest, and prints one line
of JSON: FVU (sum of squared errors over sum of squared deviations from the mean), L0, dead share, seconds.
Needs: pip install sae-lens
"""

import argparse
import json
import pathlib
import time

import torch
from safetensors.torch import load_file
from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.config import SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer


def rows_of(store, hook):
    shards = sorted(pathlib.Path(store).glob("*.safetensors"))
    return torch.cat([load_file(shard)[hook].float() for shard in shards])


def batches(rows, size):
    while True:
        order = torch.randperm(len(rows))
        for start in range(0, len(rows) - size + 1, size):
            yield rows[order[start : start + size]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store")
    parser.add_argument("hook")
    parser.add_argument("--tokens", type=int, default=1_440_000)
    parser.add_argument("--width", type=int, default=3072)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--train-rows", type=float, default=0.9)
    parser.add_argument("--batch", type=int, default=4096, help="SAELens's train_batch_size_tokens")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)

    rows = rows_of(args.store, args.hook)
    cut = int(len(rows) * args.train_rows)
    train, held_out = rows[:cut], rows[cut:]
    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=rows.shape[1], d_sae=args.width, k=args.k, device="cpu"))
    # SAELens's runner sets the end of the rate so; with its constant schedule it is never reached.
    config = SAETrainerConfig(
        total_training_samples=args.tokens, train_batch_size_samples=args.batch, lr_end=3e-5
    )
    start = time.perf_counter()
    SAETrainer(config, sae, batches(train, args.batch)).fit()
    seconds = time.perf_counter() - start

    error = total = active = 0.0
    fired = torch.zeros(args.width, dtype=torch.bool)
    mean = held_out.double().mean(0)
    with torch.no_grad():
        for x in held_out.split(2048):
            latents = sae.encode(x)
            error += (x - sae.decode(latents)).double().square().sum().item()
            total += (x.double() - mean).square().sum().item()
            active += (latents > 0).sum().item()
            fired |= (latents > 0).any(0)
    print(
        json.dumps(
            {
                "tool": "sae_lens",
                "batch": args.batch,
                "fvu": error / total,
                "l0": active / len(held_out),
                "dead_share": 1.0 - fired.float().mean().item(),
                "seconds": seconds,
            }
        )
    )


if __name__ == "__main__":
    main()
