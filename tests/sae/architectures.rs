//! Every architecture's written-out gradients against Burn's autodiff of the loss in plain tensor
//! operations.

use burn::tensor::{Int, Tensor};
use inscape::Device;
use inscape::ops::sparse_matmul_t;
use inscape::sae::{
    Activation, Architecture, AuxNormaliser, Conventions, Gated, JumpPenalty, JumpRelu, Matryoshka,
    Now, Reduction, Sae, Standard, TrainConfig, backward,
};

use super::plain_loss::Plain;
use super::*;

const N: usize = 12;
const D: usize = 6;
/// What a transcoder writes.
const D_OUT: usize = 4;
const K: usize = 3;

/// So wide that active latents are listed, and so narrow that dense products are taken.
const WIDTHS: [usize; 2] = [256, 24];

/// Settings, and what a step finds.
struct Case {
    name: &'static str,
    config: TrainConfig,
    sparsity: f64,
    p: f64,
    /// Whether eight of the latents are dead.
    dead: bool,
}

/// Of any width, with decoder rows held at length 1 and no dead latent.
fn case(name: &'static str, architecture: Architecture) -> Case {
    let config = TrainConfig {
        architecture,
        conventions: Conventions {
            reduction: Reduction::Rows,
            ..Conventions::default()
        },
        ..TrainConfig::new(D, WIDTHS[0], K, 1 << 20)
    };
    Case {
        name,
        config,
        sparsity: 1.0,
        p: 1.0,
        dead: false,
    }
}

fn standard() -> Architecture {
    Architecture::Standard(Standard {
        l1: 0.3,
        p_end: 0.5,
        p_start: 0.0,
    })
}

fn jump(penalty: JumpPenalty) -> Architecture {
    Architecture::JumpRelu(JumpRelu {
        penalty,
        bandwidth: 0.4,
        threshold: 0.0,
        pre_act: 0.05,
    })
}

fn gated(aux_to_decoder: bool) -> Architecture {
    Architecture::Gated(Gated {
        l1: 0.3,
        aux_to_decoder,
    })
}

fn matryoshka(mean: bool) -> Architecture {
    Architecture::Matryoshka(Matryoshka {
        k: K,
        widths: Vec::new(),
        mean,
    })
}

fn cases() -> Vec<Case> {
    let (topk, batch_topk) = (
        || Architecture::TopK { k: K },
        || Architecture::BatchTopK { k: K },
    );
    let step = || jump(JumpPenalty::Step { l0: 0.2 });
    let tanh = || {
        jump(JumpPenalty::Tanh {
            l0: 0.2,
            scale: 4.0,
        })
    };
    let target = || {
        jump(JumpPenalty::TargetL0 {
            weight: 1.0,
            target: 2.0,
        })
    };
    let all = [
        case("L1", standard()).free().at(0.5, 1.0),
        case("L1, unit decoder", standard()),
        case("Lp", standard()).free().at(0.5, 0.6),
        case("Lp, unit decoder", standard()).at(1.0, 0.6),
        case("L1, crosscoder", standard()).free().crosscoder(),
        case("Lp, crosscoder", standard())
            .free()
            .crosscoder()
            .at(1.0, 0.6),
        case("L1, skip transcoder", standard()).free().skip(),
        case("TopK", topk()),
        case("TopK, AuxK", topk()).dead(),
        case("TopK, AuxK of SAELens", topk()).saelens_aux().dead(),
        case("Multi-TopK", topk()).multi(),
        case("Multi-TopK, AuxK", topk()).multi().dead(),
        case("TopK, crosscoder", topk()).crosscoder().dead(),
        case("TopK, skip transcoder", topk()).skip().dead(),
        case("BatchTopK", batch_topk()),
        case("BatchTopK, AuxK", batch_topk()).dead(),
        case("BatchTopK, crosscoder", batch_topk()).crosscoder(),
        case("Matryoshka", matryoshka(false)),
        case("Matryoshka, mean, AuxK", matryoshka(true)).dead(),
        case("Matryoshka, skip transcoder", matryoshka(false)).skip(),
        case("Gated", gated(false)).free(),
        case("Gated, unit decoder", gated(false)).at(0.5, 1.0),
        case("Gated, all", gated(true)).free(),
        case("Gated, crosscoder", gated(false)).free().crosscoder(),
        case("Gated, skip transcoder", gated(false)).free().skip(),
        case("Gated, all, skip transcoder", gated(true))
            .free()
            .skip(),
        case("JumpReLU, step", step()),
        case("JumpReLU, step, dead latents", step()).free().dead(),
        case("JumpReLU, tanh", tanh()).free().at(0.7, 1.0),
        case("JumpReLU, tanh, dead latents", tanh()).free().dead(),
        case("JumpReLU, target", target()),
        case("JumpReLU, target, dead latents", target()).dead(),
    ];
    let both = |case: Case| WIDTHS.map(|d_sae| case.of_width(d_sae));
    all.into_iter().flat_map(both).collect()
}

