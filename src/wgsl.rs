//! WGSL kernels: the one kernel type, the launch, and (in `table`) every shader.
//!
//! A `.wgsl` file is valid WGSL as it lies. It is specialised only by giving other values to lines
//! of the form `const NAME: u32 = 1024u;`, and shares code only by having function-only files
//! joined in front of it. Kernels run without bounds checks and with workgroup memory as it was
//! left, so every index is guarded and every `var<workgroup>` initialised in the text. Storage is
//! always declared `read_write`: small tensors share a buffer, which may be bound in one mode only.

mod table;

use std::sync::Arc;

use cubecl::ir::{UIntKind, metadata::Info};
use cubecl::prelude::{
    AddressType, BufferIOAttr, Client, CubeCount, CubeDim, ElemType, ExecutionMode,
    KernelDefinition, KernelId, KernelMetadata, KernelSettings, Scope,
};
use cubecl::server::{Handle, KernelArguments};
use cubecl::{CubeKernel, PrecompiledSource};

pub use table::*;

/// The largest number of workgroups along one axis that WebGPU promises.
pub const MAX_GROUPS: u64 = 65_535;

/// The one runtime whose compiler takes WGSL; elsewhere an op runs its tensor-op reference.
pub const RUNTIME: &str = "wgpu<wgsl>";

/// One buffer that a shader binds, at the place it has in [`Shader::bindings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The variable's name in the shader.
    pub name: &'static str,
    /// The type of its elements in the shader: `f32`, `u32`, `i32`.
    pub element: &'static str,
    /// Whether the shader writes it; otherwise it only reads it.
    pub written: bool,
}

/// A `const NAME: u32 = …;` line that a kernel may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Constant {
    /// The constant's name in the shader.
    pub name: &'static str,
    /// Every value it may be given.
    pub allowed: &'static [u32],
}

/// A shader file with what Rust must know of it.
#[derive(Debug)]
pub struct Shader {
    /// The file, relative to `shaders/`.
    pub file: &'static str,
    /// Its text.
    pub text: &'static str,
    /// Texts from `shaders/shared/`, joined in front, in this order.
    pub shared: &'static [&'static str],
    /// The constants that a kernel may set; the others stay as the file has them.
    pub constants: &'static [Constant],
    /// The bindings of group 0, in order.
    pub bindings: &'static [Binding],
    /// Threads per workgroup along x, y, z.
    pub workgroup: [u32; 3],
}

impl Shader {
    /// The kernel with the given constants set.
    ///
    /// # Panics
    /// If a constant is not in the table, may not have that value, or does not occur in the text
    /// exactly once as `const NAME: u32 = …;`.
    pub fn kernel(&'static self, constants: &[(&str, u32)]) -> Kernel {
        for (name, value) in constants {
            let known = self.constants.iter().find(|c| c.name == *name);
            let allowed = known.is_some_and(|c| c.allowed.contains(value));
            assert!(allowed, "{}: `{name}` may not be {value}", self.file);
        }
        let source = self.shared.concat() + self.text;
        Kernel {
            shader: self,
            source: specialise(source, constants).into(),
        }
    }
}

/// Gives new values to `const NAME: u32 = …;` lines of a WGSL text.
///
/// # Panics
/// If a name has no such line or more than one.
pub fn specialise(text: String, constants: &[(&str, u32)]) -> String {
    constants.iter().fold(text, |text, (name, value)| {
        let head = format!("const {name}: u32 = ");
        let mut places = text.match_indices(&head);
        let (Some((start, _)), None) = (places.next(), places.next()) else {
            panic!("`{head}…;` must occur exactly once");
        };
        let start = start + head.len();
        let end = text[start..]
            .find(';')
            .unwrap_or_else(|| panic!("`{head}` has no end"));
        format!("{}{value}u{}", &text[..start], &text[start + end..])
    })
}

/// A shader's text with its constants set, ready to launch.
#[derive(Clone, Debug)]
pub struct Kernel {
    shader: &'static Shader,
    source: Arc<str>,
}

impl Kernel {
    /// The WGSL text that is compiled.
    pub fn source(&self) -> &str {
        &self.source
    }

