//! Exact optimal transport between few points.

/// Least cost of moving the masses `supply` to `demand`, which sum to the same, with `cost` of a
/// unit from `i` to `j` at `i * demand.len() + j`, none negative.
///
/// The primal-dual method (Ahuja, Magnanti & Orlin 1993, section 9.8): potentials rise until a way to a
/// sink with room costs nothing more, and all that fits is sent along such ways. `O((s + t)²)` a round;
/// with costs that are few whole numbers there are few rounds.
pub(super) fn least_cost(supply: &[f64], demand: &[f64], cost: &[f64]) -> f64 {
    let mut flow = Flow::new(supply, demand, cost);
    while flow.raise_potentials() && flow.send_from_all() {
        while flow.send_from_all() {}
    }
    flow.moved.iter().zip(cost).map(|(m, c)| m * c).sum()
}

/// A flow from sources `0..s` to sinks `s..s + t` that costs the least for what it moves.
struct Flow<'a> {
    s: usize,
    t: usize,
    cost: &'a [f64],
    /// Mass moved from each source to each sink, `[s, t]`.
    moved: Vec<f64>,
    /// Mass that has yet to leave a source, or that a sink can still take.
    left: Vec<f64>,
    /// With these, no way that can be taken costs less than nothing.
    potential: Vec<f64>,
    /// Masses and costs up to these are rounding.
    nothing: f64,
    free: f64,
}

impl<'a> Flow<'a> {
    fn new(supply: &[f64], demand: &[f64], cost: &'a [f64]) -> Self {
        let (s, t) = (supply.len(), demand.len());
        Self {
            s,
            t,
            cost,
            moved: vec![0.0; s * t],
            left: [supply, demand].concat(),
            potential: vec![0.0; s + t],
            nothing: 1e-14 * supply.iter().sum::<f64>(),
            free: 1e-12 * cost.iter().fold(0.0, |m: f64, c| m.max(*c)),
        }
    }

    /// Place of the way between two points, one of them a source.
    fn way(&self, a: usize, b: usize) -> usize {
        a.min(b) * self.t + a.max(b) - self.s
    }

    /// The points that a way can lead to from `at`: all sinks, or the sources a sink has mass of.
    fn next(&self, at: usize) -> std::ops::Range<usize> {
        if at < self.s {
            self.s..self.s + self.t
        } else {
            0..self.s
        }
    }

    /// Cost of a unit more from `at` to `to` above the difference of their potentials: forward, or
    /// back along what was moved.
    fn reduced(&self, at: usize, to: usize) -> f64 {
        let way = self.way(at, to);
        let cost = match at < self.s {
            true => self.cost[way],
            false if self.moved[way] > self.nothing => -self.cost[way],
            false => f64::INFINITY,
        };
        (cost + self.potential[at] - self.potential[to]).max(0.0)
    }

    /// Dijkstra's algorithm from all sources with mass up to the first sink with room. False if there is
    /// no such source or sink.
    fn raise_potentials(&mut self) -> bool {
        let mut far = vec![f64::INFINITY; self.s + self.t];
        let with_mass = (0..self.s).filter(|&i| self.left[i] > self.nothing);
        with_mass.for_each(|i| far[i] = 0.0);
        let mut open: Vec<usize> = (0..far.len()).collect();
        let nearest_sink = loop {
            let by_distance = |a: &usize, b: &usize| far[open[*a]].total_cmp(&far[open[*b]]);
            let Some(nearest) = (0..open.len()).min_by(by_distance) else {
                return false;
            };
            let at = open.swap_remove(nearest);
            match at >= self.s && self.left[at] > self.nothing {
                _ if far[at] == f64::INFINITY => return false,
                true => break far[at],
                false => {}
            }
            for to in self.next(at) {
                far[to] = far[to].min(far[at] + self.reduced(at, to));
            }
        };
        for (p, f) in self.potential.iter_mut().zip(&far) {
            *p += f.min(nearest_sink);
        }
        true
    }

