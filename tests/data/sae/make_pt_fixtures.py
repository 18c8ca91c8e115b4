#!/usr/bin/env python3
"""Small autoencoders in the files of other tools, made by those tools, and a check of ours in them.

usage: make_pt_fixtures.py make DIR      writes the fixtures: once, they are committed
       make_pt_fixtures.py seeds DIR     writes the fuzz targets' seeds: once, they are committed (fuzz/seeds)
       make_pt_fixtures.py check DIR     loads what Inscape wrote to DIR with the tools themselves

Python 3.10 or later. In an environment of its own:
    pip install torch==2.15.0 numpy safetensors==0.8.0 dictionary_learning==0.1.0

Every fixture is a folder TOOL/NAME with the tool's files and `expected.safetensors`: inputs `x` [16, d], the tool's own
`latents` [16, F] and `reconstruction` [16, d] of them. d = 8, F = 24. Weights are random, every bias away from 0.

Crosscoders and the files of OpenAI's sparse_autoencoder have no package on PyPI: their few equations stand
below as the tools' repositories have them, and the files are written by torch itself.

`check` wants what the test `files_for_the_tools` writes (INSCAPE_TOOL_FILES=DIR): a folder for each fixture with
our file of the same autoencoder and our own `ours.safetensors` (x, latents, reconstruction).
"""

import json
import os
import sys

import numpy as np
import torch
from safetensors.torch import load_file, save_file

D, F, K, N = 8, 24, 3, 16
TOLERANCE = 1e-5


