#!/usr/bin/env bash
# Formatting and clippy, warnings being errors.
source "$(dirname "$0")/common.sh"

find_cargo
use_private_server
cd "$ROOT"
cargo fmt --all --check
cargo clippy --all-targets "${FEATURES[@]}" -- -D warnings
