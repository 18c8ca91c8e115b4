//! The inner loops of the CPU forms, written so that the compiler turns them into vector
//! instructions, and run under the widest set that the processor has.
//!
//! No fused multiply-add: the same bytes on every processor.

/// Runs `f` compiled for the processor's own vector instructions (AVX2, AVX-512 where there).
pub(crate) fn wide<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// A number and a row to be multiplied by it.
type Term<'a> = (f32, &'a [f32]);

/// `y += v x` for one term after another, leaving out those with `v = 0`. Four at a time, so that
/// `y` is read and written once for all of them; the sum is rounded as if it were one at a time.
#[inline(always)]
pub(super) fn add_all<'a>(y: &mut [f32], terms: impl Iterator<Item = Term<'a>>) {
    let mut terms = terms.filter(|(v, _)| *v != 0.0).fuse();
    while let Some(a) = terms.next() {
        match (terms.next(), terms.next(), terms.next()) {
            (Some(b), Some(c), Some(d)) => add_four(y, [a, b, c, d]),
            (b, c, _) => [Some(a), b, c]
                .into_iter()
                .flatten()
                .for_each(|t| add_one(y, t)),
        }
    }
}

#[inline(always)]
fn add_one(y: &mut [f32], (v, x): Term) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += v * x);
}

#[inline(always)]
fn add_four(y: &mut [f32], [(va, a), (vb, b), (vc, c), (vd, d)]: [Term; 4]) {
    let terms = a.iter().zip(b).zip(c.iter().zip(d));
    for (y, ((a, b), (c, d))) in y.iter_mut().zip(terms) {
        *y = *y + va * a + vb * b + vc * c + vd * d;
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

/// `eˣ` to within an ulp or so, over the whole range, subnormal results and NaN included.
///
/// `x = n ln 2 + r` with ln 2 in two parts, a polynomial in `r`, and `2ⁿ` in two factors (Cody &
/// Waite 1980; coefficients of Moshier's Cephes). No branch and no table: it compiles to vector
/// instructions.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: adding it leaves an integer in the lowest bits
    let x = x.clamp(-104.0, 89.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * (355.0 / 512.0) + n * 2.121_944_4e-4;
    let p = 1.987_569_2e-4 * r + 1.398_2e-3;
    let p = (p * r + 8.333_452e-3) * r + 4.166_579_6e-2;
    let p = (p * r + 1.666_666_5e-1) * r + 0.5;
    let y = p * (r * r) + r + 1.0;
    let n = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    y * power(n >> 1) * power(n - (n >> 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_right_to_two_units() {
        let steps = 2_000_000;
        for i in 0..=steps {
            let x = (-104.5 + 193.2 * f64::from(i) / f64::from(steps)) as f32;
            let (got, exact) = (exp(x), f64::from(x).exp());
            let unit = f64::from(f32::MIN_POSITIVE).max(exact) * f64::from(f32::EPSILON);
            assert!(
                (f64::from(got) - exact).abs() <= unit,
                "{x}: {got} for {exact}"
            );
        }
        assert_eq!(
            [exp(0.0), exp(-0.0), exp(f32::NEG_INFINITY)],
            [1.0, 1.0, 0.0]
        );
        assert!(exp(f32::NAN).is_nan() && exp(f32::INFINITY) == f32::INFINITY);
    }

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
            for terms in 0..11 {
                let v = |t: usize| if t % 3 == 1 { 0.0 } else { value(t) };
                let (mut y, mut one_by_one) = (b.clone(), b.clone());
                wide(|| add_all(&mut y, (0..terms).map(|t| (v(t), &a[..]))));
                (0..terms)
                    .filter(|t| v(*t) != 0.0)
                    .for_each(|t| add_one(&mut one_by_one, (v(t), &a)));
                assert_eq!(y, one_by_one, "{n} numbers, {terms} terms");
            }
        }
    }
}
