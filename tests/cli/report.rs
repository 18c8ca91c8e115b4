//! `inscape report`.

use std::fs;

use super::*;

#[test]
fn the_page_holds_everything_and_needs_nothing() {
    let bench = Bench::with_store();
    bench.ok(&format!(
        "sae train acts --hook {HOOK} --k 4 --width 64 --tokens 4096 --batch 64 --out sae"
    ));
    bench.ok("sae eval sae acts");
    bench.ok("compare acts --metric rsa --max-rows 200 --out layers");
    let line = "report sae acts layers --cards 3 --title Tiny&<small> --out page.html";
    let ran = bench.run(&format!("{line} --model {}", tiny()));
    assert!(!ran.err.contains("without --model"), "{}", ran.err);
    let out = succeeded(ran, line);
    assert!(
        out.starts_with("page.html: ") && out.ends_with(" MB\n"),
        "{out}"
    );
    let page = fs::read_to_string(bench.path("page.html")).unwrap();
    assert_eq!(check::faults(&page), Vec::<String>::new());
    for word in [
        HOOK,
        "Tiny&amp;&lt;small&gt;",
        "CPU (Flex",
        "rsa[",
        "tiny-lm-1",
    ] {
        assert!(page.contains(word), "the page does not say {word}");
    }
    for outside in ["<script", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "the page has {outside}");
    }
}

/// Tokens get their text from `--model`, or from the embedded model that a run was made with.
#[test]
fn tokens_are_ids_where_the_model_is_not_known() {
    let bench = Bench::new();
    // Not the embedded model, though its directory has that name.
    fs::create_dir_all(bench.path("models/tiny-lm-1")).unwrap();
    for part in ["config.json", "tokenizer.json", "model.safetensors"] {
        let from = format!("{ROOT}/examples/data/tiny-lm-2/{part}");
        fs::copy(from, bench.path("models/tiny-lm-1").join(part)).unwrap();
    }
    for (model, known) in [(tiny(), true), ("models/tiny-lm-1".into(), false)] {
        let dir = if known { "known" } else { "other" };
        bench.ok(&format!(
            "capture {model} --text {} --hooks {HOOK} --max-tokens 600 --out {dir}-acts",
            sample()
        ));
        bench.ok(&format!(
            "sae train {dir}-acts:{HOOK} --k 4 --width 64 --tokens 1280 --batch 64 --out {dir}"
        ));
        let ran = bench.run(&format!("report {dir} --cards 3 --out {dir}.html"));
        let noted = ran.err.contains("note: without --model");
        assert_eq!(noted, !known, "{}", ran.err);
        succeeded(ran, dir);
        let page = fs::read_to_string(bench.path(&format!("{dir}.html"))).unwrap();
        assert_eq!(check::faults(&page), Vec::<String>::new());
    }
}

#[test]
fn a_directory_that_holds_nothing_is_named() {
    let bench = Bench::new();
    fs::create_dir(bench.path("bare")).unwrap();
    for dir in ["bare", "nowhere"] {
        bench.fails(
            &format!("report {dir} --out page.html"),
            &[dir, "holds no store"],
        );
    }
    assert!(!bench.path("page.html").exists());
    bench.usage("report", &["DIRS"]);
}

#[test]
fn a_page_that_cannot_be_written_is_named() {
    let bench = Bench::with_store();
    bench.fails(
        "report acts --out no/such/page.html",
        &["no/such/page.html"],
    );
}
