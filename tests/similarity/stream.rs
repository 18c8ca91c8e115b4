//! Streams against the same rows in memory.

use inscape::similarity::{Error, Metric, Streamed, StreamedMatrix, matrix};

use crate::common::{Matrix, close, compare, input, metric};

/// Every metric that sums decide, in several forms.
const ALL: [&str; 20] = [
    "linear_cka[unbiased]",
    "linear_cka[biased]",
    "cka_angular[biased]",
    "hsic[unbiased]",
    "hsic[biased]",
    "rv2",
    "ensd[shared]",
    "ensd[ratio]",
    "eigenspace_overlap",
    "subspace_overlap[top=4]",
    "svcca[variance=0.99]",
    "svcca[variance=1]",
    "cca[mean]",
    "pwcca[from=x]",
    "gulp[lambda=0.1]",
    "procrustes[squared,centred]",
    "procrustes[raw,uncentred]",
    "procrustes[angular,uncentred]",
    "nbs[linear]",
    "shape[alpha=0.5,score=angular,whiten=power]",
];

fn rows(m: &Matrix, from: usize, to: usize) -> Matrix {
    Matrix::from_fn(to - from, m.d, |i, j| m.at(from + i, j))
}

/// In batches that end at these rows.
fn streamed(x: &Matrix, y: &Matrix, ends: &[usize], single: bool) -> Streamed {
    let mut streamed = Streamed::new(x.d, y.d);
    let make = |m: Matrix| if single { m.f32() } else { m.f64() };
    for (i, &end) in ends.iter().enumerate() {
        let start = if i == 0 { 0 } else { ends[i - 1] };
        let (x, y) = (rows(x, start, end), rows(y, start, end));
        streamed.push(&make(x), &make(y)).unwrap();
    }
    assert_eq!(streamed.rows(), x.n);
    streamed
}

fn related(n: usize) -> (Matrix, Matrix) {
    let x = Matrix::random(n, 12, 1);
    let noise = Matrix::random(n, 9, 2);
    let y = Matrix::from_fn(n, 9, |i, j| {
        x.at(i, j) * x.at(i, j + 1) + x.at(i, j) + noise.at(i, j)
    });
    // Rows that drift, so that the first batch's mean is not that of all.
    let drift = |m: &Matrix| Matrix::from_fn(n, m.d, |i, j| m.at(i, j) + i as f64 / n as f64);
    (drift(&x), drift(&y))
}

#[test]
fn a_stream_gives_what_memory_gives() {
    let (x, y) = related(700);
    for ends in [
        vec![700],
        vec![1, 2, 700],
        vec![64, 128, 300, 300, 650, 700],
    ] {
        let streamed = streamed(&x, &y, &ends, false);
        for name in ALL {
            let expected = compare(name, &x.f64(), &y.f64());
            let found = streamed.value(metric(name)).unwrap();
            let off = (found - expected).abs() / expected.abs().max(1.0);
            assert!(off < 1e-10, "{name} {ends:?}: {found} {expected}");
        }
    }
}

#[test]
fn golden_inputs_stream() {
    for case in ["main", "indep", "rank", "wide", "const", "dup"] {
        let (x, y) = (input(case, "X"), input(case, "Y"));
        let ends = [x.n / 3, x.n / 2, x.n];
        let streamed = streamed(&x, &y, &ends, true);
        for name in [
            "linear_cka[unbiased]",
            "linear_cka[biased]",
            "hsic[unbiased]",
            "rv2",
        ] {
            let expected = compare(name, &x.f64(), &y.f64());
            let found = streamed.value(metric(name)).unwrap();
            close(found, expected, 1e-10 * expected.abs().max(1.0));
        }
    }
}

/// f32 beside a constant of 1e4: the plain sums would be off by more than 1.
#[test]
fn an_offset_costs_no_digits() {
    let (x, y) = related(900);
    let rounded = |m: &Matrix| m.map(|v| f64::from(v as f32 + 1e4));
    let near = |m: &Matrix| rounded(m).map(|v| v - 1e4);
    let far = streamed(&rounded(&x), &rounded(&y), &[100, 450, 900], true);
    let here = streamed(&near(&x), &near(&y), &[300, 900], false);
    for name in ALL
        .into_iter()
        .filter(|name| !name.contains("uncentred") && *name != "eigenspace_overlap")
    {
        let (far, here) = (
            far.value(metric(name)).unwrap(),
            here.value(metric(name)).unwrap(),
        );
        assert!(
            (far - here).abs() <= 1e-8 * here.abs().max(1.0),
            "{name}: {far} {here}"
        );
    }
}

