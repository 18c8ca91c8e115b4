#!/usr/bin/env python3
"""Small random autoencoders written by other tools, with those tools' own outputs.

    pip install sae-lens==6.54.12 eai-sparsify==1.3.3
    python make_fixtures.py                 write them into this folder: TOOL/CASE/
    python make_fixtures.py check DIR       open what Inscape wrote: DIR/TOOL/CASE/

A case holds the files of the tool and `expected.safetensors`: inputs `x` [16, 8], and what the tool
makes of them, `latents` [16, 24] and `out`. `check` opens every case of DIR with the tool itself,
runs it on `x`, prints the largest differences from `latents` and `out`, and fails where one exceeds
1e-5. DIR is written by the test `sae round_trip::writes_for_the_tools` with INSCAPE_FOREIGN_OUT=DIR.

Gemma Scope 2, Llama Scope and circuit-tracer's transcoders are opened by SAELens's own readers of
these formats, which are given local files in place of downloads.
"""

import json
import math
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")

import torch
from safetensors.torch import load_file, save_file

import sae_lens.loading.pretrained_sae_loaders as loaders
from sae_lens import SAE
from sae_lens.saes import sae as sae_module
import sae_lens.saes as saes
from sparsify import SparseCoder, SparseCoderConfig

HERE = Path(__file__).parent
D, F, N, OUT, K = 8, 24, 16, 6, 3
BOUND = 1e-5


def draws(case):
    """A generator of its own for every case, so that one can be added without changing the others."""
    seed = int.from_bytes(case.encode(), "little") % (2**31 - 1)
    return torch.Generator().manual_seed(seed)


def fill(parameters, g):
    """Every parameter away from 0, thresholds above it."""
    with torch.no_grad():
        for name, p in parameters:
            drawn = torch.randn(p.shape, generator=g)
            if "threshold" in name:
                p.copy_(0.2 + 0.3 * drawn.abs())
            elif p.ndim == 1:
                p.copy_(0.3 * drawn)
            else:
                p.copy_(0.5 * drawn)


def fresh(tool, case):
    path = HERE / tool / case
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def keep(path, x, latents, out):
    assert (latents != 0).any() and latents.shape == (N, F), path
    found = {"x": x, "latents": latents, "out": out}
    found = {k: v.detach().float().contiguous() for k, v in found.items()}
    save_file(found, path / "expected.safetensors")


def inputs(g):
    return torch.randn(N, D, generator=g)


# SAELens --------------------------------------------------------------------------------------------


def run_saelens(path, x):
    sae = SAE.load_from_disk(path, dtype="float32")
    with torch.no_grad():
        return sae.encode(x), sae(x)


def metadata():
    return {"model_name": "gpt2", "hook_name": "blocks.3.hook_resid_pre", "context_size": 128}


def saelens(case, config, dtype="float32", **settings):
    g, path = draws(case), fresh("saelens", case)
    cfg = config(d_in=D, d_sae=F, dtype=dtype, metadata=sae_module.SAEMetadata(**metadata()), **settings)
    sae = SAE.get_sae_class_for_architecture(cfg.architecture())(cfg)
    fill(sae.named_parameters(), g)
    sae.save_model(path)
    x = inputs(g)
    keep(path, x, *run_saelens(path, x))


def saelens_trained(case, sae_class, config, scale=None, **settings):
    """What training leaves: CASE is for use, CASE_checkpoint for going on with training."""
    g = draws(case)
    norm = "none" if scale is None else "expected_average_only_in"
    cfg = config(d_in=D, d_sae=F, k=K, normalize_activations=norm, **settings)
    cfg.metadata = sae_module.SAEMetadata(**metadata())
    sae = sae_class(cfg)
    fill(sae.named_parameters(), g)
    if hasattr(sae, "topk_threshold"):
        sae.topk_threshold = torch.tensor(0.4 + 0.01 * torch.rand(1, generator=g).item(), dtype=torch.double)
    checkpoint = fresh("saelens", case + "_checkpoint")
    sae.save_model(checkpoint)
    if scale is not None:
        (checkpoint / "activation_scaler.json").write_text(json.dumps({"scaling_factor": scale}))
        sae.fold_activation_norm_scaling_factor(scale)
    path = fresh("saelens", case)
    sae.save_inference_model(path)
    x = inputs(g)
    found = run_saelens(path, x)
    keep(path, x, *found)
    keep(checkpoint, x, *found)


