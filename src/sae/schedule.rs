//! What changes over a run. Steps are counted from 1.

use super::TrainConfig;
use super::config::{Architecture, Standard};

impl TrainConfig {
    /// The learning rate of step `t`.
    pub fn lr_at(&self, t: u64) -> f64 {
        let (t, steps) = (t as f64, self.steps() as f64);
        let rise = t / (self.warmup * steps).max(1.0);
        let fall = (steps - t + 1.0) / (self.decay * steps).max(1.0);
        self.lr * rise.min(fall).min(1.0)
    }

    /// What a sparsity penalty is multiplied by at step `t`: rising from 0 to 1.
    pub fn sparsity_at(&self, t: u64) -> f64 {
        (t as f64 / (self.sparsity_warmup * self.steps() as f64).max(1.0)).min(1.0)
    }

    /// Latents kept a row at step `t`: from `k_start` down to k. 0 where there is no k.
    pub fn k_at(&self, t: u64) -> usize {
        let k = self.k().unwrap_or(0) as f64;
        let start = self.k_start.map_or(k, |start| start as f64);
        let done = (t as f64 / (self.k_anneal * self.steps() as f64).max(1.0)).min(1.0);
        (start + (k - start) * done).round() as usize
    }

    /// The exponent of an annealed penalty at step `t`: 1, then falling to its end.
    pub fn p_at(&self, t: u64) -> f64 {
        let Architecture::Standard(Standard { p_end, p_start, .. }) = self.architecture else {
            return 1.0;
        };
        let (t, steps) = (t as f64, self.steps() as f64);
        let done = (t / steps - p_start) / (1.0 - p_start).max(1e-9);
        1.0 + (p_end - 1.0) * done.clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_start_and_end_where_they_say() {
        let config = TrainConfig {
            architecture: Architecture::Standard(Standard {
                l1: 1.0,
                p_end: 0.5,
                p_start: 0.2,
            }),
            batch: 10,
            warmup: 0.1,
            decay: 0.5,
            sparsity_warmup: 0.2,
            ..TrainConfig::new(8, 32, 4, 1000)
        };
        assert_eq!(config.steps(), 100);
        assert_eq!(
            [1, 5, 10, 50, 51, 100].map(|t| config.lr_at(t) / config.lr),
            [0.1, 0.5, 1.0, 1.0, 1.0, 0.02]
        );
        assert_eq!(
            [1, 10, 20, 100].map(|t| config.sparsity_at(t)),
            [0.05, 0.5, 1.0, 1.0]
        );
        assert_eq!(
            [1, 20, 60, 100].map(|t| config.p_at(t)),
            [1.0, 1.0, 0.75, 0.5]
        );
        let annealed = TrainConfig {
            k_start: Some(24),
            k_anneal: 0.5,
            batch: 10,
            ..TrainConfig::new(8, 32, 4, 1000)
        };
        assert_eq!([25, 50, 100].map(|t| annealed.k_at(t)), [14, 4, 4]);
        assert_eq!(TrainConfig::new(8, 32, 4, 10_000).k_at(1), 4);
    }
}
