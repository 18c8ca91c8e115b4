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
    // The embedded model that the store came from is found by itself.
    let ran = bench.run("report sae --cards 3 --out ids.html");
    assert!(!ran.err.contains("--model"), "{}", ran.err);
    // With nothing to tell the model by, a note says how tokens get their text.
    let bare = bench.run("report layers --out bare.html");
    assert!(
        bare.err.contains("note: ") && bare.err.contains("--model"),
        "{}",
        bare.err
    );
    assert_eq!(ran.code, Some(0));
    let page = fs::read_to_string(bench.path("ids.html")).unwrap();
    assert_eq!(check::faults(&page), Vec::<String>::new());
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
