//! The report as a browser and a screen reader meet it.

mod check;
mod sample;

use check::{Tag, faults, tags};
use inscape::report::*;

fn good(report: &Report) -> String {
    let page = render(report);
    assert_eq!(faults(&page), Vec::<String>::new());
    page
}

/// What the page says, tags left out.
fn words(page: &str) -> String {
    let tags = tags(page.strip_prefix("<!DOCTYPE html>\n").unwrap()).unwrap();
    tags.iter()
        .filter(|t| t.name != "style")
        .map(|t| t.text.as_str())
        .collect()
}

#[test]
fn a_full_report_is_valid_and_small() {
    let page = good(&sample::report(1, 100));
    assert!(page.len() < 3_000_000, "{} bytes", page.len());
}

#[test]
fn several_of_everything_fit_in_one_page() {
    let page = good(&sample::report(3, 4));
    for title in [
        "What was run",
        "Evaluation",
        "Training",
        "Feature density",
        "Similarity",
        "Features",
    ] {
        assert!(page.contains(title), "{title}");
    }
    assert_eq!(page.matches("class=\"heat\"").count(), 3);
    assert_eq!(page.matches("<details class=\"card\"").count(), 12);
}

#[test]
fn nothing_comes_from_outside() {
    let page = render(&sample::report(2, 3)).to_lowercase();
    for needle in [
        "http://", "https://", "<script", "src=", "@import", "url(", "xmlns", "<link", "<img",
    ] {
        assert!(!page.contains(needle), "{needle}");
    }
}

#[test]
fn the_checker_sees_planted_faults() {
    let page = good(&sample::report(1, 2));
    let plant = |from: &str, to: &str| {
        assert!(page.contains(from), "nowhere to plant: {from}");
        let bad = page.replacen(from, to, 1);
        assert!(!faults(&bad).is_empty(), "not seen: {from} -> {to}");
    };
    plant("</main>", "");
    plant("</main>", "<script>1</script></main>");
    plant("</main>", "<p style=\"color:red\">x</p></main>");
    plant("</main>", "<p onclick=\"x\">x</p></main>");
    plant("</main>", "<p id=\"runs\">x</p></main>");
    plant("</main>", "a < b</main>");
    plant("</main>", "a & b</main>");
    plant("</main>", "\0</main>");
    plant("</main>", "\u{202e}</main>");
    plant("href=\"#runs\"", "href=\"#nowhere\"");
    plant("href=\"#runs\"", "href=\"other.html\"");
    plant("<h3>", "<h5></h5><h3>");
    plant("<h1>", "<h2></h2><h1>");
    plant(":root {", "@import 'x'; :root {");
    plant(" role=\"img\"", "");
    plant(" scope=\"col\"", "");
    plant("cx=\"", "cx=\"NaN");
    plant(" d=\"M", " d=\"MNaN ");
    plant("<summary>", "<p></p><summary>");
}

const HOSTILE: [&str; 12] = [
    "</script><b>",
    "&",
    "\"'",
    "a\0b",
    "👩‍🔬",
    "שלום",
    "\u{202e}evil",
    "\r\n\t",
    "<!--",
    "]]>",
    "\u{85}\u{fffe}",
    "<img src=x onerror=alert(1)>",
];

#[test]
fn hostile_text_is_harmless_everywhere() {
    for bad in HOSTILE {
        let mut report = sample::report(1, 1);
        plant_text(&mut report, bad);
        let page = good(&report);
        let calm = render(&sample::report(1, 1));
        let count = |page: &str| tags(&page[16..]).unwrap().len();
        assert_eq!(
            count(&page),
            count(&calm),
            "{bad:?} changed the page's structure"
        );
    }
}

