//! What holds for every metric: names, what its facts claim and what they do not, and hard input.

use inscape::similarity::{Change, Error, Kind, Metric};

use crate::common::{Matrix, close, metric};

/// Every metric, with fewer neighbours, anchors and components than the defaults where rows are few here.
pub fn all() -> Vec<Metric> {
    let fewer = |name: &str| {
        metric(
            &name
                .replace("components=25", "components=3")
                .replace("top=10", "top=3"),
        )
    };
    Metric::names().map(fewer).collect()
}

const CHANGES: [Change; 8] = [
    Change::Permutation,
    Change::Rotation,
    Change::Scale,
    Change::ColumnScale,
    Change::RowScale,
    Change::Shift,
    Change::RowShift,
    Change::Invertible,
];

/// Rows enough for every default option, and fewer columns than rows.
const ROWS: usize = 90;
const COLUMNS: usize = 7;

fn changed(x: &Matrix, change: Change, seed: u64) -> Matrix {
    let by = Matrix::random(x.n.max(x.d), 1, seed ^ 0xc4a);
    let factor = |i: usize| (0.4 * by.v[i]).exp();
    match change {
        Change::Permutation => Matrix::from_fn(x.n, x.d, |i, j| x.at(i, (j + 3) % x.d)),
        Change::Rotation => x.rotated(0.7 + seed as f64),
        Change::Scale => x.map(|v| 3.7 * v),
        Change::ColumnScale => Matrix::from_fn(x.n, x.d, |i, j| factor(j) * x.at(i, j)),
        Change::RowScale => Matrix::from_fn(x.n, x.d, |i, j| factor(i) * x.at(i, j)),
        Change::Shift => Matrix::from_fn(x.n, x.d, |i, j| x.at(i, j) + 2.0 * by.v[j]),
        Change::RowShift => Matrix::from_fn(x.n, x.d, |i, j| x.at(i, j) + 2.0 * by.v[i]),
        Change::Invertible => {
            let map = Matrix::random(x.d, x.d, seed ^ 0x1b);
            let to = |i: usize, j: usize| (0..x.d).map(|k| x.at(i, k) * map.at(k, j)).sum();
            Matrix::from_fn(x.n, x.d, to)
        }
        other => panic!("no example of {other:?}"),
    }
}

/// Whether a claim of `claimed` says the same of `change`.
fn follows(change: Change, claimed: &[Change]) -> bool {
    use Change::{ColumnScale, Invertible, Permutation, Rotation, RowScale, Scale};
    let from: &[Change] = match change {
        Permutation => &[Permutation, Rotation, Invertible],
        Rotation => &[Rotation, Invertible],
        Scale => &[Scale, ColumnScale, RowScale, Invertible],
        ColumnScale => &[ColumnScale, Invertible],
        other => return claimed.contains(&other),
    };
    from.iter().any(|c| claimed.contains(c))
}

/// Two sides that share something, of this many rows; the second is as wide as the first where it must be.
fn sides(metric: Metric, n: usize, seed: u64) -> (Matrix, Matrix) {
    let x = Matrix::random(n, COLUMNS, seed);
    let noise = Matrix::random(n, COLUMNS, seed ^ 2);
    let width = match metric.facts().equal_widths {
        true => COLUMNS,
        false => COLUMNS - 2,
    };
    let mixed = |i: usize, j: usize| {
        x.at(i, j) + 0.5 * x.at(i, (j + 1 - 2 * (j % 2)).min(x.d - 1)).powi(2) + noise.at(i, j)
    };
    (x.clone(), Matrix::from_fn(n, width, mixed))
}

fn value(metric: Metric, x: &Matrix, y: &Matrix) -> Result<f64, Error> {
    let value = metric.compare(&x.f64(), &y.f64())?;
    assert!(value.is_finite(), "{metric}: {value}");
    Ok(value)
}

fn known(metric: Metric, x: &Matrix, y: &Matrix) -> f64 {
    value(metric, x, y).unwrap_or_else(|e| panic!("{metric}: {e}"))
}

#[test]
fn names_are_canonical() {
    assert!(Metric::names().count() >= 4);
    for name in Metric::names() {
        assert_eq!(metric(name).to_string(), name);
        let bare = name.split('[').next().expect("a name");
        assert_eq!(metric(bare), metric(name), "the defaults of {bare}");
        let wrong = format!("{bare}[flavour=vanilla]").parse::<Metric>();
        assert!(matches!(wrong, Err(Error::UnknownMetric { .. })), "{bare}");
    }
}

