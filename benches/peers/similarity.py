#!/usr/bin/env python3
"""The metrics of `benches/similarity.rs` as the public Python tools compute them, on data of the same kind.

usage: similarity.py [--n 5000] [--d 1024] [--turns 3] [WORD...]
       (needs: pip install numpy scipy scikit-learn torch; words pick lines by their name)

Each function takes the steps of the tool named beside it, with that tool's library calls and precision; none is
slowed down. Prints a line each: least and median wall time over the turns, and the value.
`similarity.txt` beside this file is what the last run printed.
"""
import argparse
import statistics
import time

import numpy as np
import scipy.linalg
import scipy.stats
import sklearn.metrics
import sklearn.neighbors
import torch


def layer(n, d, seed):
    """Rows with a decaying spectrum: 32 latent directions and noise."""
    rng = np.random.default_rng(seed)
    latent = rng.uniform(-1, 1, (n, 32))
    mix = rng.uniform(-1, 1, (32, d)) / np.sqrt(1 + np.arange(32))[:, None]
    return (latent @ mix + rng.uniform(-0.5, 0.5, (n, d))).astype(np.float32)


# ---- linear CKA

def feature_cka(x, y):
    """google-research/representation_similarity, feature form, in the precision of its input."""
    x, y = x - x.mean(0), y - y.mean(0)
    return np.linalg.norm(x.T @ y) ** 2 / np.linalg.norm(x.T @ x) / np.linalg.norm(y.T @ y)


def feature_cka_torch(x, y):
    """ReSi, torch, float32, feature form."""
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    x, y = x - x.mean(0), y - y.mean(0)
    return ((x.T @ y).norm() ** 2 / (x.T @ x).norm() / (y.T @ y).norm()).item()


# ---- RBF CKA

def rbf_cka(x, y):
    """google-research/representation_similarity: gram_rbf with threshold 1, then cka."""
    def gram(x):
        dots = x @ x.T
        squares = np.diag(dots)
        distances = squares[:, None] - 2 * dots + squares[None]
        return np.exp(-distances / (2 * np.median(distances)))

    def centre(k):
        means = k.mean(0)
        means -= means.mean() / 2
        return k - means[:, None] - means[None]

    k, l = centre(gram(x)), centre(gram(y))
    return k.ravel() @ l.ravel() / np.linalg.norm(k) / np.linalg.norm(l)


# ---- RSA

def rsa(x, y):
    """thingsvision: correlation RDMs by np.corrcoef, upper triangles, scipy's Spearman; float32."""
    upper = np.triu_indices(len(x), 1)
    rdm = lambda z: np.float32(1) - np.corrcoef(z, dtype=np.float32)
    return scipy.stats.spearmanr(rdm(x)[upper], rdm(y)[upper])[0]


# ---- neighbours

def mutual_knn(x, y, k=10):
    """platonic-rep: float32, argsort of the whole product."""
    def neighbours(z):
        z = torch.nn.functional.normalize(torch.from_numpy(z), dim=-1)
        return (z @ z.T).fill_diagonal_(-1e8).argsort(dim=1, descending=True)[:, :k]

    a, b = neighbours(x), neighbours(y)
    n = len(a)
    rows = torch.arange(n).unsqueeze(1)
    left, right = torch.zeros(n, n), torch.zeros(n, n)
    left[rows, a] = 1.0
    right[rows, b] = 1.0
    return ((left * right).sum(1) / k).mean().item()


def knn_sets(x, y, k=10):
    """ReSi: scikit-learn's neighbours by cosine, two jobs, then sets."""
    def neighbours(z):
        found = sklearn.neighbors.NearestNeighbors(n_neighbors=k + 1, metric="cosine", n_jobs=2).fit(z)
        return found.kneighbors(z, return_distance=False)[:, 1:]

    pairs = zip(neighbours(x), neighbours(y))
    return float(np.mean([len(set(a) & set(b)) / k for a, b in pairs]))


