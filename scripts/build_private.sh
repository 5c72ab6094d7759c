#!/usr/bin/env bash
# Makes or refreshes the private copy of the server in RUN_DIR, builds the extension (release) and installs it there.
source "$(dirname "$0")/common.sh"

find_cargo
make_run_dir
use_private_server
exec 9>"$RUN_DIR/lock" # one build at a time
flock 9
copy_server
write_pgrx_config

say "Building pg_credits for PostgreSQL $PG_MAJOR and installing it into the private server"
cd "$ROOT"
cargo pgrx install --release "${FEATURES[@]}" --pg-config "$PG_BIN/pg_config"