/// Puts the text wherever a caller can put text.
fn plant_text(report: &mut Report, bad: &str) {
    let bad = || bad.to_string();
    (report.title, report.made_with, report.made_at) = (bad(), bad(), Some(bad()));
    let run = &mut report.runs[0];
    (run.name, run.model, run.hook, run.text) = (bad(), Some(bad()), Some(bad()), Some(bad()));
    (run.device, run.architecture) = (Some(bad()), Some(bad()));
    run.extra = vec![Setting {
        key: bad(),
        value: bad(),
    }];
    report.evaluations[0].name = bad();
    report.curves[0].name = bad();
    report.densities[0].name = bad();
    let map = &mut report.heatmaps[0];
    (map.title, map.metric, map.rows) = (bad(), bad(), Some(bad()));
    map.columns = Some(bad() + "again");
    for label in map.row_labels.iter_mut().chain(&mut map.column_labels) {
        *label = bad() + label;
    }
    let set = &mut report.features[0];
    (set.name, set.note) = (bad(), Some(bad()));
    let card = &mut set.cards[0];
    for snippet in &mut card.snippets {
        snippet.tokens.iter_mut().for_each(|t| t.text = bad());
    }
    for token in card.promoted.iter_mut().chain(&mut card.suppressed) {
        token.text = bad();
    }
}

#[test]
fn tokens_read_as_they_are() {
    let mut report = sample::report(1, 1);
    let texts = [" whale", "<b>", "\n", "\0", "🐋", "  "];
    let tokens = texts.map(|text| TokenActivation {
        text: text.into(),
        activation: 0.0,
    });
    report.features[0].cards[0].snippets = vec![Snippet {
        tokens: tokens.into(),
        row: None,
    }];
    assert!(good(&report).contains(">whale&lt;b&gt;↵␀🐋␣␣</p>"));
}

#[test]
fn the_strongest_token_is_marked_and_shaded_fully() {
    let mut report = sample::report(1, 1);
    let token = |text: &str, activation| TokenActivation {
        text: text.into(),
        activation,
    };
    let tokens = vec![
        token(" a", 1.0),
        token(" b", 4.0),
        token(" c", 4.0),
        token(" d", -1.0),
        token(" e", f64::NAN),
    ];
    let card = &mut report.features[0].cards[0];
    card.max_activation = 4.0;
    card.snippets = vec![Snippet { tokens, row: None }];
    let want = "<span class=\"a3\" title=\"1\">a</span><mark class=\"a10\" title=\"4\"> b</mark>\
                <span class=\"a10\" title=\"4\"> c</span> d e</p>";
    assert!(good(&report).contains(want));
}

#[test]
fn every_number_of_a_heatmap_is_there() {
    for columns in [5, 16, 17, 40] {
        let value = |r: usize, c: usize| (r * columns + c) as f64 / 1000.0 - 0.05;
        let values: Vec<Vec<f64>> = (0..3)
            .map(|r| (0..columns).map(|c| value(r, c)).collect())
            .collect();
        let mut report = Report::new("map");
        report.heatmaps.push(Heatmap {
            values: values.clone(),
            ..Heatmap::default()
        });
        let page = good(&report);
        for v in values.iter().flatten() {
            let text = format!("{v:.4}").replace('-', "−");
            assert!(
                page.contains(&format!("<td>{text}</td>")),
                "{text} in the table"
            );
            assert!(
                page.contains(&format!(": {text}</title>")),
                "{text} in the drawing"
            );
        }
        let printed = page.contains("<g class=\"h");
        assert_eq!(printed, columns <= 16, "{columns} columns");
    }
}

#[test]
fn a_ragged_matrix_keeps_its_numbers() {
    let mut report = Report::new("map");
    let values = vec![vec![0.25], vec![0.5, 0.75]];
    report.heatmaps.push(Heatmap {
        values,
        row_labels: vec!["a".into()],
        ..Heatmap::default()
    });
    let page = good(&report);
    for text in ["0.2500", "0.5000", "0.7500", "n/a"] {
        assert!(page.contains(&format!("<td>{text}</td>")), "{text}");
    }
}

#[test]
fn missing_numbers_are_said_to_be_missing() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut report = sample::report(1, 1);
        spoil(&mut report, bad);
        let page = words(&good(&report));
        assert!(page.contains("n/a"));
        assert!(!page.contains("NaN") && !page.contains("inf"), "{bad}");
    }
}

