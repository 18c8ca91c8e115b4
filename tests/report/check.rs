//! A strict reader of the report's HTML: says everything that is wrong with a page.

use std::collections::{HashMap, HashSet};

/// Elements that never close.
const VOID: [&str; 4] = ["meta", "br", "hr", "wbr"];
/// Elements that would fetch or run something.
const FORBIDDEN: [&str; 12] = [
    "script", "link", "img", "iframe", "object", "embed", "video", "audio", "form", "base",
    "image", "use",
];
const ENTITIES: [&str; 5] = ["amp;", "lt;", "gt;", "quot;", "#39;"];

pub struct Tag {
    pub name: String,
    pub attributes: Vec<(String, String)>,
    pub closing: bool,
    /// Whether it ends in `/>`.
    pub closed: bool,
    /// Text up to the next tag, as written.
    pub text: String,
}

impl Tag {
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|(n, _)| n == name);
        found.map(|(_, v)| v.as_str())
    }
}

/// Every fault of the page; none for a good one.
pub fn faults(page: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let Some(rest) = page.strip_prefix("<!DOCTYPE html>\n") else {
        return vec!["no doctype".into()];
    };
    characters(rest, &mut faults);
    match tags(rest) {
        Ok(tags) => {
            nesting(&tags, &mut faults);
            references(&tags, &mut faults);
            headings(&tags, &mut faults);
            outside(&tags, &mut faults);
            semantics(&tags, &mut faults);
        }
        Err(fault) => faults.push(fault),
    }
    faults
}

fn characters(page: &str, faults: &mut Vec<String>) {
    let bad = |c: char| {
        (c.is_control() && c != '\n' && c != '\t') || ('\u{202a}'..='\u{202e}').contains(&c)
    };
    faults.extend(
        page.chars()
            .filter(|&c| bad(c))
            .map(|c| format!("raw {c:?}")),
    );
}

/// Splits the page into tags. Every `<` must start one, and every attribute be quoted.
pub fn tags(page: &str) -> Result<Vec<Tag>, String> {
    let mut tags: Vec<Tag> = Vec::new();
    let mut rest = page;
    while let Some(at) = rest.find('<') {
        let (before, from) = rest.split_at(at);
        keep_text(&mut tags, before)?;
        let end = tag_end(from).ok_or_else(|| format!("unclosed tag: {:.40}", from))?;
        tags.push(tag(&from[1..end])?);
        rest = &from[end + 1..];
        if tags.last().is_some_and(|t| t.name == "style" && !t.closing) {
            let end = rest.find("</style>").ok_or("unclosed style")?;
            tags.last_mut().unwrap().text = rest[..end].into();
            rest = &rest[end..];
        }
    }
    keep_text(&mut tags, rest)?;
    Ok(tags)
}

fn keep_text(tags: &mut [Tag], text: &str) -> Result<(), String> {
    entities(text)?;
    if text.contains('>') {
        return Err(format!("raw > in text: {text:.40}"));
    }
    if let Some(tag) = tags.last_mut().filter(|t| t.name != "style" || t.closing) {
        tag.text = text.into();
    }
    Ok(())
}

fn entities(text: &str) -> Result<(), String> {
    for part in text.split('&').skip(1) {
        if !ENTITIES.iter().any(|e| part.starts_with(e)) {
            return Err(format!("raw & before {part:.20}"));
        }
    }
    Ok(())
}

fn tag_end(from: &str) -> Option<usize> {
    let mut quoted = false;
    from.char_indices().find_map(|(i, c)| {
        quoted ^= c == '"';
        (c == '>' && !quoted).then_some(i)
    })
}

fn tag(inside: &str) -> Result<Tag, String> {
    let (closing, inside) = match inside.strip_prefix('/') {
        Some(rest) => (true, rest),
        None => (false, inside),
    };
    let (closed, inside) = match inside.strip_suffix('/') {
        Some(rest) => (true, rest),
        None => (false, inside),
    };
    let (name, mut rest) = inside.split_once(' ').unwrap_or((inside, ""));
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(format!("not a tag: <{inside:.40}>"));
    }
    let mut attributes = Vec::new();
    while !rest.trim_start().is_empty() {
        let (name, value, after) = attribute(rest.trim_start())?;
        attributes.push((name, value));
        rest = after;
    }
    let (name, text) = (name.to_string(), String::new());
    Ok(Tag {
        name,
        attributes,
        closing,
        closed,
        text,
    })
}

fn attribute(text: &str) -> Result<(String, String, &str), String> {
    let end = text.find([' ', '=']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err(format!("bad attribute name: {name:.40}"));
    }
    let Some(rest) = rest.strip_prefix('=') else {
        return Ok((name.into(), String::new(), rest));
    };
    let rest = rest
        .strip_prefix('"')
        .ok_or_else(|| format!("unquoted {name}"))?;
    let (value, after) = rest
        .split_once('"')
        .ok_or_else(|| format!("unclosed {name}"))?;
    entities(value)?;
    if value.contains('<') {
        return Err(format!("raw < in {name}"));
    }
    Ok((name.into(), value.into(), after))
}

