//! Running a model over a data set and streaming chosen points to disk.
//!
//! [`text`] cuts a text into blocks, [`store`] keeps the rows: safetensors shards with a manifest,
//! a reader, and a seeded shuffle buffer over them.

pub mod store;
pub mod text;
