#!/usr/bin/env python3
"""Cut the test data of this folder out of the full set of golden values.

    python make_goldens.py --out FULL      (numpy, scipy, scikit-learn, safetensors; see its head)
    python select.py FULL                  (standard library only; writes beside this script)

Keeps of each record its id, value and f32 tolerance (arrays: the name of the tensor in expected.safetensors), and
of each input file the f32 tensors and the indices: every input is f32-exact, so the f64 tests widen them.
"""
import json, os, shutil, struct, sys

HERE = os.path.dirname(os.path.abspath(__file__))
FULL = sys.argv[1]


def copy_f32(name):
    with open(os.path.join(FULL, name), "rb") as f:
        size, = struct.unpack("<Q", f.read(8))
        head = json.loads(f.read(size))
        body = f.read()
    out, data = {}, b""
    for tensor in sorted(head):
        t = head[tensor]
        part = body[t["data_offsets"][0]:t["data_offsets"][1]]
        if t["dtype"] == "I64":  # small indices
            part = struct.pack(f"<{len(part) // 8}f", *struct.unpack(f"<{len(part) // 8}q", part))
        elif not tensor.endswith("_f32"):
            continue
        out[tensor.removesuffix("_f32")] = {"dtype": "F32", "shape": t["shape"], "data_offsets": [len(data), len(data) + len(part)]}
        data += part
    text = json.dumps(out, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(HERE, name), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def main():
    with open(os.path.join(FULL, "goldens.json")) as f:
        full = json.load(f)
    keep = lambda g: {k: g[k] for k in KEPT if k in g}
    KEPT = ("id", "value", "tensor", "suggest_atol_f32", "ill_conditioned_f32")
    records = [keep(g) for g in full["goldens"]]
    with open(os.path.join(HERE, "goldens.json"), "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(r) for r in records) + "\n]\n")
    for name in sorted(os.listdir(FULL)):
        if name == "expected.safetensors":
            shutil.copy(os.path.join(FULL, name), os.path.join(HERE, name))
        elif name.endswith(".safetensors"):
            copy_f32(name)
    print(len(records), "records")


main()
