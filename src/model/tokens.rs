use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::hook;

/// A batch of token ids; rows may differ in length and are padded on the right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    rows: Vec<Vec<u32>>,
}

impl Tokens {
    /// A batch of rows.
    ///
    /// # Panics
    /// If there is no row or a row is empty.
    pub fn new(rows: Vec<Vec<u32>>) -> Self {
        assert!(
            !rows.is_empty() && rows.iter().all(|r| !r.is_empty()),
            "tokens: a batch needs rows and no row may be empty"
        );
        Self { rows }
    }

    /// The rows, without padding.
    pub fn rows(&self) -> &[Vec<u32>] {
        &self.rows
    }

    /// Refuses rows longer than `context` and ids not below `vocab`.
    pub(crate) fn check(&self, context: usize, vocab: usize) -> Result<(), hook::Error> {
        let [_, pos] = self.dims();
        if pos > context {
            return Err(hook::Error::Context { pos, max: context });
        }
        let id = self.rows.iter().flatten().copied().max().unwrap_or(0);
        if id as usize >= vocab {
            Err(hook::Error::TokenId { id, vocab })
        } else {
            Ok(())
        }
    }

    /// `[batch, pos]`.
    pub fn dims(&self) -> [usize; 2] {
        [
            self.rows.len(),
            self.rows.iter().map(Vec::len).max().unwrap_or(0),
        ]
    }

    /// Ids `[batch, pos]`, padded with 0.
    pub fn ids(&self, device: &Device) -> Tensor<2, Int> {
        let [batch, pos] = self.dims();
        let mut ids = vec![0i64; batch * pos];
        for (row, out) in self.rows.iter().zip(ids.chunks_mut(pos)) {
            out.iter_mut()
                .zip(row)
                .for_each(|(o, &id)| *o = i64::from(id));
        }
        Tensor::from_data(TensorData::new(ids, [batch, pos]), device)
    }

    /// 1 at real tokens and 0 at padding, `[batch, pos]`; `None` when nothing is padded.
    pub fn mask(&self, device: &Device) -> Option<Tensor<2>> {
        let [batch, pos] = self.dims();
        if self.rows.iter().all(|r| r.len() == pos) {
            return None;
        }
        let mut mask = vec![0f32; batch * pos];
        for (row, out) in self.rows.iter().zip(mask.chunks_mut(pos)) {
            out[..row.len()].fill(1.0);
        }
        Some(Tensor::from_data(
            TensorData::new(mask, [batch, pos]),
            device,
        ))
    }
}

impl From<Vec<Vec<u32>>> for Tokens {
    fn from(rows: Vec<Vec<u32>>) -> Self {
        Self::new(rows)
    }
}