/// Both directions: what is claimed holds, and what is not claimed shows in some of a few draws.
#[test]
fn a_metric_is_blind_to_what_its_facts_say_and_to_nothing_else() {
    let mut wrong = Vec::new();
    for metric in all() {
        let claimed = metric.facts().blind_to;
        for change in CHANGES {
            let moved = |seed: u64| {
                let (x, y) = sides(metric, ROWS, seed);
                let before = known(metric, &x, &y);
                let left = value(metric, &changed(&x, change, seed), &y);
                let right = value(metric, &x, &changed(&y, change, seed));
                let far = |after: f64| (after - before).abs() / before.abs().max(1.0);
                let moves = [left, right].map(|after| after.map_or(f64::INFINITY, far));
                moves[0].max(moves[1])
            };
            let most = (1..4).map(moved).fold(0.0, f64::max);
            let blind = most <= 1e-7;
            if blind != follows(change, claimed) {
                wrong.push(format!(
                    "{metric}, {change:?}: moves by {most:.1e}, facts say {claimed:?}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn equal_sides_and_exchanged_sides_are_as_the_facts_say() {
    let mut wrong = Vec::new();
    for metric in all() {
        let facts = metric.facts();
        let (x, y) = sides(metric, ROWS, 5);
        let own = known(metric, &x, &x);
        // All rows but the first lie together, far from it.
        let alone = Matrix::from_fn(ROWS, COLUMNS, |i, j| x.at(i, j) + 9.0 * i.min(1) as f64);
        if facts.same.is_some_and(|same| (own - same).abs() > 2e-7) {
            wrong.push(format!("{metric} of equal sides: {own}"));
        }
        if facts.same.is_none()
            && [x.map(|v| v * v), y.clone(), alone.clone()]
                .iter()
                .all(|z| (known(metric, z, z) - own).abs() < 1e-9)
        {
            wrong.push(format!("{metric} of equal sides is always {own}"));
        }
        let (there, back) = (known(metric, &x, &y), known(metric, &y, &x));
        if ((there - back).abs() <= 1e-8 * there.abs().max(1.0)) != facts.symmetric {
            wrong.push(format!(
                "{metric}: {there} and {back}, symmetric {}",
                facts.symmetric
            ));
        }
        let unlike = known(metric, &x, &sides(metric, ROWS, 77).1);
        let further = match facts.kind {
            Kind::Similarity => unlike < there,
            Kind::Distance => unlike > there,
        };
        let order: Vec<usize> = (0..ROWS).map(|i| (i * 37 + 11) % ROWS).collect();
        let unpaired = (known(metric, &x, &y.permuted(&order)) - there).abs() < 1e-9 * there.abs();
        if unpaired == facts.pairs_rows {
            wrong.push(format!("{metric}: pairs rows {}", facts.pairs_rows));
        }
        // What takes no notice of which row is which has nothing to find in a pairing.
        if !further && !unpaired {
            wrong.push(format!(
                "{metric}: {there} where something is shared, {unlike} where nothing is"
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_order_of_rows_matters_only_where_the_facts_say() {
    // At random: in step with no number of folds.
    let by = Matrix::random(ROWS, 1, 6).v;
    let mut order: Vec<usize> = (0..ROWS).collect();
    order.sort_by(|&a, &b| by[a].total_cmp(&by[b]));
    let mut wrong = Vec::new();
    for metric in all() {
        let (x, y) = sides(metric, ROWS, 8);
        let (before, after) = (
            known(metric, &x, &y),
            known(metric, &x.permuted(&order), &y.permuted(&order)),
        );
        let same = (before - after).abs() <= 1e-8 * before.abs().max(1.0);
        if same == metric.facts().rows_in_order {
            wrong.push(format!("{metric}: {before} and {after}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Data that has broken such metrics elsewhere: a number within its range, or an error that says why.
#[test]
fn hard_input_gives_a_number_or_an_error_that_says_why() {
    for metric in all() {
        for (name, x, y) in hard(metric) {
            for (x, y) in [(x.f64(), y.f64()), (x.f32(), y.f32())] {
                match metric.compare(&x, &y) {
                    Ok(v) => assert!(v.is_finite(), "{metric}, {name}: {v}"),
                    Err(Error::At { .. } | Error::Undefined { .. }) => (),
                    Err(e) => panic!("{metric}, {name}: {e}"),
                }
            }
        }
    }
}

fn hard(metric: Metric) -> Vec<(&'static str, Matrix, Matrix)> {
    let (x, y) = sides(metric, ROWS, 13);
    let with = |f: &dyn Fn(usize, usize) -> f64| Matrix::from_fn(ROWS, COLUMNS, f);
    let wide = Matrix::random(ROWS, 3 * ROWS, 14);
    let wider = if metric.facts().equal_widths {
        wide.map(|v| v + 0.1)
    } else {
        Matrix::random(ROWS, 2 * ROWS, 15)
    };
    vec![
        (
            "rank 2",
            with(&|i, j| x.at(i, 0) * (j + 1) as f64 + x.at(i, 1)),
            y.clone(),
        ),
        (
            "a constant column",
            with(&|i, j| if j == 2 { 4.0 } else { x.at(i, j) }),
            y.clone(),
        ),
        (
            "a zero column",
            with(&|i, j| if j == 2 { 0.0 } else { x.at(i, j) }),
            y.clone(),
        ),
        ("all rows twice", with(&|i, j| x.at(i / 2, j)), y.clone()),
        (
            "three rows, over and over",
            with(&|i, j| x.at(i % 3, j)),
            y.clone(),
        ),
        ("all rows equal", with(&|_, j| x.at(0, j)), y.clone()),
        ("zeros", with(&|_, _| 0.0), y.clone()),
        ("more columns than rows", wide, wider),
        (
            "one large row",
            with(&|i, j| x.at(i, j) * if i == 0 { 1e6 } else { 1.0 }),
            y.clone(),
        ),
        ("large values", x.map(|v| v * 1e18), y.clone()),
        ("small values", x.map(|v| v * 1e-18), y),
    ]
}

/// Where no shift shows, none of 1e4 shows either, in f32: features are centred before any product.
#[test]
fn an_offset_of_10000_costs_no_digits() {
    let claims = |m: &Metric| m.facts().blind_to.contains(&Change::Shift);
    for metric in all().into_iter().filter(claims) {
        let (x, y) = sides(metric, ROWS, 21);
        // Rounded as f32 rounds beside the offset, so that both hold the same numbers.
        let x = x.map(|v| f64::from((v as f32) + 1e4) - 1e4);
        let plain = known(metric, &x, &y);
        let there = metric.compare(&x.map(|v| v + 1e4).f32(), &y.f32());
        close(
            there.unwrap_or_else(|e| panic!("{metric}: {e}")),
            plain,
            2e-5 * plain.abs().max(1.0),
        );
    }
}

#[test]
fn what_is_wrong_with_the_input_is_named() {
    for metric in all() {
        let (x, y) = sides(metric, ROWS, 34);
        for bad in [f64::NAN, f64::INFINITY] {
            let mut spoilt = y.clone();
            spoilt.v[5 * y.d + 1] = bad;
            let said = metric
                .compare(&x.f32(), &spoilt.f32())
                .unwrap_err()
                .to_string();
            assert!(
                said.contains("right") && said.contains("row 5, column 1"),
                "{metric}: {said}"
            );
        }
        let few = metric.facts().fewest_rows - 1;
        let short = |m: &Matrix| Matrix::from_fn(few, m.d, |i, j| m.at(i, j)).f64();
        let said = metric.compare(&short(&x), &short(&y));
        assert!(
            matches!(said, Err(Error::TooFewRows { .. })),
            "{metric}: {said:?}"
        );
        let longer = Matrix::random(ROWS + 1, y.d, 3);
        let said = metric.compare(&x.f64(), &longer.f64());
        assert!(
            matches!(said, Err(Error::RowsDiffer { .. })),
            "{metric}: {said:?}"
        );
    }
}

/// f32 gives what f64 gives.
#[test]
fn both_precisions_agree() {
    let mut wrong = Vec::new();
    for metric in all() {
        let (x, y) = sides(metric, ROWS, 55);
        let (single, double) = (
            metric.compare(&x.f32(), &y.f32()),
            metric.compare(&x.f64(), &y.f64()),
        );
        let (single, double) = (single.unwrap(), double.unwrap());
        if (single - double).abs() > 2e-5 * double.abs().max(1.0) {
            wrong.push(format!("{metric}: {single} and {double}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
