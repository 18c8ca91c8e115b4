//! The `inscape` command.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match inscape::cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if reader_has_gone(error.as_ref()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `inscape hooks … | head` is no failure.
fn reader_has_gone(error: &(dyn std::error::Error + 'static)) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
