//! What single latents respond to, on rows with known answers.

use inscape::capture::store::*;
use inscape::sae::features::{BARS, Survey, collect, interesting, promoted, survey};

use super::*;

const D: usize = 6;
const CONTEXT: u64 = 10;
const CONTEXTS: u64 = 30;

/// (context, position, value) on axis 2: strong, and one context has two of them.
const STRONG: [(u64, u64, f32); 7] = [
    (0, 0, 5.0),
    (3, 9, 9.0),
    (4, 0, 8.0),
    (11, 4, 7.0),
    (11, 5, 7.5),
    (20, 2, 4.0),
    (29, 9, 6.0),
];

fn value(context: u64, position: u64, axis: usize) -> f32 {
    let planted = |p: &&(u64, u64, f32)| (p.0, p.1) == (context, position);
    match axis {
        2 => STRONG.iter().find(planted).map_or(0.0, |p| p.2),
        // Weak and rare.
        4 if context.is_multiple_of(5) && position == 7 => -0.5,
        // Everywhere.
        0 => 3.0,
        _ => 0.0,
    }
}

fn store(dir: &Path) -> Source {
    let settings = Settings {
        model: ModelId {
            id: "toy".into(),
            family: "llama".into(),
            sha256: "aa".into(),
        },
        tokenizer_sha256: "bb".into(),
        text: "toy.txt".into(),
        positions: Positions::All,
        context: CONTEXT as usize,
        batch: 2,
        contexts_per_shard: 8,
        max_tokens: None,
        device: "cpu".into(),
        dtype: Dtype::F32,
        hooks: vec![HookSpec::new("h", [D])],
    };
    let (mut writer, _) = Store::resume(dir, &settings).unwrap();
    for first in (0..CONTEXTS).step_by(2) {
        let places = || (first..first + 2).flat_map(|c| (0..CONTEXT).map(move |p| (c, p)));
        let meta = |(context, position): (u64, u64)| RowMeta {
            token_id: 1,
            position: position as u32,
            context,
            offset_start: 0,
            offset_end: 1,
        };
        let row = |(c, p): (u64, u64)| (0..D).map(move |a| value(c, p, a));
        let block = RowBlock {
            contexts: 2,
            meta: places().map(meta).collect(),
            hooks: vec![places().flat_map(row).collect()],
        };
        writer.push(&block).unwrap();
    }
    drop(writer.finish().unwrap());
    Source::open(&format!("{}:h", dir.display())).unwrap()
}

fn row_of(context: u64, position: u64) -> usize {
    (context * CONTEXT + position) as usize
}

#[test]
fn a_survey_counts_what_fires() {
    let dir = tempfile::tempdir().unwrap();
    let (source, sae) = (store(dir.path()), identity(D, &Device::cpu()));
    let mut seen = 0;
    let found = survey(&sae, &source, &Device::cpu(), |n| seen = n).unwrap();
    assert_eq!(seen, 300);
    let strong = Survey {
        fired: 7,
        sum: 46.5,
        energy: 25.0 + 81.0 + 64.0 + 49.0 + 56.25 + 16.0 + 36.0,
        max: 9.0,
    };
    assert_eq!(found[2], strong);
    assert_eq!((found[0].fired, found[0].max), (300, 3.0));
    // The negative side of axis 4 is latent 4 + D.
    assert_eq!((found[4 + D].fired, found[4 + D].max), (6, 0.5));
    let silent = (0..2 * D).filter(|f| ![0, 2, 4 + D].contains(f));
    assert!(silent.into_iter().all(|f| found[f] == Survey::default()));
    assert_eq!(interesting(&found, 300, 10), [2, 4 + D]);
    assert_eq!(interesting(&found, 300, 1), [2]);
}

