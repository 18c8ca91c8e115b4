use burn::tensor::activation::relu;

use super::*;
use crate::Device as AnyDevice;
use crate::device::{block_on, read};
use crate::ops::sparse_matmul_t;
use crate::sae::{Activation, Architecture, Conventions, Reduction, Standard};

const LAYERS: usize = 3;
const D: usize = 4;
const N: usize = 10;

fn wave(n: usize, seed: f32) -> Vec<f32> {
    (0..n)
        .map(|i| ((i as f32 + 1.0) * (seed + 0.37)).sin())
        .collect()
}

fn matrix(values: Vec<f32>, columns: usize, device: &Device) -> Tensor<2> {
    Tensor::<1>::from_data(&values[..], device).reshape([-1, columns as i64])
}

fn numbers<const R: usize>(x: Tensor<R>) -> Vec<f64> {
    block_on(read(x)).unwrap()
}

fn trainer(architecture: Architecture, d_sae: usize) -> CrossLayerTrainer {
    let config = TrainConfig {
        architecture,
        sites: LAYERS,
        cross_layer: true,
        conventions: Conventions {
            unit_decoder: false,
            subtract_b_dec: false,
            reduction: Reduction::Rows,
            ..Conventions::default()
        },
        ..TrainConfig::new(D, d_sae, 2, 4096)
    };
    let sample = wave(N * LAYERS * D, 1.0);
    let pair = (&sample[..], LAYERS * D);
    let mut trainer =
        CrossLayerTrainer::new(config, pair, pair, AnyDevice::cpu().tensor()).unwrap();
    for (l, layer) in trainer.layers.iter_mut().enumerate() {
        let device = layer.sae.b_enc.device();
        let b = wave(d_sae, l as f32 + 2.0);
        let b: Vec<f32> = b
            .iter()
            .map(|b| 0.3 * b - if d_sae > 64 { 1.2 } else { 0.2 })
            .collect();
        layer.sae.b_enc = Tensor::from_data(&b[..], &device);
        layer.scale = [1.0, 1.0];
    }
    trainer
}

/// The loss in plain tensor operations; `kept` says which latents of a layer count.
fn plain(
    saes: &[Sae],
    x: &Tensor<2>,
    y: &Tensor<2>,
    kept: &dyn Fn(Tensor<2>) -> Tensor<2>,
    l1: f64,
) -> Tensor<1> {
    let mut error = y.clone();
    let mut penalty: Option<Tensor<1>> = None;
    for (l, sae) in saes.iter().enumerate() {
        let z = column_block(x, l, D).matmul(sae.w_enc.clone().transpose());
        let f = kept(relu(z + sae.b_enc.clone().unsqueeze()));
        let made = f.clone().matmul(sae.w_dec.clone());
        // A bias writes to its own layer only.
        let b_dec = sae.b_dec.clone().narrow(0, 0, D);
        for site in l..LAYERS {
            let mut part = column_block(&made, site - l, D);
            if site == l {
                part = part + b_dec.clone().unsqueeze();
            }
            let before = column_block(&error, site, D);
            error = error.slice_assign([0..N, site * D..(site + 1) * D], before - part);
            let rows = column_block(&sae.w_dec, site - l, D);
            let length = rows.square().sum_dim(1).sqrt().transpose();
            let more = (f.clone() * length).sum() * (l1 / N as f64);
            penalty = Some(penalty.map_or(more.clone(), |p| p + more));
        }
    }
    let loss = error.square().sum() / N as f64;
    match penalty.filter(|_| l1 > 0.0) {
        Some(penalty) => loss + penalty,
        None => loss,
    }
}

fn largest_of_row(f: Tensor<2>) -> Tensor<2> {
    let [_, d_sae] = f.dims();
    let smallest = f.clone().detach().sort_descending(1).narrow(1, 1, 1);
    let keep = f
        .clone()
        .detach()
        .greater_equal(smallest.expand([N, d_sae]));
    f * keep.float()
}

/// Every parameter of every layer, as lists of active latents and as matrices.
#[test]
fn gradients_are_those_of_the_joint_loss() {
    let on = AnyDevice::cpu().autodiff();
    for d_sae in [160, 24] {
        let l1 = Architecture::Standard(Standard {
            l1: 0.2,
            p_end: 1.0,
            p_start: 0.0,
        });
        type Kept = fn(Tensor<2>) -> Tensor<2>;
        let cases: [(_, Kept, f64); 2] = [
            (Architecture::TopK { k: 2 }, largest_of_row, 0.0),
            (l1, |f| f, 0.2),
        ];
        for (architecture, kept, l1) in cases {
            let name = format!("{} of {d_sae}", architecture.name());
            let mut trainer = trainer(architecture, d_sae);
            trainer.layers.iter_mut().for_each(|t| t.step = 2000);
            let [x, y] = [3.0, 5.0].map(|s| wave(N * LAYERS * D, s));
            let cpu = AnyDevice::cpu();
            let blocks = |v: &[f32], side| {
                trainer.blocks(&matrix(v.to_vec(), LAYERS * D, cpu.tensor()), side)
            };
            let ours = block_on(trainer.backward(blocks(&x, 0), blocks(&y, 1), None)).unwrap();
            let tracked = |sae: &Sae| {
                let w = |w: &Tensor<2>| Tensor::from_inner(w.clone()).require_grad();
                let b = |b: &Tensor<1>| Tensor::from_inner(b.clone()).require_grad();
                Sae {
                    w_enc: w(&sae.w_enc),
                    b_enc: b(&sae.b_enc),
                    w_dec: w(&sae.w_dec),
                    b_dec: b(&sae.b_dec),
                    activation: Activation::Relu,
                    ..sae.clone()
                }
            };
            let saes: Vec<Sae> = trainer.layers.iter().map(|t| tracked(&t.sae)).collect();
            let [x, y] = [x, y].map(|v| matrix(v, LAYERS * D, on.tensor()));
            let loss = plain(&saes, &x, &y, &kept, l1);
            let grads = loss.backward();
            let total: f64 = ours.iter().map(|(_, l)| numbers(l.loss.clone())[0]).sum();
            let wanted = numbers(loss)[0];
            assert!(
                (total - wanted).abs() <= 1e-5 * wanted,
                "{name}: {total}, {wanted}"
            );
            for (l, ((ours, _), sae)) in ours.into_iter().zip(&saes).enumerate() {
                let pairs = [
                    (
                        "w_enc",
                        numbers(sparse_matmul_t(&ours.w_enc)),
                        numbers(sae.w_enc.grad(&grads).unwrap()),
                    ),
                    (
                        "w_dec",
                        numbers(sparse_matmul_t(&ours.w_dec)),
                        numbers(sae.w_dec.grad(&grads).unwrap()),
                    ),
                    (
                        "b_enc",
                        numbers(ours.b_enc),
                        numbers(sae.b_enc.grad(&grads).unwrap()),
                    ),
                    (
                        "b_dec",
                        numbers(ours.b_dec),
                        numbers(sae.b_dec.grad(&grads).unwrap()),
                    ),
                ];
                for (which, ours, theirs) in pairs {
                    let size = theirs.iter().fold(0f64, |m, g| m.max(g.abs()));
                    assert!(size > 0.0, "{name}: layer {l}: {which} has no gradient");
                    for (a, b) in ours.iter().zip(&theirs) {
                        assert!(
                            (a - b).abs() <= 2e-5 * size,
                            "{name}: layer {l}: {which}: {a}, {b} of {size}"
                        );
                    }
                }
            }
        }
    }
}
