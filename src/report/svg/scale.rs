//! Axes: from numbers to coordinates, and where the ticks stand.

use crate::report::text::{decimals, sig};

/// How the numbers of an axis are written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unit {
    /// As they are.
    Plain,
    /// As percentages of 1.
    Percent,
}

/// Maps `lo..=hi` to `from..=to`, linearly or by logarithm.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    lo: f64,
    hi: f64,
    from: f64,
    to: f64,
    log: bool,
}

impl Scale {
    /// From `lo` to the first tick at or above `hi`; an empty range is widened.
    pub fn linear(lo: f64, hi: f64, from: f64, to: f64) -> Scale {
        let hi = match hi {
            hi if hi > lo => (hi / step(hi - lo)).ceil() * step(hi - lo),
            _ if lo > 0.0 => lo * 2.0,
            _ => lo + 1.0,
        };
        let log = false;
        Scale {
            lo,
            hi,
            from,
            to,
            log,
        }
    }

    /// Exactly from `lo` to `hi`; an empty range is widened.
    pub fn exact(lo: f64, hi: f64, from: f64, to: f64) -> Scale {
        let hi = if hi > lo { hi } else { lo + lo.abs().max(1.0) };
        let log = false;
        Scale {
            lo,
            hi,
            from,
            to,
            log,
        }
    }

    /// By logarithm, from the last of 1, 2, 5, 10, … at or below `lo` to the first at or above `hi`.
    pub fn log(lo: f64, hi: f64, from: f64, to: f64) -> Scale {
        let marks = |x: f64| {
            let decade = 10f64.powf(x.log10().floor());
            [1.0, 2.0, 5.0, 10.0].map(|m| m * decade)
        };
        let slack = 1.0 + 1e-9;
        let low = marks(lo).into_iter().rfind(|&m| m <= lo * slack);
        let high = marks(hi).into_iter().find(|&m| m * slack >= hi);
        let (lo, hi) = (low.unwrap_or(lo), high.unwrap_or(hi));
        let log = true;
        Scale {
            lo,
            hi,
            from,
            to,
            log,
        }
    }

    pub fn is_log(&self) -> bool {
        self.log
    }

    /// The coordinate of `x`.
    pub fn at(&self, x: f64) -> f64 {
        let warp = |x: f64| if self.log { x.ln() } else { x };
        let t = (warp(x) - warp(self.lo)) / (warp(self.hi) - warp(self.lo));
        self.from + t.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// Round numbers along the axis, about four to seven.
    pub fn ticks(&self) -> Vec<f64> {
        if self.log {
            self.log_ticks()
        } else {
            self.linear_ticks()
        }
    }

    fn linear_ticks(&self) -> Vec<f64> {
        let step = step(self.hi - self.lo);
        let first = (self.lo / step - 1e-6).ceil();
        let last = (self.hi / step + 1e-6).floor();
        let count = (last - first).clamp(0.0, 20.0) as i32;
        (0..=count).map(|i| (first + f64::from(i)) * step).collect()
    }

    fn log_ticks(&self) -> Vec<f64> {
        let decades = (self.hi / self.lo).log10();
        let marks: &[f64] = match decades {
            d if d <= 1.5 => &[1.0, 2.0, 5.0],
            _ => &[1.0],
        };
        let (first, last) = (
            self.lo.log10().floor() as i32,
            self.hi.log10().ceil() as i32,
        );
        let stride = ((last - first) / 6 + 1) as usize;
        let inside = |m: &f64| *m >= self.lo * 0.999 && *m <= self.hi * 1.001;
        let decade = |e: i32| marks.iter().map(move |m| m * 10f64.powi(e));
        (first..=last)
            .step_by(stride)
            .flat_map(decade)
            .filter(inside)
            .collect()
    }

    /// The label of tick `x`.
    pub fn label(&self, x: f64, unit: Unit) -> String {
        if x == 0.0 {
            return "0".into();
        }
        let factor = if unit == Unit::Percent { 100.0 } else { 1.0 };
        let mark = if unit == Unit::Percent { "%" } else { "" };
        let (divisor, suffix) = magnitude(self.hi.abs().max(self.lo.abs()) * factor);
        let spacing = if self.log { x } else { step(self.hi - self.lo) } * factor / divisor;
        let text = match places(spacing) {
            Some(places) => decimals(x * factor / divisor, places),
            None => sig(x * factor, 2),
        };
        format!("{text}{suffix}{mark}")
    }
}

/// Decimals that tell multiples of `spacing` apart; none if they would be too many.
fn places(spacing: f64) -> Option<usize> {
    let places = (-spacing.log10().floor()).max(0.0);
    (places <= 6.0).then_some(places as usize)
}

fn magnitude(hi: f64) -> (f64, &'static str) {
    match hi {
        hi if !(1e4..1e15).contains(&hi) => (1.0, ""),
        hi if hi >= 1e9 => (1e9, "B"),
        hi if hi >= 1e6 => (1e6, "M"),
        _ => (1e3, "k"),
    }
}

/// 1, 2 or 5 times a power of ten, such that about five fit into `span`.
fn step(span: f64) -> f64 {
    let raw = span / 5.0;
    let power = 10f64.powf(raw.log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    let fits = |f: &&f64| **f * power >= raw * 0.999;
    factors.iter().find(fits).unwrap_or(&10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: Scale, unit: Unit) -> Vec<String> {
        let ticks = scale.ticks();
        ticks.into_iter().map(|x| scale.label(x, unit)).collect()
    }

    #[test]
    fn ticks_are_round() {
        let scale = Scale::linear(0.0, 0.93, 0.0, 100.0);
        assert_eq!(
            labels(scale, Unit::Plain),
            ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]
        );
        let scale = Scale::exact(0.0, 1_440_000.0, 0.0, 100.0);
        assert_eq!(labels(scale, Unit::Plain), ["0", "0.5M", "1.0M"]);
        let scale = Scale::linear(0.0, 0.008, 0.0, 100.0);
        assert_eq!(
            labels(scale, Unit::Percent),
            ["0", "0.2%", "0.4%", "0.6%", "0.8%"]
        );
        let scale = Scale::log(0.15, 40.0, 0.0, 100.0);
        assert_eq!(labels(scale, Unit::Plain), ["0.1", "1", "10"]);
        let scale = Scale::log(0.15, 0.9, 0.0, 100.0);
        assert_eq!(labels(scale, Unit::Plain), ["0.1", "0.2", "0.5", "1"]);
    }

    #[test]
    fn empty_and_tiny_ranges_stay_finite() {
        for (lo, hi) in [
            (0.0, 0.0),
            (3.0, 3.0),
            (1e-300, 2e-300),
            (0.0, 1e300),
            (-2.0, -2.0),
        ] {
            for scale in [
                Scale::linear(lo, hi, 0.0, 100.0),
                Scale::exact(lo, hi, 0.0, 100.0),
            ] {
                assert!((0.0..=100.0).contains(&scale.at(hi)), "{lo} to {hi}");
                assert!(scale.ticks().len() <= 21);
                labels(scale, Unit::Percent);
            }
        }
    }
}