impl Case {
    fn of_width(&self, d_sae: usize) -> Self {
        let mut config = TrainConfig {
            d_sae,
            ..self.config.clone()
        };
        if let Architecture::Matryoshka(settings) = &mut config.architecture {
            settings.widths = vec![d_sae / 4, d_sae / 2];
        }
        Self { config, ..*self }
    }

    /// Decoder rows of any length.
    fn free(mut self) -> Self {
        self.config.conventions.unit_decoder = false;
        self
    }

    fn at(self, sparsity: f64, p: f64) -> Self {
        Self {
            sparsity,
            p,
            ..self
        }
    }

    fn dead(self) -> Self {
        Self { dead: true, ..self }
    }

    fn multi(mut self) -> Self {
        self.config.conventions.multi_topk = 0.125;
        self
    }

    /// More than there are dead latents, and taken before the ReLU.
    fn saelens_aux(mut self) -> Self {
        self.config.k_aux = 12;
        self.config.conventions = Conventions {
            aux_relu: false,
            aux_by_share: true,
            aux_normaliser: AuxNormaliser::Rows,
            ..self.config.conventions
        };
        self
    }

    fn crosscoder(mut self) -> Self {
        self.config.sites = 2;
        self.config.conventions.subtract_b_dec = false;
        self
    }

    fn skip(mut self) -> Self {
        self.config.skip = true;
        self.config.conventions.subtract_b_dec = false;
        self
    }

    fn now(&self, device: &Device) -> Now {
        let d_sae = self.config.d_sae;
        let dead: Vec<i32> = (0..d_sae as i32).step_by(d_sae / 8).collect();
        let dead = || Tensor::<1, Int>::from_data(&dead[..], device.tensor());
        Now {
            dead: self.dead.then(dead),
            sparsity: self.sparsity,
            p: self.p,
            k: K,
        }
    }

