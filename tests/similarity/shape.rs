//! Procrustes and shape metrics, and what else follows the best rotation: golden values, identities,
//! plain loops, and the cases where digits are lost.

use inscape::similarity::{
    Error, Join, Nearby, Procrustes, Score, Shape, Whitening, align, aligned_cosine,
    frechet_distance, mds, nbs, precision_at_k, procrustes, relative, relative_product,
    shape_distance, stitched,
};

use crate::common::{Golden, Matrix, close, compare, goldens, hold, metric};

const GOLDENS: [(&str, &str); 19] = [
    (
        "procrustes[center=True,normalise=frobenius]",
        "procrustes[distance,centred]",
    ),
    (
        "procrustes_sq[center=True,normalise=frobenius]",
        "procrustes[squared,centred]",
    ),
    (
        "procrustes_angular[center=True]",
        "procrustes[angular,centred]",
    ),
    ("procrustes_disparity", "procrustes[disparity,centred]"),
    (
        "procrustes_sq[center=True,normalise=False]",
        "procrustes[raw,centred]",
    ),
    (
        "procrustes_sq[center=False,normalise=False]",
        "procrustes[raw,uncentred]",
    ),
    ("bures_nbs[center=True,kernel=linear]", "nbs[linear]"),
    (
        "bures_nbs[center=True,kernel=rbf 0.5*sqrt(median_all)]",
        "nbs[rbf,sigma=0.5*median]",
    ),
    ("aligned_cosine[center=False]", "aligned_cosine"),
    ("frechet_distance_sq[cov=n-1]", "frechet"),
    (
        "relative_representation_cosine[anchors=rows 0..16,center=False]",
        "relative[anchors=16,by=cosine]",
    ),
    ("shape_linear[alpha=0.0,score=angular]", "shape[alpha=0]"),
    (
        "shape_linear[alpha=0.0,score=euclidean]",
        "shape[alpha=0,score=euclidean]",
    ),
    (
        "shape_linear[alpha=0.25,score=angular]",
        "shape[alpha=0.25]",
    ),
    (
        "shape_linear[alpha=0.25,score=euclidean]",
        "shape[alpha=0.25,score=euclidean]",
    ),
    ("shape_linear[alpha=0.5,score=angular]", "shape[alpha=0.5]"),
    (
        "shape_linear[alpha=0.5,score=euclidean]",
        "shape[alpha=0.5,score=euclidean]",
    ),
    ("shape_linear[alpha=1.0,score=angular]", "shape[alpha=1]"),
    (
        "shape_linear[alpha=1.0,score=euclidean]",
        "shape[alpha=1,score=euclidean]",
    ),
];

/// 1e-8, but where the value is 0 in exact arithmetic: there the reference keeps half its digits.
fn relative_tolerance(g: &Golden) -> f64 {
    (1e-8 * g.value.abs()).max(if g.value.abs() < 1e-6 { 3e-7 } else { 0.0 })
}

#[test]
fn goldens_hold() {
    let goldens = goldens(&GOLDENS);
    println!("{} golden values", goldens.len());
    hold(&goldens, relative_tolerance);
}
