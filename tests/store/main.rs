//! The store from the outside: what goes in comes out, and damage is named.

mod damage;
mod limits;
mod round_trip;
mod settings;
mod shuffle;
mod source;
mod text;

use std::fmt::Display;
use std::path::Path;

use inscape::capture::store::*;

/// Settings of a small store: contexts of 3 positions, batches of 2, shards of 4 contexts.
pub fn settings(hooks: Vec<HookSpec>) -> Settings {
    Settings {
        model: ModelId {
            id: "toy".into(),
            family: "llama".into(),
            sha256: "aa".into(),
        },
        tokenizer_sha256: "bb".into(),
        text: "toy.txt".into(),
        positions: Positions::All,
        context: 3,
        batch: 2,
        contexts_per_shard: 4,
        max_tokens: None,
        device: "cpu".into(),
        dtype: Dtype::F32,
        hooks,
    }
}

/// Where the row of `context` at `position` comes from.
pub fn meta(context: u64, position: u32) -> RowMeta {
    RowMeta {
        token_id: context as u32 * 7 + position,
        position,
        context,
        offset_start: context * 1000 + u64::from(position),
        offset_end: context * 1000 + u64::from(position) + 4,
    }
}

/// Writes `contexts` contexts of 3 rows; the value at a hook is its row's number in the store plus
/// a thousandth of the column.
pub fn write_store(dir: &Path, settings: &Settings, contexts: u64) -> Store {
    let (mut writer, mut next) = Store::resume(dir, settings).unwrap();
    while next < contexts {
        let end = (next + settings.batch as u64).min(contexts);
        let rows = (next * 3..end * 3).collect::<Vec<_>>();
        let value = |row: u64, column: usize| row as f32 + column as f32 / 1000.0;
        let hook = |h: &HookSpec| {
            let row = |&r: &u64| (0..h.width).map(move |c| value(r, c));
            rows.iter().flat_map(row).collect()
        };
        let block = RowBlock {
            contexts: (end - next) as usize,
            meta: rows.iter().map(|r| meta(r / 3, (r % 3) as u32)).collect(),
            hooks: settings.hooks.iter().map(hook).collect(),
        };
        writer.push(&block).unwrap();
        next = end;
    }
    writer.finish().unwrap()
}

/// A store of three shards (12, 12 and 6 rows) with the hooks `a` `[2]` and `b` `[2, 2]`.
pub fn small_store(dir: &Path) -> Store {
    write_store(dir, &small_settings(), 10)
}

pub(crate) fn small_settings() -> Settings {
    settings(vec![HookSpec::new("a", [2]), HookSpec::new("b", [2, 2])])
}

/// Requires a message to hold each of these words.
#[track_caller]
pub fn says(error: impl Display, words: &[&str]) {
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "{message:?} does not say {word:?}");
    }
}

/// A safetensors file of the format's own writer.
pub fn tensor_file(path: &Path, tensors: &[(&str, safetensors::Dtype, Vec<usize>, Vec<u8>)]) {
    use safetensors::tensor::TensorView;
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        let view = TensorView::new(*dtype, shape.clone(), bytes).unwrap();
        (name.to_string(), view)
    });
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}
