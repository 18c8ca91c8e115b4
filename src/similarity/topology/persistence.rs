//! Persistent homology of a point cloud: which holes there are, and over what range of distances.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use burn::tensor::Tensor;

use super::super::Error;
use super::super::host::{Rows, map_chunks};
use super::distances::Distances;
use crate::device::block_on;

/// A class of a filtration that is born and dies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bar {
    /// Distance at which the class appears.
    pub birth: f64,
    /// Distance at which it is filled in; larger than `birth`.
    pub death: f64,
}

impl Bar {
    /// How long the class lives.
    pub fn length(self) -> f64 {
        self.death - self.birth
    }
}

/// The persistent homology of one representation, in dimensions 0 and 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Persistence {
    /// Distances at which connected components merge, ascending: the `n - 1` edges of the minimum
    /// spanning tree. The component that never dies is left out.
    pub h0: Vec<f64>,
    /// Loops, by birth and then by death. Those of length 0 are left out.
    pub h1: Vec<Bar>,
}

impl Persistence {
    /// Summed length of the loops.
    pub fn total(&self) -> f64 {
        total(&self.h1)
    }

    /// Length of the longest loop; 0 if there is none.
    pub fn longest(&self) -> f64 {
        self.h1.iter().map(|b| b.length()).fold(0.0, f64::max)
    }

    /// Entropy of the loops' shares of the summed length, in nats; 0 if there are none.
    pub fn entropy(&self) -> f64 {
        let total = self.total();
        let part = |b: &Bar| b.length() / total * (total / b.length()).ln();
        self.h1.iter().fold(0.0, |sum, bar| sum + part(bar))
    }
}

/// Persistent homology of the rows, by the Vietoris-Rips filtration of their Euclidean distances with
/// coefficients in Z/2.
///
/// `x` is `[n, d]`. Births and deaths are in the units of `x` and do not change when the rows are
/// rotated or shifted or put in another order.
///
/// # Errors
/// A NaN or infinity; more than 65,536 rows ([`Error::Undefined`]); the device failing.
///
/// # Cost
/// All on the host, in f64: `n² d / 2` multiply-adds and a sort of the `n (n - 1) / 2` distances; up
/// to `n³` steps to find the edges that no triangle fills at once, a small share of which is then
/// reduced, for `O(n)` a step. Memory: 24 bytes a pair.
///
/// # Source
/// Edelsbrunner, Letscher & Zomorodian 2002; the algorithm is that of Bauer 2021, "Ripser: efficient
/// computation of Vietoris-Rips persistence barcodes": cohomology with clearing, columns made on the
/// fly, apparent pairs skipped. Ours orders the edges strictly, ties by index, so that a triangle is
/// its longest edge and one more point, and an edge has an apparent pair exactly if some point is
/// nearer than it to both its ends.
///
/// # Example
/// ```
/// use inscape::{Device, similarity::persistence};
/// use burn::tensor::Tensor;
///
/// # fn main() -> Result<(), inscape::similarity::Error> {
/// let square = [[0., 0.], [1., 0.], [1., 1.], [0., 1.]];
/// let found = persistence(&Tensor::<2>::from_data(square, Device::cpu().tensor()))?;
/// assert_eq!(found.h0, [1.0, 1.0, 1.0]);
/// assert_eq!((found.h1[0].birth, found.h1[0].death), (1.0, 2f64.sqrt()));
/// # Ok(())
/// # }
/// ```
pub fn persistence(x: &Tensor<2>) -> Result<Persistence, Error> {
    block_on(persistence_async(x))
}

