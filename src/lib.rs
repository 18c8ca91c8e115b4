//! Look inside neural networks on the machine you have: on wgpu (Vulkan, Metal, DX12) or on
//! the CPU, without CUDA.
//!
//! A model is loaded from a directory; its activations are read and edited at named points; a
//! sparse autoencoder (SAE) is trained on them; layers and models are compared.
//!
//! ```no_run
//! use inscape::capture::{CaptureConfig, capture, store::Source};
//! use inscape::sae::{TrainConfig, session};
//! use inscape::similarity::{Estimator, linear_cka};
//! use inscape::{Device, hook::Hooks, model};
//!
//! let device = Device::auto()?; // the best GPU, else the CPU backend
//! let network = model::load("path/to/model-dir", &device)?; // config.json, tokenizer.json, safetensors
//! let tokens = network.tokens(&["Call me Ishmael."])?;
//! let run = network.run(&tokens, &Hooks::new().capture("blocks.*.hook_resid_post"))?;
//! let x = run["blocks.3.hook_resid_post"].clone().r3(); // [batch, pos, d_model]
//!
//! let text = std::fs::File::open("moby-dick.txt")?;
//! let config = CaptureConfig::new(["blocks.*.hook_resid_post"]);
//! capture(&network, text, "moby-dick.txt", "acts".as_ref(), &config, false, device.name(), |_| ())?;
//! let acts = Source::open("acts:blocks.3.hook_resid_post")?;
//! let config = TrainConfig::new(acts.width(), 8 * acts.width(), 32, 1_000_000);
//! let sae = session::train(acts, 0, &config, &session::SessionOptions::new("sae"), &device, |_| ())?;
//!
//! let (a, b) = (x.clone().flatten::<2>(0, 1), sae.reconstruct(x.flatten(0, 1)));
//! println!("{}", linear_cka(&a, &b, Estimator::Unbiased)?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Rooms
//!
//! One way, left to right; a room uses those before it.
//!
//! | room | what it does |
//! |---|---|
//! | [`device`] | which adapter, listing, self-check, reading back |
//! | [`wgsl`], [`ops`] | WGSL kernels and their CPU twins |
//! | [`hook`] | named points ⇄ TransformerLens names; what one call observes and edits |
//! | [`model`] | BERT, Llama and attention-only families; loading |
//! | [`capture`] | a model over a text, streamed to a store on disk; the store itself |
//! | [`sae`] | sparse autoencoders of every kind: training step, sessions with resume, evaluation, files |
//! | [`similarity`] | linear CKA, RSA, SVCCA, mutual nearest neighbours |
//! | [`geometry`] | clusters of directions, features of more dimensions, analogies, spectra |
//! | [`report`] | one self-contained HTML page |
//! | [`cli`] | the `inscape` command |
//!
//! # Edit, not only observe
//!
//! ```
//! use inscape::{Device, hook::{Activation, Hooks}, model};
//!
//! let network = model::load("tiny-lm-1", &Device::cpu())?; // embedded: no download
//! let tokens = network.tokens(&["The whale"])?;
//! let ablate = Hooks::new().edit("blocks.1.attn.hook_z", |_, z| Activation::R4(z.r4() * 0.0));
//! let logits = network.run(&tokens, &ablate)?.output.logits.expect("nothing stopped the pass");
//! assert_eq!(logits.dims()[2], 1024);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod capture;
pub mod cli;
pub mod device;
pub mod geometry;
pub mod hook;
pub mod model;
pub mod ops;
pub mod report;
pub mod sae;
pub mod similarity;
pub mod wgsl;

pub use device::Device;

/// The README's Rust compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
