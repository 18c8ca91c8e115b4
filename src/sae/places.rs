use std::sync::{Arc, OnceLock};

use burn::tensor::{DType, IndexingUpdateOp, Int, Tensor};

use crate::device::{self, Error};
use crate::ops::{self, BatchTopk, ByLatent, LatentSums};

/// Which latents of each row a tensor `[n, k]` speaks of: those listed, or all of them in their order
/// (then k is `d_sae`). Listed is the faster where few are active, and the two mean the same.
#[derive(Clone, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "a few a step, and most are lists"
)]
pub(super) enum Places {
    Listed(Arc<Listed>),
    All,
}

/// Latents `[n, k]`, and their entries by latent from when these are first asked for.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) latents: Tensor<2, Int>,
    by_latent: OnceLock<ByLatent>,
}

impl Listed {
    /// The entries of all rows by latent: grouped once, for every sum over them.
    pub(super) fn by_latent(&self, d_sae: usize) -> &ByLatent {
        self.by_latent
            .get_or_init(|| ByLatent::of(&self.latents, d_sae))
    }

    /// `Σ values · g[row]` over the entries `[n, k]` of each latent.
    pub(super) fn sums(&self, values: Tensor<2>, g: Tensor<2>, d_sae: usize) -> LatentSums {
        LatentSums::new(values.flatten(0, 1), self.by_latent(d_sae), g)
    }
}

/// Latents a row from which all of them are taken: a dense product over an eighth of them costs about
/// what sparse ones do.
const LISTED_UP_TO: usize = 8;

impl Places {
    /// The places where `x` `[n, d_sae]` is above 0, and `x` there; in a row with fewer of them than
    /// another, some where it is not.
    ///
    /// Reads one number from the device.
    pub(super) async fn above_zero(x: Tensor<2>) -> Result<(Self, Tensor<2>), Error> {
        let [n, d_sae] = x.dims();
        let counts = x.clone().greater_elem(0.0).float().sum_dim(1);
        let most: Vec<f32> = device::read(counts.reshape([n]).max()).await?;
        let k = (most[0] as usize).max(1);
        if !lists(k, d_sae) {
            return Ok((Self::All, x));
        }
        let (values, places) = ops::topk(x, k);
        Ok((Self::listed(places), values))
    }

    /// The places of the values above 0 among those `chosen` of rows `[n, d_sae]`, and these values; in
    /// a row with fewer of them than another, some that the rows after it have, with 0.
    ///
    /// Reads one number from the device.
    pub(super) async fn chosen(
        chosen: BatchTopk,
        [n, d_sae]: [usize; 2],
    ) -> Result<(Self, Tensor<2>), Error> {
        let none = chosen.values.clone().lower_equal_elem(0.0);
        let rows = chosen.rows.clone().mask_fill(none, n as i64);
        let by_row = ops::by_latent(rows, chosen.columns.clone(), n + 1);
        let starts = by_row.starts.clone().narrow(0, 0, n);
        let counts = by_row.starts.narrow(0, 1, n) - starts.clone();
        let most = device::read_int(counts.clone().max()).await?;
        let k = (most[0] as usize).max(1);
        if !lists(k, d_sae) {
            return Ok((Self::All, matrix(chosen, [n, d_sae])));
        }
        let [total] = chosen.values.dims();
        let slots = Tensor::<1, Int>::arange(0..k as i64, (&starts.device(), DType::I32));
        let slots = slots.unsqueeze::<2>().expand([n, k]);
        let wide = |of_row: Tensor<1, Int>| of_row.unsqueeze_dim::<2>(1).expand([n, k]);
        let off = slots.clone().greater_equal(wide(counts));
        let entries = (slots + wide(starts)).clamp_max(total as i64 - 1);
        let entries = entries.flatten::<1>(0, 1);
        let values = chosen.values.gather(0, by_row.entries);
        let values = values.gather(0, entries.clone()).reshape([n, k]);
        let latents = by_row.rows.gather(0, entries).reshape([n, k]);
        Ok((Self::listed(latents), values.mask_fill(off, 0.0)))
    }

    pub(super) fn listed(latents: Tensor<2, Int>) -> Self {
        Self::Listed(Arc::new(Listed {
            latents,
            by_latent: OnceLock::new(),
        }))
    }

    pub(super) fn list(&self) -> Option<&Listed> {
        match self {
            Self::Listed(list) => Some(list),
            Self::All => None,
        }
    }

    /// The same places `first` latents further on.
    pub(super) fn shifted(self, first: usize) -> Self {
        match self {
            Self::Listed(list) => Self::listed(list.latents.clone().add_scalar(first as i64)),
            Self::All => Self::All,
        }
    }

    /// A number a latent, at the places: `[n, k]`, or `[1, d_sae]` where that is the same.
    pub(super) fn pick(&self, v: &Tensor<1>) -> Tensor<2> {
        match self {
            Self::Listed(list) => {
                let all = list.latents.clone().flatten::<1>(0, 1);
                v.clone().select(0, all).reshape(list.latents.dims())
            }
            Self::All => v.clone().unsqueeze(),
        }
    }

    /// `x` `[n, d_sae]` at the places.
    pub(super) fn of(&self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Listed(list) => x.gather(1, list.latents.clone()),
            Self::All => x,
        }
    }

    /// `Σ values · w[place]`: `[n, d]`.
    pub(super) fn decode(&self, values: Tensor<2>, w: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Listed(list) => ops::sparse_decode(values, list.latents.clone(), w, None),
            Self::All => values.matmul(w),
        }
    }

    /// `signal · w[place]`: `[n, k]`.
    pub(super) fn dot(&self, signal: Tensor<2>, w: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Listed(list) => ops::sparse_dot(signal, w, list.latents.clone()),
            Self::All => signal.matmul(w.transpose()),
        }
    }

    /// The sum of `values` `[n, k]` by latent: `[d_sae]`.
    pub(super) fn totals(&self, values: Tensor<2>, d_sae: usize) -> Tensor<1> {
        match self {
            Self::Listed(list) => {
                let ones = Tensor::ones([values.dims()[0], 1], (&values.device(), values.dtype()));
                ops::sparse_matmul_t(&list.sums(values, ones, d_sae)).squeeze_dim(1)
            }
            Self::All => values.sum_dim(0).squeeze_dim(0),
        }
    }
}

/// Whether k of them a row are listed.
fn lists(k: usize, d_sae: usize) -> bool {
    k <= 1024 && k * LISTED_UP_TO <= d_sae
}

/// What is chosen of `[n, d_sae]`, in its place, and 0 elsewhere.
fn matrix(chosen: BatchTopk, [n, d_sae]: [usize; 2]) -> Tensor<2> {
    let BatchTopk {
        values,
        rows,
        columns,
        ..
    } = chosen;
    let zeros = Tensor::<1>::zeros([n * d_sae], (&values.device(), values.dtype()));
    let places = rows.mul_scalar(d_sae as i64).add(columns);
    let all = zeros.scatter(0, places, values, IndexingUpdateOp::Add);
    all.reshape([n, d_sae])
}