fn nesting(tags: &[Tag], faults: &mut Vec<String>) {
    let mut open: Vec<&str> = Vec::new();
    for tag in tags {
        let name = tag.name.as_str();
        if tag.closing {
            match open.pop() {
                Some(last) if last == name => {}
                last => faults.push(format!("</{name}> closes {last:?}")),
            }
        } else if !VOID.contains(&name) && !tag.closed {
            open.push(name);
        }
        if tag.closed && !["line", "rect", "path", "circle"].contains(&name) {
            faults.push(format!("<{name}/> is no HTML"));
        }
    }
    faults.extend(open.iter().map(|name| format!("<{name}> never closes")));
}

fn references(tags: &[Tag], faults: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for id in tags.iter().filter_map(|t| t.get("id")) {
        if !seen.insert(id) {
            faults.push(format!("id {id} twice"));
        }
        if id.is_empty() || id.contains(char::is_whitespace) {
            faults.push(format!("bad id {id:?}"));
        }
    }
    for tag in tags {
        let link = tag.get("href").map(|h| h.strip_prefix('#').unwrap_or(h));
        let labels = tag.get("aria-labelledby").unwrap_or("").split_whitespace();
        for target in link.into_iter().chain(labels) {
            if !seen.contains(target) {
                faults.push(format!("nothing has the id {target:?}"));
            }
        }
        let mut names = HashSet::new();
        let twice = tag.attributes.iter().find(|(n, _)| !names.insert(n));
        faults.extend(twice.map(|(n, _)| format!("attribute {n} twice")));
    }
}

/// One `h1`, first; none below it skips a level.
fn headings(tags: &[Tag], faults: &mut Vec<String>) {
    let level = |t: &Tag| t.name.strip_prefix('h')?.parse::<u32>().ok();
    let levels: Vec<u32> = tags
        .iter()
        .filter(|t| !t.closing)
        .filter_map(level)
        .collect();
    if levels.first() != Some(&1) || levels.iter().filter(|&&l| l == 1).count() != 1 {
        faults.push("not one h1, first".into());
    }
    for pair in levels.windows(2).filter(|pair| pair[1] > pair[0] + 1) {
        faults.push(format!("h{} after h{}", pair[1], pair[0]));
    }
}

/// Nothing may come from outside the file, and nothing may run.
fn outside(tags: &[Tag], faults: &mut Vec<String>) {
    for tag in tags {
        if FORBIDDEN.contains(&tag.name.as_str()) {
            faults.push(format!("<{}> is forbidden", tag.name));
        }
        for (name, value) in &tag.attributes {
            if name.starts_with("on")
                || ["src", "style", "srcset", "action"].contains(&name.as_str())
            {
                faults.push(format!("attribute {name} is forbidden"));
            }
            if name == "href" && !value.starts_with('#') {
                faults.push(format!("href leaves the page: {value}"));
            }
        }
        if tag.name == "style"
            && ["url(", "@import", "http:", "https:", "</"]
                .iter()
                .any(|bad| tag.text.contains(bad))
        {
            faults.push("the style sheet fetches something".into());
        }
    }
}

/// Drawings have a role and a name, tables a caption and scopes, details a summary.
fn semantics(tags: &[Tag], faults: &mut Vec<String>) {
    let follows = |i: usize, name: &str| tags.get(i + 1).is_some_and(|t| t.name == name);
    let needs: HashMap<&str, &str> = [
        ("table", "caption"),
        ("details", "summary"),
        ("svg", "title"),
    ]
    .into();
    for (i, tag) in tags.iter().enumerate().filter(|(_, t)| !t.closing) {
        if let Some(first) = needs
            .get(tag.name.as_str())
            .filter(|first| !follows(i, first))
        {
            faults.push(format!("<{}> without <{first}>", tag.name));
        }
        if tag.name == "svg"
            && (tag.get("role") != Some("img") || tag.get("aria-labelledby").is_none())
        {
            faults.push("a drawing without role or name".into());
        }
        if tag.name == "th" && !matches!(tag.get("scope"), Some("row" | "col")) {
            faults.push("a th without scope".into());
        }
        let numbers = [
            "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "width", "height",
        ];
        for (name, value) in tag
            .attributes
            .iter()
            .filter(|(n, _)| numbers.contains(&n.as_str()))
        {
            let length = value.parse().unwrap_or(f64::NAN);
            let size = name == "width" || name == "height" || name == "r";
            if !length.is_finite() || (size && length < 0.0) {
                faults.push(format!("{}: {name}={value}", tag.name));
            }
        }
        if tag
            .get("d")
            .or(tag.get("viewBox"))
            .is_some_and(|d| d.contains("NaN") || d.contains("inf"))
        {
            faults.push(format!("{} with NaN", tag.name));
        }
    }
}
