//! Every architecture's written-out gradients against Burn's autodiff of the loss in plain tensor
//! operations, where that has one, and against finite differences in f64.

use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use inscape::Device;
use inscape::ops::sparse_matmul_t;
use inscape::sae::{
    Activation, Architecture, Conventions, Gated, JumpPenalty, JumpRelu, Matryoshka, Now,
    Reduction, Sae, Standard, TrainConfig, backward,
};

use super::*;

const N: usize = 12;
const D: usize = 6;

/// An architecture with its convention, a width, and what it is called.
struct Case {
    name: &'static str,
    architecture: Architecture,
    unit_decoder: bool,
    d_sae: usize,
    now: (f64, f64),
}

fn standard(l1: f64, p_end: f64) -> Architecture {
    Architecture::Standard(Standard {
        l1,
        p_end,
        p_start: 0.0,
    })
}

fn jump(penalty: JumpPenalty) -> Architecture {
    Architecture::JumpRelu(JumpRelu {
        penalty,
        bandwidth: 0.4,
        threshold: 0.0,
        pre_act: 0.0,
    })
}

fn gated(aux_to_decoder: bool) -> Architecture {
    Architecture::Gated(Gated {
        l1: 0.3,
        aux_to_decoder,
    })
}

fn cases() -> Vec<Case> {
    let case = |name, architecture, unit_decoder, now| {
        // Wide enough for lists of active latents, and so narrow that dense products are taken.
        [256, 24].map(|d_sae| Case {
            name,
            architecture: Architecture::clone(&architecture),
            unit_decoder,
            d_sae,
            now,
        })
    };
    let matryoshka = |mean| {
        Architecture::Matryoshka(Matryoshka {
            k: 3,
            widths: vec![5, 11],
            mean,
        })
    };
    [
        case("L1", standard(0.3, 1.0), false, (0.5, 1.0)),
        case("L1, unit decoder", standard(0.3, 1.0), true, (1.0, 1.0)),
        case(
            "BatchTopK",
            Architecture::BatchTopK { k: 3 },
            true,
            (1.0, 1.0),
        ),
        case("Matryoshka", matryoshka(false), true, (1.0, 1.0)),
        case("Matryoshka, mean", matryoshka(true), true, (1.0, 1.0)),
        case("Gated", gated(false), false, (1.0, 1.0)),
        case("Gated, all", gated(true), false, (1.0, 1.0)),
        case(
            "JumpReLU, step",
            jump(JumpPenalty::Step { l0: 0.2 }),
            true,
            (1.0, 1.0),
        ),
        case(
            "JumpReLU, tanh",
            jump(JumpPenalty::Tanh {
                l0: 0.2,
                scale: 4.0,
            }),
            false,
            (0.7, 1.0),
        ),
        case(
            "JumpReLU, target",
            jump(JumpPenalty::TargetL0 {
                weight: 1.0,
                target: 2.0,
            }),
            true,
            (1.0, 1.0),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

impl Case {
    fn config(&self) -> TrainConfig {
        TrainConfig {
            architecture: self.architecture.clone(),
            conventions: Conventions {
                unit_decoder: self.unit_decoder,
                reduction: Reduction::Rows,
                ..Conventions::default()
            },
            ..TrainConfig::new(D, self.d_sae, 3, 1 << 20)
        }
    }

    fn now(&self) -> Now {
        Now {
            dead: None,
            sparsity: self.now.0,
            p: self.now.1,
            k: 3,
        }
    }

    /// Decoder rows of many lengths; biases that leave about one latent in twenty active.
    fn sae(&self, device: &Device) -> Sae {
        let mut sae = random_sae(5, D, self.d_sae, 3, device);
        let mut draws = Draws::new(9);
        let mut vector = |scale: f64, shift: f64| {
            let values = draws.normals(self.d_sae);
            let values: Vec<f32> = values.iter().map(|x| (x * scale + shift) as f32).collect();
            t1(&values, device)
        };
        if !self.unit_decoder {
            sae.w_dec = sae.w_dec * (vector(0.2, 1.0)).unsqueeze_dim(1);
        }
        sae.b_enc = vector(0.3, if self.d_sae > 100 { -2.5 } else { -0.3 });
        sae.activation = match &self.architecture {
            Architecture::Standard(_) => Activation::Relu,
            Architecture::TopK { k } => Activation::TopK { k: *k },
            Architecture::BatchTopK { k } | Architecture::Matryoshka(Matryoshka { k, .. }) => {
                Activation::BatchTopK {
                    k: *k,
                    threshold: t1(&[0.0], device),
                }
            }
            Architecture::JumpRelu(_) => Activation::JumpRelu {
                threshold: vector(0.05, 0.3),
            },
            Architecture::Gated(_) => Activation::Gated {
                r_mag: vector(0.1, 0.0),
                b_mag: vector(0.1, 0.2),
            },
        };
        sae
    }

    /// The loss in plain tensor operations. What the paper holds constant is detached; steps have the
    /// gradient of [`step`].
    fn loss(&self, sae: &Sae, x: Tensor<2>) -> Tensor<1> {
        let b_dec = || sae.b_dec.clone().unsqueeze::<2>();
        let product = (x.clone() - b_dec()).matmul(sae.w_enc.clone().transpose());
        let b_enc = || sae.b_enc.clone().unsqueeze::<2>();
        let lengths = match self.unit_decoder {
            true => sae.b_enc.ones_like().detach(),
            false => sae.w_dec.clone().square().sum_dim(1).sqrt().squeeze_dim(1),
        };
        let lengths = || lengths.clone().unsqueeze::<2>();
        let square = |e: Tensor<2>| e.square().sum() / N as f64;
        let decoded = |f: &Tensor<2>| f.clone().matmul(sae.w_dec.clone()) + b_dec();
        let mean = |x: Tensor<2>| x.sum() / N as f64 * self.now.0;
        match (&self.architecture, &sae.activation) {
            (Architecture::Standard(s), _) => {
                let f = relu(product + b_enc());
                square(x - decoded(&f)) + mean(f * lengths()) * s.l1
            }
            (Architecture::BatchTopK { k }, _) => {
                let f = largest_of_batch(relu(product + b_enc()), k * N);
                square(x - decoded(&f))
            }
            (Architecture::Matryoshka(m), _) => {
                let f = largest_of_batch(relu(product + b_enc()), m.k * N);
                let share = if m.mean { 1.0 / 3.0 } else { 1.0 };
                let ends = m.widths.iter().copied().chain([self.d_sae]);
                let part = |end: usize| {
                    let w = sae.w_dec.clone().narrow(0, 0, end);
                    let y = f.clone().narrow(1, 0, end).matmul(w) + b_dec();
                    square(x.clone() - y) * share
                };
                ends.map(part).reduce(|a, b| a + b).unwrap()
            }
            (Architecture::Gated(g), Activation::Gated { r_mag, b_mag }) => {
                let gate = relu(product.clone() + b_enc());
                let on = gate.clone().greater_elem(0.0).float();
                let magnitude =
                    product * r_mag.clone().exp().unsqueeze() + b_mag.clone().unsqueeze();
                let f = relu(magnitude) * on;
                let aux = match g.aux_to_decoder {
                    true => decoded(&gate),
                    false => gate.clone().matmul(sae.w_dec.clone().detach()) + b_dec().detach(),
                };
                // b_dec reaches the auxiliary term through the encoder only.
                square(x.clone() - decoded(&f)) + square(x - aux) + mean(gate * lengths()) * g.l1
            }
            (Architecture::JumpRelu(j), Activation::JumpRelu { threshold }) => {
                let z = product + b_enc();
                let theta = threshold.clone().unsqueeze::<2>().expand(z.dims());
                let step = step(z.clone().detach() - theta.clone(), j.bandwidth);
                // f's gradient by θ is θ times that of the step.
                let on = step.clone().detach();
                let f = z * on + theta.detach() * (step.clone() - step.clone().detach());
                let l0 = step.sum() / N as f64;
                let penalty = match j.penalty {
                    JumpPenalty::Step { l0: lambda } => l0 * (lambda * self.now.0),
                    JumpPenalty::TargetL0 { weight, target } => {
                        (l0 / target - 1.0).square() * (weight * self.now.0)
                    }
                    JumpPenalty::Tanh { l0: lambda, scale } => {
                        mean((f.clone() * lengths() * scale).tanh()) * lambda
                    }
                };
                square(x - decoded(&f)) + penalty
            }
            _ => unreachable!(),
        }
    }
}

/// `1[u > 0]` with the gradient `1/ε` within ε/2 of 0.
fn step(u: Tensor<2>, bandwidth: f64) -> Tensor<2> {
    let hard = u.clone().detach().greater_elem(0.0).float();
    let window = u.clone().detach().abs().lower_elem(bandwidth / 2.0).float();
    let soft = u * window / bandwidth;
    hard + soft.clone() - soft.detach()
}

/// All but the largest of the batch made 0, ties or not.
fn largest_of_batch(f: Tensor<2>, total: usize) -> Tensor<2> {
    let mut values = read64(f.clone());
    values.sort_by(|a, b| b.total_cmp(a));
    let keep = f.clone().greater_equal_elem(values[total - 1]).float();
    f * keep.detach()
}

fn inputs(device: &Device) -> Tensor<2> {
    let values: Vec<f32> = f32s(&Draws::new(3).normals(N * D));
    t2(&values, D, device)
}

/// Parameters in one order: w_enc, b_enc, w_dec, b_dec, those of the activation.
fn ours(case: &Case) -> (Vec<Vec<f64>>, f64, f64) {
    let cpu = Device::cpu();
    let (sae, config) = (case.sae(&cpu), case.config());
    let result = block_on(backward(&sae, inputs(&cpu), None, &case.now(), &config));
    let (grads, losses) = result.unwrap();
    let mut all = vec![
        read64(sparse_matmul_t(&grads.w_enc)),
        read64(grads.b_enc),
        read64(sparse_matmul_t(&grads.w_dec)),
        read64(grads.b_dec),
    ];
    all.extend(grads.activation.into_iter().map(read64));
    (all, read64(losses.loss)[0], read64(grads.fired.sum())[0])
}

fn by_autodiff(case: &Case) -> (Vec<Vec<f64>>, f64) {
    let device = Device::from_burn(Device::cpu().tensor().clone().autodiff());
    let mut sae = case.sae(&device);
    let tracked =
        |v: &mut Tensor<1>| *v = Tensor::from_data(v.to_data(), device.tensor()).require_grad();
    for w in [&mut sae.w_enc, &mut sae.w_dec] {
        *w = Tensor::from_data(w.to_data(), device.tensor()).require_grad();
    }
    tracked(&mut sae.b_enc);
    tracked(&mut sae.b_dec);
    match &mut sae.activation {
        Activation::JumpRelu { threshold } => tracked(threshold),
        Activation::Gated { r_mag, b_mag } => {
            tracked(r_mag);
            tracked(b_mag);
        }
        _ => {}
    }
    let loss = case.loss(&sae, inputs(&device));
    let grads = loss.backward();
    let vector = |v: &Tensor<1>| read64(v.grad(&grads).unwrap());
    let mut all = vec![
        read64(sae.w_enc.grad(&grads).unwrap()),
        vector(&sae.b_enc),
        read64(sae.w_dec.grad(&grads).unwrap()),
        vector(&sae.b_dec),
    ];
    match &sae.activation {
        Activation::JumpRelu { threshold } => all.push(vector(threshold)),
        Activation::Gated { r_mag, b_mag } => all.extend([vector(r_mag), vector(b_mag)]),
        _ => {}
    }
    (all, read64(loss)[0])
}

const NAMES: [&str; 6] = ["w_enc", "b_enc", "w_dec", "b_dec", "first", "second"];

#[test]
fn every_architecture_has_the_gradients_of_its_loss() {
    for case in cases() {
        let name = format!("{} of {}", case.name, case.d_sae);
        let ((ours, our_loss, fired), (theirs, loss)) = (ours(&case), by_autodiff(&case));
        assert!(
            (our_loss - loss).abs() <= 1e-5 * loss,
            "{name}: loss {our_loss}, {loss}"
        );
        assert!(fired > 0.0, "{name}: nothing fired");
        assert_eq!(ours.len(), theirs.len(), "{name}");
        for (which, (ours, theirs)) in NAMES.iter().zip(ours.iter().zip(&theirs)) {
            let mut theirs = theirs.clone();
            if case.unit_decoder && *which == "w_dec" {
                assert!(theirs.iter().any(|g| *g != 0.0));
            }
            let size = theirs.iter().fold(0f64, |m, g| m.max(g.abs()));
            assert!(size > 0.0, "{name}: {which} has no gradient to compare");
            for (a, b) in ours.iter().zip(&mut theirs) {
                assert!(
                    (a - *b).abs() <= 2e-5 * size,
                    "{name}: {which}: {a}, {b} of {size}"
                );
            }
        }
    }
}
