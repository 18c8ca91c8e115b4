//! Null distributions and intervals against what they must be.

use inscape::similarity::{Baseline, Error, Metric, Prepared, bootstrap, null};

use crate::common::{Matrix, close, metric};

fn pair(n: usize, shared: f64, seed: u64) -> (Matrix, Matrix) {
    let (x, noise) = (
        Matrix::random(n, 4, 2 * seed),
        Matrix::random(n, 4, 2 * seed + 1),
    );
    let y = Matrix::from_fn(n, 4, |i, j| shared * x.at(i, j) + noise.at(i, j));
    (x, y)
}

fn null_of(metric: Metric, x: &Matrix, y: &Matrix, draws: usize) -> inscape::similarity::Null {
    null(
        &x.f64(),
        &y.f64(),
        metric,
        Baseline::Rows,
        draws,
        3,
        |_, _| (),
    )
    .unwrap()
}

/// Unrelated sides: p-values are uniform. Related ones: none of the draws comes near.
#[test]
fn p_values_are_uniform_by_chance_and_small_where_something_is_shared() {
    let linear = metric("linear_cka");
    let p: Vec<f64> = (0..60)
        .map(|seed| {
            let (x, y) = pair(30, 0.0, seed);
            null_of(linear, &x, &y, 39).p
        })
        .collect();
    let below = |share: f64| p.iter().filter(|p| **p <= share).count() as f64 / p.len() as f64;
    for share in [0.25, 0.5, 0.75] {
        assert!(
            (below(share) - share).abs() < 0.2,
            "{share}: {}",
            below(share)
        );
    }
    let (x, y) = pair(30, 1.5, 99);
    let found = null_of(linear, &x, &y, 39);
    assert_eq!(found.p, 1.0 / 40.0);
    assert!(found.value > found.mean + 5.0 * found.sd, "{found:?}");
    // The unbiased estimator is 0 by chance.
    assert!(
        found.mean.abs() < 3.0 * found.sd / 39f64.sqrt(),
        "{found:?}"
    );
}

/// Where a metric reorders what it keeps, it must give what preparing the reordered rows gives.
#[test]
fn reordered_rows_are_the_same_as_new_ones() {
    let (x, y) = pair(50, 1.0, 4);
    for metric in crate::every::all() {
        if !metric.facts().pairs_rows {
            let found = null(&x.f64(), &y.f64(), metric, Baseline::Rows, 3, 11, |_, _| ());
            assert!(
                matches!(found, Err(Error::Undefined { .. })),
                "{metric}: {found:?}"
            );
            continue;
        }
        let Ok(first) = null(&x.f64(), &y.f64(), metric, Baseline::Rows, 3, 11, |_, _| ()) else {
            panic!("{metric}: no null");
        };
        let again = plain_null(metric, &x, &y);
        close(first.mean, again, 1e-9 * again.abs().max(1.0));
    }
}

/// The mean of the same three draws, each prepared anew.
fn plain_null(metric: Metric, x: &Matrix, y: &Matrix) -> f64 {
    use rand::{SeedableRng, seq::SliceRandom};
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(11);
    let a = Prepared::new(&x.f64(), metric).unwrap();
    let draw = |_| {
        let mut order: Vec<usize> = (0..y.n).collect();
        order.shuffle(&mut rng);
        a.compare(&Prepared::new(&y.permuted(&order).f64(), metric).unwrap())
    };
    (0..3).map(draw).map(Result::unwrap).sum::<f64>() / 3.0
}

#[test]
fn rotations_are_refused_where_they_say_nothing() {
    let (x, y) = pair(30, 1.0, 1);
    let found = null(
        &x.f64(),
        &y.f64(),
        metric("linear_cka"),
        Baseline::Rotation,
        9,
        0,
        |_, _| (),
    );
    assert!(matches!(found, Err(Error::Undefined { .. })), "{found:?}");
    // Correlation distances see the basis.
    let found = null(
        &x.f32(),
        &y.f32(),
        metric("rsa"),
        Baseline::Rotation,
        9,
        0,
        |_, _| (),
    );
    assert!(found.unwrap().sd > 1e-4);
}

/// The value for very many rows lies in nine of ten intervals of 90 %, about; an interval a third as wide
/// does not hold it.
#[test]
fn intervals_hold_the_true_value_as_often_as_they_say() {
    let linear = metric("linear_cka");
    let (x, y) = pair(40_000, 0.8, 1000);
    let truth = linear.compare(&x.f64(), &y.f64()).unwrap();
    let (mut held, mut narrow) = (0, 0);
    for seed in 0..100 {
        let (x, y) = pair(160, 0.8, seed);
        let found = bootstrap(&x.f64(), &y.f64(), linear, 60, 0.9, seed, |_, _| ()).unwrap();
        held += usize::from(found.low <= truth && truth <= found.high);
        let third = (found.high - found.low) / 6.0;
        narrow += usize::from((found.value - truth).abs() <= third);
    }
    println!("{held} of 100 intervals of 90 % hold {truth:.4}; {narrow} of a third of the width");
    assert!((80..=98).contains(&held), "{held}");
    assert!(narrow < 70, "{narrow}");
}

#[test]
fn draws_are_the_same_for_the_same_seed() {
    let (x, y) = pair(40, 1.0, 6);
    let run = |seed| {
        bootstrap(
            &x.f64(),
            &y.f64(),
            metric("mutual_knn[k=3]"),
            20,
            0.95,
            seed,
            |_, _| (),
        )
        .unwrap()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    let mut steps = Vec::new();
    null(
        &x.f64(),
        &y.f64(),
        metric("rsa"),
        Baseline::Rows,
        4,
        0,
        |done, of| steps.push((done, of)),
    )
    .unwrap();
    assert_eq!(steps, [(1, 4), (2, 4), (3, 4), (4, 4)]);
}