#[test]
fn what_a_stream_cannot_say() {
    let (x, y) = related(60);
    let mut streamed = streamed(&x, &y, &[30, 60], false);
    for name in [
        "rbf_cka",
        "rsa",
        "mutual_knn",
        "grassmann[top=2]",
        "aligned_cosine",
        "distance_correlation",
    ] {
        let said = streamed.value(metric(name)).unwrap_err().to_string();
        assert!(said.contains("rows themselves"), "{name}: {said}");
    }
    let mut bad = rows(&x, 0, 10);
    bad.v[7 * 12 + 3] = f64::NAN;
    let before = streamed.value(metric("linear_cka")).unwrap();
    let said = streamed
        .push(&bad.f32(), &rows(&y, 0, 10).f32())
        .unwrap_err();
    assert!(
        said.to_string()
            .contains("left representation: row 67, column 3"),
        "{said}"
    );
    let said = streamed
        .push(&rows(&x, 0, 9).f32(), &rows(&y, 0, 10).f32())
        .unwrap_err();
    assert!(matches!(said, Error::RowsDiffer { .. }), "{said}");
    close(streamed.value(metric("linear_cka")).unwrap(), before, 0.0);

    let few = Streamed::new(3, 3);
    assert!(matches!(
        few.value(metric("linear_cka")),
        Err(Error::TooFewRows { rows: 0, .. })
    ));
    let equal = Matrix::from_fn(50, 3, |_, j| 0.1 + j as f64);
    let y = Matrix::random(50, 3, 4);
    let flat = self::streamed(&equal, &y, &[20, 50], false);
    for name in ["linear_cka[biased]", "svcca", "nbs[linear]"] {
        let said = flat.value(metric(name)).unwrap_err().to_string();
        assert!(
            said.contains("left") && said.contains("equal"),
            "{name}: {said}"
        );
    }
}

#[test]
#[should_panic(expected = "batches [[5, 3], [5, 4]] for widths [4, 4]")]
fn other_widths_are_a_mistake() {
    let _ = Streamed::new(4, 4).push(
        &Matrix::random(5, 3, 1).f32(),
        &Matrix::random(5, 4, 1).f32(),
    );
}

/// A stream is symmetric in what it keeps of the two sides.
#[test]
fn sides_may_be_exchanged() {
    let (x, y) = related(200);
    let (there, back) = (
        streamed(&x, &y, &[50, 200], false),
        streamed(&y, &x, &[50, 200], false),
    );
    for name in ALL.into_iter().filter(|name| !name.starts_with("pwcca")) {
        let metric: Metric = metric(name);
        let (there, back) = (there.value(metric).unwrap(), back.value(metric).unwrap());
        assert!(
            (there - back).abs() < 1e-10 * there.abs().max(1.0),
            "{name}"
        );
    }
    let table = matrix(&[x.f64()], &[y.f64()], metric("linear_cka"), |_, _| ()).unwrap();
    close(
        there.value(metric("linear_cka")).unwrap(),
        table[0][0],
        1e-11,
    );
}

/// Many sides at once, each against each or two sets, have the values of every pair alone.
#[test]
fn many_sides_are_their_pairs() {
    let (x, y) = related(150);
    let z = Matrix::from_fn(150, 7, |i, j| x.at(i, j).powi(2) - y.at(i, j));
    let sides = [&x, &y, &z];
    let widths = sides.map(|m| m.d);
    let stream = |mut matrix: StreamedMatrix, sides: &[&Matrix]| {
        for (start, end) in [(0, 60), (60, 150)] {
            let batch: Vec<_> = sides.iter().map(|m| rows(m, start, end).f64()).collect();
            matrix.push(&batch).unwrap();
        }
        matrix
    };
    let own = stream(StreamedMatrix::new(&widths, &[]), &sides);
    let apart = stream(StreamedMatrix::new(&widths[..1], &widths[1..]), &sides);
    for name in ALL {
        let (own, apart) = (own.values(metric(name)), apart.values(metric(name)));
        let (own, apart) = (own.unwrap(), apart.unwrap());
        assert_eq!([own.len(), own[0].len()], [3, 3]);
        assert_eq!([apart.len(), apart[0].len()], [1, 2]);
        for (i, row) in own.iter().enumerate() {
            for (j, &value) in row.iter().enumerate() {
                let pair = streamed(sides[i], sides[j], &[60, 150], false);
                close(value, pair.value(metric(name)).unwrap(), 1e-9);
                if i == 0 && j > 0 {
                    close(apart[0][j - 1], value, 1e-12);
                }
            }
        }
    }
    let flat = Matrix::from_fn(150, 3, |_, j| j as f64);
    let flat = stream(StreamedMatrix::new(&[12, 3], &[]), &[&x, &flat]);
    let said = flat.values(metric("cca[mean]")).unwrap_err().to_string();
    assert!(said.contains("left 1"), "{said}");
}
