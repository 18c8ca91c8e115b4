//! Activations as rows, against loops over the indices.

use burn::tensor::{Tensor, TensorData};
use inscape::Device;
use inscape::similarity::Flatten;

fn values(x: Tensor<2>) -> ([usize; 2], Vec<f32>) {
    (x.dims(), x.into_data().try_to_vec().expect("f32"))
}

fn counted(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * i) % 101) as f32).collect()
}

fn mean(values: impl Iterator<Item = f32> + Clone) -> f32 {
    values.clone().sum::<f32>() / values.count() as f32
}

fn hold(rule: Flatten, found: Tensor<2>, shape: [usize; 2], at: impl Fn(usize, usize) -> f32) {
    let (dims, values) = values(found);
    assert_eq!(dims, shape, "{rule}");
    for (i, value) in values.into_iter().enumerate() {
        let expected = at(i / shape[1], i % shape[1]);
        let (row, column) = (i / shape[1], i % shape[1]);
        assert!(
            (value - expected).abs() < 1e-4,
            "{rule} [{row}, {column}]: {value}, not {expected}"
        );
    }
}

#[test]
fn tokens_become_rows() {
    let [n, t, d] = [3, 4, 5];
    let v = counted(n * t * d);
    let of = |i: usize, p: usize, j: usize| v[(i * t + p) * d + j];
    for rule in Flatten::ALL {
        let x = TensorData::new(v.clone(), [n, t, d]);
        let found = rule.tokens(Tensor::from_data(x, Device::cpu().tensor()));
        match rule {
            Flatten::Features => hold(rule, found, [n, t * d], |i, j| of(i, j / d, j % d)),
            Flatten::Positions => hold(rule, found, [n * t, d], |i, j| of(i / t, i % t, j)),
            Flatten::Mean => hold(rule, found, [n, d], |i, j| {
                mean((0..t).map(|p| of(i, p, j)))
            }),
            Flatten::First => hold(rule, found, [n, d], |i, j| of(i, 0, j)),
            _ => hold(rule, found, [n, d], |i, j| of(i, t - 1, j)),
        }
    }
}

#[test]
fn maps_become_rows() {
    let [n, c, h, w] = [3, 5, 2, 4];
    let v = counted(n * c * h * w);
    let of = |i: usize, j: usize, p: usize| v[((i * c + j) * h + p / w) * w + p % w];
    let places = h * w;
    for rule in Flatten::ALL {
        let x = TensorData::new(v.clone(), [n, c, h, w]);
        let found = rule.maps(Tensor::from_data(x, Device::cpu().tensor()));
        match rule {
            Flatten::Features => hold(rule, found, [n, c * places], |i, j| {
                of(i, j / places, j % places)
            }),
            Flatten::Positions => hold(rule, found, [n * places, c], |i, j| {
                of(i / places, j, i % places)
            }),
            Flatten::Mean => hold(rule, found, [n, c], |i, j| {
                mean((0..places).map(|p| of(i, j, p)))
            }),
            Flatten::First => hold(rule, found, [n, c], |i, j| of(i, j, 0)),
            _ => hold(rule, found, [n, c], |i, j| of(i, j, places - 1)),
        }
    }
}

#[test]
fn rules_have_names() {
    for rule in Flatten::ALL {
        assert_eq!(rule.to_string().parse(), Ok(rule));
    }
    let error = "token".parse::<Flatten>().unwrap_err().to_string();
    let names = "`token`; known: features, positions, mean, first, last";
    assert!(error.ends_with(names), "{error}");
}

#[test]
#[should_panic(expected = "mean of [2, 0, 3], which has no positions")]
fn no_positions_have_no_mean() {
    Flatten::Mean.tokens(Tensor::zeros([2, 0, 3], Device::cpu().tensor()));
}