#[test]
fn the_planted_rows_are_the_examples() {
    let dir = tempfile::tempdir().unwrap();
    let (source, sae, cpu) = (
        store(dir.path()),
        identity(D, &Device::cpu()),
        Device::cpu(),
    );
    let all = survey(&sae, &source, &cpu, |_| {}).unwrap();
    let found = collect(&sae, &source, &cpu, &all, &[4 + D, 2], 5, 3).unwrap();
    assert_eq!([found[0].index, found[1].index], [4 + D, 2]);
    let strong = &found[1];
    assert_eq!(strong.survey, all[2]);
    let peaks: Vec<(usize, f32)> = strong.examples.iter().map(|e| (e.row, e.value)).collect();
    let want = [
        (3, 9, 9.0),
        (4, 0, 8.0),
        (11, 5, 7.5),
        (29, 9, 6.0),
        (0, 0, 5.0),
    ];
    assert_eq!(peaks, want.map(|(c, p, v)| (row_of(c, p), v)));
    assert_eq!(strong.histogram.len(), BARS);
    assert_eq!(strong.histogram.iter().sum::<u64>(), 7);
    // 4 of 9 lies in the ninth bar of twenty, 9 in the last.
    assert_eq!((strong.histogram[8], strong.histogram[BARS - 1]), (1, 1));
    for example in found.iter().flat_map(|f| &f.examples) {
        let (first, last) = (example.rows.start, example.rows.end - 1);
        assert!(example.rows.contains(&example.row));
        assert_eq!(
            first as u64 / CONTEXT,
            last as u64 / CONTEXT,
            "{example:?} crosses contexts"
        );
        assert_eq!(example.activations.len(), example.rows.len());
        assert_eq!(example.activations[example.row - first], example.value);
    }
    let snippet = |c, p| {
        strong
            .examples
            .iter()
            .find(|e| e.row == row_of(c, p))
            .unwrap()
    };
    assert_eq!(snippet(3, 9).rows, row_of(3, 6)..row_of(4, 0));
    assert_eq!(snippet(4, 0).rows, row_of(4, 0)..row_of(4, 4));
    assert_eq!(
        snippet(11, 5).activations,
        [0.0, 0.0, 7.0, 7.5, 0.0, 0.0, 0.0]
    );
    assert_eq!(snippet(29, 9).rows.end, 300);
}

#[test]
fn a_part_of_a_store_keeps_its_contexts() {
    let dir = tempfile::tempdir().unwrap();
    let (source, sae, cpu) = (
        store(dir.path()),
        identity(D, &Device::cpu()),
        Device::cpu(),
    );
    let part = source.sub(35..295).unwrap();
    let all = survey(&sae, &part, &cpu, |_| {}).unwrap();
    assert_eq!(all[2].fired, 5);
    let found = collect(&sae, &part, &cpu, &all, &[2], 2, 20).unwrap();
    let [strongest, next] = &found[0].examples[..] else {
        panic!("{found:?}")
    };
    // Rows count from the part's first; the cut context begins there.
    assert_eq!((strongest.row, strongest.rows.clone()), (4, 0..5));
    assert_eq!((next.row, next.rows.clone()), (5, 5..15));
}

#[test]
fn rows_of_a_matrix_are_contexts_of_their_own() {
    let (sae, cpu) = (identity(D, &Device::cpu()), Device::cpu());
    let rows: Vec<f32> = (0..100 * D)
        .map(|i| {
            if i % D == 1 && i % 7 == 0 {
                i as f32
            } else {
                0.0
            }
        })
        .collect();
    let source = Source::memory("matrix", rows, D);
    let all = survey(&sae, &source, &cpu, |_| {}).unwrap();
    let found = collect(&sae, &source, &cpu, &all, &[1], 3, 5).unwrap();
    assert_eq!(found[0].examples.len(), 3);
    assert!(
        found[0]
            .examples
            .iter()
            .all(|e| e.rows == (e.row..e.row + 1))
    );
    let none = collect(&sae, &source, &cpu, &all, &[1, 3], 0, 5).unwrap();
    assert!(none.iter().all(|f| f.examples.is_empty()));
}

#[test]
fn promoted_tokens_are_those_the_decoder_row_raises() {
    let cpu = Device::cpu();
    let sae = identity(3, &cpu);
    let unembedding = t2(
        &[1.0, 0.0, 0.0, -2.0, 9.0, 0.0, 5.0, 0.0, 0.0, 0.5, 0.0, 7.0],
        3,
        &cpu,
    );
    let (raised, lowered) = promoted(&sae, 0, &unembedding, 2).unwrap();
    assert_eq!(raised, [(2, 5.0), (0, 1.0)]);
    assert_eq!(lowered, [(1, -2.0), (3, 0.5)]);
    let (raised, _) = promoted(&sae, 3, &unembedding, 10).unwrap();
    assert_eq!((raised.len(), raised[0]), (4, (1, 2.0)));
}