/// [`persistence`] without blocking.
///
/// # Errors
/// As [`persistence`].
pub async fn persistence_async(x: &Tensor<2>) -> Result<Persistence, Error> {
    let rows = Rows::<f64>::unscaled(x).await?;
    if rows.n > MOST_POINTS {
        return Err(Error::Undefined {
            why: "it has more than 65,536 rows",
        });
    }
    let all: Vec<usize> = (0..rows.n).collect();
    let distances = Distances::new(&rows, &all);
    let rips = Rips::new(rows.n, |i, j| distances.between(i, j));
    let mut h1 = rips.h1();
    h1.sort_by(|a, b| {
        (a.birth, a.death)
            .partial_cmp(&(b.birth, b.death))
            .expect("finite")
    });
    Ok(Persistence { h0: rips.h0(), h1 })
}

/// Summed length of bars.
pub(super) fn total(bars: &[Bar]) -> f64 {
    bars.iter().fold(0.0, |sum, bar| sum + bar.length())
}

/// Most points whose pairs have ranks of 32 bits.
pub(super) const MOST_POINTS: usize = 65_536;

/// No point.
const NONE: u32 = u32::MAX;

/// A Vietoris-Rips filtration of `n` points whose edges stand in a strict order: by length, then by
/// the higher end, then by the lower. A triangle is known by its longest edge and the point opposite
/// it; triangles are ordered by these two.
pub(super) struct Rips {
    n: usize,
    /// Rank of edge `i, j`; the diagonal has none. `[n, n]`.
    rank: Vec<u32>,
    /// Length and ends of the edges by rank.
    edges: Vec<(f64, u32, u32)>,
    /// Edges up to the least radius of a ball around one point that holds all: beyond it the
    /// complex is a cone, and nothing is born.
    relevant: u32,
}

impl Rips {
    pub(super) fn new(n: usize, distance: impl Fn(usize, usize) -> f64 + Sync + Send) -> Self {
        let row = |i: usize| {
            (0..i)
                .map(|j| (distance(i, j), i as u32, j as u32))
                .collect()
        };
        let rows: Vec<Vec<(f64, u32, u32)>> = map_chunks(n, 1, |r| row(r.start));
        let mut edges = rows.concat();
        edges.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        let mut rank = vec![NONE; n * n];
        for (at, &(_, i, j)) in edges.iter().enumerate() {
            rank[i as usize * n + j as usize] = at as u32;
            rank[j as usize * n + i as usize] = at as u32;
        }
        let farthest = |i: usize| (0..n).filter(|&j| j != i).map(|j| rank[i * n + j]).max();
        let relevant = (0..n).filter_map(farthest).min().map_or(0, |e| e + 1);
        Self {
            n,
            rank,
            edges,
            relevant,
        }
    }

    /// The edges of the minimum spanning tree by rank (Kruskal).
    fn tree(&self) -> Vec<u32> {
        let mut parent: Vec<u32> = (0..self.n as u32).collect();
        let mut tree = Vec::with_capacity(self.n.saturating_sub(1));
        for (at, &(_, i, j)) in self.edges.iter().enumerate() {
            let (a, b) = (root(&mut parent, i), root(&mut parent, j));
            if a != b {
                parent[a as usize] = b;
                tree.push(at as u32);
            }
        }
        tree
    }

    /// Deaths of the components, ascending.
    pub(super) fn h0(&self) -> Vec<f64> {
        self.tree()
            .iter()
            .map(|&e| self.edges[e as usize].0)
            .collect()
    }

    /// The loops of length above 0.
    pub(super) fn h1(&self) -> Vec<Bar> {
        let mut reduction = Reduction::new(self);
        let mut cleared = vec![false; self.edges.len()];
        self.tree().iter().for_each(|&e| cleared[e as usize] = true);
        let alone = |e: &u32| !cleared[*e as usize] && reduction.apex[*e as usize] == NONE;
        let columns: Vec<u32> = (0..self.relevant).rev().filter(alone).collect();
        let pairs = columns
            .into_iter()
            .filter_map(|e| Some((e, reduction.pair(e)?)));
        let bar = |(e, filled): (u32, u32)| Bar {
            birth: self.edges[e as usize].0,
            death: self.edges[filled as usize].0,
        };
        pairs.map(bar).filter(|b| b.death > b.birth).collect()
    }

