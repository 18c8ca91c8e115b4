//! Parallelograms, spectra and clustering entropy (Li et al. 2024).

use inscape::geometry::*;

use super::*;

/// Pairs of three relations in 20 dimensions: a common offset a relation, a little noise, and a
/// distractor direction with ten times the offsets' squared length.
fn analogies(seed: u64, each: usize) -> (Matrix, Matrix, Vec<usize>) {
    let mut draws = Draws::new(seed);
    let d = 20;
    let offsets: Vec<Vec<f64>> = (0..3).map(|_| draws.unit_rows(1, d)).collect();
    let distractor = draws.unit_rows(1, d);
    let (mut first, mut second, mut relation) = (Vec::new(), Vec::new(), Vec::new());
    for (kind, offset) in offsets.iter().enumerate() {
        for _ in 0..each {
            let word = draws.normals(d);
            let length = 10f64.sqrt() * draws.normal();
            let other = (0..d)
                .map(|j| word[j] + offset[j] + length * distractor[j] + 0.05 * draws.normal());
            second.push(other.collect::<Vec<f64>>());
            first.push(word);
            relation.push(kind);
        }
    }
    (matrix(&first), matrix(&second), relation)
}

#[test]
fn parallelograms_show_once_the_distractor_is_projected_out() {
    let (first, second, relation) = analogies(1, 100);
    let found = parallelogram_quality(&first, &second, &relation, 0.0).unwrap();
    assert!(found.before < 0.2 && found.after > 0.8, "{found:?}");
    let shrunk = parallelogram_quality(&first, &second, &relation, 1e-3).unwrap();
    assert!(shrunk.after > 0.8, "{shrunk:?}");
    // Relations by lot: nothing to find, on pairs that the LDA has not seen.
    let mut draws = Draws::new(2);
    let lots: Vec<usize> = (0..300).map(|_| draws.below(3)).collect();
    let none = parallelogram_quality(&first, &second, &lots, 0.0).unwrap();
    assert!(none.after < 0.1, "{none:?}");
}

#[test]
fn discriminants_solve_the_generalised_eigenproblem() {
    let mut draws = Draws::new(3);
    let (n, d) = (120, 4);
    let classes: Vec<usize> = (0..n).map(|i| i % 3).collect();
    let rows: Vec<Vec<f64>> = classes
        .iter()
        .map(|&c| {
            let v = draws.normals(d);
            vec![
                v[0] + c as f64,
                3.0 * v[1],
                v[2] + v[0],
                0.2 * v[3] - 0.1 * (c * c) as f64,
            ]
        })
        .collect();
    let points = matrix(&rows);
    let lda = Lda::fit(&points, &classes, 0.0).unwrap();
    let z = lda.project(&points);
    assert_eq!((z.columns(), lda.ratios.len()), (2, 2));
    // Within classes the coordinates have variance 1 and no correlation; between them, the ratios.
    let mean = |of: &dyn Fn(usize) -> bool, j: usize| {
        let rows: Vec<usize> = (0..n).filter(|&i| of(i)).collect();
        rows.iter().map(|&i| z.row(i)[j]).sum::<f64>() / rows.len() as f64
    };
    let of_class = |c: usize, j: usize| mean(&|i| classes[i] == c, j);
    for a in 0..2 {
        close(mean(&|_| true, a), 0.0, 1e-10);
        for b in 0..2 {
            let off = |i: usize, j: usize| z.row(i)[j] - of_class(classes[i], j);
            let within = (0..n).map(|i| off(i, a) * off(i, b)).sum::<f64>() / n as f64;
            let between = (0..3).map(|c| of_class(c, a) * of_class(c, b)).sum::<f64>() / 3.0;
            let equal = if a == b { 1.0 } else { 0.0 };
            close(within, equal, 1e-9);
            close(between, equal * lda.ratios[a], 1e-9);
        }
    }
    assert!(lda.ratios[0] > lda.ratios[1]);
}