def cknna(x, y, k=10):
    """platonic-rep: cknna with the unbiased HSIC, float32."""
    def hsic(k, l):
        m = k.shape[0]
        k = k.clone().fill_diagonal_(0)
        l = l.clone().fill_diagonal_(0)
        value = (k * l.T).sum() + k.sum() * l.sum() / ((m - 1) * (m - 2)) - 2 * torch.mm(k, l).sum() / (m - 2)
        return value / (m * (m - 3))

    def gram(z):
        z = torch.nn.functional.normalize(torch.from_numpy(z), dim=-1)
        return z @ z.T

    def mask(k_matrix):
        hat = k_matrix.clone().fill_diagonal_(float("-inf"))
        return torch.zeros_like(hat).scatter_(1, hat.topk(k, dim=1)[1], 1)

    a, b = gram(x), gram(y)
    p, q = mask(a), mask(b)
    value = lambda s, t, m: hsic(m * s, m * t)
    return (value(a, b, p * q) / (torch.sqrt(value(a, a, p * p) * value(b, b, q * q)) + 1e-6)).item()


# ---- subspaces and rotations

def svcca(x, y, share=0.99):
    """SVD of each side, the directions that hold 99 % of the variance, SVD of their product; float64."""
    def directions(z):
        u, s, _ = np.linalg.svd(z - z.mean(0), full_matrices=False)
        return u[:, : np.searchsorted(np.cumsum(s**2) / np.sum(s**2), share) + 1]

    return np.linalg.svd(directions(x).T @ directions(y), compute_uv=False).mean()


def procrustes(x, y):
    """ReSi: orthogonal_procrustes_centered_and_normalized (scipy)."""
    x, y = x - x.mean(0), y - y.mean(0)
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    _, nuclear = scipy.linalg.orthogonal_procrustes(x, y)
    return np.sqrt(2 - 2 * nuclear)


def distance_correlation(x, y):
    """ReSi: scikit-learn's Euclidean distances, double centring; float64."""
    def centred(z):
        d = sklearn.metrics.pairwise_distances(z)
        return d - d.mean(0) - d.mean(1)[:, None] + d.mean()

    a, b = centred(x), centred(y)
    return np.sqrt((a * b).mean() / np.sqrt((a * a).mean() * (b * b).mean()))


def wide(f):
    return lambda x, y: f(x.astype(np.float64), y.astype(np.float64))


LINES = [
    ("linear_cka[biased]", "google-research, float32", feature_cka),
    ("linear_cka[biased]", "ReSi (torch)", feature_cka_torch),
    ("rbf_cka[biased]", "google-research, float64", wide(rbf_cka)),
    ("rbf_cka[biased]", "google-research, float32", rbf_cka),
    ("rsa[rdm=correlation,by=spearman]", "thingsvision, float32", rsa),
    ("mutual_knn[k=10,by=cosine]", "platonic-rep (torch)", mutual_knn),
    ("mutual_knn[k=10,by=cosine]", "ReSi (scikit-learn)", knn_sets),
    ("cknna[unbiased,k=10]", "platonic-rep (torch)", cknna),
    ("svcca[variance=0.99]", "numpy, float64", wide(svcca)),
    ("svcca[variance=0.99]", "numpy, float32", svcca),
    ("procrustes", "ReSi (scipy), float64", wide(procrustes)),
    ("procrustes", "ReSi (scipy), float32", procrustes),
    ("distance_correlation[biased]", "ReSi (scikit-learn), float64", wide(distance_correlation)),
]


def timed(f, turns):
    times = []
    for _ in range(turns):
        start = time.perf_counter()
        value = f()
        times.append(time.perf_counter() - start)
    return min(times), statistics.median(times), value


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--n", type=int, default=5000)
    args.add_argument("--d", type=int, default=1024)
    args.add_argument("--turns", type=int, default=3)
    args.add_argument("words", nargs="*")
    args = args.parse_args()
    print(f"numpy {np.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads, {args.n} x {args.d}")
    x, y = layer(args.n, args.d, 1), layer(args.n, args.d, 2)
    wanted = lambda name: not args.words or any(w in name for w in args.words)
    for name, tool, f in LINES:
        if wanted(name):
            least, median, value = timed(lambda: f(x, y), args.turns)
            print(f"{name:34} {tool:30} {least:7.3f} s {median:7.3f} s   {value:.6f}", flush=True)
    if wanted("twelve_layers"):
        layers = [layer(args.n, args.d, seed) for seed in range(12)]
        table = lambda: [feature_cka_torch(a, b) for i, a in enumerate(layers) for b in layers[: i + 1]][-1]
        least, median, value = timed(table, 1)
        print(f"{'twelve_layers, 78 pairs':34} {'ReSi (torch), pair by pair':30} {least:7.3f} s {median:7.3f} s   {value:.6f}")


main()
