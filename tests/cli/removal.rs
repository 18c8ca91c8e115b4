//! `inscape sae scr`.

use super::*;

fn trained() -> Bench {
    let bench = Bench::with_store();
    bench.ok(&format!(
        "sae train acts:{HOOK} --k 8 --width 128 --tokens 8192 --batch 64 --out sae"
    ));
    bench
}

const THREE: &str = "--concepts vowel,word_start,capital --k 2,20";

#[test]
fn concepts_of_the_text_are_taken_out() {
    let bench = trained();
    let json = bench.json(&format!("sae scr sae acts {THREE}"));
    let concepts = json["concepts"].as_array().unwrap();
    let names: Vec<_> = concepts.iter().map(|c| c["concept"].as_str()).collect();
    assert_eq!(names, ["vowel", "word_start", "capital"].map(Some));
    let number = |v: &serde_json::Value| v.as_f64().unwrap_or_else(|| panic!("{v}"));
    for concept in concepts {
        assert!(
            (0.5..=1.0).contains(&number(&concept["accuracy"])),
            "{concept}"
        );
        assert!(number(&concept["train"][0]) <= 1200.0, "{concept}");
        let k: Vec<f64> = each(&concept["ablated"], "k");
        assert_eq!(k, [2.0, 20.0]);
        for at in concept["ablated"].as_array().unwrap() {
            let [own, others, tpp] = ["intended", "unintended", "tpp"].map(|key| number(&at[key]));
            assert!((own - others - tpp).abs() < 1e-12, "{at}");
            assert!((-1.0..=1.0).contains(&own), "{at}");
        }
    }
    // Whether a token starts a word is written all over its residual.
    assert!(number(&concepts[1]["accuracy"]) > 0.8, "{}", concepts[1]);
    let pairs = json["pairs"].as_array().unwrap();
    let pair = pairs.iter().find(|p| p["spurious"] == "word_start");
    let pair = pair.unwrap_or_else(|| panic!("{json}"));
    assert_eq!(pair["intended"], "vowel");
    let left_out = json["left_out"].as_array().unwrap().len();
    assert_eq!(pairs.len() / 2 + left_out, 3);
    let harder = pairs.iter().filter(|p| p["harder"] == true).count();
    assert_eq!(2 * harder, pairs.len());
    for pair in pairs {
        let [biased, oracle] = ["biased", "oracle"].map(|key| number(&pair[key]));
        for at in pair["ablated"].as_array().unwrap() {
            let share = (number(&at["accuracy"]) - biased) / (oracle - biased);
            match at["scr"].as_f64() {
                Some(scr) => assert!((scr - share).abs() < 1e-9, "{pair}"),
                None => assert!(oracle <= biased, "{pair}"),
            }
        }
    }
    assert_eq!(each(&json["scr"], "k"), [2.0, 20.0]);
}

fn each(list: &serde_json::Value, key: &str) -> Vec<f64> {
    let list = list.as_array().unwrap().iter();
    list.map(|v| v[key].as_f64().unwrap()).collect()
}

#[test]
fn a_table_a_concept_and_a_pair() {
    let bench = trained();
    let line = "sae scr sae acts --concepts vowel,word_start --k 2,20";
    let text = bench.ok(line);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 10, "{text}");
    assert!(
        lines[0].starts_with("TPP: ") && lines[1].contains("k = 20"),
        "{text}"
    );
    assert!(lines[2].starts_with("vowel ") && lines[3].starts_with("word_start "));
    assert!(lines[4].starts_with("mean ") && lines[5].starts_with("TPP "));
    assert!(
        lines[6].starts_with("SCR: ") && lines[7].contains("oracle"),
        "{text}"
    );
    assert!(lines[8].contains("vowel") && lines[8].contains("word_start"));
    assert!(lines[9].starts_with("SCR, of all"), "{text}");
    assert_eq!(text, bench.ok(line));
    let part = bench.run("sae scr sae acts --concepts word_start,function_word --k 2");
    assert_eq!(part.code, Some(0), "{part:?}");
    assert!(
        part.err
            .contains("word_start and function_word: only 0 rows"),
        "{part:?}"
    );
    assert!(!part.out.contains("SCR"), "{part:?}");
}

#[test]
fn what_cannot_be_removed_is_named() {
    let bench = trained();
    bench.usage(
        "sae scr sae acts --concepts colour",
        &["unknown concept `colour`", "in_quotes"],
    );
    bench.usage("sae scr sae acts --per-cell 0", &["per-cell"]);
    bench.fails(
        "sae scr sae acts --train ..60% --test 50%..",
        &["--train", "--test", "share rows"],
    );
    bench.fails(
        &format!("sae scr sae acts {THREE},129"),
        &["k = 129", "of 128"],
    );
    bench.fails(
        "sae scr sae acts --concepts capital",
        &["one concept", "two"],
    );
    matrix(&bench.path("x.safetensors"), 300, 128, scattered);
    bench.fails(
        "sae scr sae x.safetensors",
        &["x.safetensors:x", "is no store"],
    );
}
