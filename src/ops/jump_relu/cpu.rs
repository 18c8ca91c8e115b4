//! The CPU form of JumpReLU.

use burn::backend::Flex;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::{JumpReluOps, Pair, half, reference, reference_backward, reference_backward_l0, scale};
use crate::ops::flex;

impl JumpReluOps for Flex {
    fn jump_relu(z: FlexTensor, threshold: FlexTensor, _bandwidth: f64) -> Pair<Self> {
        if !flex::takes_rows(&z, &[&threshold]) {
            return reference::<Self>(z, threshold);
        }
        let [n, d] = flex::dims(&z);
        let (z, threshold) = (z.to_contiguous(), threshold.to_contiguous());
        let (f, l0) = forward_rows(flex::floats(&z), flex::floats(&threshold));
        (flex::matrix(f, n, d), flex::vector(l0))
    }

    fn jump_relu_backward(
        z: FlexTensor,
        threshold: FlexTensor,
        g_f: FlexTensor,
        g_l0: FlexTensor,
        bandwidth: f64,
    ) -> Pair<Self> {
        if !flex::takes_rows(&z, &[&threshold, &g_f, &g_l0]) {
            return reference_backward::<Self>(z, threshold, g_f, g_l0, bandwidth);
        }
        let [n, d] = flex::dims(&z);
        let (z, threshold) = (z.to_contiguous(), threshold.to_contiguous());
        let (g_f, g_l0) = (g_f.to_contiguous(), g_l0.to_contiguous());
        let rows = Rows::new(&z, &threshold, &g_l0, bandwidth);
        let (dz, d_threshold) = rows.backward(flex::floats(&g_f));
        (flex::matrix(dz, n, d), flex::vector(d_threshold))
    }

    fn jump_relu_backward_l0(
        z: FlexTensor,
        threshold: FlexTensor,
        g_l0: FlexTensor,
        bandwidth: f64,
    ) -> FlexTensor {
        if !flex::takes_rows(&z, &[&threshold, &g_l0]) {
            return reference_backward_l0::<Self>(z, threshold, g_l0, bandwidth);
        }
        let (z, threshold) = (z.to_contiguous(), threshold.to_contiguous());
        let g_l0 = g_l0.to_contiguous();
        flex::vector(Rows::new(&z, &threshold, &g_l0, bandwidth).backward_l0())
    }
}

fn forward_rows(z: &[f32], threshold: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let d = threshold.len();
    let (mut f, mut l0) = (vec![0f32; z.len()], vec![0f32; z.len() / d]);
    let rows = f.par_chunks_mut(d).zip(z.par_chunks(d));
    rows.zip(&mut l0).for_each(|((f, z), l0)| {
        let mut active = 0u32;
        for ((f, &z), &threshold) in f.iter_mut().zip(z).zip(threshold) {
            let above = z > threshold;
            *f = flex::masked(z, above, z.is_nan() | threshold.is_nan());
            active += u32::from(above);
        }
        *l0 = active as f32;
    });
    (f, l0)
}

/// What the backward pass reads: `z` `[n, d]`, `threshold` `[d]`, `g_l0` `[n]`.
struct Rows<'a> {
    z: &'a [f32],
    threshold: &'a [f32],
    g_l0: &'a [f32],
    bandwidth: f64,
}

impl<'a> Rows<'a> {
    fn new(
        z: &'a FlexTensor,
        threshold: &'a FlexTensor,
        g_l0: &'a FlexTensor,
        bandwidth: f64,
    ) -> Self {
        Self {
            z: flex::floats(z),
            threshold: flex::floats(threshold),
            g_l0: flex::floats(g_l0),
            bandwidth,
        }
    }

    fn dims(&self) -> [usize; 2] {
        [self.g_l0.len(), self.threshold.len()]
    }

    /// `dz` and `dθ`.
    fn backward(&self, g_f: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let ([n, d], half) = (self.dims(), half(self.bandwidth));
        let mut dz = vec![0f32; n * d];
        let sums = flex::sum_rows([n, d], d, &mut dz, |tile, dz, sums| {
            let (z, g_f) = (&self.z[tile.place.clone()], &g_f[tile.place]);
            let (threshold, sums) = (
                &self.threshold[tile.columns.clone()],
                &mut sums[tile.columns],
            );
            let g_l0 = self.g_l0[tile.row];
            back_through_both(z, threshold, g_f, g_l0, half, &mut dz[tile.own], sums);
        });
        (dz, self.scaled(sums))
    }

    /// `dθ` from `l0` alone.
    fn backward_l0(&self) -> Vec<f32> {
        let ([n, d], half) = (self.dims(), half(self.bandwidth));
        let sums = flex::sum_rows([n, d], d, &mut [], |tile, _, sums| {
            let (z, threshold) = (&self.z[tile.place], &self.threshold[tile.columns.clone()]);
            back_through_l0(
                z,
                threshold,
                self.g_l0[tile.row],
                half,
                &mut sums[tile.columns],
            );
        });
        self.scaled(sums)
    }

    fn scaled(&self, mut sums: Vec<f32>) -> Vec<f32> {
        let scale = scale(self.bandwidth);
        sums.iter_mut().for_each(|sum| *sum *= scale);
        sums
    }
}

fn back_through_both(
    z: &[f32],
    threshold: &[f32],
    g_f: &[f32],
    g_l0: f32,
    half: f32,
    dz: &mut [f32],
    sums: &mut [f32],
) {
    let latents = z.iter().zip(threshold).zip(g_f);
    for (((&z, &threshold), &g), (dz, sum)) in latents.zip(dz.iter_mut().zip(sums)) {
        let (nan, near) = (
            z.is_nan() | threshold.is_nan(),
            (z - threshold).abs() < half,
        );
        *dz = flex::masked(g, z > threshold, nan);
        *sum += flex::masked(threshold * g + g_l0, near, nan);
    }
}

fn back_through_l0(z: &[f32], threshold: &[f32], g_l0: f32, half: f32, sums: &mut [f32]) {
    for ((&z, &threshold), sum) in z.iter().zip(threshold).zip(sums) {
        let (nan, near) = (
            z.is_nan() | threshold.is_nan(),
            (z - threshold).abs() < half,
        );
        *sum += flex::masked(g_l0, near, nan);
    }
}
