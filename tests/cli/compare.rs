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
        "rsa[by=pearson]",
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
