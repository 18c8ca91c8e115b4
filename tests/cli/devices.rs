//! Which device: the flag, the variable, and what is not there.

use super::*;

#[test]
fn the_listing_parses() {
    let bench = Bench::new();
    let json = bench.json("devices");
    assert!(json["adapters"].is_array(), "{json}");
    assert!(
        json["auto"]["spec"].is_string() && json["auto"]["why"].is_string(),
        "{json}"
    );
    let text = bench.ok("devices");
    assert!(
        text.contains("cpu") && text.contains("auto takes "),
        "{text}"
    );
}

#[test]
fn the_self_check_of_the_cpu_passes() {
    let bench = Bench::new();
    assert!(bench.ok("devices --check cpu").starts_with("CPU (Flex, "));
    assert!(bench.json("devices --check cpu")["cases"].is_array());
}

#[test]
fn an_absent_adapter_lists_what_is_there() {
    let bench = Bench::with_store();
    let line = format!("compare acts:{HOOK} acts:{HOOK} --metric rsa --device wgpu:discrete:7");
    bench.fails(&line, &["wgpu:discrete:7", "this machine has: ", "cpu"]);
}

#[test]
fn a_bad_device_lists_the_forms() {
    let bench = Bench::new();
    for device in ["gpu", "cpu:1", "wgpu:discrete:x", ""] {
        let mut command = bench.command("compare a b --metric rsa");
        command.env("INSCAPE_DEVICE", device);
        let ran = run(command, "");
        failed(&ran, 2, &["is not a device", "wgpu:software"]);
    }
    bench.usage(
        "compare a b --metric rsa --device cuda",
        &["`cuda`", "auto, cpu, wgpu"],
    );
}

/// The variable decides, and the flag decides over it.
#[test]
fn the_variable_is_respected() {
    let bench = Bench::with_store();
    let line = format!("compare acts:{HOOK} acts:{HOOK} --metric rsa");
    let with = |device: &str, line: &str| {
        let mut command = bench.command(line);
        command.env("INSCAPE_DEVICE", device);
        run(command, "")
    };
    let ran = with("cpu", &line);
    assert!(ran.err.contains("device: CPU (Flex, "), "{}", ran.err);
    failed(&with("wgpu:discrete:7", &line), 1, &["wgpu:discrete:7"]);
    succeeded(
        with("wgpu:discrete:7", &format!("{line} --device cpu")),
        &line,
    );
}
