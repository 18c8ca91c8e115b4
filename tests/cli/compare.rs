//! `inscape compare`.

use super::*;

#[test]
fn a_store_with_itself_has_ones_on_the_diagonal() {
    let bench = Bench::with_store();
    let metrics = "linear_cka linear_cka[biased] rsa svcca[variance=0.9] mutual_knn[k=5]";
    let json = bench.json(&format!("compare acts --metric {metrics} --max-rows 200"));
    let json = json.as_array().unwrap();
    assert_eq!(json.len(), 5);
    for found in json {
        assert_eq!(
            (&found["rows"], &found["of_rows"]),
            (&200.into(), &1500.into())
        );
        let values = &found["values"];
        assert_eq!(values.as_array().unwrap().len(), 4);
        let at = |i: usize, j: usize| values[i][j].as_f64().unwrap();
        for (i, j) in (0..16).map(|n| (n / 4, n % 4)) {
            assert!((at(i, j) - at(j, i)).abs() < 1e-9, "{found}");
            let fits = if i == j {
                (at(i, j) - 1.0).abs() < 1e-6
            } else {
                at(i, j) < 0.999
            };
            assert!(fits, "{found}");
        }
    }
    let both = bench.json("compare acts acts --metric rsa --max-rows 200");
    let one = bench.json("compare acts --metric rsa --max-rows 200");
    for (i, row) in one[0]["values"].as_array().unwrap().iter().enumerate() {
        for (j, value) in row.as_array().unwrap().iter().enumerate() {
            let other = both[0]["values"][i][j].as_f64().unwrap();
            assert!((value.as_f64().unwrap() - other).abs() < 1e-9);
        }
    }
    let text = bench.ok("compare acts --metric rsa --max-rows 200");
    assert!(
        text.starts_with("rsa[rdm=correlation,by=spearman] over 200 of 1500 rows\n"),
        "{text}"
    );
    let line = text
        .lines()
        .find(|l| l.contains("blocks.3.hook_resid_post"));
    assert!(line.unwrap().ends_with(" 1.0000"), "{text}");
}

#[test]
fn hooks_of_a_store_are_chosen_by_glob() {
    let bench = Bench::with_store();
    let json = bench.json("compare acts --hooks blocks.[02].* --metric rsa --max-rows 100");
    let labels = json[0]["row_labels"].as_array().unwrap();
    assert_eq!(
        labels,
        &[
            "acts:blocks.0.hook_resid_post",
            "acts:blocks.2.hook_resid_post"
        ]
    );
    let mixed = format!("compare acts:{HOOK} acts --metric rsa --max-rows 100");
    let json = bench.json(&mixed);
    assert_eq!(json[0]["values"].as_array().unwrap().len(), 1);
    assert_eq!(json[0]["values"][0].as_array().unwrap().len(), 4);
    for glob in ["blocks.7.*", "blocks.["] {
        bench.fails(
            &format!("compare acts --hooks {glob} --metric rsa"),
            &[glob, "it holds", HOOK],
        );
    }
}

#[test]
fn files_are_compared_and_kept() {
    let bench = Bench::new();
    matrix(&bench.path("x.safetensors"), 60, 8, scattered);
    matrix(&bench.path("y.safetensors"), 60, 5, |r, c| {
        scattered(r, c) * 3.0 + 1.0
    });
    let line = "compare x.safetensors y.safetensors:x --metric linear_cka --out kept";
    let text = bench.ok(line);
    assert!(
        text.contains("x.safetensors") && text.contains("y.safetensors"),
        "{text}"
    );
    let kept = fs::read_to_string(bench.path("kept/compare.json")).unwrap();
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    assert_eq!(
        kept,
        bench.json("compare x.safetensors y.safetensors:x --metric linear_cka")
    );
}

#[test]
fn rows_that_do_not_pair_up_are_refused() {
    let bench = Bench::with_store();
    matrix(&bench.path("x.safetensors"), 60, 8, scattered);
    matrix(&bench.path("y.safetensors"), 61, 8, scattered);
    let words = [
        "x.safetensors",
        "y.safetensors",
        "do not pair up",
        "60 rows against 61",
    ];
    bench.fails("compare x.safetensors y.safetensors --metric rsa", &words);
    bench.write("other.txt", &fs::read_to_string(sample()).unwrap()[9000..]);
    bench.ok(&format!(
        "capture {} --text other.txt --hooks {HOOK} --max-tokens 1500 --context 32 --out other",
        tiny()
    ));
    bench.fails(
        &format!("compare acts:{HOOK} other:{HOOK} --metric rsa"),
        &["acts:", "other:", "do not pair up", "token"],
    );
}

