use std::path::Path;

use serde_json::{Map, Value, json};

use super::super::{
    CONFIG, Error, Format, Named, WEIGHTS, WeightDtype, cannot, least, make_dir, named, object,
    serialize_as, threshold, without_subtraction, write_json,
};
use super::Architecture;
use crate::capture::store::write_whole;
use crate::sae::{Activation, Sae};

/// For SAELens, which must know the architecture.
pub(in crate::sae::format) async fn write(
    sae: &Sae,
    metadata: &Value,
    path: &Path,
) -> Result<(), Error> {
    let sae = match sae.is_transcoder() {
        true => without_subtraction(sae.clone()),
        false => sae.clone(),
    };
    match &sae.activation {
        Activation::TopK { .. } | Activation::Gated { .. } if sae.is_transcoder() => {
            let name = sae.activation.name();
            let what = format!("a {name} transcoder: it has those with ReLU and JumpReLU");
            return Err(cannot(Format::SaeLens, what));
        }
        _ if least(&sae).await? < 0.0 => {
            return Err(cannot(
                Format::SaeLens,
                "thresholds below 0: it takes ReLU first",
            ));
        }
        _ => {}
    }
    save(&sae, path, metadata.clone(), WeightDtype::F32).await
}

pub(in crate::sae::format) async fn save(
    sae: &Sae,
    dir: &Path,
    metadata: Value,
    dtype: WeightDtype,
) -> Result<(), Error> {
    let mark = mark(sae, least(sae).await? < 0.0);
    let metadata = with_mark(object(&metadata)?, mark)?;
    let weights = serialize_as(&tensors(sae).await?, None, dtype)?;
    make_dir(dir)?;
    write_whole(&dir.join(WEIGHTS), &weights)?;
    write_json(&dir.join(CONFIG), &config(sae, metadata, dtype))
}

async fn tensors(sae: &Sae) -> Result<Named, Error> {
    let b_enc = match sae.activation {
        Activation::Gated { .. } => "b_gate",
        _ => "b_enc",
    };
    let mut tensors = vec![
        named("W_enc", sae.w_enc.clone().transpose()).await?,
        named(b_enc, sae.b_enc.clone()).await?,
        named("W_dec", sae.w_dec.clone()).await?,
        named("b_dec", sae.b_dec.clone()).await?,
    ];
    if let Some(w_skip) = &sae.w_skip {
        tensors.push(named("W_skip", w_skip.clone()).await?);
    }
    match &sae.activation {
        Activation::Relu | Activation::TopK { .. } => {}
        Activation::BatchTopK { .. } | Activation::JumpRelu { .. } => {
            let threshold = threshold(sae).expect("these have one");
            tensors.push(named("threshold", threshold).await?);
        }
        Activation::Gated { r_mag, b_mag } => {
            tensors.push(named("r_mag", r_mag.clone()).await?);
            tensors.push(named("b_mag", b_mag.clone()).await?);
        }
    }
    Ok(tensors)
}

fn config(sae: &Sae, metadata: Map<String, Value>, dtype: WeightDtype) -> Value {
    let architecture = Architecture {
        activation: match &sae.activation {
            Activation::BatchTopK { .. } => "jumprelu",
            other => other.name(),
        },
        transcoder: sae.is_transcoder(),
        skip: sae.w_skip.is_some(),
    };
    let hook = metadata.get("hook_name").and_then(Value::as_str);
    let heads = hook.is_some_and(|hook| hook.ends_with("hook_z"));
    let mut config = json!({
        // Version of the format. Without it SAELens takes the file for one from before 6.0 and
        // drops its metadata.
        "sae_lens_version": "6.0.0",
        "architecture": architecture.name(), "d_in": sae.d_in(), "d_sae": sae.d_sae(),
        "dtype": dtype.torch_name(), "device": "cpu", "apply_b_dec_to_input": sae.subtract_b_dec,
        "normalize_activations": "none",
        "reshape_activations": if heads { "hook_z" } else { "none" },
        "metadata": metadata,
    });
    if let Activation::TopK { k } = sae.activation {
        config["k"] = json!(k);
        config["rescale_acts_by_decoder_norm"] = json!(false);
    }
    if architecture.transcoder {
        config["d_out"] = json!(sae.d_out());
    }
    config
}

/// What SAELens's names do not say. `signed`: latents may be below 0.
fn mark(sae: &Sae, signed: bool) -> Map<String, Value> {
    let mut mark = Map::new();
    if let Activation::BatchTopK { k, .. } = sae.activation {
        mark.insert("activation".into(), json!("batchtopk"));
        mark.insert("k".into(), json!(k));
    } else if signed {
        mark.insert("activation".into(), json!("jumprelu"));
    }
    if sae.sites > 1 {
        mark.insert("sites".into(), json!(sae.sites));
    }
    mark
}

fn with_mark(
    mut metadata: Map<String, Value>,
    mark: Map<String, Value>,
) -> Result<Map<String, Value>, Error> {
    if mark.is_empty() {
        return Ok(metadata);
    }
    let own = metadata.entry("inscape").or_insert_with(|| json!({}));
    let own = own.as_object_mut();
    let own = own.ok_or_else(|| Error::Config("metadata's `inscape` must be an object".into()))?;
    own.insert("architecture".into(), mark.into());
    Ok(metadata)
}
