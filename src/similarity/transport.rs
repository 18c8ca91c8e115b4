//! Optimal transport between the units of two representations, all units of one side of equal weight.

use super::assignment::assignment;

/// A piece of a plan: `share` of the whole mass goes from `row` to `column`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Piece {
    pub(super) row: usize,
    pub(super) column: usize,
    pub(super) share: f64,
}

/// The plan with the least cost, `costs` being `[rows, columns]`, row-major and finite; neither side
/// is empty. It has at most `rows + columns - 1` pieces, in the order of rows.
///
/// Equally many rows and columns make it an assignment (Birkhoff 1946). Otherwise the network simplex
/// method on whole numbers, with strongly feasible trees, so that it ends (Cunningham 1976). Exact but
/// for a reduced cost of 1e-12 of the largest cost.
pub(super) fn plan(costs: &[f64], rows: usize, columns: usize) -> Vec<Piece> {
    let mut pieces = match rows == columns {
        true => {
            let scores: Vec<f64> = costs.iter().map(|c| -c).collect();
            let piece = |(row, column)| Piece {
                row,
                column,
                share: 1.0 / rows as f64,
            };
            let pairs = assignment(&scores, rows, columns);
            pairs.into_iter().map(piece).collect()
        }
        false => Tree::new(costs, rows, columns).solved(),
    };
    pieces.sort_unstable_by_key(|p| (p.row, p.column));
    pieces
}

fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

/// No node.
const NONE: usize = usize::MAX;

/// A spanning tree of the rows (nodes `0..rows`) and columns (nodes after them), in whose edges all
/// mass flows. Each node but the root, the last column, keeps the edge to its parent.
struct Tree<'a> {
    costs: &'a [f64],
    rows: usize,
    columns: usize,
    parent: Vec<usize>,
    flow: Vec<u64>,
    depth: Vec<u32>,
    /// The cost of every edge is the sum of the potentials of its ends.
    potential: Vec<f64>,
    first_child: Vec<usize>,
    /// Next and previous child of the same parent.
    next: Vec<usize>,
    previous: Vec<usize>,
}

impl<'a> Tree<'a> {
    /// Row after row sends what it has to the cheapest column that still wants any. One line is done
    /// with at a time and hangs on one that is not, so that the edges make a tree, and edges without
    /// flow lead from a row up to a column: strongly feasible.
    fn new(costs: &'a [f64], rows: usize, columns: usize) -> Self {
        let nodes = rows + columns;
        let mut new = Self {
            costs,
            rows,
            columns,
            parent: vec![NONE; nodes],
            flow: vec![0; nodes],
            depth: vec![0; nodes],
            potential: vec![0.0; nodes],
            first_child: vec![NONE; nodes],
            next: vec![NONE; nodes],
            previous: vec![NONE; nodes],
        };
        let divisor = common_divisor(rows, columns);
        let mut wanted = vec![(rows / divisor) as u64; columns];
        let mut open: Vec<usize> = (0..columns).collect();
        for row in 0..rows {
            let mut left = (columns / divisor) as u64;
            loop {
                let cost = |place: usize| new.cost(row, open[place]);
                let cheaper = |a, b| if cost(b) < cost(a) { b } else { a };
                let place = (1..open.len()).fold(0, cheaper);
                let column = open[place];
                let sent = left.min(wanted[column]);
                wanted[column] -= sent;
                left -= sent;
                if wanted[column] == 0 && open.len() > 1 {
                    open.swap_remove(place);
                    new.hang(rows + column, row, sent);
                } else {
                    new.hang(row, rows + column, sent);
                    break;
                }
            }
        }
        new.refresh(rows + open[0]);
        new
    }

    fn cost(&self, row: usize, column: usize) -> f64 {
        self.costs[row * self.columns + column]
    }

    fn hang(&mut self, node: usize, parent: usize, flow: u64) {
        (self.parent[node], self.flow[node]) = (parent, flow);
        let first = std::mem::replace(&mut self.first_child[parent], node);
        (self.next[node], self.previous[node]) = (first, NONE);
        if first != NONE {
            self.previous[first] = node;
        }
    }

    fn unhang(&mut self, node: usize) {
        let (next, previous) = (self.next[node], self.previous[node]);
        match previous {
            NONE => self.first_child[self.parent[node]] = next,
            _ => self.next[previous] = next,
        }
        if next != NONE {
            self.previous[next] = previous;
        }
    }

