//! Colours that carry numbers: the heatmap's ramp and the shades of a token.
//!
//! Both are mixed in Oklab (Ottosson 2020), so that equal steps look equal. On a dark page the
//! heatmap's ramp runs the other way: high values always stand out from the page. The text on
//! each cell is black or white, whichever contrasts more.

use std::fmt::Write;

/// Colours in the heatmap's ramp.
pub const STEPS: usize = 32;
/// Shades a token can have above none.
pub const SHADES: usize = 10;

/// Pale to deep, with falling lightness.
const RAMP: [Rgb; 5] = [
    Rgb(0xf8, 0xf6, 0xe3),
    Rgb(0x9f, 0xd8, 0xbd),
    Rgb(0x3f, 0xa9, 0xb5),
    Rgb(0x27, 0x64, 0x9c),
    Rgb(0x17, 0x1d, 0x4f),
];

/// Page and text colour under a token, and the colour of its full shade.
struct TokenTheme {
    page: Rgb,
    full: Rgb,
}

const LIGHT: TokenTheme = TokenTheme {
    page: Rgb(0xff, 0xff, 0xff),
    full: Rgb(0xff, 0xa2, 0x3f),
};
const DARK: TokenTheme = TokenTheme {
    page: Rgb(0x1b, 0x1e, 0x24),
    full: Rgb(0x9c, 0x4a, 0x06),
};

/// An sRGB colour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rgb(pub u8, pub u8, pub u8);

impl Rgb {
    fn hex(self) -> String {
        format!("#{:02x}{:02x}{:02x}", self.0, self.1, self.2)
    }

    fn linear(self) -> [f64; 3] {
        [self.0, self.1, self.2].map(|c| match f64::from(c) / 255.0 {
            c if c <= 0.040_45 => c / 12.92,
            c => ((c + 0.055) / 1.055).powf(2.4),
        })
    }

    /// Relative luminance (WCAG 2).
    fn luminance(self) -> f64 {
        let [r, g, b] = self.linear();
        0.2126 * r + 0.7152 * g + 0.0722 * b
    }

    fn oklab(self) -> [f64; 3] {
        let rgb = self.linear();
        let lms = apply(&TO_LMS, rgb).map(f64::cbrt);
        apply(&TO_LAB, lms)
    }

    fn from_oklab(lab: [f64; 3]) -> Rgb {
        let lms = apply(&FROM_LAB, lab).map(|x| x.powi(3));
        let [r, g, b] = apply(&FROM_LMS, lms).map(|c| match c.clamp(0.0, 1.0) {
            c if c <= 0.003_130_8 => c * 12.92,
            c => 1.055 * c.powf(1.0 / 2.4) - 0.055,
        });
        Rgb(byte(r), byte(g), byte(b))
    }

    fn mix(self, other: Rgb, t: f64) -> Rgb {
        let (a, b) = (self.oklab(), other.oklab());
        Rgb::from_oklab([0, 1, 2].map(|i| a[i] + (b[i] - a[i]) * t))
    }

    /// Black or white, whichever contrasts more with this colour.
    fn text(self) -> Rgb {
        let (black, white) = (Rgb(0, 0, 0), Rgb(255, 255, 255));
        if contrast(self, black) > contrast(self, white) {
            black
        } else {
            white
        }
    }
}

const TO_LMS: [[f64; 3]; 3] = [
    [0.412_221_470_8, 0.536_332_536_3, 0.051_445_992_9],
    [0.211_903_498_2, 0.680_699_545_1, 0.107_396_956_6],
    [0.088_302_461_9, 0.281_718_837_6, 0.629_978_700_5],
];
const TO_LAB: [[f64; 3]; 3] = [
    [0.210_454_255_3, 0.793_617_785_0, -0.004_072_046_8],
    [1.977_998_495_1, -2.428_592_205_0, 0.450_593_709_9],
    [0.025_904_037_1, 0.782_771_766_2, -0.808_675_766_0],
];
const FROM_LAB: [[f64; 3]; 3] = [
    [1.0, 0.396_337_777_4, 0.215_803_757_3],
    [1.0, -0.105_561_345_8, -0.063_854_172_8],
    [1.0, -0.089_484_177_5, -1.291_485_548_0],
];
const FROM_LMS: [[f64; 3]; 3] = [
    [4.076_741_662_1, -3.307_711_591_3, 0.230_969_929_2],
    [-1.268_438_004_6, 2.609_757_401_1, -0.341_319_396_5],
    [-0.004_196_086_3, -0.703_418_614_7, 1.707_614_701_0],
];

fn apply(matrix: &[[f64; 3]; 3], v: [f64; 3]) -> [f64; 3] {
    [0, 1, 2].map(|i| (0..3).map(|j| matrix[i][j] * v[j]).sum())
}

fn byte(x: f64) -> u8 {
    (x * 255.0).round() as u8
}

/// Contrast ratio of two colours (WCAG 2), `1..=21`.
pub fn contrast(a: Rgb, b: Rgb) -> f64 {
    let (a, b) = (a.luminance() + 0.05, b.luminance() + 0.05);
    (a / b).max(b / a)
}

/// The ramp's colour at `t` in `0..=1`; lightness falls evenly with `t`.
fn ramp(t: f64) -> Rgb {
    let light = RAMP.map(|c| c.oklab()[0]);
    let target = light[0] + (light[RAMP.len() - 1] - light[0]) * t;
    let i = (1..RAMP.len() - 1)
        .find(|&i| light[i] <= target)
        .unwrap_or(RAMP.len() - 1);
    let along = (light[i - 1] - target) / (light[i - 1] - light[i]);
    RAMP[i - 1].mix(RAMP[i], along.clamp(0.0, 1.0))
}

