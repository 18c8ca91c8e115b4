//! Text and numbers as a page shows them: escaped, visible, rounded.

/// Shown for a number that is missing or not finite.
pub const MISSING: &str = "n/a";

/// Escapes text for an element or a quoted attribute. Characters that HTML forbids, and those
/// that would reorder or hide their neighbours, appear as visible stand-ins.
pub fn esc(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    text.chars().for_each(|c| push_char(&mut out, c));
    out
}

/// A token of running text: line breaks and tabs are drawn, and so are its spaces if it has
/// nothing else.
pub fn token(text: &str) -> String {
    drawn(text, text.chars().all(|c| c == ' '))
}

/// A token by itself: every space is drawn, since `the` and ` the` are two tokens.
pub fn lone_token(text: &str) -> String {
    drawn(text, true)
}

fn drawn(text: &str, spaces: bool) -> String {
    if text.is_empty() {
        return "∅".into();
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' => out.push('↵'),
            '\t' => out.push('⇥'),
            ' ' if spaces => out.push('␣'),
            c => push_char(&mut out, c),
        }
    }
    out
}

fn push_char(out: &mut String, c: char) {
    match c {
        '&' => out.push_str("&amp;"),
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        '"' => out.push_str("&quot;"),
        '\'' => out.push_str("&#39;"),
        '\n' | '\t' => out.push(c),
        '\0'..='\x1f' => out.extend(char::from_u32(0x2400 + c as u32)),
        '\x7f' => out.push('␡'),
        c if unseen(c) => out.push_str(&format!("⟨U+{:04X}⟩", c as u32)),
        c => out.push(c),
    }
}

/// Controls, marks that hide or reorder text, and code points that are no characters.
/// The joiners U+200C and U+200D stay: scripts and emoji need them.
fn unseen(c: char) -> bool {
    let hidden = matches!(c, '\u{80}'..='\u{a0}' | '\u{ad}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fdd0}'..='\u{fdef}');
    hidden || c as u32 & 0xfffe == 0xfffe
}

/// A number with this many significant digits; whole numbers are grouped in thousands.
pub fn sig(x: f64, digits: i32) -> String {
    if !x.is_finite() {
        return MISSING.into();
    }
    let magnitude = x.abs();
    if x.fract() == 0.0 && magnitude < 1e15 {
        return sign(x, group(magnitude as u64));
    }
    if !(1e-4..1e15).contains(&magnitude) {
        return sign(x, format!("{magnitude:.*e}", (digits - 1).max(0) as usize));
    }
    let decimals = digits - 1 - magnitude.log10().floor() as i32;
    sign(x, fixed(magnitude, decimals.max(0) as usize))
}

/// A number with four significant digits.
pub fn num(x: f64) -> String {
    sig(x, 4)
}

/// A share as a percentage, to a tenth or a hundredth, below that with two significant digits.
pub fn percent(x: f64) -> String {
    let text = match x.abs() * 100.0 {
        size if !size.is_finite() => return MISSING.into(),
        0.0 => "0".into(),
        size if size >= 9.995 => decimals(x * 100.0, 1),
        size if size >= 0.0995 => decimals(x * 100.0, 2),
        _ => sig(x * 100.0, 2),
    };
    text + "%"
}

/// A number with fixed decimals, for columns that line up.
pub fn decimals(x: f64, places: usize) -> String {
    if !x.is_finite() {
        return MISSING.into();
    }
    if x.abs() >= 1e15 {
        return num(x);
    }
    let text = fixed(x.abs(), places);
    let zero = text.bytes().all(|b| matches!(b, b'0' | b'.'));
    sign(if zero { 0.0 } else { x }, text)
}

fn fixed(magnitude: f64, places: usize) -> String {
    let text = format!("{magnitude:.places$}");
    match text.split_once('.') {
        Some((whole, rest)) => format!("{}.{rest}", group_digits(whole)),
        None => group_digits(&text),
    }
}

fn sign(x: f64, text: String) -> String {
    if x < 0.0 { format!("−{text}") } else { text }
}

/// A count with commas between thousands.
pub fn group(n: u64) -> String {
    group_digits(&n.to_string())
}

fn group_digits(digits: &str) -> String {
    let mut out = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// "one feature", "3 features".
pub fn counted(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", group(n), if n == 1 { "" } else { "s" })
}

/// Seconds as a reader says them.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return MISSING.into();
    }
    let whole = seconds.round() as u64;
    match whole {
        0..10 => format!("{} s", sig(seconds, 2)),
        10..120 => format!("{whole} s"),
        120..7200 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", group(whole / 3600), whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_harmless() {
        assert_eq!(
            esc("</script><b>&\"'"),
            "&lt;/script&gt;&lt;b&gt;&amp;&quot;&#39;"
        );
        assert_eq!(token("a\0b\r\n\t"), "a␀b␍↵⇥");
        assert_eq!(
            token("\u{202e}x\u{feff}\u{85}"),
            "⟨U+202E⟩x⟨U+FEFF⟩⟨U+0085⟩"
        );
        assert_eq!(token("👩‍🔬 שלום"), "👩‍🔬 שלום");
    }

    #[test]
    fn spaces_are_seen_where_they_matter() {
        assert_eq!(token(" the"), " the");
        assert_eq!(token("  "), "␣␣");
        assert_eq!(lone_token(" the"), "␣the");
        assert_eq!(token(""), "∅");
    }

    #[test]
    fn numbers_read_well() {
        let cases = [
            (0.155_34, "0.1553"),
            (32.0, "32"),
            (-1234.56, "−1,235"),
            (12_345.678, "12,346"),
            (2e-5, "2.000e-5"),
            (f64::NAN, "n/a"),
            (f64::NEG_INFINITY, "n/a"),
            (-0.0, "0"),
        ];
        for (x, text) in cases {
            assert_eq!(num(x), text);
        }
        for (x, text) in [
            (0.003_14, "0.31%"),
            (0.9712, "97.1%"),
            (2e-5, "0.0020%"),
            (0.0, "0%"),
        ] {
            assert_eq!(percent(x), text);
        }
        assert_eq!(percent(f64::NAN), "n/a");
        assert_eq!(decimals(-0.001, 2), "0.00");
        assert_eq!(decimals(-1.005, 1), "−1.0");
        assert_eq!(group(1_440_000), "1,440,000");
        assert_eq!(duration(133.2), "2 min 13 s");
    }
}