def randomize(module, seed):
    """Every parameter away from 0; threshold and k buffers as they should be."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = 0.4 * torch.randn(parameter.shape, generator=generator)
    return module


def unit(module):
    weight = module.decoder.weight
    weight.data /= weight.data.norm(dim=0, keepdim=True)
    return module


def inputs(width=D):
    return torch.randn(N, width, generator=torch.Generator().manual_seed(99))


def save(folder, state, config, x, latents, reconstruction, file="ae.pt", config_file="config.json"):
    os.makedirs(folder, exist_ok=True)
    torch.save(state, os.path.join(folder, file))
    if config is not None:
        with open(os.path.join(folder, config_file), "w") as out:
            json.dump(config, out, indent=1)
    expected(folder, x, latents, reconstruction)


def expected(folder, x, latents, reconstruction):
    tensors = {"x": x, "latents": latents, "reconstruction": reconstruction}
    tensors = {name: t.detach().float().contiguous().clone() for name, t in tensors.items()}
    save_file(tensors, os.path.join(folder, "expected.safetensors"))


# --- dictionary_learning -----------------------------------------------------------------------------------


def dictionaries():
    """Name, class, module."""
    from dictionary_learning.dictionary import AutoEncoder, AutoEncoderNew, GatedAutoEncoder, JumpReluAutoEncoder
    from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
    from dictionary_learning.trainers.top_k import AutoEncoderTopK

    yield "standard", unit(randomize(AutoEncoder(D, F), 1))
    yield "standard_long", randomize(AutoEncoder(D, F), 2)  # the tool's loader makes its decoder unit length
    yield "april", randomize(AutoEncoderNew(D, F), 3)
    yield "gated", randomize(GatedAutoEncoder(D, F), 4)
    jump = randomize(JumpReluAutoEncoder(D, F), 5)
    jump.threshold.data = jump.threshold.data.abs()
    jump.threshold.data[0] = -0.3  # trained below 0: no threshold, behind its ReLU
    yield "jumprelu", jump
    yield "topk", unit(randomize(AutoEncoderTopK(D, F, K), 6))
    batch = unit(randomize(BatchTopKSAE(D, F, K), 7))
    batch.threshold.fill_(0.35)
    yield "batchtopk", batch
    yield "batchtopk_young", unit(randomize(BatchTopKSAE(D, F, K), 8))  # threshold still -1
    matryoshka = randomize(MatryoshkaBatchTopKSAE(D, F, K, [6, 6, 12]), 9)
    matryoshka.threshold.fill_(0.25)
    yield "matryoshka", matryoshka


def config(module):
    trainer = {
        "trainer_class": "SomeTrainer", "dict_class": type(module).__name__, "lr": 1e-3, "steps": 10, "seed": 0,
        "activation_dim": D, "dict_size": F, "device": "cpu", "layer": 3, "lm_name": "EleutherAI/pythia-70m-deduped",
        "wandb_name": "x", "submodule_name": "resid_post_layer_3",
    }
    if hasattr(module, "k"):
        trainer["k"] = int(module.k)
    return {"trainer": trainer, "buffer": {"d_submodule": D, "io": "out", "ctx_len": 128}}


def make_dictionaries(root):
    from dictionary_learning.utils import load_dictionary

    x = inputs()
    for name, module in dictionaries():
        folder = os.path.join(root, "dictionary_learning", name)
        save(folder, module.state_dict(), config(module), x, x, x)
        loaded, _ = load_dictionary(folder, "cpu")
        latents = loaded.encode(x)
        expected(folder, x, latents, loaded.decode(latents))
    backup(os.path.join(root, "dictionary_learning", "backup"), x)


def backup(folder, x):
    """The state of a run that is not over, with activations divided by 2.5."""
    module = dict(dictionaries())["topk"]
    optimizer = torch.optim.Adam(module.parameters())
    module(x).square().sum().backward()
    optimizer.step()
    unit(module)
    state = {
        "step": 7, "ae": module.state_dict(), "optimizer": optimizer.state_dict(),
        "config": config(module)["trainer"], "norm_factor": 2.5,
    }
    latents = 2.5 * module.encode(x / 2.5)
    save(folder, state, None, x, latents, 2.5 * module.decode(latents / 2.5))


# --- OpenAI's sparse_autoencoder ---------------------------------------------------------------------------


def openai(seed):
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: 0.4 * torch.randn(*shape, generator=g)
    return {
        "pre_bias": draw(D), "latent_bias": draw(F), "stats_last_nonzero": torch.arange(F),
        "latents_activation_frequency": torch.zeros(F, dtype=torch.int64), "latents_mean_square": torch.zeros(F),
        "encoder.weight": draw(F, D), "decoder.weight": draw(D, F),
    }


def openai_outputs(state, x):
    """encode and decode of its model.py."""
    mu = std = None
    k = state.get("activation_state_dict", {}).get("k")
    rows = x
    if state["activation"] == "TopK":
        mu = x.mean(dim=-1, keepdim=True)
        rows = x - mu
        std = rows.std(dim=-1, keepdim=True)
        rows = rows / (std + 1e-5)
    z = torch.nn.functional.linear(rows - state["pre_bias"], state["encoder.weight"], state["latent_bias"])
    if k is None:
        latents = torch.relu(z)
    else:
        values, places = z.topk(k, dim=-1)
        latents = torch.zeros_like(z).scatter_(-1, places, torch.relu(values))
    out = latents @ state["decoder.weight"].T + state["pre_bias"]
    return latents, out if mu is None else out * std + mu


def make_openai(root):
    x = inputs()
    relu = {**openai(20), "activation": "ReLU", "activation_state_dict": {}}
    topk = {**openai(21), "activation": "TopK", "activation_state_dict": {"k": K, "postact_fn": "ReLU"}}
    for name, state in [("relu", relu), ("topk", topk)]:
        save(os.path.join(root, "openai", name), state, None, x, *openai_outputs(state, x), file="autoencoder.pt")


# --- Crosscoders and Gemma Scope ---------------------------------------------------------------------------


def crosscoder_outputs(state, x):
    """encode and decode of its crosscoder.py; x [n, 2, d]."""
    latents = torch.relu(torch.einsum("bnd,ndh->bh", x, state["W_enc"]) + state["b_enc"])
    return latents, torch.einsum("bh,hnd->bnd", latents, state["W_dec"]) + state["b_dec"]


def make_crosscoder(root):
    g = torch.Generator().manual_seed(30)
    draw = lambda *shape: 0.4 * torch.randn(*shape, generator=g)
    module = torch.nn.Module()
    for name, shape in [("W_enc", (2, D, F)), ("W_dec", (F, 2, D)), ("b_enc", (F,)), ("b_dec", (2, D))]:
        module.register_parameter(name, torch.nn.Parameter(draw(*shape)))
    x = inputs(2 * D)
    latents, out = crosscoder_outputs(module.state_dict(), x.reshape(N, 2, D))
    config = {"d_in": D, "dict_size": F, "model_name": "gemma-2-2b", "hook_point": "blocks.14.hook_resid_pre"}
    folder = os.path.join(root, "crosscoder", "two_models")
    save(folder, module.state_dict(), config, x, latents, out.reshape(N, 2 * D), "cc_weights.pt", "cfg.json")


def gemma_outputs(p, x):
    p = {name: torch.from_numpy(np.asarray(p[name])).float() for name in p}
    z = x @ p["W_enc"] + p["b_enc"]
    latents = torch.relu(z) * (z > p["threshold"])
    return latents, latents @ p["W_dec"] + p["b_dec"]


def make_gemma(root):
    draw = np.random.default_rng(40)
    normal = lambda *shape: (0.4 * draw.standard_normal(shape)).astype(np.float32)
    p = {"W_enc": normal(D, F), "W_dec": normal(F, D), "b_enc": normal(F), "b_dec": normal(D),
         "threshold": np.abs(normal(F))}
    x = inputs()
    odd = {"W_enc": np.asfortranarray(p["W_enc"]), "W_dec": p["W_dec"].astype(np.float16),
           "b_enc": p["b_enc"].astype(np.float64), "b_dec": p["b_dec"], "threshold": p["threshold"]}
    for name, arrays, save_npz in [("stored", p, np.savez), ("deflated", odd, np.savez_compressed)]:
        folder = os.path.join(root, "gemma_scope", name)
        os.makedirs(folder, exist_ok=True)
        save_npz(os.path.join(folder, "params.npz"), **arrays)
        expected(folder, x, *gemma_outputs(arrays, x))


def make_types(root):
    """One tensor of every number type, views of a shared storage, a transposed one, a scalar, an empty one."""
    base = torch.arange(12, dtype=torch.float32)
    state = {
        "f32": base / 4, "f16": (base / 4).half(), "bf16": (base / 4).bfloat16(), "f64": (base / 4).double(),
        "i64": base.long() - 3, "i32": base.int() - 3, "i16": base.short() - 3, "i8": base.char() - 3,
        "u8": base.byte(), "bool": base > 5, "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4),
        "matrix": base.reshape(3, 4), "transposed": base.reshape(3, 4).T, "slice": base.reshape(3, 4)[1:, ::2],
        "parameter": torch.nn.Parameter(base),
    }
    os.makedirs(os.path.join(root, "pt"), exist_ok=True)
    torch.save(state, os.path.join(root, "pt", "types.pt"))
    values = {name: t.detach().float().contiguous().clone() for name, t in state.items()}
    save_file(values, os.path.join(root, "pt", "expected.safetensors"))


def make(root):
    make_dictionaries(root)
    make_openai(root)
    make_crosscoder(root)
    make_gemma(root)
    make_types(root)


# --- Seeds for fuzzing -------------------------------------------------------------------------------------


def seeds(root):
    """Files with as little in them as the formats allow: d = 2, F = 3."""
    import zipfile

    from dictionary_learning.dictionary import AutoEncoder, GatedAutoEncoder, JumpReluAutoEncoder
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE

    for target in ("pickle", "pt", "npz", "folder"):
        os.makedirs(os.path.join(root, target), exist_ok=True)
    place = lambda target, name: os.path.join(root, target, name)
    modules = [AutoEncoder(2, 3), GatedAutoEncoder(2, 3), JumpReluAutoEncoder(2, 3),
               MatryoshkaBatchTopKSAE(2, 3, 1, [1, 2])]
    for seed, module in enumerate(modules):
        name = type(module).__name__.lower()
        torch.save(randomize(module, seed).state_dict(), place("pt", name + ".pt"))
        with zipfile.ZipFile(place("pt", name + ".pt")) as file, open(place("pickle", name), "wb") as out:
            out.write(file.read(name + "/data.pkl"))
    state = {"step": 1, "ae": modules[0].state_dict(), "config": {"layer": 3, "lr": 0.1}, "norm_factor": 2.0}
    torch.save(state, place("pt", "running.pt"))
    sizes = {"W_enc": (2, 2, 3), "W_dec": (3, 2, 2), "b_enc": (3,), "b_dec": (2, 2)}
    torch.save({name: torch.ones(size) for name, size in sizes.items()}, place("pt", "crosscoder.pt"))
    small = {name: np.ones(size, np.float32) for name, size in
             {"W_enc": (2, 3), "W_dec": (3, 2), "b_enc": 3, "b_dec": 2, "threshold": 3}.items()}
    np.savez(place("npz", "stored.npz"), **small)
    np.savez_compressed(place("npz", "deflated.npz"), **small)
    config = {"architecture": "topk", "d_in": 2, "d_sae": 3, "k": 1, "dtype": "float32", "apply_b_dec_to_input": True,
              "normalize_activations": "none", "metadata": {"sae_lens_version": "6.0.0"}}
    from safetensors.torch import save as to_bytes

    weights = to_bytes({name: torch.from_numpy(a.copy()) for name, a in small.items() if name != "threshold"})
    with open(place("folder", "topk"), "wb") as out:
        out.write(json.dumps(config).encode() + b"\0" + weights)


# --- What Inscape writes -----------------------------------------------------------------------------------


def theirs(folder, x):
    """Latents and reconstruction by the tool that the folder's files are for."""
    tool = os.path.basename(os.path.dirname(folder))
    if tool == "dictionary_learning":
        from dictionary_learning.utils import load_dictionary

        torch.load(os.path.join(folder, "ae.pt"), weights_only=True)
        module, _ = load_dictionary(folder, "cpu")
        latents = module.encode(x)
        return latents, module.decode(latents)
    if tool == "openai":
        return openai_outputs(torch.load(os.path.join(folder, "autoencoder.pt"), weights_only=True), x)
    if tool == "crosscoder":
        state = torch.load(os.path.join(folder, "cc_weights.pt"), weights_only=True)
        latents, out = crosscoder_outputs(state, x.reshape(len(x), 2, -1))
        return latents, out.reshape(len(x), -1)
    return gemma_outputs(np.load(os.path.join(folder, "params.npz")), x)


def check(root):
    worst = 0.0
    names = sorted(os.path.join(tool, name) for tool in os.listdir(root) for name in os.listdir(os.path.join(root, tool)))
    for name in names:
        folder = os.path.join(root, name)
        ours = load_file(os.path.join(folder, "ours.safetensors"))
        latents, out = theirs(folder, ours["x"])
        pairs = [(latents, ours["latents"]), (out, ours["reconstruction"])]
        differences = [(a - b).abs().max().item() for a, b in pairs]
        print(f"{name:36} latents {differences[0]:.1e}  reconstruction {differences[1]:.1e}")
        worst = max(worst, *differences)
    print(f"{len(names)} files, largest difference {worst:.1e}")
    if not names or not worst <= TOLERANCE:
        sys.exit("too far apart")


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("make", "seeds", "check"):
        sys.exit(__doc__)
    with torch.no_grad() if sys.argv[1] == "check" else torch.enable_grad():
        {"make": make, "seeds": seeds, "check": check}[sys.argv[1]](sys.argv[2])
