//! Numbers that know how far a device may be from them.

use super::batch::EPS;

/// A number in f64 and how far a device that rounds by `u` may be from it: running error analysis
/// (Wilkinson), every operation adding its own rounding.
#[derive(Clone, Copy, Default)]
pub struct Near {
    pub x: f64,
    pub off: f64,
}

/// Arithmetic that rounds by `u`, at most `u` times the depth in a sum.
#[derive(Clone, Copy)]
pub struct Rounding {
    u: f64,
    lanes: usize,
}

impl Rounding {
    /// Quotients and roots of WGSL are good to three units in the last place. Rows are summed up in
    /// at least 32 lanes.
    pub const F32: Self = Self {
        u: 4.0 * EPS,
        lanes: 32,
    };
    pub const F64: Self = Self {
        u: 4.0 * f64::EPSILON,
        lanes: 1,
    };

    pub fn near(self, x: f64, off: f64) -> Near {
        let off = off + self.u * x.abs();
        Near { x, off }
    }

    pub fn times(self, a: Near, b: Near) -> Near {
        let off = a.x.abs() * b.off + b.x.abs() * a.off + a.off * b.off;
        self.near(a.x * b.x, off)
    }

    pub fn scaled(self, by: f64, a: Near) -> Near {
        self.times(self.near(by, 0.0), a)
    }

    pub fn plus(self, a: Near, b: Near) -> Near {
        self.near(a.x + b.x, a.off + b.off)
    }

    pub fn minus(self, a: Near, b: Near) -> Near {
        self.near(a.x - b.x, a.off + b.off)
    }

    /// `a / b` for b known to be at least `least`.
    pub fn over(self, a: Near, b: Near, least: f64) -> Near {
        let most = (a.x.abs() + a.off) / (b.x - b.off).max(least);
        let x = a.x / b.x;
        self.near(x, most - x.abs())
    }

    pub fn root(self, a: Near) -> Near {
        let x = a.x.sqrt();
        let (low, high) = ((a.x - a.off).max(0.0).sqrt(), (a.x + a.off).sqrt());
        self.near(x, (x - low).max(high - x))
    }

    /// A sum one after the other, in `lanes` at once.
    pub fn sum(self, lanes: usize, terms: impl Iterator<Item = Near>) -> Near {
        let (mut sum, mut size, mut count) = (Near::default(), 0.0, 0);
        for term in terms {
            sum.x += term.x;
            sum.off += term.off;
            size += term.x.abs();
            count += 1;
        }
        let depth = count / lanes + 8;
        sum.off += self.u * depth as f64 * size;
        sum
    }

    pub fn dot(self, a: &[Near], b: &[Near]) -> Near {
        let terms = a.iter().zip(b).map(|(&a, &b)| self.times(a, b));
        self.sum(self.lanes, terms)
    }
}

/// Every number no further from what it should be than that may be off.
pub fn within(name: &str, got: &[f64], want: &[Near]) -> Result<(), String> {
    assert_eq!(got.len(), want.len(), "{name}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let (Near { x, off }, far) = (*want, (got - want.x).abs());
        if far.is_nan() || far > off {
            return Err(format!("{name}[{i}]: {got} for {x}, over {off:e}"));
        }
    }
    Ok(())
}
