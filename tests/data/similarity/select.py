#!/usr/bin/env python3
"""Cut the test data of this folder out of the full set of golden values.

    python make_goldens.py --out FULL      (numpy, scipy, scikit-learn, safetensors; see its head)
    python select.py FULL                  (standard library only; writes beside this script)

Keeps the records of the metrics that the crate has, and of each input file the two f32 tensors:
every input is f32-exact, so the f64 tests widen them.
"""
import json, os, struct, sys

HERE = os.path.dirname(os.path.abspath(__file__))
FULL = sys.argv[1]
CASES = ("main", "rot", "indep", "rank", "wide", "const", "dup")
WANTED = {
    "cka_linear": lambda p: {"biased": "linear_cka[biased]", "debiased": "linear_cka[unbiased]"}[p["estimator"]],
    "rsa": lambda p: "rsa[rdm=correlation,by=spearman]" if (p["rdm"], p["compare"]) == ("correlation", "spearman") else None,
    "svcca": lambda p: f"svcca[variance={p['variance']}]" if p["mean"] == "plain" else None,
    # With all of the variance kept, SVCCA is the mean of the canonical correlations.
    "cca_mean": lambda p: "svcca[variance=1]" if p["over"] == "min(rank)" else None,
    "mutual_knn": lambda p: f"mutual_knn[k={p['k']},by={p['metric'].removesuffix('_product')}]",
}


def copy_f32(case):
    with open(os.path.join(FULL, case + ".safetensors"), "rb") as f:
        size, = struct.unpack("<Q", f.read(8))
        head = json.loads(f.read(size))
        body = f.read()
    out, data = {}, b""
    for name in ("X", "Y"):
        t = head[name + "_f32"]
        part = body[t["data_offsets"][0]:t["data_offsets"][1]]
        out[name] = {"dtype": "F32", "shape": t["shape"], "data_offsets": [len(data), len(data) + len(part)]}
        data += part
    text = json.dumps(out, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(HERE, case + ".safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def main():
    with open(os.path.join(FULL, "goldens.json")) as f:
        full = json.load(f)
    records = []
    for g in full["goldens"]:
        name = WANTED[g["metric"]](g["params"]) if g["metric"] in WANTED and g["case"] in CASES else None
        if name:
            records.append({"case": g["case"], "metric": name, "value": g["value"], "atol_f32": g["suggest_atol_f32"]})
    with open(os.path.join(HERE, "goldens.json"), "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(r) for r in records) + "\n]\n")
    for case in CASES:
        copy_f32(case)
    print(len(records), "records")


main()
