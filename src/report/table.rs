//! Tables, and parts of the page that fold away.

use super::text::esc;

/// A table that scrolls sideways where the page is narrow. `head` and the first cell of each
/// row name what stands in line with them. Cells are HTML.
pub fn table(caption: &str, head: &[&str], rows: &[Vec<String>]) -> String {
    let caption = esc(caption);
    let head: String = head
        .iter()
        .map(|h| format!("<th scope=\"col\">{h}</th>"))
        .collect();
    let rows: String = rows.iter().map(|row| table_row(row)).collect();
    format!(
        "<div class=\"scroll\" role=\"region\" aria-label=\"{caption}\" tabindex=\"0\">\n\
         <table>\n<caption>{caption}</caption>\n<thead><tr>{head}</tr></thead>\n\
         <tbody>\n{rows}</tbody>\n</table>\n</div>\n"
    )
}

fn table_row(row: &[String]) -> String {
    let Some((name, cells)) = row.split_first() else {
        return String::new();
    };
    let cells: String = cells.iter().map(|c| format!("<td>{c}</td>")).collect();
    format!("<tr><th scope=\"row\">{name}</th>{cells}</tr>\n")
}

/// A part that opens on request.
pub fn folded(summary: &str, body: &str) -> String {
    format!("<details>\n<summary>{summary}</summary>\n{body}</details>\n")
}
