//! Small networks trained with Burn's autodiff.

use burn::tensor::Tensor;
use inscape::Device;
use inscape::ops::{Adam, Moments};

/// The CPU, with a graph for gradients.
pub fn autodiff() -> Device {
    Device::from_burn(Device::cpu().tensor().clone().autodiff())
}

/// `params` after `steps` of Adam down `loss` of the parameters and the step, with a rate that falls
/// linearly to 0. `params` come and go without a graph.
pub fn descend(
    params: Vec<Tensor<2>>,
    adam: &Adam,
    (steps, lr): (u64, f64),
    mut loss: impl FnMut(&[Tensor<2>], u64) -> Tensor<1>,
) -> Vec<Tensor<2>> {
    let device = autodiff();
    let tracked = |w: Tensor<2>| Tensor::from_data(w.into_data(), device.tensor()).require_grad();
    let mut moments: Vec<Moments<2>> = params.iter().map(Moments::zeros).collect();
    let mut params: Vec<Tensor<2>> = params.into_iter().map(tracked).collect();
    for t in 1..=steps {
        let grads = loss(&params, t).backward();
        let lr = lr * (1.0 - (t - 1) as f64 / steps as f64);
        for (w, m) in params.iter_mut().zip(&mut moments) {
            let grad = w.grad(&grads).expect("every parameter is used");
            let next = adam.step(t, lr, w.clone().inner(), grad, m);
            *w = Tensor::from_inner(next).require_grad();
        }
    }
    params.into_iter().map(Tensor::inner).collect()
}
