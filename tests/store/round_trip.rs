//! What goes in comes out.

use half::f16;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use safetensors::SafeTensors;

use super::*;

/// A store's shape and content: rows per context, and values drawn from a seed.
#[derive(Clone, Debug)]
struct Case {
    settings: Settings,
    rows: Vec<u32>,
    bits: u32,
}

fn cases() -> impl Strategy<Value = Case> {
    let shape = prop::collection::vec(1usize..5, 1..4);
    let hooks = prop::collection::vec(shape, 1..4);
    let rows = prop::collection::vec(0u32..5, 0..20);
    (
        hooks,
        rows,
        1usize..4,
        1usize..4,
        any::<bool>(),
        any::<u32>(),
    )
        .prop_map(|(shapes, rows, batch, per_shard, half, bits)| {
            let hook = |(i, shape)| HookSpec::new(format!("blocks.{i}.hook \"ü\""), shape);
            let hooks = shapes.into_iter().enumerate().map(hook).collect();
            let mut settings = settings(hooks);
            settings.batch = batch;
            settings.contexts_per_shard = batch * per_shard;
            settings.dtype = if half { Dtype::F16 } else { Dtype::F32 };
            Case {
                settings,
                rows,
                bits,
            }
        })
}

impl Case {
    /// Any finite or non-finite f32; for f16 something below its largest value.
    fn value(&self, hook: usize, row: usize, column: usize) -> f32 {
        let mixed = (hook * 31 + row * 7919 + column * 104_729 + 1) as u32;
        let bits = self.bits.wrapping_add(mixed).wrapping_mul(2_654_435_761);
        match self.settings.dtype {
            Dtype::F32 => f32::from_bits(bits),
            Dtype::F16 => (bits as i32 as f32) / 32_800.0,
        }
    }

    fn meta(&self) -> Vec<RowMeta> {
        let rows = |(c, &n): (usize, &u32)| (0..n).map(move |p| meta(c as u64, p));
        self.rows.iter().enumerate().flat_map(rows).collect()
    }

    fn rows_of(&self, hook: usize, rows: std::ops::Range<usize>) -> Vec<f32> {
        let width = self.settings.hooks[hook].width;
        let row = |r| (0..width).map(move |c| self.value(hook, r, c));
        rows.flat_map(row).collect()
    }

    fn write(&self, dir: &Path) -> Store {
        let mut writer = Store::create(dir, self.settings.clone()).unwrap();
        let (all, mut row) = (self.meta(), 0);
        for (i, contexts) in self.rows.chunks(self.settings.batch).enumerate() {
            let end = row + contexts.iter().sum::<u32>() as usize;
            let hooks = 0..self.settings.hooks.len();
            let block = RowBlock {
                contexts: contexts.len(),
                meta: all[row..end].to_vec(),
                hooks: hooks.map(|h| self.rows_of(h, row..end)).collect(),
            };
            writer.push(&block).unwrap();
            row = end;
            assert_eq!(
                writer.contexts(),
                (i * self.settings.batch + contexts.len()) as u64
            );
        }
        writer.finish().unwrap()
    }

    /// The bits a value comes back with.
    fn stored(&self, value: f32) -> u32 {
        match self.settings.dtype {
            Dtype::F32 => value.to_bits(),
            Dtype::F16 => f16::from_f32(value).to_f32().to_bits(),
        }
    }

