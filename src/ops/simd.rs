//! The inner loops of the CPU forms, written so that the compiler turns them into vector
//! instructions, and run under the widest set that the processor has.
//!
//! No fused multiply-add: the same bytes on every processor.

/// Runs `f` compiled for the processor's own vector instructions (AVX2, AVX-512 where there).
pub(super) fn wide<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// `y += v x`, nothing at all for `v = 0`.
#[inline(always)]
pub(super) fn add_scaled(y: &mut [f32], v: f32, x: &[f32]) {
    if v != 0.0 {
        y.iter_mut().zip(x).for_each(|(y, x)| *y += v * x);
    }
}

/// Lanes of a sum: as many partial sums as two of the widest registers hold.
const LANES: usize = 32;

/// `Σ f(a[i], b[i])`, in a fixed order.
#[inline(always)]
fn reduce(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            lanes[i] += f(a[i], b[i]);
        }
    }
    for (i, (&a, &b)) in a_rest.iter().zip(b_rest).enumerate() {
        lanes[i] += f(a, b);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// `a · b`.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    reduce(a, b, |a, b| a * b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_every_length_agree_with_f64() {
        let value = |i: usize| ((i * 37 + 11) as f32).sin();
        for n in (0..70).chain([96, 127, 128, 129, 1000]) {
            let (a, b): (Vec<f32>, Vec<f32>) = (0..n).map(|i| (value(i), value(i + 500))).unzip();
            let exact: f64 = a
                .iter()
                .zip(&b)
                .map(|(&a, &b)| f64::from(a) * f64::from(b))
                .sum();
            let got = wide(|| dot(&a, &b));
            assert!(
                (f64::from(got) - exact).abs() <= n as f64 * f64::from(f32::EPSILON),
                "{n}"
            );
            assert_eq!(
                got,
                dot(&a, &b),
                "the same bytes without vector instructions"
            );
            let mut y = b.clone();
            wide(|| add_scaled(&mut y, 2.0, &a));
            assert!((0..n).all(|i| y[i] == b[i] + 2.0 * a[i]));
        }
    }
}
