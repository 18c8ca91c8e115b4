#!/usr/bin/env python3
"""One training step of a TopK autoencoder in the public Python tools, on the shapes of `benches/sae_step.rs`.

usage: sae_step.py [--device cpu|cuda] [--turns N] [--tools NAME,...] [WORD...]
       (needs: pip install sae-lens eai-sparsify dictionary-learning; words pick shapes as in the Rust bench)

A step is encoder, top-k, decoder, reconstruction loss, backward, the tool's own clipping or projection, Adam.
No latent is dead, so no auxiliary loss runs. f32. Prints a line a tool: median over the turns, activations/s.
`sae_step.txt` beside this file is what the last run printed.
"""
import argparse
import os
import statistics
import time
import warnings

import torch

warnings.filterwarnings("ignore")
os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")  # its kernels need a CUDA device; on one, set it to 0
SHAPES = [(384, 6144, 32, 2048), (768, 12288, 32, 4096), (768, 24576, 64, 4096), (2304, 16384, 64, 2048)]


def rows(d, batch, device):
    """Rows of 4 d sparse sources, one in a hundred active, and some noise."""
    torch.manual_seed(0)
    code = torch.rand(batch, 4 * d)
    code = torch.where(code > 0.99, code, torch.zeros(()))
    return (code @ torch.randn(4 * d, d) / d**0.5 + 0.05 * torch.randn(batch, d)).to(device)


def product(d, f, k, x):
    w = torch.randn(d, f, device=x.device)
    return lambda: x @ w


def sae_lens(d, f, k, x):
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.saes.sae import TrainStepInput

    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=d, d_sae=f, k=k, device=str(x.device)))
    optimizer = torch.optim.Adam(sae.parameters(), lr=3e-4)
    dead = torch.zeros(f, dtype=torch.bool, device=x.device)

    def step():
        given = TrainStepInput(
            sae_in=x, dead_neuron_mask=dead, coefficients={}, n_training_steps=0, is_logging_step=False
        )
        out = sae.training_forward_pass(given)
        out.feature_acts.bool().float().sum(0)
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def dictionary_learning(d, f, k, x):
    from dictionary_learning.trainers.top_k import TopKTrainer

    trainer = TopKTrainer(
        steps=1000, activation_dim=d, dict_size=f, k=k, layer=0, lm_name="", lr=3e-4, warmup_steps=10,
        device=str(x.device), seed=0,
    )
    count = iter(range(1, 1000))
    return lambda: trainer.update(next(count), x)


def sparsify(d, f, k, x):
    from sparsify import SparseCoder, SparseCoderConfig

    sae = SparseCoder(d, SparseCoderConfig(num_latents=f, k=k), device=str(x.device))
    optimizer = torch.optim.Adam(sae.parameters(), lr=3e-4)

    def step():
        sae(x).fvu.backward()
        sae.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        optimizer.zero_grad()
        sae.set_decoder_norm_to_unit_norm()

    return step


def median(step, turns, device):
    def wait():
        if device == "cuda":
            torch.cuda.synchronize()

    times = []
    for turn in range(turns + 2):  # two to warm up
        wait()
        start = time.perf_counter()
        step()
        wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--tools", default="product,sparsify,dictionary_learning,sae_lens")
    parser.add_argument("words", nargs="*")
    given = parser.parse_args()
    print(f"torch {torch.__version__}, {given.device}, {torch.get_num_threads()} threads")
    for d, f, k, batch in SHAPES:
        name = f"{d}, {f}, {k}, {batch}"
        if given.words and not any(word in name for word in given.words):
            continue
        for tool in (globals()[name] for name in given.tools.split(",")):
            try:
                seconds = median(tool(d, f, k, rows(d, batch, given.device)), given.turns, given.device)
                rate = f"{2e-9 * batch * d * f / seconds:8.1f} GFLOP/s" if tool is product else ""
                print(f"{name:>24}  {tool.__name__:>20}  {batch / seconds:>10.0f} act/s  {rate}", flush=True)
            except Exception as error:  # a tool that cannot run a shape is part of the answer
                print(f"{name:>24}  {tool.__name__:>20}  {type(error).__name__}: {error}"[:200], flush=True)


if __name__ == "__main__":
    main()
