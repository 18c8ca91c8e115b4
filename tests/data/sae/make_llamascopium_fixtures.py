#!/usr/bin/env python3
"""Small random autoencoders written by Language-Model-SAEs, with its own outputs.

    pip install llamascopium==2.0.0b34
    python make_llamascopium_fixtures.py                 write them: language_model_saes/CASE/
    python make_llamascopium_fixtures.py check DIR       open what Inscape wrote: DIR/language_model_saes/CASE/

As in make_fixtures.py: a case holds the tool's files and `expected.safetensors`, with inputs `x` [16, 8],
`latents` [16, 24] and `out` [16, 8]. The tool takes inputs that it has normalised and gives outputs to undo that on,
which is done here; latents are divided by the scale of the inputs, which is what the tool makes of them when it folds
that scale (but it leaves JumpReLU's thresholds as they were, so that it is not asked to fold those). Where the
largest latents times the decoder's norms are taken, that product is what counts as the latent, which is this
autoencoder with a decoder of unit norm. DIR is written by
the test `sae round_trip::writes_for_the_tools` with INSCAPE_FOREIGN_OUT=DIR.
"""

import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from llamascopium.models.sae import SAEConfig, SparseAutoEncoder

HERE = Path(__file__).parent
TOOL = "language_model_saes"
D, F, N, K = 8, 24, 16, 3
BOUND = 1e-5
RESID, MLP_IN, MLP_OUT = (f"blocks.7.{name}" for name in ["hook_resid_post", "ln2.hook_normalized", "hook_mlp_out"])


def run(path, x):
    sae = SparseAutoEncoder.from_pretrained(str(path))
    read, made = sae.cfg.hook_point_in, sae.cfg.hook_point_out
    with torch.no_grad():
        batch, scales = sae.normalize_activations({read: x, made: x}, return_scale_factor=True)
        latents = sae.encode(batch[read])
        out = sae.decode(latents) / scales[made]
        if sae.cfg.act_fn == "topk" and sae.cfg.sparsity_include_decoder_norm:
            return latents * sae.decoder_norm() / scales[made], out
        return latents / scales[read], out


def make(case, norms=None, fold=False, **settings):
    seed = int.from_bytes(case.encode(), "little") % (2**31 - 1)
    g = torch.Generator().manual_seed(seed)
    path = HERE / TOOL / case
    shutil.rmtree(path, ignore_errors=True)
    settings = {"hook_point_in": RESID, "hook_point_out": RESID} | settings
    config = SAEConfig(d_model=D, expansion_factor=F // D, top_k=K, **settings)
    sae = SparseAutoEncoder(config)
    with torch.no_grad():
        for name, p in sae.named_parameters():
            drawn = torch.randn(p.shape, generator=g)
            if "threshold" in name:
                p.copy_((0.2 + 0.3 * drawn.abs()).log())
            else:
                p.copy_((0.3 if p.ndim == 1 else 0.5) * drawn)
    if norms is not None:
        sae.set_dataset_average_activation_norm(norms)
    sae.save_pretrained(path, fold_activation_scale=fold)
    config.save_hyperparameters(path)
    x = torch.randn(N, D, generator=g)
    latents, out = run(path, x)
    assert (latents != 0).sum() > N, case
    found = {"x": x, "latents": latents, "out": out}
    save_file({k: v.detach().contiguous() for k, v in found.items()}, path / "expected.safetensors")


def check(root):
    worst = 0.0
    cases = sorted(p.parent for p in (root / TOOL).glob("*/expected.safetensors"))
    assert cases, f"no case in {root}"
    for path in cases:
        expected = load_file(path / "expected.safetensors")
        latents, out = run(path, expected["x"])
        off = [(a - b).abs().max().item() for a, b in [(latents, expected["latents"]), (out, expected["out"])]]
        assert expected["latents"].count_nonzero() > 0, path
        worst = max(worst, *off)
        print(f"{path.name:28} latents {off[0]:.1e}  out {off[1]:.1e}")
    print(f"{len(cases)} cases, at most {worst:.1e}")
    if not worst <= BOUND:
        sys.exit(f"more than {BOUND}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["check", root]:
            check(Path(root))
        case []:
            make("jumprelu", norms={RESID: 5.25}, act_fn="jumprelu")
            make("topk_transcoder", norms={MLP_IN: 5.25, MLP_OUT: 3.5}, act_fn="topk", hook_point_in=MLP_IN,
                 hook_point_out=MLP_OUT)
            make("relu_folded", norms={RESID: 5.25}, fold=True, act_fn="relu")
            make("jumprelu_plain", norm_activation="inference", sparsity_include_decoder_norm=False, act_fn="jumprelu")
        case _:
            sys.exit(__doc__)
