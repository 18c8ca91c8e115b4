//! Similarity matrices as heatmaps and tables.

use super::data::{Heatmap, Map};
use super::page::Section;
use super::svg;
use super::table::{folded, table};
use super::text::{decimals, esc};

/// Heatmaps, side by side where there is room, and maps of what they compare.
pub fn similarity(tables: &[Heatmap], maps: &[Map]) -> Option<Section> {
    let tables = tables.iter().enumerate();
    let table = |(i, m)| heatmap(&format!("similarity-{}", i + 1), m, true);
    let mut body: String = tables.filter_map(table).collect();
    let maps = maps.iter().enumerate();
    body.extend(maps.filter_map(|(i, m)| map(&format!("map-{}", i + 1), m)));
    section("similarity", "Similarity", body)
}

/// How unlike the rows of each representation are, as pictures without their numbers.
pub fn rdms(pictures: &[Heatmap]) -> Option<Section> {
    let pictures = pictures.iter().enumerate();
    let picture = |(i, m)| heatmap(&format!("rdm-{}", i + 1), m, false);
    let body = pictures.filter_map(picture).collect();
    section("rdms", "Dissimilarities of rows", body)
}

fn section(id: &'static str, title: &'static str, body: String) -> Option<Section> {
    (!body.is_empty()).then(|| Section {
        id,
        title,
        count: None,
        body: format!("<div class=\"maps\">\n{body}</div>\n"),
    })
}

fn map(id: &str, map: &Map) -> Option<String> {
    let (names, part) = shorten(&map.labels);
    let drawing = svg::map(&format!("{id}-svg"), map, &names)?;
    let (title, metric) = (esc(&map.title), esc(&map.metric));
    let part = part.map(|p| format!("<small>Points: {}</small>", esc(&p)));
    let part = part.unwrap_or_default();
    Some(format!(
        "<article class=\"broad\">\n<h3 id=\"{id}\">{title}</h3>\n\
         <p class=\"note\">Classical scaling: the nearer two points, the smaller their distance.</p>\n\
         <figure>\n<figcaption>{metric}, as a map{part}</figcaption>\n\
         <div class=\"scroll\" role=\"region\" aria-label=\"{title}: {metric}, map\" tabindex=\"0\">\
         {drawing}</div>\n</figure>\n</article>\n"
    ))
}

/// The figure of a matrix; with `numbers`, its values as a table below.
fn heatmap(id: &str, map: &Heatmap, numbers: bool) -> Option<String> {
    let map = &labelled(map);
    let (rows, row_part) = shorten(&map.row_labels);
    let (columns, column_part) = shorten(&map.column_labels);
    let drawing = svg::heat(&format!("{id}-svg"), map, &rows, &columns)?;
    let title = esc(&map.title);
    let metric = esc(&map.metric);
    let axes = axes(map, row_part.as_deref(), column_part.as_deref());
    let note = map
        .note
        .as_deref()
        .map(|n| format!("<p class=\"note\">{}</p>\n", esc(n)));
    let note = note.unwrap_or_default();
    let class = if svg::broad(columns.len()) {
        " class=\"broad\""
    } else {
        ""
    };
    let values = match numbers {
        true => folded("The values as a table", &matrix(map)),
        false => String::new(),
    };
    Some(format!(
        "<article{class}>\n<h3 id=\"{id}\">{title}</h3>\n{note}\
         <figure>\n<figcaption>{metric}{axes}</figcaption>\n\
         <div class=\"scroll\" role=\"region\" aria-label=\"{title}: {metric}, heatmap\" tabindex=\"0\">\
         {drawing}</div>\n</figure>\n{values}</article>\n"
    ))
}

/// The map with a label for every row and column that has a value.
fn labelled(map: &Heatmap) -> Heatmap {
    let mut map = map.clone();
    let columns = map.values.iter().map(Vec::len).max().unwrap_or(0);
    let missing = map.row_labels.len()..map.values.len();
    map.row_labels.extend(missing.map(|i| i.to_string()));
    let missing = map.column_labels.len()..columns;
    map.column_labels.extend(missing.map(|i| i.to_string()));
    map
}