    fn workgroup(&self) -> CubeDim {
        let [x, y, z] = self.shader.workgroup;
        CubeDim::new_3d(x, y, z)
    }
}

impl KernelMetadata for Kernel {
    fn name(&self) -> &'static str {
        self.shader.file
    }

    /// Covers the whole text: compiled kernels are cached under it.
    fn id(&self) -> KernelId {
        KernelId::new::<Self>()
            .info(self.source.clone())
            .cube_dim(self.workgroup().into())
    }

    fn address_type(&self) -> ElemType {
        UIntKind::U32.into()
    }
}

impl CubeKernel for Kernel {
    /// An empty body: the text of [`CubeKernel::source`] stands in for what would be compiled.
    fn define(&self) -> KernelDefinition {
        let workgroup = self.workgroup().into();
        let settings = KernelSettings::new(workgroup, ExecutionMode::Checked, AddressType::U32);
        let body = Scope::root(settings.clone());
        KernelDefinition {
            body,
            settings,
            info: Info::default(),
        }
    }

    fn source(&self) -> Option<PrecompiledSource> {
        Some(PrecompiledSource {
            source: self.source.to_string(),
            entrypoint_name: "main".into(),
            lang: "wgsl",
        })
    }
}

/// Queues `groups` workgroups of a kernel over `buffers`, which are in the order of the table.
///
/// The groups lie on a grid of two axes (see [`grid`]); the shader takes
/// `workgroup_id.y * num_workgroups.x + workgroup_id.x` as the number of its group and returns when
/// that is past the end.
///
/// # Panics
/// If the number of buffers is not that of the table.
pub fn launch(client: &Client, kernel: Kernel, groups: u64, buffers: Vec<Handle>) {
    let shader = kernel.shader;
    let (given, wanted) = (buffers.len(), shader.bindings.len());
    assert_eq!(
        given, wanted,
        "{}: {given} buffers given, {wanted} bound",
        shader.file
    );
    if groups == 0 {
        return;
    }
    let arguments = buffers.into_iter().zip(shader.bindings).fold(
        KernelArguments::new(),
        |arguments, (buffer, binding)| {
            let use_ = match binding.written {
                true => BufferIOAttr::ReadWrite,
                false => BufferIOAttr::ReadOnly,
            };
            arguments.with_buffer_io(buffer.binding(), use_)
        },
    );
    let (x, y) = grid(groups);
    client.launch(Box::new(kernel), CubeCount::Static(x, y, 1), arguments);
}

/// The smallest grid of two axes, each at most [`MAX_GROUPS`] long, that holds `groups`.
///
/// # Panics
/// If there are more than 65,535² of them.
pub fn grid(groups: u64) -> (u32, u32) {
    let y = groups.div_ceil(MAX_GROUPS).max(1);
    assert!(
        y <= MAX_GROUPS,
        "{groups} workgroups do not fit a grid of two axes"
    );
    (groups.div_ceil(y) as u32, y as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_gets_its_value_and_nothing_else_changes() {
        let text = "const A: u32 = 1u; // one\nconst AB: u32 = 2u;\n".to_string();
        let got = specialise(text, &[("A", 7)]);
        assert_eq!(got, "const A: u32 = 7u; // one\nconst AB: u32 = 2u;\n");
    }

    #[test]
    #[should_panic(expected = "const A: u32")]
    fn a_missing_constant_is_named() {
        specialise("const B: u32 = 1u;".into(), &[("A", 7)]);
    }

    #[test]
    #[should_panic(expected = "exactly once")]
    fn a_doubled_constant_is_refused() {
        specialise("const A: u32 = 1u;\nconst A: u32 = 2u;".into(), &[("A", 7)]);
    }

    #[test]
    #[should_panic(expected = "`K_PAD` may not be 65")]
    fn a_value_outside_the_table_is_refused() {
        TOPK.kernel(&[("K_PAD", 65)]);
    }

    #[test]
    fn a_grid_holds_its_groups() {
        for groups in [1, 2, 65_534, 65_535, 65_536, 65_537, 131_071, 10_000_000] {
            let (x, y) = grid(groups);
            let held = u64::from(x) * u64::from(y);
            assert!(u64::from(x) <= MAX_GROUPS && held >= groups && held < groups + u64::from(y));
        }
    }
}
