use super::super::rbf::Sigma;
use super::*;
use crate::device::{Device, block_on};
use burn::tensor::TensorData;

const FORMS: [Form; 7] = [
    Form::Dot,
    Form::SquaredEuclidean,
    Form::Euclidean,
    Form::Rbf {
        sigma: Sigma::Fixed(2.5),
        unit: false,
    },
    Form::Rbf {
        sigma: Sigma::Fixed(0.7),
        unit: true,
    },
    Form::Cosine,
    Form::Correlation,
];

/// Rows of which some are equal, one is 0, one is constant and two are nearly equal.
fn rows(n: usize, d: usize) -> Vec<Vec<f64>> {
    let value = |i: usize, j: usize| ((i * i + 3 * i * j + 7 * j) as f64 * 0.37).sin();
    let of = |i: usize| match i {
        3 => vec![0.0; d],
        5 => vec![1.5; d],
        7 => (0..d).map(|j| value(2, j) * (1.0 + 1e-5)).collect(),
        i if i % 11 == 10 => (0..d).map(|j| value(1, j)).collect(),
        i => (0..d).map(|j| value(i, j)).collect(),
    };
    let narrow = |row: Vec<f64>| row.into_iter().map(|v| f64::from(v as f32)).collect();
    (0..n).map(of).map(narrow).collect()
}

fn tensor(rows: &[Vec<f64>], dtype: DType) -> Tensor<2> {
    let data = TensorData::new(rows.concat(), [rows.len(), rows[0].len()]);
    let data = match dtype {
        DType::F32 => data.convert::<f32>(),
        _ => data,
    };
    Tensor::from_data(data, (Device::cpu().tensor(), dtype))
}

fn dot(u: &[f64], v: &[f64]) -> f64 {
    u.iter().zip(v).map(|(u, v)| u * v).sum()
}

/// The table by its definition, the diagonal included.
fn plain(rows: &[Vec<f64>], form: Form) -> Vec<Vec<f64>> {
    let (n, d) = (rows.len(), rows[0].len());
    let mean: Vec<f64> = (0..d)
        .map(|j| rows.iter().map(|r| r[j]).sum::<f64>() / n as f64)
        .collect();
    let unit = |row: Vec<f64>| {
        let length = dot(&row, &row).sqrt().max(f64::MIN_POSITIVE);
        row.into_iter().map(|v| v / length).collect::<Vec<_>>()
    };
    let ready = |row: &Vec<f64>| match form {
        Form::Cosine | Form::Rbf { unit: true, .. } => unit(row.clone()),
        Form::Correlation => {
            let mean = row.iter().sum::<f64>() / d as f64;
            unit(row.iter().map(|v| v - mean).collect())
        }
        _ => row.iter().zip(&mean).map(|(v, m)| v - m).collect(),
    };
    let z: Vec<Vec<f64>> = rows.iter().map(ready).collect();
    let square = |u: &[f64], v: &[f64]| u.iter().zip(v).map(|(u, v)| (u - v).powi(2)).sum();
    let value = |i: usize, j: usize| {
        let (u, v): (&[f64], &[f64]) = (&z[i], &z[j]);
        let square: f64 = square(u, v);
        match form {
            Form::Dot => dot(u, v),
            Form::SquaredEuclidean => square,
            Form::Euclidean => square.sqrt(),
            Form::Rbf {
                sigma: Sigma::Fixed(sigma),
                ..
            } => (-square / (2.0 * sigma * sigma)).exp(),
            _ if dot(u, u) == 0.0 || dot(v, v) == 0.0 => 1.0,
            _ => square / 2.0,
        }
    };
    let row = |i: usize| (0..n).map(|j| value(i, j)).collect();
    (0..n).map(row).collect()
}

/// Both ways of holding the pairs, with few rows.
fn both<T: Lane>(x: &Tensor<2>, form: Form) -> [Pairs; 2] {
    block_on(async {
        let (_, rows) = Rows::<T>::read(x.clone()).await.unwrap();
        let source = Source::new(&rows, &rows.column_means(), form, x);
        let tiled = Pairs::tiled(source).await.unwrap();
        [Pairs::prepare(x, form).await.unwrap(), tiled]
    })
}