/// What the rows and columns are: their names, and what their labels have in common.
fn axes(map: &Heatmap, row_part: Option<&str>, column_part: Option<&str>) -> String {
    let phrase = |name: &Option<String>, part: Option<&str>| {
        let words: Vec<String> = name.as_deref().into_iter().chain(part).map(esc).collect();
        words.join(", ")
    };
    let rows = phrase(&map.rows, row_part);
    let columns = phrase(&map.columns, column_part);
    let line = |name: &str, words: &str| match words {
        "" => String::new(),
        words => format!("<small>{name}: {words}</small>"),
    };
    match rows == columns {
        true => line("Rows and columns", &rows),
        false => line("Rows", &rows) + &line("Columns", &columns),
    }
}

/// Labels without what they all begin and end with, and that part as a pattern: `blocks.0.mlp`
/// and `blocks.1.mlp` become `0` and `1` of `blocks.*.mlp`. Parts are cut at dots.
fn shorten(labels: &[String]) -> (Vec<String>, Option<String>) {
    let Some((first, rest)) = labels.split_first().filter(|(_, rest)| !rest.is_empty()) else {
        return (labels.to_vec(), None);
    };
    let same = |a: &str, b: &str| a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count();
    let ends = |a: &str, b: &str| {
        a.bytes()
            .rev()
            .zip(b.bytes().rev())
            .take_while(|(x, y)| x == y)
            .count()
    };
    let head = rest.iter().map(|l| same(first, l)).min().unwrap_or(0);
    let tail = rest.iter().map(|l| ends(first, l)).min().unwrap_or(0);
    let cut = |at: Option<usize>| at.unwrap_or(0);
    let head = cut(first.as_bytes()[..head]
        .iter()
        .rposition(|&b| b == b'.')
        .map(|i| i + 1));
    let tail_start = first.len() - tail;
    let dot = first.as_bytes()[tail_start..]
        .iter()
        .position(|&b| b == b'.');
    let tail = dot.map_or(0, |i| first.len() - tail_start - i);
    if head + tail == 0 || labels.iter().any(|l| l.len() <= head + tail) {
        return (labels.to_vec(), None);
    }
    let pattern = format!("{}*{}", &first[..head], &first[first.len() - tail..]);
    let middles = labels.iter().map(|l| l[head..l.len() - tail].to_string());
    (middles.collect(), Some(pattern))
}

fn matrix(map: &Heatmap) -> String {
    let columns: Vec<String> = map.column_labels.iter().map(|l| esc(l)).collect();
    let corner = ["<span class=\"vh\">Row</span>"].into_iter();
    let head: Vec<&str> = corner.chain(columns.iter().map(String::as_str)).collect();
    let row = |(r, label): (usize, &String)| {
        let values = (0..columns.len()).map(|c| decimals(svg::value(map, r, c), 4));
        [esc(label)].into_iter().chain(values).collect()
    };
    let rows: Vec<Vec<String>> = map.row_labels.iter().enumerate().map(row).collect();
    table(&format!("{}: {}", map.title, map.metric), &head, &rows)
}

#[cfg(test)]
mod tests {
    use super::shorten;

    fn short(labels: &[&str]) -> (Vec<String>, Option<String>) {
        shorten(&labels.iter().map(|l| l.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn shared_parts_are_said_once() {
        let (labels, part) = short(&["blocks.0.hook_resid_post", "blocks.11.hook_resid_post"]);
        assert_eq!(labels, ["0", "11"]);
        assert_eq!(part.as_deref(), Some("blocks.*.hook_resid_post"));
    }

    #[test]
    fn labels_that_share_nothing_or_all_stay() {
        for labels in [
            &["a", "b"][..],
            &["x.y", "x.y"],
            &["é.a", "è.b"],
            &["one"],
            &[],
        ] {
            let (kept, part) = short(labels);
            assert_eq!(
                (kept, part),
                (labels.iter().map(|l| l.to_string()).collect(), None)
            );
        }
        let (labels, part) = short(&["hook_embed", "blocks.0.hook_resid_post"]);
        assert_eq!((labels[0].as_str(), part), ("hook_embed", None));
    }
}
