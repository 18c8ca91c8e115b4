//! Lin & Kriegeskorte 2024, "The topology and geometry of neural representations".

use burn::tensor::Tensor;
use inscape::similarity::{Channels, Metric, Rdm, Rdms, matrix};

use super::draws::Draws;
use super::nets::Part::{Dense, Relu};
use super::nets::{Net, classifier, digits, tensor, values};
use crate::common::{Matrix, close, compare, metric};

/// At thresholds 0 and 1 the transform is a shift and a scale of the dissimilarities, which correlations do
/// not see; at equal thresholds what is left is a graph.
#[test]
fn between_geometry_and_topology() {
    let x = Matrix::random(30, 6, 1);
    let y = Matrix::from_fn(30, 5, |i, j| x.at(i, j) + x.at(i, 5) * x.at(i, j));
    for by in ["pearson", "spearman", "kendall_tau_b"] {
        let geometry = compare(&format!("rsa[rdm=euclidean,by={by}]"), &x.f64(), &y.f64());
        let ends = compare(&format!("trsa[low=0,up=1,by={by}]"), &x.f64(), &y.f64());
        close(geometry, ends, 1e-12);
    }
    let rdms = Rdms::of(&[x.f64()], Rdm::Euclidean, Channels::Sum).unwrap();
    for at in [0.0, 0.3, 0.5, 1.0] {
        let graph = rdms.geotopological(at, at);
        assert!(graph.triangle(0).iter().all(|v| *v == 0.0 || *v == 1.0));
        let far = graph.triangle(0).iter().filter(|v| **v == 1.0).count() as f64;
        close(far / 435.0, 1.0 - at, 2.0 / 435.0);
    }
}

/// Layers of 64 ReLUs whose outputs are representations; chance is one in so many.
const LAYERS: usize = 6;
const SEEDS: u64 = 5;
const IMAGES: usize = 60;

/// The outputs of every hidden layer for some images that were not trained on.
fn layers(net: &Net, images: &Tensor<2>) -> Vec<Tensor<2>> {
    let all = net.layers(images);
    (0..LAYERS).map(|l| all[2 * l + 1].clone()).collect()
}

/// `x` with normal noise of so many standard deviations of its values.
fn noisy(x: &Tensor<2>, level: f64, draws: &mut Draws) -> Tensor<2> {
    let (v, d) = (values(x), x.dims()[1]);
    let mean = v.iter().map(|v| f64::from(*v)).sum::<f64>() / v.len() as f64;
    let square = v
        .iter()
        .map(|v| (f64::from(*v) - mean).powi(2))
        .sum::<f64>();
    let sd = level * (square / v.len() as f64).sqrt();
    let v: Vec<f32> = v.iter().map(|v| v + (sd * draws.normal()) as f32).collect();
    tensor(&v, d)
}

/// How often the layer of another net that is most like a noisy layer is the same layer.
fn identified(data: &[Vec<Tensor<2>>], models: &[Vec<Tensor<2>>], by: Metric) -> f64 {
    let (left, right) = (data.concat(), models.concat());
    let table = matrix(&left, &right, by, |_, _| ()).unwrap();
    let (mut hits, mut all) = (0, 0);
    for (row, values) in table.iter().enumerate() {
        let (net, layer) = (row / LAYERS, row % LAYERS);
        for other in (0..models.len()).filter(|&o| o != net) {
            let value = |l: &usize| values[other * LAYERS + l];
            let best = (0..LAYERS).max_by(|a, b| value(a).total_cmp(&value(b)));
            hits += usize::from(best == Some(layer));
            all += 1;
        }
    }
    f64::from(hits as u32) / f64::from(all)
}

/// The layer that made noisy data is found among the layers of nets trained from other seeds.
#[test]
fn layers_are_identified_under_noise() {
    let [train, held] = digits();
    let mut parts = [Dense(64), Relu].repeat(LAYERS);
    parts.push(Dense(10));
    let images = held.select(&(0..IMAGES).collect::<Vec<_>>()).x;
    let nets = (0..SEEDS).map(|seed| classifier(&parts, &train, 15, seed));
    let clean: Vec<Vec<Tensor<2>>> = nets.map(|net| layers(&net, &images)).collect();
    let mut draws = Draws::new(3);
    for level in [0.0, 0.5, 1.0, 2.0] {
        let data: Vec<Vec<Tensor<2>>> = clean
            .iter()
            .map(|l| l.iter().map(|x| noisy(x, level, &mut draws)).collect())
            .collect();
        let share = |name: &str| identified(&data, &clean, metric(name));
        let [rsa, trsa, paths] = [
            share("rsa[rdm=euclidean,by=pearson]"),
            share("trsa[rdm=euclidean,by=pearson]"),
            share("geodesic_rsa[rdm=euclidean,by=pearson]"),
        ];
        println!("noise {level}: rsa {rsa:.3}, trsa {trsa:.3}, geodesic {paths:.3}");
        if level == 1.0 {
            assert!(
                trsa >= rsa - 0.02 && trsa >= 4.0 / LAYERS as f64,
                "{trsa} {rsa}"
            );
        }
    }
}
