//! Functions of long rows, compiled for the widest vector instructions the processor has.
//!
//! No fused multiply-add: the same bytes on every processor.

use super::host::Real;
use super::pairs::{Held, Source};
pub(super) use crate::ops::wide;

/// An element that the loops over pairs are written for.
pub(super) trait Lane: Real {
    fn sqrt(self) -> Self;
    /// `e` to this power, which is at most 0.
    fn exp(self) -> Self;
    /// The key of the largest finite value.
    const MOST_KEY: u64;
    /// A number that sorts as the value does, which is at least 0.
    fn key(self) -> u64;
    fn of_key(key: u64) -> Self;
    /// Keeps what pairs are worked out from.
    fn hold(source: Box<Source<Self>>) -> Held;
}

impl Lane for f32 {
    #[inline(always)]
    fn sqrt(self) -> Self {
        self.sqrt()
    }

    /// `2^k e^r` with `|r| <= ln 2 / 2`, Cephes' polynomial of degree 7: within 2 units in the last place.
    /// Below -87, where the result would lose digits, it is that of -87: 1.6e-38.
    #[inline(always)]
    #[allow(
        clippy::excessive_precision,
        reason = "Cephes' constants as they are printed"
    )]
    fn exp(self) -> Self {
        const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves no bits behind the point
        let x = self.max(-87.0);
        let shifted = x * std::f32::consts::LOG2_E + ROUND;
        let k = shifted - ROUND;
        let r = x - k * 0.693_359_375 + k * 2.121_944_40e-4;
        let p = 1.987_569_150_0e-4;
        let p = p * r + 1.398_199_950_7e-3;
        let p = p * r + 8.333_451_907_3e-3;
        let p = p * r + 4.166_579_589_4e-2;
        let p = p * r + 1.666_666_545_9e-1;
        let p = p * r + 5.000_000_120_1e-1;
        let power = (shifted.to_bits() << 23).wrapping_add(127 << 23);
        (p * r * r + r + 1.0) * Self::from_bits(power)
    }

    const MOST_KEY: u64 = f32::MAX.to_bits() as u64;

    #[inline(always)]
    fn key(self) -> u64 {
        u64::from((self + 0.0).to_bits())
    }

    fn of_key(key: u64) -> Self {
        Self::from_bits(key as u32)
    }

    fn hold(source: Box<Source<Self>>) -> Held {
        Held::Narrow(source)
    }
}

impl Lane for f64 {
    #[inline(always)]
    fn sqrt(self) -> Self {
        self.sqrt()
    }

    fn exp(self) -> Self {
        self.exp()
    }

    const MOST_KEY: u64 = f64::MAX.to_bits();

    #[inline(always)]
    fn key(self) -> u64 {
        (self + 0.0).to_bits()
    }

    fn of_key(key: u64) -> Self {
        Self::from_bits(key)
    }

    fn hold(source: Box<Source<Self>>) -> Held {
        Held::Wide(source)
    }
}

/// The square root of each value.
pub(super) fn sqrt<T: Lane>(values: &mut [T]) {
    wide(|| values.iter_mut().for_each(|v| *v = v.sqrt()));
}

/// `exp(factor v)` of each value, of which none is above 0.
pub(super) fn exp<T: Lane>(values: &mut [T], factor: T) {
    wide(|| values.iter_mut().for_each(|v| *v = (factor * *v).exp()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_right_to_the_last_digits() {
        let mut worst = 0.0f64;
        for i in 0..200_000 {
            let x = -87.0 * (i as f32 / 200_000.0).powi(2);
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(Lane::exp(x)) / exact - 1.0).abs());
        }
        assert!(worst < 2.0 * f32::EPSILON as f64, "{worst:e}");
        assert_eq!(Lane::exp(0.0f32), 1.0);
        assert!(Lane::exp(-1e30f32) < 2e-38);
    }
}
