//! Measuring what was trained over the rows of a source.

use burn::tensor::Tensor;

use crate::Device;
use crate::capture::store::Source;
use crate::device::block_on;
use crate::sae::cross_layer::column_block;
use crate::sae::eval::{Accumulator, Reconstruction};
use crate::sae::train::batch_tensor;
use crate::sae::{CrossLayer, Error, Sae};

/// Measures an autoencoder over the rows of `source`. `seen` gets the rows done.
///
/// Memory: one batch of 2048 rows and its latents.
///
/// # Errors
/// Widths that differ; the source or the device failed.
pub fn evaluate(
    sae: &Sae,
    source: &Source,
    device: &Device,
    seen: impl FnMut(usize),
) -> Result<Reconstruction, Error> {
    evaluate_pair(sae, source, source, device, seen)
}

/// The same for a transcoder, which is to make the rows of `target` of those of `source`.
///
/// # Errors
/// Widths that do not fit the autoencoder, rows that differ in number; a source or the device failed.
pub fn evaluate_pair(
    sae: &Sae,
    source: &Source,
    target: &Source,
    device: &Device,
    seen: impl FnMut(usize),
) -> Result<Reconstruction, Error> {
    measure(
        Accumulator::new(sae.d_sae()),
        sae,
        [source, target],
        device,
        seen,
    )
}

/// [`evaluate`] for an autoencoder of rows that are normalised first
/// ([`is_normalized`](crate::sae::format::is_normalized)).
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_normalised(
    sae: &Sae,
    source: &Source,
    device: &Device,
    seen: impl FnMut(usize),
) -> Result<Reconstruction, Error> {
    let all = Accumulator::new(sae.d_sae()).normalised();
    measure(all, sae, [source, source], device, seen)
}

fn measure(
    mut all: Accumulator,
    sae: &Sae,
    [source, target]: [&Source; 2],
    device: &Device,
    mut seen: impl FnMut(usize),
) -> Result<Reconstruction, Error> {
    let (name, width) = (source.name(), source.width());
    if width != sae.d_in() {
        let takes = sae.d_in();
        let text = format!("{name} has rows of width {width}, the autoencoder takes {takes}");
        return Err(Error::Config(text));
    }
    if target.width() != sae.d_out() || target.rows() != source.rows() {
        return Err(Error::Config(format!(
            "{} has {} rows of width {}; {} of width {} are to be made of {name}",
            target.name(),
            target.rows(),
            target.width(),
            source.rows(),
            sae.d_out()
        )));
    }
    each_pair([source, target], device, |x, y, done| {
        block_on(all.add_pair(sae, x, y))?;
        seen(done);
        Ok(())
    })?;
    Ok(all.finish())
}

/// [`evaluate_pair`] for a cross-layer transcoder: of every layer what is written to it, by it and those before,
/// beside its own latents. Both sources hold the layers side by side ([`beside`](crate::capture::beside)).
///
/// # Errors
/// As [`evaluate_pair`].
pub fn evaluate_cross_layer(
    transcoder: &CrossLayer,
    source: &Source,
    target: &Source,
    device: &Device,
    mut seen: impl FnMut(usize),
) -> Result<Vec<Reconstruction>, Error> {
    let (layers, d_in, d_out) = (transcoder.layers(), transcoder.d_in(), transcoder.d_out());
    let wanted = [layers.len() * d_in, layers.len() * d_out];
    if [source.width(), target.width()] != wanted || source.rows() != target.rows() {
        return Err(Error::Config(format!(
            "{} [{}, {}] and {} [{}, {}]: as many rows, of widths {wanted:?}, are needed",
            source.name(),
            source.rows(),
            source.width(),
            target.name(),
            target.rows(),
            target.width(),
        )));
    }
    let mut all: Vec<_> = layers.iter().map(|l| Accumulator::new(l.d_sae())).collect();
    each_pair([source, target], device, |x, y, done| {
        let mut latents = Vec::new();
        for (l, sae) in layers.iter().enumerate() {
            latents.push(block_on(sae.encode(column_block(&x, l, d_in)).compact())?);
        }
        let written = layers.iter().zip(&latents);
        let made = transcoder.sum(written.map(|(sae, latents)| sae.decode(latents)));
        let layers = layers.iter().zip(latents).zip(&mut all);
        for (l, ((sae, latents), sums)) in layers.enumerate() {
            let of = |all: &Tensor<2>| column_block(all, l, d_out);
            block_on(sums.add_made(sae, latents, of(&y), of(&made)))?;
        }
        seen(done);
        Ok(())
    })?;
    Ok(all.into_iter().map(Accumulator::finish).collect())
}

/// Hands over the rows of a pair of sources, about 2,048 at once, and how many are done with them.
fn each_pair(
    [source, target]: [&Source; 2],
    device: &Device,
    mut with: impl FnMut(Tensor<2>, Tensor<2>, usize) -> Result<(), Error>,
) -> Result<(), Error> {
    let read = |source: &Source, range| {
        let mut rows = Vec::new();
        source.read_rows(range, &mut rows)?;
        Ok::<_, Error>(batch_tensor(rows, source.width(), device.tensor()))
    };
    for range in source.blocks(2048) {
        let x = read(source, range.clone())?;
        let y = match target.is(source) {
            true => x.clone(),
            false => read(target, range.clone())?,
        };
        with(x, y, range.end)?;
    }
    Ok(())
}