#[test]
fn every_form_is_its_definition() {
    let rows = rows(700, 5);
    for form in FORMS {
        let table = plain(&rows, form);
        let largest = table.concat().iter().fold(0.0f64, |m, v| m.max(v.abs()));
        for (dtype, tolerance) in [(DType::F32, 4e-6), (DType::F64, 1e-13)] {
            let x = tensor(&rows, dtype);
            let both = match dtype {
                DType::F64 => both::<f64>(&x, form),
                _ => both::<f32>(&x, form),
            };
            for pairs in both {
                let mut seen = 0;
                let check = |i: usize, j: usize, values: &[f64]| {
                    seen += values.len();
                    for (k, v) in values.iter().enumerate() {
                        let expected = table[i][j + k];
                        let off = (v - expected).abs();
                        assert!(
                            off <= tolerance * largest,
                            "{form:?} {i} {} {v} {expected}",
                            j + k
                        );
                        if rows[i] == rows[j + k] && form != Form::Dot {
                            assert_eq!(*v, pairs.diagonal[i], "{form:?}");
                        }
                    }
                };
                block_on(pairs.visit(check)).unwrap();
                assert_eq!(seen, 700 * 699 / 2);
            }
        }
    }
}

/// Nearly equal rows: the subtraction of products would leave nothing of their distance in f32.
#[test]
fn short_distances_keep_their_digits() {
    let rows = rows(40, 300);
    let table = plain(&rows, Form::Euclidean);
    for pairs in both::<f32>(&tensor(&rows, DType::F32), Form::Euclidean) {
        let mut found = 0.0;
        let check = |i: usize, j: usize, values: &[f64]| {
            if i == 2 {
                found = values[7 - j];
            }
        };
        block_on(pairs.visit(check)).unwrap();
        assert!(
            table[2][7] < 1e-3 && (found / table[2][7] - 1.0).abs() < 2e-2,
            "{found}"
        );
    }
}

/// Few columns, where some forms need no pairs, and many.
#[test]
fn sums_products_and_hsic_are_their_definitions() {
    sums_are_their_definitions(600, [4, 6]);
    sums_are_their_definitions(100, [30, 40]);
}

fn sums_are_their_definitions(n: usize, [d, e]: [usize; 2]) {
    let (left, right) = (rows(n, d), rows(n, e));
    let (x, y) = (tensor(&left, DType::F64), tensor(&right, DType::F64));
    let narrow = tensor(&right, DType::F32);
    for form in FORMS {
        let (k, l) = (plain(&left, form), plain(&right, form));
        let a = both::<f64>(&x, form);
        let off = |i: usize| k[i].iter().sum::<f64>() - k[i][i];
        let product = |k: &[Vec<f64>], l: &[Vec<f64>]| {
            let row = |i: usize| dot(&k[i][i + 1..], &l[i][i + 1..]);
            (0..n).map(row).sum::<f64>()
        };
        let close = |a: f64, b: f64, tolerance: f64| {
            assert!(
                (a - b).abs() <= tolerance * b.abs().max(1.0),
                "{form:?} {a} {b}"
            );
        };
        for ((a, b), narrow) in a
            .iter()
            .zip(&both::<f64>(&y, form))
            .zip(&both::<f32>(&narrow, form))
        {
            (0..n).for_each(|i| close(a.sums.rows[i], off(i), 1e-11));
            close(a.sums.total, (0..n).map(off).sum(), 1e-11);
            close(a.sums.squares, product(&k, &k), 1e-11);
            let found = block_on(a.product(b)).unwrap();
            close(found, product(&k, &l), 1e-11);
            close(block_on(a.product(narrow)).unwrap(), product(&k, &l), 1e-5);
            close(block_on(narrow.product(a)).unwrap(), product(&k, &l), 1e-5);
            for estimator in [Estimator::Biased, Estimator::Unbiased] {
                let expected = plain_hsic(&k, &l, estimator);
                close(a.hsic(b, found, estimator), expected, 1e-9);
                close(a.own_hsic(estimator), plain_hsic(&k, &k, estimator), 1e-9);
            }
        }
    }
}

/// Centring by the definition: every mean taken off the matrix, the diagonal as the estimator has it.
fn plain_hsic(k: &[Vec<f64>], l: &[Vec<f64>], estimator: Estimator) -> f64 {
    let n = k.len();
    let drop = estimator == Estimator::Unbiased;
    let at = |k: &[Vec<f64>], i: usize, j: usize| if drop && i == j { 0.0 } else { k[i][j] };
    let (few, fewer) = match drop {
        true => (n as f64 - 2.0, (n as f64 - 1.0) * (n as f64 - 2.0)),
        false => (n as f64, (n * n) as f64),
    };
    let centred = |k: &[Vec<f64>]| {
        let sums: Vec<f64> = (0..n).map(|i| (0..n).map(|j| at(k, i, j)).sum()).collect();
        let total: f64 = sums.iter().sum();
        let value = |i: usize, j: usize| match drop && i == j {
            true => 0.0,
            false => at(k, i, j) - (sums[i] + sums[j]) / few + total / fewer,
        };
        let row = |i: usize| (0..n).map(|j| value(i, j)).collect::<Vec<_>>();
        (0..n).flat_map(row).collect::<Vec<f64>>()
    };
    dot(&centred(k), &centred(l))
}

