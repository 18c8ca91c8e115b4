//! Dead latents start anew (Bricken et al. 2023, "Towards monosemanticity", as
//! dictionary_learning has it).

use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::arch::unit_rows;
use super::{Activation, Architecture, Error, Trainer};
use crate::device;

/// Length of the encoder row of a latent that starts anew, of the mean of those that live.
const ENCODER_SHARE: f64 = 0.2;

/// Gives every dead latent an input of the batch, drawn by squared error: its decoder row is the
/// direction of what was to be made of it, its encoder row that of the input, at a fifth of the mean
/// length; its bias and moments are 0, its threshold or magnitude as at the start. The draws depend on the seed and the step.
///
/// Cost: one reconstruction of the batch. Does nothing where no latent is dead.
///
/// # Errors
/// The device failed.
pub(super) async fn resample(
    trainer: &mut Trainer,
    x: Tensor<2>,
    y: Option<Tensor<2>>,
) -> Result<(), Error> {
    let Some(dead) = trainer.dead.take() else {
        return Ok(());
    };
    let sae = &mut trainer.sae;
    let y = y.unwrap_or_else(|| x.clone());
    let error = y.clone() - sae.reconstruct(x.clone());
    let errors: Vec<f64> = device::read(error.square().sum_dim(1)).await?;
    let seed = trainer.config.seed ^ trainer.step.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let drawn = draw(&errors, dead.dims()[0], seed);
    let drawn = Tensor::<1, Int>::from_data(TensorData::new(drawn, [dead.dims()[0]]), &x.device());

    let wanted = y.select(0, drawn.clone()) - sae.b_dec.clone().unsqueeze();
    let input = match sae.subtract_b_dec {
        true => x.select(0, drawn) - sae.b_dec.clone().unsqueeze(),
        false => x.select(0, drawn),
    };
    let length = alive_length(&sae.w_enc, &dead) * ENCODER_SHARE;
    let decoder = unit_rows(wanted) * trainer.config.conventions.decoder_norm;
    sae.w_enc = with_rows(&sae.w_enc, &dead, unit_rows(input) * length.unsqueeze());
    sae.w_dec = with_rows(&sae.w_dec, &dead, decoder);
    let kept = with_zeros(sae.b_enc.ones_like(), &dead);
    sae.b_enc = sae.b_enc.clone() * kept.clone();
    let rows = kept.clone().unsqueeze_dim::<2>(1);
    for moments in trainer.moments.matrices.iter_mut().take(2) {
        moments.m = moments.m.clone() * rows.clone();
        moments.v = moments.v.clone() * rows.clone();
    }
    match &mut sae.activation {
        Activation::JumpRelu { threshold } => {
            let Architecture::JumpRelu(settings) = &trainer.config.architecture else {
                unreachable!("thresholds are JumpReLU's")
            };
            let anew = (kept.ones_like() - kept.clone()) * settings.threshold;
            *threshold = threshold.clone() * kept.clone() + anew;
        }
        Activation::Gated { r_mag, b_mag } => {
            *r_mag = r_mag.clone() * kept.clone();
            *b_mag = b_mag.clone() * kept.clone();
        }
        _ => {}
    }
    // Those of the latents: all but b_dec's.
    for (i, bias) in trainer.moments.vectors.iter_mut().enumerate() {
        if i != 1 {
            bias.m = bias.m.clone() * kept.clone();
            bias.v = bias.v.clone() * kept.clone();
        }
    }
    trainer.silent = trainer.silent.clone() * kept;
    Ok(())
}

/// `m` rows, each drawn with a chance in proportion to its error.
fn draw(errors: &[f64], m: usize, seed: u64) -> Vec<i32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut sums = Vec::with_capacity(errors.len());
    let mut sum = 0.0;
    for error in errors {
        sum += error;
        sums.push(sum);
    }
    let one = |at: f64| sums.partition_point(|&s| s <= at * sum).min(sums.len() - 1) as i32;
    (0..m).map(|_| one(rng.random())).collect()
}

/// The mean length of the rows of `w` that are not dead, 1 if there is none: `[1]`.
fn alive_length(w: &Tensor<2>, dead: &Tensor<1, Int>) -> Tensor<1> {
    let lengths = w.clone().square().sum_dim(1).sqrt().squeeze_dim::<1>(1);
    let alive = with_zeros(lengths.ones_like(), dead);
    let none = alive.clone().sum().equal_elem(0.0);
    let mean = (lengths * alive.clone()).sum() / alive.sum().clamp_min(1.0);
    mean.mask_fill(none, 1.0)
}

fn with_zeros(ones: Tensor<1>, dead: &Tensor<1, Int>) -> Tensor<1> {
    let less = ones.clone().select(0, dead.clone()).neg();
    ones.select_assign(0, dead.clone(), less, IndexingUpdateOp::Add)
}

/// `w` with `rows` in the place of those of the dead latents.
fn with_rows(w: &Tensor<2>, dead: &Tensor<1, Int>, rows: Tensor<2>) -> Tensor<2> {
    let kept = with_zeros(Tensor::ones([w.dims()[0]], (&w.device(), w.dtype())), dead);
    let kept = w.clone() * kept.unsqueeze_dim(1);
    kept.select_assign(0, dead.clone(), rows, IndexingUpdateOp::Add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_drawn_by_their_error() {
        let drawn = draw(&[0.0, 3.0, 0.0, 1.0], 4000, 7);
        let count = |row: i32| drawn.iter().filter(|&&r| r == row).count();
        assert_eq!((count(0), count(2)), (0, 0));
        assert!((2800..3200).contains(&count(1)), "{}", count(1));
        assert_eq!(drawn, draw(&[0.0, 3.0, 0.0, 1.0], 4000, 7));
    }
}
