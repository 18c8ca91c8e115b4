//! Maps: points with names, equally scaled along both axes.

use super::{image, n, rule, text};
use crate::report::data::Map;
use crate::report::text::{esc, percent};

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 380.0;
/// Around the points; names stand to the right of them.
const MARGIN: (f64, f64) = (24.0, 30.0);
/// Room for the names of the rightmost points.
const NAMES: f64 = 130.0;

/// Draws the points with their names, as drawn; `None` if there are none or a place is not finite.
pub fn map(id: &str, map: &Map, names: &[String]) -> Option<String> {
    let finite = |p: &(f64, f64)| p.0.is_finite() && p.1.is_finite();
    if map.places.is_empty() || names.len() < map.places.len() || !map.places.iter().all(finite) {
        return None;
    }
    let at = places(&map.places);
    let (x1, y1) = (WIDTH - MARGIN.0, HEIGHT - MARGIN.1);
    let mut body = rule("axis", (MARGIN.0, x1), (y1, y1));
    body += &rule("axis", (MARGIN.0, MARGIN.0), (MARGIN.1, y1));
    for ((x, y), (label, name)) in at.iter().zip(map.labels.iter().zip(names)) {
        let (cx, cy) = (n(*x), n(*y));
        let title = esc(label);
        body += &format!(
            "<circle class=\"dot\" cx=\"{cx}\" cy=\"{cy}\" r=\"4\"><title>{title}</title></circle>"
        );
        body += &text("end", x + 7.0, y + 4.0, name);
    }
    let shown = format!(
        "{} of the squared distances are in this plane",
        percent(map.shown)
    );
    body += &text("x name", (MARGIN.0 + x1) / 2.0, HEIGHT - 10.0, &shown);
    let title = format!("{}: {}, as a map", map.title, map.metric);
    let desc = format!("{} points; the nearer, the more alike.", map.places.len());
    Some(image(id, "chart", (WIDTH, HEIGHT), &title, &desc, &body))
}

/// Where the points are drawn: one scale for both axes, centred.
fn places(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let range = |of: fn(&(f64, f64)) -> f64| {
        let ends = points.iter().map(of);
        ends.fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), v| {
            (lo.min(v), hi.max(v))
        })
    };
    let (x, y) = (range(|p| p.0), range(|p| p.1));
    let room = (
        WIDTH - 2.0 * MARGIN.0 - NAMES - 16.0,
        HEIGHT - 2.0 * MARGIN.1 - 32.0,
    );
    let (wide, high) = (x.1 - x.0, y.1 - y.0);
    let scale = f64::min(room.0 / wide.max(1e-300), room.1 / high.max(1e-300));
    let scale = if scale.is_finite() && wide.max(high) > 0.0 {
        scale
    } else {
        0.0
    };
    let middle = (
        MARGIN.0 + 16.0 + room.0 / 2.0,
        MARGIN.1 + 16.0 + room.1 / 2.0,
    );
    let place = |p: &(f64, f64)| {
        let (dx, dy) = (p.0 - (x.0 + x.1) / 2.0, p.1 - (y.0 + y.1) / 2.0);
        (middle.0 + dx * scale, middle.1 - dy * scale)
    };
    points.iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_axes_have_one_scale_and_every_point_fits() {
        let points = [(0.0, 0.0), (3.0, 4.0), (-3.0, 0.5)];
        let at = places(&points);
        let apart = |a: (f64, f64), b: (f64, f64)| (a.0 - b.0).hypot(a.1 - b.1);
        let ratio = apart(at[0], at[1]) / 5.0;
        assert!((apart(at[0], at[2]) / ratio - apart(points[0], points[2])).abs() < 1e-9);
        assert!(at[1].1 < at[0].1, "up is up");
        for (x, y) in at {
            assert!(
                (MARGIN.0..WIDTH - NAMES).contains(&x)
                    && (MARGIN.1..HEIGHT - MARGIN.1).contains(&y)
            );
        }
        assert_eq!(places(&[(1.0, 1.0)]).len(), 1);
        assert!(
            places(&[(1.0, 1.0); 3])
                .iter()
                .all(|p| p.0.is_finite() && p.1.is_finite())
        );
    }
}