def saelens_legacy(case, config, tensors):
    """A directory of before version 6, by hand."""
    g, path = draws(case), fresh("saelens", case)
    shapes = {"W_enc": [D, F], "b_enc": [F], "W_dec": [F, D], "b_dec": [D]}
    weights = {name: torch.empty(shape) for name, shape in shapes.items()}
    fill(weights.items(), g)
    save_file(weights | tensors, path / "sae_weights.safetensors")
    flat = {
        "model_name": "gpt2-small", "hook_point": "blocks.3.hook_resid_pre", "hook_point_layer": 3,
        "hook_point_head_index": None, "dataset_path": "Skylion007/openwebtext", "is_dataset_tokenized": False,
        "context_size": 128, "d_in": D, "d_sae": F, "dtype": "torch.float32", "device": "cpu",
        "l1_coefficient": 8e-05, "lp_norm": 1.0, "prepend_bos": True,
    }
    (path / "cfg.json").write_text(json.dumps(flat | config))
    x = inputs(g)
    keep(path, x, *run_saelens(path, x))


def make_saelens():
    saelens("standard", saes.StandardSAEConfig)
    saelens("standard_raw_input", saes.StandardSAEConfig, apply_b_dec_to_input=False)
    saelens("topk", saes.TopKSAEConfig, k=K)
    saelens("topk_rescaled", saes.TopKSAEConfig, k=K, rescale_acts_by_decoder_norm=True)
    saelens("jumprelu", saes.JumpReLUSAEConfig)
    saelens("jumprelu_bf16", saes.JumpReLUSAEConfig, dtype="bfloat16")
    saelens("gated", saes.GatedSAEConfig)
    saelens("gated_f16", saes.GatedSAEConfig, dtype="float16")
    transcoder = {"d_out": OUT, "apply_b_dec_to_input": False}
    saelens("transcoder", saes.TranscoderConfig, **transcoder)
    saelens("skip_transcoder", saes.SkipTranscoderConfig, **transcoder)
    saelens("jumprelu_transcoder", saes.JumpReLUTranscoderConfig, **transcoder)
    saelens("jumprelu_skip_transcoder", saes.JumpReLUSkipTranscoderConfig, **transcoder)
    saelens_trained("trained_topk", saes.TopKTrainingSAE, saes.TopKTrainingSAEConfig, scale=0.7)
    saelens_trained("batchtopk", saes.BatchTopKTrainingSAE, saes.BatchTopKTrainingSAEConfig)
    saelens_trained("batchtopk_scaled", saes.BatchTopKTrainingSAE, saes.BatchTopKTrainingSAEConfig, scale=1.6)
    saelens_trained("matryoshka", saes.MatryoshkaBatchTopKTrainingSAE, saes.MatryoshkaBatchTopKTrainingSAEConfig,
                    matryoshka_widths=[8, F], rescale_acts_by_decoder_norm=False)
    saelens_legacy("legacy", {"normalize_activations": False}, {"scaling_factor": torch.ones(F)})
    saelens_legacy("legacy_topk", {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K},
                                   "sae_lens_training_version": "3.12.1", "architecture": "standard",
                                   "normalize_activations": "none", "apply_b_dec_to_input": False}, {})


# sparsify -------------------------------------------------------------------------------------------


def run_sparsify(path, x):
    """By its own encoder and decoder: with Multi-TopK its `forward` returns the 4k latents of that loss."""
    coder = SparseCoder.load_from_disk(path)
    with torch.no_grad():
        acts, indices, _ = coder.encode(x)
        out = coder.decode(acts, indices)
        if coder.W_skip is not None:
            out = out + x @ coder.W_skip.mT
        if not coder.cfg.multi_topk:
            torch.testing.assert_close(out, coder(x).sae_out)
    return torch.zeros(N, coder.num_latents).scatter(1, indices, acts), out