/// Which step of the ramp a value takes between `lo` and `hi`.
pub fn step(value: f64, lo: f64, hi: f64) -> usize {
    let t = if hi > lo {
        (value - lo) / (hi - lo)
    } else {
        1.0
    };
    ((t * STEPS as f64) as usize).min(STEPS - 1)
}

/// Which shade a token takes; 0 is none.
pub fn shade(activation: f64, max: f64) -> usize {
    let part = activation / max;
    if activation > 0.0 && part > 0.0 {
        ((part * SHADES as f64).ceil() as usize).clamp(1, SHADES)
    } else {
        0
    }
}

/// The rules for every step (`.h0`, …) and shade (`.a1`, …), for light and dark pages.
pub fn css() -> String {
    let mut css = String::new();
    theme(&mut css, &LIGHT, false);
    css.push_str("@media screen and (prefers-color-scheme:dark){\n");
    theme(&mut css, &DARK, true);
    css.push_str("}\n");
    css
}

fn theme(css: &mut String, tokens: &TokenTheme, reversed: bool) {
    for i in 0..STEPS {
        let t = i as f64 / (STEPS - 1) as f64;
        let fill = ramp(if reversed { 1.0 - t } else { t });
        let (fill, text) = (fill.hex(), fill.text().hex());
        let _ = write!(css, ".h{i}{{fill:{fill}}}.h{i} text{{fill:{text}}}");
    }
    css.push('\n');
    for i in 1..=SHADES {
        let shade = shade_colour(tokens, i).hex();
        let _ = write!(css, ".a{i}{{background:{shade}}}");
    }
    css.push('\n');
}

fn shade_colour(theme: &TokenTheme, i: usize) -> Rgb {
    // The faintest shade is still seen.
    let t = 0.12 + 0.88 * (i - 1) as f64 / (SHADES - 1) as f64;
    theme.page.mix(theme.full, t)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_survive_the_round_trip() {
        for c in RAMP {
            assert_eq!(Rgb::from_oklab(c.oklab()), c);
        }
    }

    #[test]
    fn ramp_darkens_evenly() {
        let light = |i: usize| ramp(i as f64 / (STEPS - 1) as f64).oklab()[0];
        let even = (light(0) - light(STEPS - 1)) / (STEPS - 1) as f64;
        for i in 1..STEPS {
            let fall = light(i - 1) - light(i);
            assert!(
                (fall - even).abs() < 0.004,
                "step {i}: {fall} against {even}"
            );
        }
        assert_eq!((ramp(0.0), ramp(1.0)), (RAMP[0], RAMP[4]));
    }

    #[test]
    fn text_is_readable_on_every_cell() {
        for i in 0..STEPS {
            let fill = ramp(i as f64 / (STEPS - 1) as f64);
            assert!(contrast(fill, fill.text()) >= 4.5, "step {i}");
        }
    }

    /// Reads `--name: #rrggbb` from the nth theme of the style sheet.
    fn variable(name: &str, theme: usize) -> Rgb {
        let css = include_str!("style.css");
        let found = css.match_indices(&format!("--{name}: #")).nth(theme);
        let at = found
            .unwrap_or_else(|| panic!("--{name} in theme {theme}"))
            .0
            + name.len()
            + 5;
        let part = |i: usize| u8::from_str_radix(&css[at + i..at + i + 2], 16).unwrap();
        Rgb(part(0), part(2), part(4))
    }

    #[test]
    fn text_is_readable_on_page_and_tokens() {
        for (n, theme) in [LIGHT, DARK].into_iter().enumerate() {
            assert_eq!(variable("card", n), theme.page);
            for text in ["ink", "muted", "accent", "warm"] {
                for ground in ["page", "card", "inset"] {
                    let ratio = contrast(variable(text, n), variable(ground, n));
                    assert!(ratio >= 4.5, "{text} on {ground}, theme {n}: {ratio:.2}");
                }
            }
            for i in 1..=SHADES {
                let ratio = contrast(variable("ink", n), shade_colour(&theme, i));
                assert!(ratio >= 4.5, "shade {i}, theme {n}: {ratio:.2}");
            }
        }
    }

    #[test]
    fn contrast_tells_bad_from_good() {
        assert!(contrast(Rgb(0x99, 0x99, 0x99), Rgb(255, 255, 255)) < 4.5);
        assert!((contrast(Rgb(0, 0, 0), Rgb(255, 255, 255)) - 21.0).abs() < 1e-9);
    }

    #[test]
    fn every_value_has_a_step() {
        assert_eq!(step(0.0, 0.0, 1.0), 0);
        assert_eq!(step(1.0, 0.0, 1.0), STEPS - 1);
        assert_eq!(step(-5.0, 0.0, 1.0), 0);
        assert_eq!(step(0.3, 0.3, 0.3), STEPS - 1);
        assert_eq!(shade(0.0, 1.0), 0);
        assert_eq!(shade(1e-9, 1.0), 1);
        assert_eq!(shade(2.0, 1.0), SHADES);
        assert_eq!(shade(f64::NAN, 1.0), 0);
        assert_eq!(shade(1.0, f64::NAN), 0);
    }
}
