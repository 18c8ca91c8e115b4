use clap::Args;
use serde::Serialize;

use super::{Failure, print_json};
use crate::Device;
use crate::device::{AdapterInfo, AutoChoice, DeviceSpec, adapters, auto_choice, self_check};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Also compute a few known-difficult cases on this device and compare with the CPU.
    #[arg(long, value_name = "DEVICE")]
    check: Option<DeviceSpec>,
}

#[derive(Serialize)]
struct Listing {
    adapters: Vec<AdapterInfo>,
    auto: AutoChoice,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    if let Some(spec) = &options.check {
        return check(spec, options.json);
    }
    let adapters = adapters();
    let auto = auto_choice(&adapters);
    if options.json {
        return print_json(&Listing { adapters, auto });
    }
    say!(
        "{:<20} {:<40} {:<11} {:<7} {:>9}  driver",
        "device",
        "name",
        "kind",
        "api",
        "buffer"
    );
    say!(
        "{:<20} {:<40} {:<11} {:<7} {:>9}  ",
        "cpu",
        Device::cpu().name(),
        "cpu",
        "-",
        "-"
    );
    for a in &adapters {
        let buffer = format!("{} MiB", a.max_buffer_size >> 20);
        say!(
            "{:<20} {:<40} {:<11} {:<7} {buffer:>9}  {} {}",
            a.spec.to_string(),
            a.name,
            a.kind.to_string(),
            a.api,
            a.driver,
            a.driver_info
        );
    }
    say!("\nauto takes {}: {}", auto.spec, auto.why);
    Ok(())
}

fn check(spec: &DeviceSpec, json: bool) -> Result<(), Failure> {
    let device = Device::open(spec)?;
    let report = self_check(&device)?;
    if json {
        print_json(&report)?;
    } else {
        say!("{}", device.name());
        for case in &report.cases {
            say!(
                "{} {}",
                if case.passed() { "ok    " } else { "WRONG " },
                case.name
            );
        }
    }
    if report.passed() {
        Ok(())
    } else {
        Err("this device computes something wrong; use --device cpu".into())
    }
}