    /// Compares `rows` of every hook and of the rows' origin with what was written.
    fn check(&self, store: &Store, rows: std::ops::Range<usize>) -> Result<(), TestCaseError> {
        for (h, hook) in self.settings.hooks.iter().enumerate() {
            let found = store.read_rows(&hook.name, rows.clone()).unwrap();
            let found: Vec<_> = found.iter().map(|v| v.to_bits()).collect();
            let written = self.rows_of(h, rows.clone());
            let written: Vec<_> = written.iter().map(|&v| self.stored(v)).collect();
            prop_assert_eq!(found, written);
        }
        prop_assert_eq!(store.read_meta(rows.clone()).unwrap(), &self.meta()[rows]);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rows_come_back(case in cases(), a in 0usize..100, b in 0usize..100) {
        let dir = tempfile::tempdir().unwrap();
        case.write(dir.path());
        let store = Store::open(dir.path()).unwrap();
        store.verify().unwrap();
        let rows = store.rows();
        prop_assert_eq!(rows, case.meta().len());
        let shards = case.rows.len().div_ceil(case.settings.contexts_per_shard);
        prop_assert_eq!(store.manifest().shards.len(), shards);
        case.check(&store, 0..rows)?;
        let (a, b) = (a % (rows + 1), b % (rows + 1));
        case.check(&store, a.min(b)..a.max(b))?;
    }

    #[test]
    fn the_formats_own_reader_reads_the_shards(case in cases()) {
        let dir = tempfile::tempdir().unwrap();
        let store = case.write(dir.path());
        let mut first = 0;
        for (i, entry) in store.manifest().shards.iter().enumerate() {
            let bytes = std::fs::read(dir.path().join(&entry.file)).unwrap();
            let (_, head) = SafeTensors::read_metadata(&bytes).unwrap();
            prop_assert_eq!(&head.metadata().as_ref().unwrap()["shard"], &i.to_string());
            let file = SafeTensors::deserialize(&bytes).unwrap();
            prop_assert_eq!(file.len(), 5 + case.settings.hooks.len());
            for hook in &case.settings.hooks {
                let tensor = file.tensor(&hook.name).unwrap();
                prop_assert_eq!(tensor.shape(), &[entry.rows, hook.width]);
                let aligned = tensor.data().as_ptr() as usize - bytes.as_ptr() as usize;
                prop_assert_eq!(aligned % case.settings.dtype.bytes(), 0);
            }
            let tokens = file.tensor("token_ids").unwrap().data().to_vec();
            let written = &case.meta()[first..first + entry.rows];
            let written: Vec<u8> = written.iter().flat_map(|m| m.token_id.to_le_bytes()).collect();
            prop_assert_eq!(tokens, written);
            first += entry.rows;
        }
    }
}

/// The fault planted in the property: one changed value must not pass it.
#[test]
fn a_changed_value_is_noticed() {
    let mut case = Case {
        settings: small_settings(),
        rows: vec![2, 3],
        bits: 5,
    };
    let dir = tempfile::tempdir().unwrap();
    let store = case.write(dir.path());
    case.check(&store, 0..5).unwrap();
    case.bits += 1;
    assert!(case.check(&store, 4..5).is_err());
}

#[test]
fn halves_round_to_nearest_even() {
    let mut settings = settings(vec![HookSpec::new("a", [1])]);
    settings.dtype = Dtype::F16;
    let smallest = 2f32.powi(-24);
    let cases = [
        (2049.0, 2048.0),
        (2051.0, 2052.0),
        (65_519.0, 65_504.0),
        (-65_519.0, -65_504.0),
        (smallest / 2.0, 0.0),
        (smallest * 0.51, smallest),
        (-0.0, -0.0),
        (f32::INFINITY, f32::INFINITY),
    ];
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Store::create(dir.path(), settings).unwrap();
    let block = RowBlock {
        contexts: 1,
        meta: (0..cases.len() as u32).map(|p| meta(0, p)).collect(),
        hooks: vec![cases.iter().map(|c| c.0).collect()],
    };
    writer.push(&block).unwrap();
    let found = writer
        .finish()
        .unwrap()
        .read_rows("a", 0..cases.len())
        .unwrap();
    for ((value, expected), found) in cases.into_iter().zip(found) {
        assert_eq!(found.to_bits(), f32::to_bits(expected), "{value}");
    }
}

#[test]
fn a_value_too_large_for_f16_is_refused() {
    let mut settings = settings(vec![HookSpec::new("a", [1]), HookSpec::new("big", [2])]);
    settings.dtype = Dtype::F16;
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Store::create(dir.path(), settings).unwrap();
    let block = RowBlock {
        contexts: 1,
        meta: vec![meta(0, 0), meta(0, 1)],
        hooks: vec![vec![1.0, 2.0], vec![1.0, 2.0, 3.0, -65_520.0]],
    };
    says(
        writer.push(&block).unwrap_err(),
        &["big", "row 1", "-65520", "f16", "f32"],
    );
}

#[test]
fn an_empty_store_opens() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path(), small_settings())
        .unwrap()
        .finish()
        .unwrap();
    assert!(store.manifest().complete);
    assert_eq!(store.rows(), 0);
    assert!(store.read_rows("a", 0..0).unwrap().is_empty());
}

#[test]
fn rows_past_the_end_and_unknown_hooks_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = small_store(dir.path());
    assert_eq!((store.rows(), store.width("b").unwrap()), (30, 4));
    says(
        store.read_rows("a", 29..31).unwrap_err(),
        &["30 rows", "29..31"],
    );
    says(store.read_meta(31..31).unwrap_err(), &["30 rows"]);
    says(store.read_rows("c", 0..1).unwrap_err(), &["\"c\"", "a, b"]);
}

#[test]
#[should_panic(expected = "expected [2, 4]")]
fn a_block_of_the_wrong_width_panics() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Store::create(dir.path(), small_settings()).unwrap();
    let (meta, hooks) = (vec![meta(0, 0)], vec![vec![0.0; 2], vec![0.0; 3]]);
    writer
        .push(&RowBlock {
            contexts: 1,
            meta,
            hooks,
        })
        .ok();
}

#[test]
#[should_panic(expected = "expected 0..1 in order")]
fn a_block_out_of_order_panics() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Store::create(dir.path(), small_settings()).unwrap();
    let (meta, hooks) = (vec![meta(5, 0)], vec![vec![0.0; 2], vec![0.0; 4]]);
    writer
        .push(&RowBlock {
            contexts: 1,
            meta,
            hooks,
        })
        .ok();
}

#[test]
#[should_panic(expected = "only the last block may be short")]
fn a_block_after_a_short_one_panics() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Store::create(dir.path(), small_settings()).unwrap();
    let block = |context| RowBlock {
        contexts: 1,
        meta: vec![meta(context, 0)],
        hooks: vec![vec![0.0; 2], vec![0.0; 4]],
    };
    writer.push(&block(0)).unwrap();
    writer.push(&block(1)).ok();
}
