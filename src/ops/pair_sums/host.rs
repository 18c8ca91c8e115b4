//! The CPU form of pair sums, on slices.

use std::ops::Range;

use rayon::prelude::*;

use super::PairForm;
use crate::ops::flex::row;
use crate::ops::simd::{exp, wide};

/// Rows of one task. Fixed, so that sums are the same bits on any number of threads.
const ROWS: usize = 64;
/// Columns whose sums stay in the nearest cache while the rows of a task are added to them.
const COLUMNS: usize = 512;

/// Sums by row `[r, 3]` and by column `[c, 2]`.
pub(super) fn sums(sides: [&HostSide; 2], offset: i64, [r, c]: [usize; 2]) -> (Vec<f32>, Vec<f32>) {
    let mut by_row = vec![0f64; 3 * r];
    let mut shares = vec![0f64; r.div_ceil(ROWS) * 2 * c];
    let tasks = by_row
        .par_chunks_mut(3 * ROWS)
        .zip(shares.par_chunks_mut(2 * c));
    tasks.enumerate().for_each(|(task, (by_row, by_column))| {
        wide(
            #[inline(always)]
            || add_rows(sides, offset, task * ROWS, by_row, by_column),
        );
    });
    let by_column = |at: usize| -> f64 { shares.iter().skip(at).step_by(2 * c).sum() };
    let by_column = (0..2 * c).map(|i| by_column(i % 2 * c + i / 2) as f32);
    (
        by_row.iter().map(|&sum| sum as f32).collect(),
        by_column.collect(),
    )
}

/// Adds the rows from `first` on to their own sums `[_, 3]` and to those of the columns `[2, c]`.
#[inline(always)]
fn add_rows(
    [a, b]: [&HostSide; 2],
    offset: i64,
    first: usize,
    by_row: &mut [f64],
    by_column: &mut [f64],
) {
    let c = by_column.len() / 2;
    let (mut f, mut g) = ([0f32; COLUMNS], [0f32; COLUMNS]);
    let (of_f, of_g) = by_column.split_at_mut(c);
    for start in (0..c).step_by(COLUMNS) {
        let end = c.min(start + COLUMNS);
        for (i, sums) in by_row.chunks_mut(3).enumerate() {
            let right = ((first + i) as i64 + offset + 1).clamp(start as i64, end as i64) as usize;
            let (columns, length) = (right..end, end - right);
            a.form(first + i, &columns, &mut f[..length]);
            b.form(first + i, &columns, &mut g[..length]);
            add_row(&f[..length], &g[..length], sums);
            add_wide(&mut of_f[columns.clone()], &f[..length]);
            add_wide(&mut of_g[columns], &g[..length]);
        }
    }
}

#[inline(always)]
fn add_wide(sums: &mut [f64], x: &[f32]) {
    sums.iter_mut()
        .zip(x)
        .for_each(|(sum, &x)| *sum += f64::from(x));
}

/// Lanes of a sum in f64: two of the widest registers.
const LANES: usize = 16;

/// Adds Σ f g, Σ f and Σ g, in a fixed order.
#[inline(always)]
fn add_row(f: &[f32], g: &[f32], sums: &mut [f64]) {
    let mut lanes = [[0f64; LANES]; 3];
    let mut add = |i: usize, f: f32, g: f32| {
        let (f, g) = (f64::from(f), f64::from(g));
        lanes[0][i] += f * g;
        lanes[1][i] += f;
        lanes[2][i] += g;
    };
    let ((f, f_rest), (g, g_rest)) = (f.as_chunks::<LANES>(), g.as_chunks::<LANES>());
    for (f, g) in f.iter().zip(g) {
        for i in 0..LANES {
            add(i, f[i], g[i]);
        }
    }
    for (i, (&f, &g)) in f_rest.iter().zip(g_rest).enumerate() {
        add(i, f, g);
    }
    for (sum, lanes) in sums.iter_mut().zip(&lanes) {
        *sum += lanes.iter().sum::<f64>();
    }
}

/// One side as slices.
pub(super) struct HostSide<'a> {
    pub(super) products: &'a [f32],
    pub(super) rows: &'a [f32],
    pub(super) columns: &'a [f32],
    pub(super) form: PairForm,
}

impl HostSide<'_> {
    /// The forms of row `i` with these columns.
    #[inline(always)]
    fn form(&self, i: usize, columns: &Range<usize>, out: &mut [f32]) {
        let p = &row(self.products, i, self.columns.len())[columns.clone()];
        let (s, t) = (self.rows[i], &self.columns[columns.clone()]);
        match self.form {
            PairForm::Dot => out.copy_from_slice(p),
            PairForm::OneMinus => each(out, p, t, |p, _| 1.0 - p),
            PairForm::SquaredEuclidean => each(out, p, t, |p, t| squared(p, s, t)),
            PairForm::Euclidean => each(out, p, t, |p, t| squared(p, s, t).sqrt()),
            PairForm::Rbf { gamma } => {
                let gamma = gamma as f32;
                each(out, p, t, |p, t| exp(-gamma * squared(p, s, t)));
            }
        }
    }
}

#[inline(always)]
fn each(out: &mut [f32], p: &[f32], t: &[f32], form: impl Fn(f32, f32) -> f32) {
    let pairs = out.iter_mut().zip(p).zip(t);
    pairs.for_each(|((out, &p), &t)| *out = form(p, t));
}

#[inline(always)]
fn squared(p: f32, s: f32, t: f32) -> f32 {
    let d = s + t - 2.0 * p;
    if d < 0.0 { 0.0 } else { d }
}
