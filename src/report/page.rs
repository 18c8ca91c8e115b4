//! The page around the sections: head, title, navigation.

use super::data::Report;
use super::text::{esc, group};
use super::{cards, density, evaluation, palette, runs, similarity, training};

const STYLE: &str = include_str!("style.css");

/// A section of the page.
pub struct Section {
    /// Its id, unique in the page.
    pub id: &'static str,
    /// Its heading.
    pub title: &'static str,
    /// How many things it shows, if that says something.
    pub count: Option<usize>,
    /// What stands below the heading.
    pub body: String,
}

/// The whole document.
pub fn document(report: &Report) -> String {
    let sections: Vec<Section> = [
        runs::runs(&report.runs),
        evaluation::evaluation(&report.evaluations),
        training::training(&report.curves),
        density::densities(&report.densities),
        similarity::similarity(&report.heatmaps, &report.maps),
        similarity::rdms(&report.rdms),
        cards::features(&report.features),
    ]
    .into_iter()
    .flatten()
    .collect();
    let (head, header, nav) = (head(&report.title), header(report), nav(&sections));
    let main: String = match sections.is_empty() {
        true => "<p>There was nothing to show.</p>\n".into(),
        false => sections.iter().map(section).collect(),
    };
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n{head}<body>\n\
         <a class=\"skip\" href=\"#main\">Skip to the report</a>\n{header}{nav}\
         <main id=\"main\" tabindex=\"-1\">\n{main}</main>\n</body>\n</html>\n"
    )
}

fn head(title: &str) -> String {
    let (title, colours) = (esc(title), palette::css());
    format!(
        "<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}</title>\n<style>\n{STYLE}{colours}</style>\n</head>\n"
    )
}

fn header(report: &Report) -> String {
    let (title, made_with) = (esc(&report.title), esc(&report.made_with));
    let at = report.made_at.as_deref().map(|t| format!(", {}", esc(t)));
    let at = at.unwrap_or_default();
    format!(
        "<header>\n<h1>{title}</h1>\n<p class=\"made\">Made with {made_with}{at}</p>\n</header>\n"
    )
}

fn nav(sections: &[Section]) -> String {
    if sections.is_empty() {
        return String::new();
    }
    let items: String = sections.iter().map(nav_item).collect();
    format!("<nav aria-label=\"Sections\">\n<ul>\n{items}</ul>\n</nav>\n")
}

fn nav_item(section: &Section) -> String {
    let Section { id, title, .. } = section;
    let count = section
        .count
        .map(|n| format!(" <span>{}</span>", group(n as u64)));
    let count = count.unwrap_or_default();
    format!("<li><a href=\"#{id}\">{title}{count}</a></li>\n")
}

fn section(section: &Section) -> String {
    let Section {
        id, title, body, ..
    } = section;
    format!(
        "<section aria-labelledby=\"{id}\">\n<h2 id=\"{id}\" tabindex=\"-1\">{title}</h2>\n{body}</section>\n"
    )
}
