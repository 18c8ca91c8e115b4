//! Clusters, how far two clusterings agree, and co-occurrence.

use inscape::geometry::*;

use super::*;

#[test]
fn information_is_scikit_learns() {
    for pair in goldens()["information"].as_array().unwrap() {
        let (a, b) = (labels(&pair["a"]), labels(&pair["b"]));
        let want = |key: &str| pair[key].as_f64().unwrap();
        close(mutual_information(&a, &b), want("mutual"), 1e-12);
        let found = adjusted_mutual_information(&a, &b).unwrap();
        close(found, want("adjusted"), 1e-9);
        close(adjusted_mutual_information(&b, &a).unwrap(), found, 1e-12);
    }
    let error = adjusted_mutual_information(&[1; 5], &[2; 5]).unwrap_err();
    says(error, &["adjusted mutual information is undefined"]);
    close(label_entropy(&[4, 4, 9, 9]), 2f64.ln(), 1e-12);
}

#[test]
fn the_silhouette_is_scikit_learns() {
    let goldens = goldens();
    let points: Vec<Vec<f64>> = goldens["points"]
        .as_array()
        .unwrap()
        .iter()
        .map(numbers)
        .collect();
    let (points, classes) = (matrix(&points), labels(&goldens["classes"]));
    let want = |key: &str| goldens[key].as_f64().unwrap();
    close(
        silhouette(&points, &classes).unwrap(),
        want("silhouette"),
        1e-10,
    );
    let lda = Lda::fit(&points, &classes, 0.0).unwrap();
    let projected = lda.project(&points);
    close(
        silhouette(&projected, &classes).unwrap(),
        want("silhouette_after_lda"),
        1e-8,
    );
    // Its variance along a direction is 1 within the classes and the ratio between them.
    let scatter = numbers(&goldens["scatter_after_lda"]);
    for (ratio, scatter) in lda.ratios.iter().zip(scatter) {
        close(1.0 + ratio, scatter, 1e-8);
    }
    let one = [0; 90];
    says(
        silhouette(&points, &one).unwrap_err(),
        &["the silhouette", "2 clusters", "got 1"],
    );
}

/// Blocks of directions about `kinds` centres, in order.
pub fn blocks(seed: u64, kinds: usize, each: usize, d: usize) -> (Matrix, Vec<usize>) {
    let mut draws = Draws::new(seed);
    let centres: Vec<Vec<f64>> = (0..kinds).map(|_| draws.unit_rows(1, d)).collect();
    let (mut rows, mut of) = (Vec::new(), Vec::new());
    for (kind, centre) in centres.iter().enumerate() {
        for _ in 0..each {
            let noise = draws.unit_rows(1, d);
            let row = centre.iter().zip(noise).map(|(c, v)| 3.0 * (c + 0.4 * v));
            rows.push(row.collect());
            of.push(kind);
        }
    }
    (matrix(&rows), of)
}

#[test]
fn planted_blocks_are_found_by_every_way_to_cluster() {
    let (directions, of) = blocks(1, 5, 12, 40);
    let parts = graph_clusters(&directions, 3, 0.5).unwrap();
    let mut found = vec![usize::MAX; of.len()];
    for (label, part) in parts.iter().enumerate() {
        assert!(part.is_sorted());
        part.iter().for_each(|&i| found[i] = label);
    }
    let affinity = angular_affinity(&directions).unwrap();
    let spectral = spectral_clusters(&affinity, 5, 3).unwrap();
    let means = kmeans(&directions, 5, 3).unwrap();
    for labels in [&found, &spectral, &means.labels] {
        close(adjusted_mutual_information(labels, &of).unwrap(), 1.0, 1e-9);
    }
    assert_eq!(spectral, spectral_clusters(&affinity, 5, 3).unwrap());
    // The inertia is what it says.
    let mut want = 0.0;
    for kind in 0..5 {
        let rows: Vec<usize> = (0..60).filter(|&i| means.labels[i] == kind).collect();
        for j in 0..40 {
            let mean = rows.iter().map(|&i| directions.row(i)[j]).sum::<f64>() / rows.len() as f64;
            let off = rows.iter().map(|&i| (directions.row(i)[j] - mean).powi(2));
            want += off.sum::<f64>();
        }
    }
    close(means.inertia, want, 1e-9);
}

/// More rows than a tile of products, against all pairs.
#[test]
fn the_graph_is_that_of_all_pairs() {
    let mut draws = Draws::new(2);
    let (n, d) = (600, 6);
    let rows: Vec<Vec<f64>> = (0..n).map(|_| draws.unit_rows(1, d)).collect();
    let found = graph_clusters(&matrix(&rows), 1, 0.95).unwrap();
    let cosine =
        |i: usize, j: usize| -> f64 { rows[i].iter().zip(&rows[j]).map(|(a, b)| a * b).sum() };
    let mut label: Vec<usize> = (0..n).collect();
    for i in 0..n {
        let others = (0..n).filter(|&j| j != i);
        let best = others
            .max_by(|&a, &b| cosine(i, a).total_cmp(&cosine(i, b)))
            .unwrap();
        if cosine(i, best) > 0.95 {
            let (from, to) = (label[i], label[best]);
            label
                .iter_mut()
                .filter(|l| **l == from)
                .for_each(|l| *l = to);
        }
    }
    let mut want: Vec<Vec<usize>> = (0..n)
        .map(|kind| (0..n).filter(|&i| label[i] == kind).collect::<Vec<_>>())
        .filter(|part| part.len() > 1)
        .collect();
    assert!(want.len() > 20, "{}", want.len());
    let sizes: Vec<usize> = found.iter().map(Vec::len).collect();
    assert!(sizes.is_sorted_by(|a, b| a >= b));
    let mut found = found;
    found.sort();
    want.sort();
    assert_eq!(found, want);
}

