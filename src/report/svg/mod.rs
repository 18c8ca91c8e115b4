//! Drawings, laid out by hand as inline SVG. Colours come from the style sheet.

mod bars;
mod heat;
mod line;
mod map;
mod scale;

pub use bars::{bins, densities, spark};
pub use heat::{broad, heat, value};
pub use line::{LineChart, line};
pub use map::map;

use super::text::esc;

/// Width of a figure's drawing area and what stands around it.
struct Frame {
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Frame {
    fn x0(&self) -> f64 {
        self.left
    }

    fn x1(&self) -> f64 {
        self.width - self.right
    }

    fn y0(&self) -> f64 {
        self.height - self.bottom
    }

    fn y1(&self) -> f64 {
        self.top
    }
}

/// An `<svg>` that says what it shows: a name and, for those who cannot see it, a description.
fn image(id: &str, class: &str, (w, h): (f64, f64), title: &str, desc: &str, body: &str) -> String {
    let (title, desc, w, h) = (esc(title), esc(desc), n(w), n(h));
    format!(
        "<svg class=\"{class}\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" height=\"{h}\" role=\"img\" \
         aria-labelledby=\"{id}-t {id}-d\"><title id=\"{id}-t\">{title}</title>\
         <desc id=\"{id}-d\">{desc}</desc>{body}</svg>"
    )
}

fn text(class: &str, x: f64, y: f64, words: &str) -> String {
    let (x, y, words) = (n(x), n(y), esc(words));
    format!("<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{words}</text>")
}

fn rule(class: &str, x: (f64, f64), y: (f64, f64)) -> String {
    let [x1, x2, y1, y2] = [x.0, x.1, y.0, y.1].map(n);
    format!("<line class=\"{class}\" x1=\"{x1}\" x2=\"{x2}\" y1=\"{y1}\" y2=\"{y2}\"/>")
}

fn rect(class: &str, (x, y): (f64, f64), (w, h): (f64, f64), title: &str) -> String {
    let [x, y, w, h] = [x, y, w, h].map(n);
    let title = esc(title);
    format!(
        "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\">\
         <title>{title}</title></rect>"
    )
}

/// A coordinate with at most one decimal.
fn n(x: f64) -> String {
    let rounded = (x * 10.0).round() / 10.0;
    format!("{}", if rounded == 0.0 { 0.0 } else { rounded })
}