    /// Decoder rows of many lengths where they are free; biases that leave about one latent in twenty
    /// active.
    fn sae(&self, device: &Device) -> Sae {
        let (config, d_sae) = (&self.config, self.config.d_sae);
        let mut sae = random_sae(5, D, d_sae, K, device);
        let mut draws = Draws::new(9);
        let mut vector = |scale: f64, shift: f64| {
            let values = draws.normals(d_sae);
            let values: Vec<f32> = values.iter().map(|x| (x * scale + shift) as f32).collect();
            t1(&values, device)
        };
        if !config.conventions.unit_decoder {
            sae.w_dec = sae.w_dec * (vector(0.2, 1.0)).unsqueeze_dim(1);
        }
        if config.skip {
            sae.w_dec = sae.w_dec.narrow(1, 0, D_OUT);
            sae.b_dec = sae.b_dec.narrow(0, 0, D_OUT);
            sae.w_skip = Some(sae.w_enc.clone().narrow(0, 0, D_OUT) * 0.5);
        }
        sae.sites = config.sites;
        sae.subtract_b_dec = config.conventions.subtract_b_dec;
        sae.b_enc = vector(0.3, if d_sae > 100 { -2.5 } else { -0.3 });
        sae.activation = match &config.architecture {
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

    /// What is read, and what is to be written where that is something else.
    fn batch(&self, device: &Device) -> (Tensor<2>, Option<Tensor<2>>) {
        let rows = |seed, d| t2(&f32s(&Draws::new(seed).normals(N * d)), d, device);
        let other = || rows(4, D_OUT);
        (rows(3, D), self.config.skip.then(other))
    }

    /// Whether active latents are listed: then the rows that gradients are sums of are the batch's.
    fn lists(&self) -> bool {
        self.config.d_sae > 100
    }
}

/// Gradients by name, and the loss.
type Named = (Vec<(&'static str, Vec<f64>)>, f64);

/// The names of an activation's own parameters.
const OWN: [&str; 2] = ["threshold or r_mag", "b_mag"];

fn ours(case: &Case, device: &Device) -> Named {
    let (sae, (x, y)) = (case.sae(device), case.batch(device));
    let result = block_on(backward(&sae, x, y, &case.now(device), &case.config));
    let (grads, losses) = result.unwrap();
    let fired = read64(grads.fired.sum())[0];
    assert!(fired > 0.0, "{}: nothing fired", case.name);
    let [rows, _] = grads.w_enc.g.dims();
    assert!(
        rows == N || !case.lists(),
        "{}: nothing is listed",
        case.name
    );
    let mut all = vec![
        ("w_enc", read64(sparse_matmul_t(&grads.w_enc))),
        ("b_enc", read64(grads.b_enc)),
        ("w_dec", read64(sparse_matmul_t(&grads.w_dec))),
        ("b_dec", read64(grads.b_dec)),
    ];
    all.extend(grads.w_skip.map(|g| ("w_skip", read64(g))));
    let own = grads.activation.into_iter().map(read64);
    all.extend(OWN.into_iter().zip(own));
    (all, read64(losses.loss)[0])
}

fn by_autodiff(case: &Case) -> Named {
    let device = Device::from_burn(Device::cpu().tensor().clone().autodiff());
    let mut sae = case.sae(&device);
    fn track<const D: usize>(x: &mut Tensor<D>) {
        *x = Tensor::from_data(x.to_data(), &x.device()).require_grad();
    }
    track(&mut sae.w_enc);
    track(&mut sae.w_dec);
    track(&mut sae.b_enc);
    track(&mut sae.b_dec);
    sae.w_skip.iter_mut().for_each(track);
    let mut own: Vec<&mut Tensor<1>> = match &mut sae.activation {
        Activation::JumpRelu { threshold } => vec![threshold],
        Activation::Gated { r_mag, b_mag } => vec![r_mag, b_mag],
        _ => Vec::new(),
    };
    own.iter_mut().for_each(|v| track(v));
    let own: Vec<Tensor<1>> = own.into_iter().map(|v| v.clone()).collect();

    let (x, y) = case.batch(&device);
    let plain = Plain {
        sae: &sae,
        config: &case.config,
        now: &case.now(&device),
        y: y.unwrap_or_else(|| x.clone()),
        x,
    };
    let loss = plain.loss();
    let grads = loss.backward();
    let vector = |v: &Tensor<1>| read64(v.grad(&grads).unwrap());
    let matrix = |w: &Tensor<2>| read64(w.grad(&grads).unwrap());
    let mut all = vec![
        ("w_enc", matrix(&sae.w_enc)),
        ("b_enc", vector(&sae.b_enc)),
        ("w_dec", matrix(&sae.w_dec)),
        ("b_dec", vector(&sae.b_dec)),
    ];
    all.extend(sae.w_skip.as_ref().map(|w| ("w_skip", matrix(w))));
    all.extend(OWN.into_iter().zip(own.iter().map(vector)));
    (all, read64(loss)[0])
}

fn has_the_gradients_of_its_loss(device: &Device) {
    let mut wrong = Vec::new();
    for case in cases() {
        let name = format!("{} of {}", case.name, case.config.d_sae);
        let ((ours, our_loss), (theirs, loss)) = (ours(&case, device), by_autodiff(&case));
        if (our_loss - loss).abs() > 1e-5 * loss {
            wrong.push(format!("{name}: loss {our_loss}, {loss}"));
        }
        assert_eq!(ours.len(), theirs.len(), "{name}");
        for ((which, ours), (_, theirs)) in ours.iter().zip(&theirs) {
            assert_eq!(ours.len(), theirs.len(), "{name}: {which}");
            let size = theirs.iter().fold(0f64, |m, g| m.max(g.abs()));
            assert!(size > 0.0, "{name}: {which} has no gradient to compare");
            let fits = |(a, b): &(&f64, &f64)| (*a - *b).abs() <= 2e-5 * size;
            if let Some((a, b)) = ours.iter().zip(theirs).find(|pair| !fits(pair)) {
                wrong.push(format!("{name}: {which}: {a}, {b} of {size}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_architecture_has_the_gradients_of_its_loss() {
    has_the_gradients_of_its_loss(&Device::cpu());
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn every_architecture_has_the_gradients_of_its_loss_on_the_gpu() {
    has_the_gradients_of_its_loss(&shared::gpu());
}
