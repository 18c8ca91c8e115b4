//! Files: what is written comes back, opens elsewhere, and damage is named.

use std::fs;

use inscape::sae::{Error, format};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};

use super::*;

fn saved() -> (tempfile::TempDir, Sae) {
    let dir = tempfile::tempdir().unwrap();
    let sae = random_sae(1, 6, 14, 3, &Device::cpu());
    let metadata = json!({"hook_name": "blocks.2.hook_resid_post", "inscape": {"seed": 7}});
    block_on(format::save(&sae, dir.path(), metadata)).unwrap();
    (dir, sae)
}

fn load(dir: &Path) -> Result<(Sae, Value), Error> {
    format::load(dir, Device::cpu().tensor())
}

#[test]
fn a_round_trip_keeps_every_bit() {
    let (dir, mut sae) = saved();
    sae.w_dec = sae.w_dec.slice_fill([0..1, 0..1], -0.0);
    sae.b_enc = sae.b_enc.slice_fill(3..4, f32::from_bits(1));
    block_on(format::save(&sae, dir.path(), json!({"a": [1, "b"]}))).unwrap();
    let (back, metadata) = load(dir.path()).unwrap();
    assert_eq!(bits(back.w_enc.clone()), bits(sae.w_enc.clone()));
    assert_eq!(bits(back.b_enc.clone()), bits(sae.b_enc.clone()));
    assert_eq!(bits(back.w_dec.clone()), bits(sae.w_dec.clone()));
    assert_eq!(bits(back.b_dec.clone()), bits(sae.b_dec.clone()));
    assert_eq!((back.k(), metadata), (Some(3), json!({"a": [1, "b"]})));
    let x = t2(&f32s(&Draws::new(2).normals(60)), 6, &Device::cpu());
    assert_eq!(bits(back.reconstruct(x.clone())), bits(sae.reconstruct(x)));
}

/// SAELens 6 reads `cfg.json` by these names and the weights by these shapes.
#[test]
fn names_and_shapes_are_those_of_saelens() {
    let (dir, sae) = saved();
    let config: Value =
        serde_json::from_slice(&fs::read(dir.path().join("cfg.json")).unwrap()).unwrap();
    for (field, want) in [
        ("sae_lens_version", json!("6.0.0")),
        ("architecture", json!("topk")),
        ("d_in", json!(6)),
        ("d_sae", json!(14)),
        ("k", json!(3)),
        ("dtype", json!("float32")),
        ("device", json!("cpu")),
        ("apply_b_dec_to_input", json!(true)),
        ("normalize_activations", json!("none")),
        ("reshape_activations", json!("none")),
        ("rescale_acts_by_decoder_norm", json!(false)),
    ] {
        assert_eq!(config[field], want, "{field}");
    }
    assert_eq!(config["metadata"]["hook_name"], "blocks.2.hook_resid_post");
    let bytes = fs::read(dir.path().join("sae_weights.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut names = file.names();
    names.sort_unstable();
    assert_eq!(names, ["W_dec", "W_enc", "b_dec", "b_enc"]);
    for (name, shape) in [
        ("W_enc", vec![6, 14]),
        ("b_enc", vec![14]),
        ("W_dec", vec![14, 6]),
        ("b_dec", vec![6]),
    ] {
        let tensor = file.tensor(name).unwrap();
        assert_eq!(
            (tensor.shape(), tensor.dtype()),
            (&shape[..], Dtype::F32),
            "{name}"
        );
    }
    // Row i of W_enc holds input i's weights to every latent.
    let rows = read32(sae.w_enc);
    let second = &file.tensor("W_enc").unwrap().data()[4..8];
    assert_eq!(second, rows[6].to_le_bytes());
}

fn with_config(change: impl FnOnce(&mut Value)) -> Error {
    let (dir, _) = saved();
    let path = dir.path().join("cfg.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    fs::write(&path, config.to_string()).unwrap();
    load(dir.path()).map(|_| ()).unwrap_err()
}

#[test]
fn what_is_not_supported_is_named() {
    says(
        with_config(|c| c["architecture"] = json!("temporal")),
        &["cfg.json", "architecture", "temporal", "topk"],
    );
    says(
        with_config(|c| c["architecture"] = json!("jumprelu")),
        &["sae_weights", "threshold", "missing"],
    );
    says(
        with_config(|c| drop(c.as_object_mut().unwrap().remove("architecture"))),
        &["cfg.json", "architecture"],
    );
    says(
        with_config(|c| c["apply_b_dec_to_input"] = json!(1)),
        &["cfg.json", "apply_b_dec_to_input"],
    );
    says(
        with_config(|c| c["normalize_activations"] = json!("layer_norm")),
        &["cfg.json", "layer_norm"],
    );
    says(with_config(|c| *c = json!([])), &["cfg.json", "object"]);
    for k in [
        json!(0),
        json!(15),
        json!(-1),
        json!(2.5),
        json!("3"),
        Value::Null,
    ] {
        says(with_config(|c| c["k"] = k), &["cfg.json", "k = ", "14"]);
    }
}

/// Writes the four tensors after `change`, and loads.
fn with_weights(change: impl FnOnce(&mut Vec<(&str, Dtype, Vec<usize>, Vec<u8>)>)) -> Error {
    let (dir, _) = saved();
    let path = dir.path().join("sae_weights.safetensors");
    let shapes = [
        ("W_enc", vec![6, 14]),
        ("b_enc", vec![14]),
        ("W_dec", vec![14, 6]),
        ("b_dec", vec![6]),
    ];
    let zeros = |(name, shape): (&'static str, Vec<usize>)| {
        let bytes = vec![0u8; 4 * shape.iter().product::<usize>()];
        (name, Dtype::F32, shape, bytes)
    };
    let mut tensors: Vec<_> = shapes.map(zeros).into();
    change(&mut tensors);
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (
            name.to_string(),
            TensorView::new(*dtype, shape.clone(), bytes).unwrap(),
        )
    });
    fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    load(dir.path()).map(|_| ()).unwrap_err()
}

#[test]
fn missing_and_misshapen_tensors_are_named() {
    const FILE: &str = "sae_weights.safetensors";
    for (i, name) in ["W_enc", "b_enc", "W_dec", "b_dec"].into_iter().enumerate() {
        says(
            with_weights(|t| drop(t.remove(i))),
            &[FILE, name, "missing"],
        );
        let long = with_weights(|t| (t[i].2, t[i].3) = (vec![3], vec![0; 12]));
        says(long, &[FILE, name, "[3]"]);
    }
    let transposed = with_weights(|t| t[0].2 = vec![14, 6]);
    says(transposed, &[FILE, "W_enc", "[14, 6]", "[6, 14]"]);
    let whole = with_weights(|t| (t[1].1, t[1].3) = (Dtype::I16, vec![0; 28]));
    says(whole, &[FILE, "b_enc", "I16", "floats"]);
}

#[test]
fn damaged_files_are_named() {
    for file in ["cfg.json", "sae_weights.safetensors"] {
        let (dir, _) = saved();
        let path = dir.path().join(file);
        let bytes = fs::read(&path).unwrap();
        for keep in [0, 5, bytes.len() - 1] {
            fs::write(&path, &bytes[..keep]).unwrap();
            says(load(dir.path()).map(|_| ()).unwrap_err(), &[file]);
        }
        fs::remove_file(&path).unwrap();
        let error = load(dir.path()).map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
        says(error, &[file]);
    }
}