#[test]
fn blocks_cover_the_triangle_once() {
    let mut seen = vec![0u8; 9000 * 9];
    let rows: Vec<usize> = (0..9).map(|r| r * 1100 + 77).collect();
    for (r, c) in blocks(9000) {
        assert!(r.len() <= 512 && c.len() <= 8192 && c.end > r.start);
        for (k, i) in rows.iter().enumerate().filter(|(_, i)| r.contains(i)) {
            c.clone()
                .filter(|j| j > i)
                .for_each(|j| seen[k * 9000 + j] += 1);
        }
    }
    for (k, i) in rows.iter().enumerate() {
        assert!((0..9000).all(|j| seen[k * 9000 + j] == u8::from(j > *i)));
    }
}

/// The software adapter is enough: what is tested is the device's sums.
#[test]
#[ignore = "needs a wgpu adapter"]
fn sums_taken_on_a_gpu_are_those_of_the_host() {
    let gpu = burn::tensor::Device::wgpu(burn::tensor::DeviceKind::Cpu);
    // So many columns that every form goes through its pairs.
    let (left, right) = (rows(700, 180), rows(700, 190));
    let here = [&left, &right].map(|rows| tensor(rows, DType::F32));
    let there = here.each_ref().map(|x| x.clone().to_device(&gpu));
    for form in FORMS {
        let [_, a] = both::<f32>(&here[0], form);
        let [_, b] = both::<f32>(&here[1], form);
        let [_, c] = both::<f32>(&there[0], form);
        let [_, d] = both::<f32>(&there[1], form);
        let close = |a: f64, b: f64, of: f64| {
            assert!((a - b).abs() <= 2e-4 * of, "{form:?} {a} {b}");
        };
        let size = (2.0 * a.sums.squares / 700.0).sqrt();
        for i in 0..700 {
            close(c.sums.rows[i], a.sums.rows[i], size * 700f64.sqrt());
        }
        close(c.sums.total, a.sums.total, size * 700.0);
        close(c.sums.squares, a.sums.squares, a.sums.squares);
        let [here, there] = [(&a, &b), (&c, &d)].map(|(x, y)| block_on(x.product(y)).unwrap());
        close(there, here, (a.sums.squares * b.sums.squares).sqrt());
    }
}

/// Rows that point nearly one way, far from 0: the angles are small beside the lengths.
#[test]
fn sums_without_pairs_keep_the_digits_of_small_angles() {
    let offset = |rows: Vec<Vec<f64>>| -> Vec<Vec<f64>> {
        let row = |row: Vec<f64>| row.into_iter().map(|v| v + 1e4).collect();
        rows.into_iter().map(row).collect()
    };
    let (left, right) = (offset(rows(300, 4)), offset(rows(300, 6)));
    for form in [Form::SquaredEuclidean, Form::Cosine] {
        let (k, l) = (plain(&left, form), plain(&right, form));
        let product = |k: &[Vec<f64>], l: &[Vec<f64>]| {
            let row = |i: usize| dot(&k[i][i + 1..], &l[i][i + 1..]);
            (0..k.len()).map(row).sum::<f64>()
        };
        let [_, a] = both::<f64>(&tensor(&left, DType::F64), form);
        let [_, b] = both::<f64>(&tensor(&right, DType::F64), form);
        let found = [a.sums.squares, block_on(a.product(&b)).unwrap()];
        for (found, expected) in found.into_iter().zip([product(&k, &k), product(&k, &l)]) {
            assert!(
                (found / expected - 1.0).abs() < 1e-6,
                "{form:?} {found} {expected}"
            );
        }
    }
}

/// The median is counted out where the pairs are made anew, and found among them where they are kept.
#[test]
fn a_median_is_the_same_however_the_pairs_are_held() {
    let rows = rows(700, 5);
    for sigma in [Sigma::Median(0.5), Sigma::OffDiagonalMedian(1.0)] {
        let form = Form::Rbf { sigma, unit: false };
        for dtype in [DType::F32, DType::F64] {
            let x = tensor(&rows, dtype);
            let [packed, tiled] = match dtype {
                DType::F64 => both::<f64>(&x, form),
                _ => both::<f32>(&x, form),
            };
            let off = packed.sums.total / tiled.sums.total - 1.0;
            assert!(off.abs() < 1e-6, "{sigma:?} {dtype:?} {off:e}");
        }
    }
}
