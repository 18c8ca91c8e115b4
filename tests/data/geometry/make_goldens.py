"""Golden values of the geometry room, from scikit-learn: writes goldens.json beside itself.

    python -m venv env && env/bin/pip install scikit-learn==1.9.1 && env/bin/python make_goldens.py
"""

import json
from pathlib import Path

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import adjusted_mutual_info_score, mutual_info_score, silhouette_score

rng = np.random.default_rng(0)


def labels(n, k):
    return rng.integers(0, k, n)


def noisy(a, share, k):
    b = a.copy()
    moved = rng.random(len(a)) < share
    b[moved] = rng.integers(0, k, moved.sum())
    return b


def information(a, b):
    return {
        "a": a.tolist(),
        "b": b.tolist(),
        "mutual": mutual_info_score(a, b),
        "adjusted": adjusted_mutual_info_score(a, b),
    }


a = labels(60, 4)
pairs = [
    information(a, noisy(a, 0.3, 4)),
    information(a, labels(60, 7)),
    information(a, a // 2),
    information(np.arange(20), labels(20, 3)),
    information(np.zeros(20, int), labels(20, 3)),
]

classes = np.sort(labels(90, 3))
points = np.round(rng.normal(size=(90, 5)) + np.eye(5)[classes] * 1.5, 3)
points[:, 4] = np.round(points[:, 4] * 6, 3)
lda = LinearDiscriminantAnalysis(solver="eigen").fit(points, classes)
projected = lda.transform(points)

goldens = {
    "information": pairs,
    "points": points.tolist(),
    "classes": classes.tolist(),
    "silhouette": silhouette_score(points, classes),
    "silhouette_after_lda": silhouette_score(projected, classes),
    "scatter_after_lda": np.sort(projected.var(axis=0))[::-1].tolist(),
}
out = Path(__file__).with_name("goldens.json")
out.write_text(json.dumps(goldens) + "\n")