#[test]
fn a_nan_is_named_with_its_place() {
    let bench = Bench::new();
    let value = |r, c| {
        if (r, c) == (17, 2) {
            f32::INFINITY
        } else {
            scattered(r, c)
        }
    };
    matrix(&bench.path("x.safetensors"), 60, 8, value);
    let words = ["x.safetensors", "row 17 ", "inf", "column 2"];
    bench.fails(
        "compare x.safetensors x.safetensors --metric linear_cka",
        &words,
    );
}

#[test]
fn what_cannot_be_compared_is_named() {
    let bench = Bench::new();
    matrix(&bench.path("x.safetensors"), 60, 8, scattered);
    matrix(&bench.path("flat.safetensors"), 60, 8, |_, _| 2.5);
    matrix(&bench.path("one.safetensors"), 1, 8, scattered);
    for metric in [
        "cka",
        "linear_cka[cubed]",
        "svcca[variance=2]",
        "mutual_knn[k=0]",
        "rsa[by=feel]",
        "linear_cka[",
    ] {
        bench.usage(
            &format!("compare x.safetensors --metric {metric}"),
            &[metric, "linear_cka[unbiased]", "rsa[", "mutual_knn["],
        );
    }
    bench.usage("compare x.safetensors", &["--metric"]);
    bench.fails(
        "compare gone.safetensors --metric rsa",
        &["gone.safetensors", "does not exist"],
    );
    bench.write("text.safetensors", "no tensors here, only words");
    bench.fails(
        "compare text.safetensors --metric rsa",
        &["text.safetensors"],
    );
    for metric in ["linear_cka", "rsa", "svcca", "mutual_knn"] {
        let line = format!("compare one.safetensors --metric {metric}");
        bench.fails(&line, &[metric, "rows"]);
        let line = format!("compare x.safetensors --metric {metric} --max-rows 1");
        bench.fails(&line, &[metric, "rows"]);
    }
    bench.fails(
        "compare x.safetensors --metric mutual_knn[k=60]",
        &["mutual_knn[k=60", "60"],
    );
    bench.fails(
        "compare flat.safetensors --metric linear_cka",
        &["linear_cka"],
    );
    bench.usage(
        "compare x.safetensors --metric rsa --max-rows 0",
        &["--max-rows"],
    );
}

fn named<'a>(found: &'a serde_json::Value, metric: &str) -> &'a serde_json::Value {
    let all = found.as_array().unwrap();
    let is = |f: &&serde_json::Value| f["metric"].as_str().unwrap().starts_with(metric);
    all.iter().find(is).unwrap_or_else(|| panic!("no {metric}"))
}

fn two_sides(bench: &Bench) {
    matrix(&bench.path("x.safetensors"), 80, 6, scattered);
    let mixed = |r, c| scattered(r, c) + 0.5 * scattered(r, c + 1) + 0.3 * scattered(r + 1000, c);
    matrix(&bench.path("y.safetensors"), 80, 6, mixed);
}

#[test]
fn all_metrics_at_once() {
    let bench = Bench::new();
    two_sides(&bench);
    let found = bench.json("compare x.safetensors y.safetensors --metric all");
    assert!(found.as_array().unwrap().len() > 30, "{found}");
    for one in found.as_array().unwrap() {
        let value = one["values"][0][0].as_f64();
        assert!(value.is_some_and(f64::is_finite), "{one}");
        // What is printed can be asked for, and gives the same.
        let metric = one["metric"].as_str().unwrap();
        assert!(["similarity", "distance"].contains(&one["kind"].as_str().unwrap()));
        if ["linear_cka", "procrustes", "rsa"]
            .iter()
            .any(|m| metric.starts_with(m))
        {
            let line = format!("compare x.safetensors y.safetensors --metric {metric}");
            assert_eq!(bench.json(&line)[0], *one);
        }
    }
    // A constant side has no correlations; what has no value is named and left out.
    matrix(&bench.path("flat.safetensors"), 80, 6, |_, c| c as f32);
    let line = "compare x.safetensors flat.safetensors --metric all";
    let ran = bench.run(&format!("{line} --json"));
    assert!(
        ran.err
            .contains("linear_cka[unbiased]: left out: right representation"),
        "{}",
        ran.err
    );
}