    fn ranks(&self, i: u32) -> &[u32] {
        &self.rank[i as usize * self.n..][..self.n]
    }

    /// The first point joined to both ends of `edge` before it; [`NONE`] if there is none.
    fn apex(&self, edge: u32) -> u32 {
        let (_, i, j) = self.edges[edge as usize];
        let mut both = self.ranks(i).iter().zip(self.ranks(j));
        both.position(|(a, b)| a.max(b) < &edge)
            .map_or(NONE, |w| w as u32)
    }

    /// The relevant triangles on `edge`, in no order.
    fn coboundary(&self, edge: u32) -> impl Iterator<Item = u64> + '_ {
        let (_, i, j) = self.edges[edge as usize];
        let both = self.ranks(i).iter().zip(self.ranks(j)).enumerate();
        both.filter_map(move |(w, (&a, &b))| {
            let longest = a.max(b).max(edge);
            let opposite = match longest {
                l if l == edge => w as u32,
                l if l == a => j,
                _ => i,
            };
            (longest < self.relevant).then_some(u64::from(longest) << 32 | u64::from(opposite))
        })
    }
}

fn root(parent: &mut [u32], mut i: u32) -> u32 {
    while parent[i as usize] != i {
        parent[i as usize] = parent[parent[i as usize] as usize];
        i = parent[i as usize];
    }
    i
}

/// The coboundary matrix while its columns, one an edge from the longest to the shortest, are
/// reduced. Only which edges make up a column is kept.
struct Reduction<'a> {
    rips: &'a Rips,
    /// The point that makes the apparent pair of each edge; [`NONE`] if it has none.
    apex: Vec<u32>,
    /// Which reduced column has this triangle as its earliest.
    owner: HashMap<u64, usize>,
    columns: Vec<Vec<u32>>,
}

impl<'a> Reduction<'a> {
    fn new(rips: &'a Rips) -> Self {
        let part = |r: std::ops::Range<usize>| r.map(|e| rips.apex(e as u32)).collect::<Vec<_>>();
        let apex = map_chunks(rips.edges.len(), 1 << 10, part).concat();
        Self {
            rips,
            apex,
            owner: HashMap::new(),
            columns: Vec::new(),
        }
    }

    /// Reduces the column of `edge`, which has no apparent pair: the longest edge of the triangle
    /// that fills the loop. None if the column vanishes.
    fn pair(&mut self, edge: u32) -> Option<u32> {
        let mut heap: BinaryHeap<Reverse<u64>> = self.rips.coboundary(edge).map(Reverse).collect();
        let mut made_of = vec![edge];
        loop {
            let triangle = earliest(&mut heap)?;
            let (longest, opposite) = ((triangle >> 32) as u32, triangle as u32);
            let own = [longest];
            let add = match self.owner.get(&triangle) {
                _ if self.apex[longest as usize] == opposite => &own[..],
                Some(&column) => &self.columns[column][..],
                None => {
                    self.owner.insert(triangle, self.columns.len());
                    self.columns.push(odd(made_of));
                    return Some(longest);
                }
            };
            heap.push(Reverse(triangle));
            add.iter()
                .for_each(|&e| heap.extend(self.rips.coboundary(e).map(Reverse)));
            made_of.extend(add);
        }
    }
}

/// Takes out the least item that is there an odd number of times, and all before it.
fn earliest(heap: &mut BinaryHeap<Reverse<u64>>) -> Option<u64> {
    loop {
        let Reverse(item) = heap.pop()?;
        if heap.peek() != Some(&Reverse(item)) {
            return Some(item);
        }
        heap.pop();
    }
}

/// The items that are there an odd number of times.
fn odd(mut items: Vec<u32>) -> Vec<u32> {
    items.sort_unstable();
    let odd = items
        .chunk_by(|a, b| a == b)
        .filter(|run| run.len() % 2 == 1);
    odd.map(|run| run[0]).collect()
}
