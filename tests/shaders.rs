//! Every shader, in every specialisation, through naga; its bindings against what Rust passes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use inscape::wgsl::{Binding, SHADERS, Shader};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, GlobalVariable, Module, ScalarKind, StorageAccess, TypeInner};

/// What WebGPU promises for workgroup memory, in bytes.
const WORKGROUP_BYTES: u32 = 16_384;

fn check(shader: &Shader, source: &str) -> Result<(), String> {
    let module = naga::front::wgsl::parse_str(source).map_err(|e| e.emit_to_string(source))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::empty())
        .validate(&module)
        .map_err(|e| e.emit_to_string(source))?;
    let [entry] = &module.entry_points[..] else {
        return Err("there must be one entry point".into());
    };
    if entry.name != "main" || entry.workgroup_size != shader.workgroup {
        return Err(format!(
            "entry point {} of {:?}",
            entry.name, entry.workgroup_size
        ));
    }
    let function = info.get_entry_point(0);
    let mut bound = Vec::new();
    for (handle, variable) in module.global_variables.iter() {
        if let Some(place) = variable.binding {
            if function[handle].is_empty() {
                return Err(format!("{:?} is bound and not used", variable.name));
            }
            let written = function[handle].contains(naga::valid::GlobalUse::WRITE);
            bound.push((
                place.group,
                place.binding,
                reflect(&module, variable)?,
                written,
            ));
        }
    }
    bound.sort_by_key(|b| (b.0, b.1));
    compare(shader, &bound)?;
    workgroup_memory(&module)
}

fn reflect(module: &Module, variable: &GlobalVariable) -> Result<(String, String), String> {
    let name = variable.name.clone().unwrap_or_default();
    let both = StorageAccess::LOAD | StorageAccess::STORE;
    if variable.space != (AddressSpace::Storage { access: both }) {
        return Err(format!("`{name}` is not storage, read_write"));
    }
    let TypeInner::Array { base, .. } = module.types[variable.ty].inner else {
        return Err(format!("`{name}` is not an array"));
    };
    let (TypeInner::Scalar(scalar) | TypeInner::Atomic(scalar)) = module.types[base].inner else {
        return Err(format!("`{name}` is not an array of scalars"));
    };
    let letter = match scalar.kind {
        ScalarKind::Float => "f",
        ScalarKind::Sint => "i",
        ScalarKind::Uint => "u",
        other => return Err(format!("`{name}` holds {other:?}")),
    };
    Ok((name, format!("{letter}{}", 8 * scalar.width)))
}

fn compare(shader: &Shader, bound: &[(u32, u32, (String, String), bool)]) -> Result<(), String> {
    let in_text: Vec<_> = bound
        .iter()
        .map(|(g, b, (name, e), w)| (*g, *b, name.as_str(), e.as_str(), *w))
        .collect();
    let row = |(i, b): (usize, &Binding)| (0, i as u32, b.name, b.element, b.written);
    let in_table: Vec<_> = shader.bindings.iter().enumerate().map(row).collect();
    match in_text == in_table {
        true => Ok(()),
        false => Err(format!(
            "the text binds {in_text:?}, the table {in_table:?}"
        )),
    }
}

fn workgroup_memory(module: &Module) -> Result<(), String> {
    let mut layout = naga::proc::Layouter::default();
    layout.update(module.to_ctx()).map_err(|e| e.to_string())?;
    let shared = module
        .global_variables
        .iter()
        .filter(|(_, v)| v.space == AddressSpace::WorkGroup);
    let bytes: u32 = shared.map(|(_, v)| layout[v.ty].size).sum();
    match bytes <= WORKGROUP_BYTES {
        true => Ok(()),
        false => Err(format!("{bytes} bytes of workgroup memory")),
    }
}

/// Every choice of one allowed value per constant.
fn specialisations(shader: &Shader) -> Vec<Vec<(&'static str, u32)>> {
    shader.constants.iter().fold(vec![vec![]], |all, constant| {
        let with = |chosen: &Vec<_>, value| [&chosen[..], &[(constant.name, value)]].concat();
        all.iter()
            .flat_map(|c| constant.allowed.iter().map(move |&v| with(c, v)))
            .collect()
    })
}

#[test]
fn every_specialisation_is_valid_and_binds_what_rust_passes() {
    for shader in SHADERS {
        for constants in specialisations(shader) {
            let kernel = shader.kernel(&constants);
            if let Err(error) = check(shader, kernel.source()) {
                panic!("{} with {constants:?}: {error}", shader.file);
            }
        }
    }
}

#[test]
fn every_file_is_valid_as_it_lies() {
    for shader in SHADERS.iter().filter(|s| s.shared.is_empty()) {
        check(shader, shader.text).unwrap_or_else(|e| panic!("{}: {e}", shader.file));
    }
}

#[test]
fn every_file_on_disk_is_in_the_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    let on_disk: BTreeSet<PathBuf> = wgsl_files(&root)
        .into_iter()
        .map(|p| p.strip_prefix(&root).unwrap().into())
        .filter(|p: &PathBuf| !p.starts_with("shared"))
        .collect();
    let in_table: BTreeSet<PathBuf> = SHADERS.iter().map(|s| s.file.into()).collect();
    assert_eq!(on_disk, in_table);
}

fn wgsl_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => wgsl_files(&path),
            false => vec![path],
        })
        .filter(|p| p.extension().is_some_and(|e| e == "wgsl"))
        .collect()
}

/// The checks above must be able to fail.
#[test]
fn planted_faults_are_caught() {
    for shader in SHADERS {
        let breaks = |from: &str, to: &str| {
            let broken = shader.text.replacen(from, to, 1);
            assert_ne!(
                broken, shader.text,
                "{}: nothing to break at `{from}`",
                shader.file
            );
            check(shader, &(shader.shared.concat() + &broken)).unwrap_err()
        };
        breaks("fn main(", "fn main((");
        breaks("fn main(", "fn other(");
        breaks("u32", "f16x");
        breaks("@binding(0)", "@binding(9)");
        breaks("storage, read_write", "storage, read");
        breaks("@workgroup_size(WG)", "@workgroup_size(1)");
    }
}
