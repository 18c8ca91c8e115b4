//! The inner loops of the CPU forms, written so that the compiler turns them into vector
//! instructions, and run under the widest set that the processor has.
//!
//! No fused multiply-add: the same bytes on every processor.

/// Runs `f` compiled for the processor's own vector instructions (AVX2, AVX-512 where there).
pub(super) fn wide<R>(f: impl FnOnce() -> R) -> R {
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
