//! Fifty steps of the trainer against fifty of the dense way: every tensor held whole, gradients by
//! Burn's autodiff, Adam as the paper prints it.

use burn::tensor::activation::relu;
use inscape::ops::topk_reference;
use inscape::sae::{TrainConfig, Trainer};

use super::*;

const STEPS: usize = 50;

/// `w_enc`, `b_enc` (as a row), `w_dec`, `b_dec` (as a row).
type Params = [Tensor<2>; 4];

struct Dense {
    params: Params,
    moments: [Params; 2],
    t: i32,
}

impl Dense {
    fn new(trainer: &Trainer) -> Self {
        let sae = trainer.sae().rescale(trainer.scale());
        let params = [
            sae.w_enc,
            sae.b_enc.unsqueeze(),
            sae.w_dec,
            sae.b_dec.unsqueeze(),
        ];
        let zeros = || params.each_ref().map(Tensor::zeros_like);
        Self {
            moments: [zeros(), zeros()],
            params,
            t: 0,
        }
    }

    /// The loss of this batch, before the step.
    fn step(&mut self, x: Tensor<2>, config: &TrainConfig) -> f64 {
        self.t += 1;
        let on = x.device().autodiff();
        let tracked = |p: &Tensor<2>| Tensor::<2>::from_data(p.to_data(), &on).require_grad();
        let params = self.params.each_ref().map(tracked);
        let loss = loss(
            &params,
            Tensor::from_data(x.to_data(), &on),
            config.k().unwrap(),
        );
        let grads = loss.backward();
        let mut grads = params.each_ref().map(|p| p.grad(&grads).unwrap());
        grads[2] = orthogonal(grads[2].clone(), &self.params[2]);
        let squares: f64 = grads
            .iter()
            .map(|g| read64(g.clone().square().sum())[0])
            .sum();
        let clip = (config.clip / (squares.sqrt() + 1e-6)).min(1.0);
        for (i, grad) in grads.into_iter().enumerate() {
            self.adam(i, grad * clip, config);
        }
        let length = self.params[2].clone().square().sum_dim(1).sqrt();
        self.params[2] = self.params[2].clone() / length;
        read64(loss)[0]
    }

    fn adam(&mut self, i: usize, grad: Tensor<2>, config: &TrainConfig) {
        let adam = config.adam;
        let m = self.moments[0][i].clone() * adam.beta1 + grad.clone() * (1.0 - adam.beta1);
        let v = self.moments[1][i].clone() * adam.beta2 + grad.square() * (1.0 - adam.beta2);
        let (c1, c2) = (1.0 - adam.beta1.powi(self.t), 1.0 - adam.beta2.powi(self.t));
        let step = m.clone() / c1 / ((v.clone() / c2).sqrt() + adam.eps);
        self.params[i] = self.params[i].clone() - step * config.lr_at(self.t as u64);
        (self.moments[0][i], self.moments[1][i]) = (m, v);
    }
}

fn loss([w_enc, b_enc, w_dec, b_dec]: &Params, x: Tensor<2>, k: usize) -> Tensor<1> {
    let z = (x.clone() - b_dec.clone()).matmul(w_enc.clone().transpose()) + b_enc.clone();
    let (_, chosen) = topk_reference(z.clone().detach(), k);
    let ones = Tensor::ones_like(&z.clone().detach().gather(1, chosen.clone()));
    let mask = z
        .zeros_like()
        .scatter(1, chosen, ones, burn::tensor::IndexingUpdateOp::Add);
    let y = (relu(z) * mask).matmul(w_dec.clone()) + b_dec.clone();
    let mean = x.clone().mean_dim(0);
    (x.clone() - y).square().sum() / (x - mean).square().sum()
}

fn orthogonal(grad: Tensor<2>, w: &Tensor<2>) -> Tensor<2> {
    let along = (grad.clone() * w.clone()).sum_dim(1);
    grad - w.clone() * along
}

/// Largest relative difference of the losses, and largest difference of the parameters in units of
/// the way that Adam can have moved them, `Σ lr`, after `STEPS` steps of `d`, `d_sae`, `k`, `batch`.
fn drift([d, d_sae, k, batch]: [usize; 4], lazy: bool, device: &Device) -> (f64, f64) {
    let data = Planted::new(11, 4 * batch, d, d_sae / 2, k.min(3));
    let config = TrainConfig {
        batch,
        lazy_adam: lazy,
        dead_after: 1 << 40,
        ..TrainConfig::new(d, d_sae, k, (STEPS * batch) as u64)
    };
    let mut ours = Trainer::new(config.clone(), &data.rows, d, device.tensor()).unwrap();
    let mut dense = Dense::new(&ours);
    let mut losses = 0f64;
    for i in 0..STEPS {
        let rows = &data.rows[i % 4 * batch * d..][..batch * d];
        block_on(ours.step(t2(rows, d, device))).unwrap();
        let want = dense.step(t2(rows, d, device) * ours.scale(), &config);
        let got = block_on(ours.stats()).unwrap().loss;
        losses = losses.max((got - want).abs() / want);
    }
    let way: f64 = (1..=STEPS as u64).map(|t| config.lr_at(t)).sum();
    let sae = ours.sae().rescale(ours.scale());
    let got = [
        sae.w_enc,
        sae.b_enc.unsqueeze(),
        sae.w_dec,
        sae.b_dec.unsqueeze(),
    ];
    let off = got
        .into_iter()
        .zip(dense.params)
        .map(|(a, b)| read64((a - b).abs().max())[0]);
    (losses, off.fold(0.0, f64::max) / way)
}

#[test]
fn fifty_steps_are_those_of_the_dense_way() {
    for shape in [[16, 64, 4, 128], [33, 100, 7, 65], [24, 40, 12, 64]] {
        let (losses, params) = drift(shape, false, &Device::cpu());
        println!("{shape:?}: losses {losses:e}, parameters {params:e} of the way");
        assert!(
            losses <= LOSSES && params <= PARAMS,
            "{shape:?}: {losses:e} {params:e}"
        );
    }
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn fifty_steps_are_those_of_the_dense_way_on_the_gpu() {
    let (losses, params) = drift([8, 24, 3, 16], false, &shared::gpu());
    println!("losses {losses:e}, parameters {params:e} of the way");
    assert!(
        losses <= LOSSES && params <= PARAMS,
        "{losses:e} {params:e}"
    );
}

/// Bounds on the drift. Measured: 2e-7 of the loss and 2e-6 of the way, which is rounding. A near tie
/// that falls the other way, as it may on another processor, costs a latent part of one step in fifty.
const LOSSES: f64 = 1e-4;
const PARAMS: f64 = 1e-2;

/// Another optimiser must show.
#[test]
fn the_drift_sees_another_optimiser() {
    let (_, params) = drift([16, 64, 4, 16], true, &Device::cpu());
    assert!(params > PARAMS, "{params:e}");
}