#[test]
fn what_cannot_be_clustered_is_named() {
    let x = matrix(&[vec![1.0, 0.0], vec![0.0, 0.0]]);
    says(graph_clusters(&x, 1, 0.5).unwrap_err(), &["length 0"]);
    says(angular_affinity(&x).unwrap_err(), &["length 0"]);
    says(graph_clusters(&x, 0, 0.5).unwrap_err(), &["neighbours"]);
    says(
        kmeans(&x, 3, 0).unwrap_err(),
        &["k-means", "3 points", "got 2"],
    );
    says(kmeans(&x, 0, 0).unwrap_err(), &["groups"]);
    let negative = matrix(&[vec![1.0, -0.5], vec![-0.5, 1.0]]);
    says(
        spectral_clusters(&negative, 2, 0).unwrap_err(),
        &["affinity = -0.5"],
    );
    let apart = matrix(&[vec![0.0, 0.0], vec![0.0, 1.0]]);
    says(
        spectral_clusters(&apart, 2, 0).unwrap_err(),
        &["no affinity"],
    );
    let error = Matrix::new(vec![1.0, 2.0, 3.0, f64::NAN], 2).unwrap_err();
    says(error, &["row 1, column 1 is NaN"]);
    let coincident = kmeans(&matrix(&vec![vec![1.0]; 5]), 3, 0).unwrap();
    assert_eq!(coincident.inertia, 0.0);
}

#[test]
fn affinities_by_hand() {
    let mut seen = Cooccurrence::new(4);
    // Feature 0 in 4 blocks, 1 in 3, both in 2; 2 never; 3 always; ten blocks.
    for block in [
        &[0, 1, 3][..],
        &[1, 0, 3],
        &[0, 3],
        &[0, 3],
        &[1, 3],
        &[3],
        &[3],
        &[3],
        &[3],
        &[3],
    ] {
        seen.add(block);
    }
    let of = |by| seen.affinity(by).row(0)[1];
    // n11 2, n10 2, n01 1, n00 5.
    close(
        of(Measure::Phi),
        (2.0 * 5.0 - 2.0) / f64::sqrt(4.0 * 6.0 * 3.0 * 7.0),
        1e-12,
    );
    close(of(Measure::Jaccard), 2.0 / 5.0, 1e-12);
    close(of(Measure::Dice), 4.0 / 7.0, 1e-12);
    close(of(Measure::Overlap), 2.0 / 3.0, 1e-12);
    close(of(Measure::SimpleMatching), 7.0 / 10.0, 1e-12);
    let phi = seen.affinity(Measure::Phi);
    assert_eq!(
        (phi.row(0)[2], phi.row(0)[3], phi.row(2)[2]),
        (0.0, 0.0, 1.0)
    );
    assert_eq!(phi.row(1)[0], phi.row(0)[1]);
}

/// Features of one planted block fire in the same texts and lie near each other.
#[test]
fn features_that_fire_together_lie_together() {
    let (directions, of) = blocks(3, 4, 15, 40);
    let mut draws = Draws::new(4);
    let mut seen = Cooccurrence::new(60);
    for _ in 0..600 {
        let topic = draws.below(4);
        let fires = |&i: &usize| {
            let chance = if of[i] == topic { 0.5 } else { 0.08 };
            draws.uniform(0.0, 1.0) < chance
        };
        let block: Vec<usize> = (0..60).filter(fires).collect();
        seen.add(&block);
    }
    let functional = spectral_clusters(&seen.affinity(Measure::Phi), 4, 0).unwrap();
    let geometric = spectral_clusters(&angular_affinity(&directions).unwrap(), 4, 0).unwrap();
    let found = agreement(&functional, &geometric, 200, 5).unwrap();
    assert!(found.ami > 0.9 && found.sigmas >= 5.0, "{found:?}");
    close(found.shuffled, 0.0, 0.02);
    let want = adjusted_mutual_information(&functional, &geometric).unwrap();
    close(found.ami, want, 1e-12);
    // Geometry that has nothing to do with it.
    let mut other = Draws::new(6);
    let random: Vec<usize> = (0..60).map(|_| other.below(4)).collect();
    let none = agreement(&functional, &random, 200, 5).unwrap();
    assert!(none.sigmas.abs() < 4.0, "{none:?}");
    says(
        agreement(&functional, &geometric, 1, 0).unwrap_err(),
        &["shuffles"],
    );
}