#[test]
fn chance_and_intervals_stand_beside_the_value() {
    let bench = Bench::new();
    two_sides(&bench);
    let line = "compare x.safetensors y.safetensors --metric linear_cka --null 19 --bootstrap 40";
    let found = &bench.json(line)[0];
    let (null, interval) = (&found["nulls"][0][0], &found["intervals"][0][0]);
    let number = |v: &serde_json::Value| v.as_f64().unwrap();
    assert_eq!(number(&null["p"]), 0.05, "{found}");
    assert_eq!(null["value"], found["values"][0][0]);
    assert!(number(&interval["low"]) < number(&null["value"]));
    assert!(number(&interval["high"]) > number(&null["value"]));
    assert_eq!(bench.json(line), bench.json(line));
    let text = bench.ok(line);
    assert!(
        text.contains("95 % in [") && text.contains("by chance") && text.contains("p = 0.05"),
        "{text}"
    );
    bench.fails(
        "compare x.safetensors y.safetensors --metric linear_cka --null 9 --by-chance rotation",
        &["linear_cka", "rotation"],
    );
}

#[test]
fn a_matrix_of_both_sides_and_its_pictures() {
    let bench = Bench::with_store();
    let line =
        format!("compare acts acts:{HOOK} --matrix --metric procrustes linear_cka --max-rows 300");
    let found = bench.json(&line);
    for one in found.as_array().unwrap() {
        let values = one["values"].as_array().unwrap();
        assert_eq!((values.len(), values[0].as_array().unwrap().len()), (5, 5));
    }
    let procrustes = named(&found, "procrustes");
    assert!(
        procrustes["values"][1][1].as_f64().unwrap() < 1e-6,
        "{procrustes}"
    );
    bench.ok(&format!("{line} --out kept --rdm 24"));
    bench.ok("report kept --out page.html");
    let page = fs::read_to_string(bench.path("page.html")).unwrap();
    for part in [
        "Dissimilarities of rows",
        "rdm-5-svg",
        "map-1-svg",
        "are in this plane",
        "similarity-2-svg",
    ] {
        assert!(page.contains(part), "{part}");
    }
    bench.usage("compare acts --metric rsa --rdm 9", &["--out"]);
}

#[test]
fn tensors_of_more_axes_need_a_rule() {
    use safetensors::{Dtype, tensor::TensorView};
    let bench = Bench::new();
    let (n, t, d) = (30, 4, 5);
    let cells = (0..n * t * d).map(|i| scattered(i / d, i % d));
    let bytes: Vec<u8> = cells.flat_map(f32::to_le_bytes).collect();
    let view = TensorView::new(Dtype::F32, vec![n, t, d], &bytes).unwrap();
    let file = safetensors::serialize([("x", view)], None).unwrap();
    fs::write(bench.path("deep.safetensors"), file).unwrap();
    matrix(&bench.path("flat.safetensors"), n * t, d, scattered);
    let line = "compare deep.safetensors --metric linear_cka";
    bench.fails(
        line,
        &["deep.safetensors:x", "[30, 4, 5]", "--flatten", "positions"],
    );
    let rows = |rule: &str| bench.json(&format!("{line} --flatten {rule}"))[0]["rows"].clone();
    assert_eq!(
        (rows("features"), rows("mean"), rows("positions")),
        (30.into(), 30.into(), 120.into())
    );
    let same = bench
        .json("compare deep.safetensors flat.safetensors --metric procrustes --flatten positions");
    assert!(same[0]["values"][0][0].as_f64().unwrap() < 1e-6, "{same}");
    bench.usage(
        &format!("{line} --flatten sideways"),
        &["sideways", "positions"],
    );
}

#[test]
fn all_rows_in_one_pass_give_what_drawn_rows_give() {
    let bench = Bench::with_store();
    let metrics = "linear_cka linear_cka[biased] svcca procrustes";
    let line = format!("compare acts --hooks blocks.[01].* --metric {metrics}");
    let streamed = bench.json(&format!("{line} --all-rows"));
    let drawn = bench.json(&format!("{line} --max-rows 1500"));
    for (a, b) in streamed
        .as_array()
        .unwrap()
        .iter()
        .zip(drawn.as_array().unwrap())
    {
        assert_eq!((&a["metric"], &a["rows"]), (&b["metric"], &b["rows"]));
        for (i, j) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let [x, y] = [a, b].map(|t| t["values"][i][j].as_f64().unwrap());
            assert!((x - y).abs() < 2e-5, "{}: {x} and {y}", a["metric"]);
        }
    }
    bench.fails("compare acts --metric rsa --all-rows", &["rsa", "rows"]);
    bench.usage(
        "compare acts --metric linear_cka --all-rows --null 9",
        &["--null"],
    );
}