#[test]
fn what_cannot_be_told_apart_is_named() {
    let points = matrix(&[
        vec![0.0, 1.0],
        vec![1.0, 1.0],
        vec![2.0, 1.0],
        vec![4.0, 1.0],
    ]);
    let classes = [0, 0, 1, 1];
    says(
        Lda::fit(&points, &classes, 0.0).unwrap_err(),
        &["scatter", "shrinkage above 0"],
    );
    assert!(Lda::fit(&points, &classes, 0.01).is_ok());
    says(
        Lda::fit(&points, &[0; 4], 0.01).unwrap_err(),
        &["2 classes", "got 1"],
    );
    says(
        Lda::fit(&points, &[0, 1, 2, 3], 0.01).unwrap_err(),
        &["5 points", "got 4"],
    );
    for shrinkage in [-0.1, 1.0, f64::NAN] {
        says(
            Lda::fit(&points, &classes, shrinkage).unwrap_err(),
            &["shrinkage = "],
        );
    }
    says(
        parallelogram_quality(&points, &points, &classes, 0.0).unwrap_err(),
        &["4 pairs of each relation", "got 2"],
    );
}

#[test]
fn a_planted_power_law_is_recovered() {
    let mut draws = Draws::new(4);
    let (n, d) = (20_000, 40);
    // Turned by reflections, so that no coordinate is an eigenvector.
    let mirrors: Vec<Vec<f64>> = (0..5).map(|_| draws.unit_rows(1, d)).collect();
    let rows: Vec<Vec<f64>> = (0..n)
        .map(|_| {
            let mut row: Vec<f64> = (0..d)
                .map(|k| draws.normal() / ((k + 1) as f64).sqrt() + 2.0)
                .collect();
            for mirror in &mirrors {
                let along: f64 = row.iter().zip(mirror).map(|(r, m)| r * m).sum();
                row.iter_mut()
                    .zip(mirror)
                    .for_each(|(r, m)| *r -= 2.0 * along * m);
            }
            row
        })
        .collect();
    let spectrum = covariance_spectrum(&matrix(&rows)).unwrap();
    let law = power_law(&spectrum, 0..d).unwrap();
    close(law.slope, -1.0, 0.05);
    assert!(law.r2 > 0.99, "{law:?}");
    let law = power_law(&[4.0, 2.0, 1.0, 0.5], 1..4).unwrap();
    // ln 2, ln 3, ln 4 against ln 2, 0, −ln 2.
    let x = [2f64.ln(), 3f64.ln(), 4f64.ln()];
    let mean = x.iter().sum::<f64>() / 3.0;
    let square: f64 = x.iter().map(|x| (x - mean).powi(2)).sum();
    close(law.slope, 2f64.ln() * (x[0] - x[2]) / square, 1e-12);
    says(
        power_law(&spectrum, 0..2).unwrap_err(),
        &["3 eigenvalues", "got 2"],
    );
    says(
        power_law(&[3.0, 1.0, 0.0], 0..3).unwrap_err(),
        &["not above 0"],
    );
}

#[test]
fn clustering_entropy_is_nothing_for_a_gaussian_and_known_for_two() {
    let mut draws = Draws::new(5);
    let n = 2000;
    let cloud = |far: f64, draws: &mut Draws| {
        let rows: Vec<Vec<f64>> = (0..n)
            .map(|i| {
                let side = if i % 2 == 0 { far } else { -far };
                vec![2.0 * draws.normal() + side, 0.5 * draws.normal()]
            })
            .collect();
        clustering_entropy(&matrix(&rows), 3).unwrap()
    };
    let one = cloud(0.0, &mut draws);
    // ½ ln((2πe)² · 4 · ¼).
    close(one.gaussian, (std::f64::consts::TAU).ln() + 1.0, 0.05);
    close(one.clustering, 0.0, 0.08);
    // Two far apart: the entropy of one and a bit for which; the covariance grows to 4 + far².
    let far = 50.0;
    let two = cloud(far, &mut draws);
    let gain = 0.5 * ((4.0 + far * far) / 4.0).ln() - 2f64.ln();
    close(two.clustering, gain, 0.1);
    let flat = matrix(&[vec![0.0, 1.0], vec![1.0, 1.0], vec![3.0, 1.0]]);
    says(
        clustering_entropy(&flat, 1).unwrap_err(),
        &["no variance in some direction"],
    );
    let twins = matrix(&[
        vec![0.0, 1.0],
        vec![0.0, 1.0],
        vec![3.0, 0.0],
        vec![5.0, 2.0],
    ]);
    says(clustering_entropy(&twins, 1).unwrap_err(), &["coincide"]);
    assert!(clustering_entropy(&twins, 2).is_ok());
    says(
        clustering_entropy(&twins, 4).unwrap_err(),
        &["5 points", "got 4"],
    );
}
