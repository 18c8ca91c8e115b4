#!/usr/bin/env python3
"""Keep the part of ref_minilm_l6_v2.safetensors that the tests read. Standard library only.

usage: trim_minilm.py FULL.safetensors OUT.safetensors
FULL is what make_ref_minilm_l6_v2.py writes. Left out: q, k, v and attn_ctx of layers 1, 2 and 4, and the
MLP of layer 5. Tensors and metadata that stay are copied byte for byte.
"""

import json
import re
import struct
import sys

LEFT_OUT = re.compile(r"layer[124]\.(q|k|v|attn_ctx)|layer5\.mlp_(pre|act)")


def main(full, out):
    with open(full, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header, data = json.loads(file.read(length)), file.read()
    kept, parts, offset = {"__metadata__": header.pop("__metadata__")}, [], 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        if LEFT_OUT.fullmatch(name):
            continue
        start, end = entry["data_offsets"]
        kept[name] = entry | {"data_offsets": [offset, offset + end - start]}
        parts.append(data[start:end])
        offset += end - start
    head = json.dumps(kept, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with open(out, "wb") as file:
        file.write(struct.pack("<Q", len(head)) + head + b"".join(parts))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