/// Puts the number in place of others, here and there.
fn spoil(report: &mut Report, bad: f64) {
    let run = &mut report.runs[0];
    (run.fvu, run.l0, run.dead_share, run.ce_recovered) =
        (Some(bad), Some(bad), Some(bad), Some(bad));
    (run.lr, run.train_seconds, run.text) = (Some(bad), Some(bad), None);
    let evaluation = &mut report.evaluations[0];
    (evaluation.fvu, evaluation.dead_share) = (Some(bad), Some(bad));
    for point in report.curves[0].points.iter_mut().step_by(7) {
        (
            point.fvu,
            point.loss,
            point.dead_share,
            point.tokens_per_second,
        ) = (bad, bad, bad, bad);
    }
    report.densities[0].bins.edges[5] = bad;
    report.heatmaps[0].values[1][2] = bad;
    report.heatmaps[1].range = Some((0.0, bad));
    report.heatmaps[2]
        .values
        .iter_mut()
        .flatten()
        .for_each(|v| *v = bad);
    let card = &mut report.features[0].cards[0];
    (card.density, card.max_activation, card.mean_activation) = (bad, bad, bad);
    card.activations.edges[3] = bad;
    card.snippets[0].tokens[3].activation = bad;
    card.promoted[0].logit = bad;
}

#[test]
fn one_logged_step_is_enough() {
    let mut report = sample::report(1, 1);
    report.curves[0].points.truncate(1);
    let page = good(&report);
    assert_eq!(page.matches("<circle class=\"dot\"").count(), 4);
}

#[test]
fn long_logs_are_thinned_but_keep_their_peaks() {
    let point = |i: u64| TrainingPoint {
        step: i,
        tokens: i * 64,
        fvu: if i == 31_415 { 1.0 } else { 0.2 },
        ..TrainingPoint::default()
    };
    let mut report = Report::new("long");
    report.curves.push(TrainingCurve {
        name: "s".into(),
        points: (1..=50_000).map(point).collect(),
    });
    let page = good(&report);
    assert!(page.len() < 100_000, "{} bytes", page.len());
    assert!(page.contains("greatest 1.") && page.contains("one in 250 of 50,000 steps"));
    let curve = tags(&page[16..]).unwrap();
    let curve = curve
        .iter()
        .find(|t| t.get("class") == Some("curve"))
        .unwrap();
    assert!(
        curve.get("d").unwrap().contains(" 12L"),
        "the peak reaches the top"
    );
}

#[test]
fn an_empty_report_says_so() {
    let page = good(&Report::default());
    assert!(page.contains("There was nothing to show."));
    assert_eq!(page.matches("<h2").count(), 0);
}

#[test]
fn empty_sections_are_left_out() {
    let mut report = Report::new("hollow");
    report.curves.push(TrainingCurve::default());
    report.densities.push(DensityHistogram::default());
    report.heatmaps.push(Heatmap::default());
    report.features.push(FeatureSet::default());
    report.runs.push(RunHeader::default());
    let page = good(&report);
    assert_eq!(page.matches("<h2").count(), 1, "only the run is left");
    let mut report = sample::report(1, 1);
    report.features[0].cards[0] = FeatureCard::default();
    assert!(good(&report).contains("No snippets."));
}

#[test]
fn every_section_and_card_can_be_reached() {
    let page = good(&sample::report(2, 5));
    let all = tags(&page[16..]).unwrap();
    let links: Vec<&str> = all.iter().filter_map(|t: &Tag| t.get("href")).collect();
    for target in [
        "#runs",
        "#evaluation",
        "#training",
        "#density",
        "#similarity",
        "#features",
        "#f1-5",
        "#f2-1",
    ] {
        assert!(links.contains(&target), "{target}");
    }
}

#[test]
fn data_survive_json() {
    let mut report = sample::report(1, 2);
    let json = serde_json::to_string(&report).unwrap();
    let back: Report = serde_json::from_str(&json).unwrap();
    assert_eq!(render(&back), render(&report));
    report.heatmaps[0].values[0][0] = f64::NAN;
    report.curves[0].points[0].fvu = f64::NAN;
    let json = serde_json::to_string(&report).unwrap();
    let back: Report = serde_json::from_str(&json).unwrap();
    assert!(back.heatmaps[0].values[0][0].is_nan() && back.curves[0].points[0].fvu.is_nan());
    assert_eq!(render(&back), render(&report));
}

#[test]
fn writing_replaces_the_file_and_names_it_on_failure() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("report.html");
    std::fs::write(&path, "old").unwrap();
    let report = Report::new("new");
    write(&path, &report).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), render(&report));
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "nothing is left behind"
    );
    let missing = dir.path().join("no/report.html");
    let error = write(&missing, &report).unwrap_err().to_string();
    assert!(error.contains(missing.to_str().unwrap()), "{error}");
}
