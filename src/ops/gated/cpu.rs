//! The CPU form of the gated activation.

use std::ops::Range;

use burn::backend::Flex;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::{Four, GatedOps, GatedOutputs, Three, reference, reference_backward};
use crate::ops::flex;

impl GatedOps for Flex {
    fn gated(
        z: FlexTensor,
        r_mag: FlexTensor,
        b_gate: FlexTensor,
        b_mag: FlexTensor,
    ) -> Three<Self> {
        if !flex::takes_rows(&z, &[&r_mag, &b_gate, &b_mag]) {
            return reference::<Self>(z, [r_mag, b_gate, b_mag]);
        }
        let [n, d] = flex::dims(&z);
        let latents = Latents::new([r_mag, b_gate, b_mag]);
        let (f, gate, l0) = forward_rows(flex::floats(&z.to_contiguous()), &latents);
        (
            flex::matrix(f, n, d),
            flex::matrix(gate, n, d),
            flex::vector(l0),
        )
    }

    fn gated_backward(
        z: FlexTensor,
        r_mag: FlexTensor,
        b_gate: FlexTensor,
        b_mag: FlexTensor,
        g_f: FlexTensor,
        g_gate: FlexTensor,
        of: GatedOutputs,
    ) -> Four<Self> {
        if !flex::takes_rows(&z, &[&r_mag, &b_gate, &b_mag, &g_f, &g_gate]) {
            return reference_backward::<Self>(z, [r_mag, b_gate, b_mag], [g_f, g_gate], of);
        }
        let [n, d] = flex::dims(&z);
        let latents = Latents::new([r_mag, b_gate, b_mag]);
        let [z, g_f, g_gate] = [z, g_f, g_gate].map(|x| x.to_contiguous());
        let grads = [&z, &g_f, &g_gate].map(flex::floats);
        let (dz, sums) = backward_rows(grads, &latents, of);
        let [b_gate, b_mag, r_mag] = [0, 1, 2].map(|i| sums[i * d..][..d].to_vec());
        (
            flex::matrix(dz, n, d),
            flex::vector(r_mag),
            flex::vector(b_gate),
            flex::vector(b_mag),
        )
    }
}

/// What belongs to every latent.
struct Latents {
    b_gate: Vec<f32>,
    b_mag: Vec<f32>,
    scale: Vec<f32>,
}

impl Latents {
    fn new(vectors: [FlexTensor; 3]) -> Self {
        let [mut scale, b_gate, b_mag] = vectors.map(|x| flex::floats(&x.to_contiguous()).to_vec());
        scale.iter_mut().for_each(|r| *r = r.exp());
        Self {
            b_gate,
            b_mag,
            scale,
        }
    }

    /// `b_gate`, `b_mag`, scale of some of them.
    fn at(&self, columns: Range<usize>) -> impl Iterator<Item = (&f32, (&f32, &f32))> {
        let (b_mag, scale) = (&self.b_mag[columns.clone()], &self.scale[columns.clone()]);
        self.b_gate[columns].iter().zip(b_mag.iter().zip(scale))
    }
}

/// Whether both are above 0, and whether either is NaN; without a branch, for the vector units.
fn open(pi: f32, magnitude: f32) -> (bool, bool) {
    let above = (pi > 0.0) & (magnitude > 0.0);
    (above, pi.is_nan() | magnitude.is_nan())
}

fn forward_rows(z: &[f32], latents: &Latents) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let d = latents.scale.len();
    let (mut f, mut gate) = (vec![0f32; z.len()], vec![0f32; z.len()]);
    let mut l0 = vec![0f32; z.len() / d];
    let outputs = f.par_chunks_mut(d).zip(gate.par_chunks_mut(d)).zip(&mut l0);
    outputs
        .zip(z.par_chunks(d))
        .for_each(|(((f, gate), l0), z)| *l0 = forward_row(z, latents, f, gate));
    (f, gate, l0)
}

fn forward_row(z: &[f32], latents: &Latents, f: &mut [f32], gate: &mut [f32]) -> f32 {
    let mut active = 0u32;
    let elements = z.iter().zip(latents.at(0..z.len()));
    for ((&z, (&b_gate, (&b_mag, &scale))), (f, gate)) in elements.zip(f.iter_mut().zip(gate)) {
        let (pi, magnitude) = (z + b_gate, z * scale + b_mag);
        let (open, nan) = open(pi, magnitude);
        *f = flex::masked(magnitude, open, nan);
        *gate = flex::masked(pi, pi > 0.0, pi.is_nan());
        active += u32::from(open);
    }
    active as f32
}

/// `dz`, and `[3, d]`: the gradients of `b_gate`, `b_mag`, `r_mag`.
fn backward_rows(
    [z, g_f, g_gate]: [&[f32]; 3],
    latents: &Latents,
    of: GatedOutputs,
) -> (Vec<f32>, Vec<f32>) {
    let d = latents.scale.len();
    let mut dz = vec![0f32; z.len()];
    let sums = flex::sum_rows([z.len() / d, d], 3 * d, &mut dz, |tile, dz, sums| {
        let (place, columns) = (tile.place, tile.columns);
        let (z, dz) = (&z[place.clone()], &mut dz[tile.own]);
        let (of_b_gate, rest) = sums.split_at_mut(d);
        let (of_b_mag, of_r_mag) = rest.split_at_mut(d);
        match of.f() {
            true => {
                let (g, latents) = (&g_f[place.clone()], latents.at(columns.clone()));
                let (of_b_mag, of_r_mag) = (
                    &mut of_b_mag[columns.clone()],
                    &mut of_r_mag[columns.clone()],
                );
                back_through_f(z, g, latents, dz, [of_b_mag, of_r_mag]);
            }
            false => dz.fill(0.0), // written before it is read: new memory is mapped once
        }
        if of.gate() {
            let b_gate = &latents.b_gate[columns.clone()];
            back_through_gate(z, &g_gate[place], b_gate, dz, &mut of_b_gate[columns]);
        }
    });
    (dz, sums)
}

/// Writes `dz`, and adds to the sums.
fn back_through_f<'a>(
    z: &[f32],
    g_f: &[f32],
    latents: impl Iterator<Item = (&'a f32, (&'a f32, &'a f32))>,
    dz: &mut [f32],
    [of_b_mag, of_r_mag]: [&mut [f32]; 2],
) {
    let sums = of_b_mag.iter_mut().zip(of_r_mag);
    let elements = z.iter().zip(g_f).zip(latents);
    for (((&z, &g), (&b_gate, (&b_mag, &scale))), (dz, (of_b_mag, of_r_mag))) in
        elements.zip(dz.iter_mut().zip(sums))
    {
        let (pi, magnitude) = (z + b_gate, z * scale + b_mag);
        let (open, nan) = open(pi, magnitude);
        *dz = flex::masked(g * scale, open, nan);
        *of_b_mag += flex::masked(g, open, nan);
        *of_r_mag += flex::masked(g * scale * z, open, nan);
    }
}

/// Adds to `dz` and to the sums.
fn back_through_gate(z: &[f32], g: &[f32], b_gate: &[f32], dz: &mut [f32], sums: &mut [f32]) {
    let elements = z.iter().zip(g).zip(b_gate);
    for (((&z, &g), &b_gate), (dz, sum)) in elements.zip(dz.iter_mut().zip(sums)) {
        let pi = z + b_gate;
        let through = flex::masked(g, pi > 0.0, pi.is_nan());
        *dz += through;
        *sum += through;
    }
}
