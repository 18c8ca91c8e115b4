#!/usr/bin/env python3
"""What scikit-learn predicts of the inputs in this folder, fold by fold: predictivity.json.

    python -P make_predictivity.py         (numpy, safetensors, scikit-learn 1.9.1; writes beside this script; -P
                                            keeps select.py from standing in for a module of that name)

Row i is tested in fold i % 5. Scores are one a target unit, averaged over folds, null for a unit that never varies.
"""
import json, os, warnings
import numpy as np
from safetensors.numpy import load_file
from sklearn.cross_decomposition import PLSRegression
from sklearn.linear_model import RidgeCV

warnings.filterwarnings("ignore")
HERE = os.path.dirname(os.path.abspath(__file__))
FOLDS = 5


def pls(x, y, components):
    # A tolerance far below the default, whose weights have three digits.
    return PLSRegression(n_components=components, scale=False, tol=1e-28, max_iter=1_000_000).fit(x, y)


def ridge(x, y):
    s = np.linalg.svd(x - x.mean(0), compute_uv=False)
    s = s[s > 1e-6 * s[0]]
    return RidgeCV(alphas=np.mean(s**2) * 10.0 ** np.arange(-6, 7)).fit(x, y)


def scores(case, fit):
    data = load_file(os.path.join(HERE, case + ".safetensors"))
    x, y = (data[k].astype(np.float64) for k in "XY")
    fold, r2, pearson = np.arange(len(x)) % FOLDS, [], []
    for k in range(FOLDS):
        p, t = fit(x[fold != k], y[fold != k]).predict(x[fold == k]), y[fold == k]
        with np.errstate(all="ignore"):
            r2.append(1 - ((t - p) ** 2).sum(0) / ((t - t.mean(0)) ** 2).sum(0))
            pc, tc = p - p.mean(0), t - t.mean(0)
            pearson.append((pc * tc).sum(0) / np.sqrt((pc**2).sum(0) * (tc**2).sum(0)))
    listed = lambda v: [float(u) if np.isfinite(u) else None for u in np.mean(v, 0)]
    return {"r2": listed(r2), "pearson": listed(pearson)}


records = [
    {"case": case, "components": c, **scores(case, lambda x, y: pls(x, y, c))}
    for case, c in [("main", 1), ("main", 5), ("main", 25), ("indep", 3), ("rank", 4), ("const", 10), ("wide", 8), ("dup", 25)]
] + [{"case": case, "components": None, **scores(case, ridge)} for case in ("main", "indep", "rank", "const", "wide")]
with open(os.path.join(HERE, "predictivity.json"), "w") as f:
    f.write("[\n" + ",\n".join(json.dumps(r) for r in records) + "\n]\n")