    /// `f` on `top` and on all nodes below it, parents first.
    fn below(&mut self, top: usize, mut f: impl FnMut(&mut Self, usize)) {
        let mut node = top;
        loop {
            f(self, node);
            if self.first_child[node] != NONE {
                node = self.first_child[node];
                continue;
            }
            while node != top && self.next[node] == NONE {
                node = self.parent[node];
            }
            if node == top {
                return;
            }
            node = self.next[node];
        }
    }

    /// Potentials and depths anew from the root.
    fn refresh(&mut self, root: usize) {
        self.below(root, |tree, node| {
            let parent = tree.parent[node];
            if parent != NONE {
                let (row, column) = (node.min(parent), node.max(parent) - tree.rows);
                tree.depth[node] = tree.depth[parent] + 1;
                tree.potential[node] = tree.cost(row, column) - tree.potential[parent];
            }
        });
    }

    fn root(&self) -> usize {
        let mut node = 0;
        while self.parent[node] != NONE {
            node = self.parent[node];
        }
        node
    }

    fn solved(mut self) -> Vec<Piece> {
        let largest = self.costs.iter().fold(0.0f64, |m, c| m.max(c.abs()));
        let slack = 1e-12 * largest;
        let mut row = 0;
        loop {
            let mut turned = false;
            while let Some((i, j, gain)) = self.entering(&mut row, slack) {
                self.turn(i, j, gain);
                turned = true;
            }
            if !turned {
                break;
            }
            self.refresh(self.root()); // potentials have gathered rounding: look once more
        }
        self.pieces()
    }

    /// The edge with the most negative reduced cost of the next few rows that have one, looking from
    /// `row` on and round.
    fn entering(&self, row: &mut usize, slack: f64) -> Option<(usize, usize, f64)> {
        let block = (2 * (self.rows * self.columns).isqrt()).div_ceil(self.columns);
        let mut best = (0, 0, -slack);
        for looked in 1..=self.rows {
            let i = *row;
            *row = (i + 1) % self.rows;
            let (least, j) = self.least(i);
            if least < best.2 {
                best = (i, j, least);
            }
            if looked % block == 0 && best.2 < -slack {
                break;
            }
        }
        (best.2 < -slack).then_some(best)
    }

    /// The smallest reduced cost of a row, and its column.
    fn least(&self, row: usize) -> (f64, usize) {
        const LANES: usize = 8;
        let costs = &self.costs[row * self.columns..][..self.columns];
        let potential = &self.potential[self.rows..];
        let mut lanes = [f64::INFINITY; LANES];
        let (chunks, rest) = costs.as_chunks::<LANES>();
        let (others, rest_of_others) = potential.as_chunks::<LANES>();
        for (c, v) in chunks.iter().zip(others) {
            for l in 0..LANES {
                let reduced = c[l] - v[l];
                lanes[l] = if reduced < lanes[l] {
                    reduced
                } else {
                    lanes[l]
                };
            }
        }
        let tail = rest.iter().zip(rest_of_others).map(|(c, v)| c - v);
        let least = lanes.into_iter().chain(tail).fold(f64::INFINITY, f64::min);
        let reduced = least - self.potential[row];
        if reduced >= 0.0 {
            return (reduced, 0);
        }
        let at = costs
            .iter()
            .zip(potential)
            .position(|(c, v)| c - v == least);
        (reduced, at.unwrap_or(0))
    }

    /// Sends as much as possible around the cycle that the edge from row `i` to column `j` closes, and
    /// puts it in the place of an edge that ran dry: of several the last one met on the way around from
    /// the top in the direction of the edge, which keeps the tree strongly feasible.
    fn turn(&mut self, i: usize, j: usize, gain: f64) {
        let (row, column) = (i, self.rows + j);
        let top = self.meeting(row, column);
        let (mut most, mut dry) = (u64::MAX, NONE);
        let mut node = row;
        while node != top {
            if node < self.rows && self.flow[node] < most {
                (most, dry) = (self.flow[node], node);
            }
            node = self.parent[node];
        }
        let mut below_row = true;
        node = column;
        while node != top {
            if node >= self.rows && self.flow[node] <= most {
                (most, dry, below_row) = (self.flow[node], node, false);
            }
            node = self.parent[node];
        }
        for (start, loses) in [(row, true), (column, false)] {
            let mut node = start;
            while node != top {
                let falls = (node < self.rows) == loses;
                let flow = &mut self.flow[node];
                *flow = if falls { *flow - most } else { *flow + most };
                node = self.parent[node];
            }
        }
        let (inside, outside) = if below_row {
            (row, column)
        } else {
            (column, row)
        };
        self.rehang(inside, outside, dry, most);
        self.shift(inside, gain);
    }