def make_sparsify():
    for case, settings in {
        "topk": {"num_latents": F},
        "layers.5": {"expansion_factor": F // D, "multi_topk": True},
        "transcoder": {"num_latents": F, "transcode": True},
        "skip_transcoder": {"num_latents": F, "transcode": True, "skip_connection": True},
        "skip": {"num_latents": F, "skip_connection": True},
    }.items():
        g, path = draws(case), fresh("sparsify", case)
        coder = SparseCoder(D, SparseCoderConfig(k=K, **settings))
        fill(coder.named_parameters(), g)
        coder.save_to_disk(path)
        x = inputs(g)
        keep(path, x, *run_sparsify(path, x))


# Formats that SAELens reads -------------------------------------------------------------------------


def local(path, config=None):
    """SAELens downloads from `path`, and `config` in place of what it is called there."""

    def download(repo_id=None, filename=None, subfolder=None, **_):
        name = Path(filename).name
        if config is not None and name.endswith((".json", ".yaml")) and name != "config.yaml":
            kept.write_text(json.dumps(config))
            return str(kept)
        checkpoints = subfolder is not None and subfolder.endswith("checkpoints")
        return str(path / "checkpoints" / name if checkpoints else path / name)

    def shapes(repo_id, filename):
        return {k: list(v.shape) for k, v in load_file(path / Path(filename).name).items()}

    kept = Path(tempfile.mkdtemp()) / "config.json"
    loaders.hf_hub_download, loaders.get_safetensors_tensor_shapes = download, shapes


def run_loaded(config, weights, x, scale=None):
    config = loaders.handle_config_defaulting(config)
    cfg = sae_module.SAEConfig.from_dict(config)
    sae = SAE.get_sae_class_for_architecture(config["architecture"])(cfg)
    sae.load_state_dict({k: v.float() for k, v in weights.items()})
    sae = sae.to(dtype=torch.float32)
    with torch.no_grad():
        if scale is not None:
            sae.fold_activation_norm_scaling_factor(scale)
        return sae.encode(x), sae(x)


def run_gemma_scope_2(path, x):
    raw = json.loads((path / "config.json").read_text())
    # What SAELens wants to know, and our files need not say.
    raw["model_name"] = raw.get("model_name") or "gemma-3-270m"
    local(path, raw)
    site = "transcoder" if "transcoder" in path.name else "resid_post"
    config, weights, _ = loaders.gemma_3_sae_huggingface_loader("google/gemma-scope-2", f"{site}/layer_7_width_24")
    return run_loaded(config, weights, x)


def make_gemma_scope_2():
    for case, d_out, skip in [("resid", D, False), ("transcoder", OUT, True)]:
        g, path = draws(case), fresh("gemma_scope_2", case)
        shapes = {"w_enc": [D, F], "b_enc": [F], "w_dec": [F, d_out], "b_dec": [d_out], "threshold": [F]}
        if skip:
            shapes["affine_skip_connection"] = [D, d_out]
        weights = {name: torch.empty(shape) for name, shape in shapes.items()}
        fill(weights.items(), g)
        save_file(weights, path / "params.safetensors")
        config = {"architecture": "jump_relu", "model_name": "gemma-v3-270m", "width": F, "l0": 3,
                  "hf_hook_point_in": "model.layers.7.output", "affine_connection": skip}
        if skip:
            config["hf_hook_point_in"] = "model.layers.7.pre_feedforward_layernorm.output"
            config["hf_hook_point_out"] = "model.layers.7.post_feedforward_layernorm.output"
        (path / "config.json").write_text(json.dumps(config))
        x = inputs(g)
        keep(path, x, *run_gemma_scope_2(path, x))


def run_llama_scope(path, x):
    local(path)
    raw = json.loads((path / "hyperparams.json").read_text())
    scale = math.sqrt(raw["d_model"]) / raw["dataset_average_activation_norm"]["in"]
    config, weights, _ = loaders.llama_scope_sae_huggingface_loader("fnlp/Llama3_1-8B", "L7R-8x", cfg_overrides={"dtype": "float32"})
    config["normalize_activations"] = "none"
    latents, out = run_loaded(config, weights, x, scale)
    # SAELens leaves latents in the units of training; the format's own tool in those of activations.
    return latents / scale, out


def make_llama_scope():
    case = "L7R"
    g, path = draws(case), fresh("llama_scope", case)
    shapes = {"encoder.weight": [F, D], "encoder.bias": [F], "decoder.weight": [D, F], "decoder.bias": [D]}
    weights = {name: torch.empty(shape) for name, shape in shapes.items()}
    fill(weights.items(), g)
    # As published. SAELens does not look at the norms.
    weights["decoder.weight"] /= weights["decoder.weight"].norm(dim=0)
    (path / "checkpoints").mkdir()
    save_file(weights, path / "checkpoints" / "final.safetensors")
    config = {"hook_point_in": "blocks.7.hook_resid_post", "hook_point_out": "blocks.7.hook_resid_post",
              "use_decoder_bias": True, "apply_decoder_bias_to_pre_encoder": False, "expansion_factor": 3, "d_model": D,
              "d_sae": F, "act_fn": "jumprelu", "jump_relu_threshold": 0.52734375, "norm_activation": "dataset-wise",
              "dataset_average_activation_norm": {"in": 6.3125, "out": 6.3125}, "sparsity_include_decoder_norm": True,
              "use_glu_encoder": False, "top_k": 3, "dtype": "torch.float32"}
    (path / "hyperparams.json").write_text(json.dumps(config))
    x = inputs(g)
    keep(path, x, *run_llama_scope(path, x))


def run_circuit_tracer(path, x):
    """SAELens reads only ReLU ones without a skip of this format; the others are run by the equations."""
    (file,) = path.glob("layer_*.safetensors")
    weights = load_file(file)
    theta = weights.pop("activation_function.threshold", None)
    skip = weights.pop("W_skip", None)
    topk = "activation: topk" in (path / "config.yaml").read_text()
    if theta is None and skip is None and not topk:
        sizes = {"d_model": D, "d_feature": F, "batch_size": 1}
        local(path, {name: {"value": size} for name, size in sizes.items()})
        config, weights, _ = loaders.mwhanna_transcoder_huggingface_loader("mwhanna/t", file.name)
        return run_loaded(config, weights, x)
    z = torch.nn.functional.linear(x, weights["W_enc"], weights["b_enc"])
    if theta is not None:
        latents = z * (z > theta)
    elif not topk:
        latents = z.relu()
    else:
        values, indices = z.topk(K)
        latents = torch.zeros(N, F).scatter(1, indices, values.relu())
    out = latents @ weights["W_dec"] + weights["b_dec"]
    return latents, out if skip is None else out + x @ skip.T


def make_circuit_tracer():
    for case, more in [("relu", {}), ("jump_relu_skip", {"activation_function.threshold": [F], "W_skip": [D, D]})]:
        g, path = draws(case), fresh("circuit_tracer", case)
        shapes = {"W_enc": [F, D], "b_enc": [F], "W_dec": [F, D], "b_dec": [D]} | more
        weights = {name: torch.empty(shape) for name, shape in shapes.items()}
        fill(weights.items(), g)
        save_file(weights, path / "layer_4.safetensors")
        (path / "config.yaml").write_text(
            'model_name: "Qwen/Qwen3-0.6B"\nfeature_input_hook: mlp.hook_in\nfeature_output_hook: hook_mlp_out\n')
        x = inputs(g)
        keep(path, x, *run_circuit_tracer(path, x))


# --------------------------------------------------------------------------------------------------------

RUN = {
    "saelens": run_saelens,
    "sparsify": run_sparsify,
    "gemma_scope_2": run_gemma_scope_2,
    "llama_scope": run_llama_scope,
    "circuit_tracer": run_circuit_tracer,
}


def check(root):
    worst = 0.0
    cases = sorted(p.parent for p in root.glob("*/*/expected.safetensors") if p.parts[-3] in RUN)
    assert cases, f"no case in {root}"
    for path in cases:
        expected = load_file(path / "expected.safetensors")
        latents, out = RUN[path.parent.name](path, expected["x"])
        off = [(a - b).abs().max().item() for a, b in [(latents, expected["latents"]), (out, expected["out"])]]
        assert expected["latents"].count_nonzero() > 0, path
        worst = max(worst, *off)
        print(f"{path.parent.name:16} {path.name:28} latents {off[0]:.1e}  out {off[1]:.1e}")
    print(f"{len(cases)} cases, at most {worst:.1e}")
    if not worst <= BOUND:
        sys.exit(f"more than {BOUND}")


if __name__ == "__main__":
    torch.manual_seed(0)
    match sys.argv[1:]:
        case ["check", root]:
            check(Path(root))
        case []:
            make_saelens()
            make_sparsify()
            make_gemma_scope_2()
            make_llama_scope()
            make_circuit_tracer()
        case _:
            sys.exit(__doc__)
