#!/usr/bin/env bash
# Formatting, and clippy with warnings as errors.
source "$(dirname "$0")/common.sh"

find_cargo
make_run_dir
use_private_server
copy_server
write_pgrx_config
cd "$ROOT"
cargo fmt --all --check
cargo clippy --workspace --all-targets "${FEATURES[@]}" -- -D warnings