    /// Where the ways up from two nodes meet.
    fn meeting(&self, mut a: usize, mut b: usize) -> usize {
        while a != b {
            if self.depth[a] >= self.depth[b] {
                a = self.parent[a];
            } else {
                b = self.parent[b];
            }
        }
        a
    }

    /// Cuts the edge above `dry` and hangs what was below it on `outside` by its node `inside`.
    fn rehang(&mut self, inside: usize, outside: usize, dry: usize, flow: u64) {
        let (mut node, mut parent, mut carried) = (inside, outside, flow);
        loop {
            let (above, own) = (self.parent[node], self.flow[node]);
            self.unhang(node);
            self.hang(node, parent, carried);
            if node == dry {
                return;
            }
            (parent, node, carried) = (node, above, own);
        }
    }

    /// Moves the potentials below `top` so that its new edge has a reduced cost of 0.
    fn shift(&mut self, top: usize, gain: f64) {
        let top_is_row = top < self.rows;
        self.below(top, |tree, node| {
            let same = (node < tree.rows) == top_is_row;
            tree.potential[node] += if same { gain } else { -gain };
            tree.depth[node] = tree.depth[tree.parent[node]] + 1;
        });
    }

    fn pieces(&self) -> Vec<Piece> {
        let whole = self.rows * self.columns / common_divisor(self.rows, self.columns);
        let piece = |node: usize| {
            let ends = (node, self.parent[node]);
            Piece {
                row: ends.0.min(ends.1),
                column: ends.0.max(ends.1) - self.rows,
                share: self.flow[node] as f64 / whole as f64,
            }
        };
        let flows = (0..self.parent.len()).filter(|&node| self.flow[node] > 0);
        flows.map(piece).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn total(costs: &[f64], columns: usize, pieces: &[Piece]) -> f64 {
        let cost = |p: &Piece| p.share * costs[p.row * columns + p.column];
        pieces.iter().map(cost).sum()
    }

    /// Every unit copied until both sides have equally many, and those assigned: the same problem.
    fn by_copies(costs: &[f64], rows: usize, columns: usize) -> f64 {
        let n = rows * columns / common_divisor(rows, columns);
        let cost = |at: usize| costs[at / n * rows / n * columns + at % n * columns / n];
        let scores: Vec<f64> = (0..n * n).map(|at| -cost(at)).collect();
        let pairs = assignment(&scores, n, n);
        -pairs.iter().map(|(r, c)| scores[r * n + c]).sum::<f64>() / n as f64
    }

    fn check(costs: &[f64], rows: usize, columns: usize) {
        let pieces = plan(costs, rows, columns);
        assert!(pieces.len() < rows + columns);
        let mut weights = (vec![0.0; rows], vec![0.0; columns]);
        for p in &pieces {
            assert!(p.share > 0.0);
            weights.0[p.row] += p.share;
            weights.1[p.column] += p.share;
        }
        let even = |w: &[f64]| w.iter().all(|v| (v * w.len() as f64 - 1.0).abs() < 1e-12);
        assert!(even(&weights.0) && even(&weights.1), "{pieces:?}");
        let (got, want) = (
            total(costs, columns, &pieces),
            by_copies(costs, rows, columns),
        );
        assert!((got - want).abs() < 1e-9, "{got}, not {want}: {pieces:?}");
    }

    proptest! {
        #[test]
        fn the_cost_is_the_least_there_is(
            (rows, columns) in (1usize..13, 1usize..13),
            values in prop::collection::vec(-3.0f64..3.0, 144),
            whole in any::<bool>(),
        ) {
            let value = |v: &f64| if whole { v.round() } else { *v }; // rounded values tie
            let costs: Vec<f64> = values[..rows * columns].iter().map(value).collect();
            check(&costs, rows, columns);
        }
    }

    /// Costs `a_i b_j` and sums of them, where the optimum is degenerate in many places.
    #[test]
    fn larger_and_degenerate_problems_end() {
        for (rows, columns) in [(40, 60), (60, 40), (48, 64), (17, 23)] {
            let wave = |i: usize, j: usize| ((i * 37 + j * 101) as f64).sin();
            let product = |i: usize, j: usize| ((i % 5) * (j % 4)) as f64;
            let same = |_: usize, _: usize| 0.7;
            for cost in [&wave as &dyn Fn(usize, usize) -> f64, &product, &same] {
                let costs: Vec<f64> = (0..rows * columns)
                    .map(|at| cost(at / columns, at % columns))
                    .collect();
                check(&costs, rows, columns);
            }
        }
    }
}
