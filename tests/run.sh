#!/usr/bin/env bash
# Runs every test: unit, integration, GPU, models, documentation.
#
# usage: bash tests/run.sh
#
# On a Debian-like system where it may (root, or sudo without a password) it installs what is missing: a C
# compiler, and Mesa's software Vulkan driver (lavapipe) where there is no Vulkan adapter. It fetches the test
# models (94 MB, once) into ${INSCAPE_CACHE:-~/.cache/inscape}/models. It ends by naming the adapter that the
# GPU suite ran on and repeating the test runner's closing lines.
#
# Without a Vulkan adapter and without the right to install one, the tests marked `#[ignore]` (GPU, models) are
# left out, which one line says; with CI set that is a failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

CACHE_HOME="${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}"
PATH="$PATH:/usr/sbin:/sbin" # ldconfig, for a user who is not root
IN_CI="${CI:-}"
[ "$IN_CI" != false ] || IN_CI=""

note() { printf 'tests/run.sh: %s\n' "$*" >&2; }
die() {
    note "$*"
    exit 1
}

# apt_install PACKAGE...: false if this is no apt system, or we may not, or it fails.
apt_install() {
    local -a root=()
    command -v apt-get >/dev/null || return 1
    if [ "$(id -u)" -ne 0 ]; then
        sudo -n true 2>/dev/null || return 1
        root=(sudo -n)
    fi
    note "installing $*"
    { ${root[@]+"${root[@]}"} apt-get update -qq &&
        ${root[@]+"${root[@]}"} env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends "$@"; } </dev/null >&2
}

# --- The compiler ------------------------------------------------------------------------------------------

need_compiler() {
    command -v cargo >/dev/null || die "cargo is not installed; see https://rustup.rs"
    command -v cc >/dev/null || apt_install gcc libc6-dev ||
        die "a C compiler is missing: Rust links with 'cc' (Debian, Ubuntu: apt-get install gcc libc6-dev)"
}

# --- A Vulkan adapter --------------------------------------------------------------------------------------

have_loader() {
    ldconfig -p 2>/dev/null | grep 'libvulkan\.so\.1' >/dev/null ||
        compgen -G '/usr/lib*/libvulkan.so.1' >/dev/null || compgen -G '/usr/lib/*/libvulkan.so.1' >/dev/null
}

# The driver manifests that the loader reads, one a line.
driver_files() {
    local listed="${VK_DRIVER_FILES:-${VK_ICD_FILENAMES:-}}" folder file
    if [ -n "$listed" ]; then
        tr ':' '\n' <<<"$listed"
        return
    fi
    for folder in /etc/vulkan /usr/local/etc/vulkan /usr/share/vulkan /usr/local/share/vulkan \
        "${XDG_DATA_HOME:-$HOME/.local/share}/vulkan"; do
        for file in "$folder"/icd.d/*.json; do printf '%s\n' "$file"; done
    done
}

have_gpu_node() {
    local node
    for node in /dev/dri/renderD* /dev/nvidiactl /dev/dxg; do
        [ ! -e "$node" ] || return 0
    done
    return 1
}

# A driver manifest alone proves nothing: Mesa brings those of every vendor. A software driver always has an
# adapter; the others need a device.
have_vulkan() {
    local file
    [ "$(uname -s)" = Linux ] || return 0 # macOS has Metal, Windows has Direct3D 12
    have_loader || return 1
    while IFS= read -r file; do
        [ -f "$file" ] || continue
        case "$file" in
        *lvp* | *lavapipe* | *swiftshader*) return 0 ;;
        *) ;;
        esac
        ! have_gpu_node || return 0
    done < <(driver_files)
    return 1
}

# --- Running -----------------------------------------------------------------------------------------------

fetch_models() {
    command -v python3 >/dev/null ||
        die "python3 is missing; it fetches the test models (Debian, Ubuntu: apt-get install python3 python3-pip npm)"
    export INSCAPE_MODELS="${INSCAPE_CACHE:-$CACHE_HOME/inscape}/models"
    python3 tests/fetch_models.py "$INSCAPE_MODELS" all || die "the test models could not be fetched"
}

# Unit and integration tests, with the ignored ones if $1 is "all". What they print goes to the terminal and to
# $LOG; what passing tests print goes to $PRINTED.
run_tests() {
    local -a ignored=()
    if cargo nextest --version >/dev/null 2>&1; then
        [ "$1" != all ] || ignored=(--run-ignored all)
        PRINTED=target/nextest/default/junit.xml
        rm -f "$PRINTED"
        cargo nextest run --profile default --release ${ignored[@]+"${ignored[@]}"} 2>&1 | tee "$LOG"
    else
        [ "$1" != all ] || ignored=(--include-ignored)
        PRINTED="$LOG"
        cargo test --release --no-fail-fast --lib --bins --tests --examples -- \
            --show-output ${ignored[@]+"${ignored[@]}"} 2>&1 | tee "$LOG"
    fi
}

run_doc_tests() { cargo test --release --doc 2>&1 | tee "$DOC_LOG"; }

adapters() { grep -aohE 'gpu suite ran on:[^<&]*' "$PRINTED" 2>/dev/null | sort -u; }

closing_lines() { grep -ahE '^ *Summary \[|^test result:|^ +(FAIL|TIMEOUT|SIGABRT|SIGSEGV) \[' "$@" | awk '/^test result/ || !seen[$0]++'; }

need_compiler
which=all
if ! have_vulkan; then
    apt_install mesa-vulkan-drivers libvulkan1 || true
    if ! have_vulkan; then
        [ -z "$IN_CI" ] || die "no Vulkan adapter, and Mesa's lavapipe could not be installed; CI needs one"
        note "no Vulkan adapter and lavapipe could not be installed (apt-get install mesa-vulkan-drivers libvulkan1): running without the GPU and model tests"
        which=default
    fi
fi
if [ -n "$IN_CI" ]; then
    export INSCAPE_REQUIRE_GPU=1
    export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$CACHE_HOME/inscape/target}"
fi
[ "$which" != all ] || fetch_models

LOGS="$(mktemp -d)"
trap 'rm -rf "$LOGS"' EXIT
LOG="$LOGS/tests" DOC_LOG="$LOGS/doc" PRINTED=""
failed=""
run_tests "$which" || failed="tests"
run_doc_tests || failed="${failed:+$failed and }documentation tests"

echo
if ! adapters; then
    echo "gpu suite ran on: none"
    [ -z "${INSCAPE_REQUIRE_GPU:-}" ] || failed="${failed:+$failed and }GPU suite (no test named its adapter)"
fi
closing_lines "$DOC_LOG" "$LOG" || true
[ -z "$failed" ] || die "failed: $failed"
