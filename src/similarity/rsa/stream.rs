//! Comparisons of all pairs of two representations in bounded memory: tiles of both sides together.

use std::ops::Range;

use burn::tensor::{DType, Tensor};

use super::super::Error;
use super::super::groups::Groups;
use super::super::host::{Real, Rows, map_chunks, sum_range};
use super::super::tiles::tiles;
use super::compare::{Comparator, equal};
use super::rdm::{Points, Rdm, alike, as_they_are, scale};
use crate::device;

/// Columns of a tile that are turned into dissimilarities together.
const COLUMNS: usize = 2048;

/// One side: its points, from which every tile is made anew.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    points: Points,
    wide: bool,
    /// Group of each row and dissimilarity of the equal rows of each; none if no two rows are equal.
    equals: Option<(Vec<u32>, Vec<f64>)>,
    /// What makes the dissimilarities those of the values as given.
    unit: f64,
}

impl Stream {
    /// With `as_given`, the dissimilarities are those of the values as they are, whatever they were scaled
    /// by when they were read.
    pub(super) async fn new<T: Real>(
        rdm: Rdm,
        x: &Tensor<2>,
        as_given: bool,
    ) -> Result<Self, Error> {
        let unit = match as_given && rdm.degree() > 0 {
            true => scale::<T>(x).await?.powi(-rdm.degree()),
            false => 1.0,
        };
        let (near, rows) = match rdm {
            Rdm::Poisson => (x.clone(), as_they_are::<T>(x).await?),
            _ => Rows::<T>::read(x.clone()).await?,
        };
        let groups = Groups::new(&rows);
        let equals = (!groups.all_distinct()).then(|| {
            let firsts = groups.members.iter().map(|m| rows.row(m[0] as usize));
            let of = firsts.map(|row| alike(rdm, row)).collect();
            (groups.of.clone(), of)
        });
        Ok(Self {
            points: Points::new(rdm, &near, &rows)?,
            wide: x.dtype() == DType::F64,
            equals,
            unit,
        })
    }

    /// Rows `r` against all from `r.start` on, in f64 whatever they were computed in.
    async fn tile(&self, r: &Range<usize>) -> Result<Tile, device::Error> {
        let product = self.points.tile(r);
        Ok(match self.wide {
            true => Tile::F64(device::read::<f64, 2>(product).await?),
            false => Tile::F32(device::read::<f32, 2>(product).await?),
        })
    }

    /// The dissimilarities of row `i` and the rows `columns`, of which `tile` holds the products from
    /// `at` on.
    fn fill(&self, tile: &Tile, at: usize, i: usize, columns: Range<usize>, out: &mut Vec<f64>) {
        out.clear();
        let of = |(p, j): (f64, usize)| self.points.value(p, i, j);
        match tile {
            Tile::F32(v) => {
                let products = v[at..at + columns.len()].iter().map(|&p| f64::from(p));
                out.extend(products.zip(columns.clone()).map(of));
            }
            Tile::F64(v) => {
                let products = v[at..at + columns.len()].iter().copied();
                out.extend(products.zip(columns.clone()).map(of));
            }
        }
        if let Some((group, alike)) = &self.equals {
            for (value, j) in out.iter_mut().zip(columns) {
                if group[i] == group[j] {
                    *value = alike[group[i] as usize];
                }
            }
        }
        if self.unit != 1.0 {
            out.iter_mut().for_each(|v| *v *= self.unit);
        }
    }
}

/// Products as they were read.
enum Tile {
    F32(Vec<f32>),
    F64(Vec<f64>),
}

/// Sums of `terms(a, b)` over all pairs of rows.
async fn fold<const K: usize>(
    a: &Stream,
    b: &Stream,
    terms: impl Fn(f64, f64) -> [f64; K] + Sync + Send,
) -> Result<[f64; K], device::Error> {
    let n = a.points.len();
    let mut total = [0.0; K];
    for r in tiles(n) {
        let (ta, tb) = (a.tile(&r).await?, b.tile(&r).await?);
        let width = n - r.start;
        let parts = map_chunks(r.len(), 1, |rows| {
            let i = r.start + rows.start;
            let (mut va, mut vb) = (Vec::new(), Vec::new());
            let mut sums = [0.0; K];
            for from in (i + 1..n).step_by(COLUMNS) {
                let columns = from..(from + COLUMNS).min(n);
                let at = rows.start * width + from - r.start;
                a.fill(&ta, at, i, columns.clone(), &mut va);
                b.fill(&tb, at, i, columns, &mut vb);
                for (k, sum) in sums.iter_mut().enumerate() {
                    *sum += sum_range(0..va.len(), |c| terms(va[c], vb[c])[k]);
                }
            }
            sums
        });
        for part in parts {
            total.iter_mut().zip(part).for_each(|(t, p)| *t += p);
        }
    }
    Ok(total)
}

/// Pearson's correlation or the cosine of the dissimilarities.
pub(super) async fn compare(a: &Stream, b: &Stream, by: Comparator) -> Result<f64, Error> {
    let [sa, sb, aa, bb, ab] = fold(a, b, |a, b| [a, b, a * a, b * b, a * b]).await?;
    let n = a.points.len() as f64;
    let pairs = if by.centres() {
        n * (n - 1.0) / 2.0
    } else {
        f64::INFINITY
    };
    let (var_a, var_b) = (aa - sa * sa / pairs, bb - sb * sb / pairs);
    let rounding = 64.0 * f64::EPSILON;
    if var_a <= rounding * aa || var_b <= rounding * bb {
        return Err(equal());
    }
    Ok((ab - sa * sb / pairs) / var_a.sqrt() / var_b.sqrt())
}

/// Frobenius norm of the difference of the two matrices.
pub(super) async fn difference(a: &Stream, b: &Stream) -> Result<f64, Error> {
    let [square] = fold(a, b, |a, b| [(a - b) * (a - b)]).await?;
    Ok((2.0 * square).sqrt())
}
