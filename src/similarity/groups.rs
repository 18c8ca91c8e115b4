//! Rows that are equal to the last bit, as the first layer of a language model has for every token
//! that comes twice. Products are taken once for each, so that equal rows tie exactly.

use std::collections::HashMap;

use burn::tensor::{Int, Tensor, TensorData};

use super::host::{Real, Rows};

/// The distinct rows of a representation, numbered in order of first appearance.
pub(super) struct Groups {
    /// Number of each row's group.
    pub(super) of: Vec<u32>,
    /// The rows of each group, ascending.
    pub(super) members: Vec<Vec<u32>>,
}

impl Groups {
    pub(super) fn new<T: Real>(rows: &Rows<T>) -> Self {
        let mut numbers: HashMap<&[u8], u32> = HashMap::with_capacity(rows.n);
        let mut members: Vec<Vec<u32>> = Vec::with_capacity(rows.n);
        let of = (0..rows.n).map(|i| {
            let bytes = bytemuck::cast_slice(rows.row(i));
            let group = *numbers.entry(bytes).or_insert(members.len() as u32);
            if group as usize == members.len() {
                members.push(Vec::with_capacity(1));
            }
            members[group as usize].push(i as u32);
            group
        });
        Self {
            of: of.collect(),
            members,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether no two rows are equal.
    pub(super) fn all_distinct(&self) -> bool {
        self.of.len() == self.len()
    }

    fn firsts(&self) -> impl Iterator<Item = u32> {
        self.members.iter().map(|m| m[0])
    }

    /// One row of each group, `[groups, d]`.
    pub(super) fn distinct(&self, x: Tensor<2>) -> Tensor<2> {
        if self.all_distinct() {
            return x;
        }
        let firsts: Vec<i32> = self.firsts().map(|i| i as i32).collect();
        let index = TensorData::new(firsts, [self.len()]);
        let index = Tensor::<1, Int>::from_data(index, &x.device());
        x.select(0, index)
    }

    /// One row of each group, on the host.
    pub(super) fn distinct_rows<T: Real>(&self, rows: Rows<T>) -> Rows<T> {
        if self.all_distinct() {
            return rows;
        }
        let firsts: Vec<usize> = self.firsts().map(|i| i as usize).collect();
        rows.reordered(&firsts)
    }

    /// The strict upper triangle over all rows, from that over the groups. Two rows of group `g` have
    /// `own(g)`.
    pub(super) fn expand<T: Real>(&self, upper: Vec<T>, own: impl Fn(usize) -> T) -> Vec<T> {
        if self.all_distinct() {
            return upper;
        }
        let (n, groups) = (self.of.len(), self.len());
        let at = |a: usize, b: usize| upper[a * (2 * groups - a - 1) / 2 + b - a - 1];
        let mut all = Vec::with_capacity(n * (n - 1) / 2);
        for (i, &a) in self.of.iter().enumerate() {
            all.extend(self.of[i + 1..].iter().map(|&b| match a == b {
                true => own(a as usize),
                false => at(a.min(b) as usize, a.max(b) as usize),
            }));
        }
        all
    }
}
