use clap::Args;

use super::{DeviceOption, Failure};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    device: DeviceOption,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    options.device.open()?;
    Ok(())
}