    /// Sends what each source has left along ways that cost nothing more. False if nothing could go.
    fn send_from_all(&mut self) -> bool {
        let mut seen = vec![false; self.s + self.t];
        let mut any = false;
        for source in 0..self.s {
            if self.left[source] > self.nothing && !seen[source] {
                let sent = self.send(source, self.left[source], &mut seen);
                self.left[source] -= sent;
                any |= sent > 0.0;
            }
        }
        any
    }

    /// Sends up to `amount` from `at` along ways that cost nothing more, by points not seen before: how
    /// much arrived.
    fn send(&mut self, at: usize, amount: f64, seen: &mut [bool]) -> f64 {
        seen[at] = true;
        let mut rest = amount;
        if at >= self.s {
            let taken = rest.min(self.left[at]);
            self.left[at] -= taken;
            rest -= taken;
        }
        for to in self.next(at) {
            if rest <= self.nothing {
                break;
            }
            if seen[to] || self.reduced(at, to) > self.free {
                continue;
            }
            let way = self.way(at, to);
            match at < self.s {
                true => {
                    let sent = self.send(to, rest, seen);
                    self.moved[way] += sent;
                    rest -= sent;
                }
                false => {
                    let sent = self.send(to, rest.min(self.moved[way]), seen);
                    self.moved[way] -= sent;
                    rest -= sent;
                }
            }
        }
        amount - rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// With equal masses on both sides an extreme plan is a permutation: try them all.
    fn by_permutations(cost: &[f64], n: usize, used: &mut Vec<usize>) -> f64 {
        if used.len() == n {
            return used.iter().enumerate().map(|(i, j)| cost[i * n + j]).sum();
        }
        let mut best = f64::INFINITY;
        for j in 0..n {
            if !used.contains(&j) {
                used.push(j);
                best = best.min(by_permutations(cost, n, used));
                used.pop();
            }
        }
        best
    }

    #[test]
    fn whole_units_agree_with_all_permutations() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for n in [1, 2, 5, 6] {
            for whole in [false, true] {
                let mut draw = || match whole {
                    true => f64::from(rng.random_range(0..4)),
                    false => rng.random_range(0.0..1.0),
                };
                let cost: Vec<f64> = (0..n * n).map(|_| draw()).collect();
                let got = least_cost(&vec![1.0; n], &vec![1.0; n], &cost);
                let want = by_permutations(&cost, n, &mut Vec::new());
                assert!((got - want).abs() < 1e-12, "{n}: {got} is not {want}");
            }
        }
    }

    /// On a line the least cost is the area between the two cumulative masses.
    #[test]
    fn on_a_line_it_is_the_area_between_the_sums() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for (s, t) in [(1, 7), (9, 4), (30, 41)] {
            let mut side = |n: usize| {
                let mass: Vec<f64> = (0..n).map(|_| rng.random_range(0.0..1.0)).collect();
                let sum: f64 = mass.iter().sum();
                let place: Vec<f64> = (0..n).map(|_| rng.random_range(0.0..1.0)).collect();
                (mass.iter().map(|m| m / sum).collect::<Vec<_>>(), place)
            };
            let ((a, x), (b, y)) = (side(s), side(t));
            let cost: Vec<f64> = x
                .iter()
                .flat_map(|x| y.iter().map(move |y| (x - y).abs()))
                .collect();
            let mut steps: Vec<(f64, f64)> = x.iter().copied().zip(a.iter().copied()).collect();
            steps.extend(y.iter().copied().zip(b.iter().map(|m| -m)));
            steps.sort_by(|a, b| a.0.total_cmp(&b.0));
            let (mut sum, mut area) = (0.0f64, 0.0);
            for step in steps.windows(2) {
                sum += step[0].1;
                area += sum.abs() * (step[1].0 - step[0].0);
            }
            let got = least_cost(&a, &b, &cost);
            assert!(
                (got - area).abs() < 1e-12,
                "{s} to {t}: {got} is not {area}"
            );
        }
    }
}
