//! The `inscape` command.
fn main() {}
