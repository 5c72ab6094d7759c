#!/usr/bin/env bash
# Makes or refreshes the private copy of the server in RUN_DIR, builds the extension (release) and installs it there.
source "$(dirname "$0")/common.sh"

find_cargo
make_run_dir
use_private_server
has_headers "$PG_MAJOR" || die "PostgreSQL $PG_MAJOR or its headers are missing: run scripts/prerequisites.sh"
exec 9>"$RUN_DIR/lock" # one build at a time
flock 9

# Copied again only when the packages have changed: by name, size and time of every file.
stamp=$(find "/usr/lib/postgresql/$PG_MAJOR" "/usr/share/postgresql/$PG_MAJOR" -type f -printf '%p %s %T@\n' | sort | cksum)
if [[ $(cat "$PG_TREE.stamp" 2>/dev/null) != "$stamp" ]]; then
    say "Copying PostgreSQL $PG_MAJOR to $PG_TREE"
    rm -rf "$PG_TREE" "$PG_TREE.stamp"
    for part in lib share; do
        mkdir -p "$PG_TREE/usr/$part/postgresql"
        cp -a "/usr/$part/postgresql/$PG_MAJOR" "$PG_TREE/usr/$part/postgresql/"
    done
    ln -s /usr/include "$PG_TREE/usr/include"
    ln -sfn "$PG_BIN" "$RUN_DIR/bin"
    echo "$stamp" >"$PG_TREE.stamp"
fi
[[ $("$PG_BIN/pg_config" --pkglibdir) == "$PG_TREE"/* ]] || die "$PG_BIN/pg_config names folders outside of $PG_TREE"

# What `cargo pgrx init` would write. Rewritten only when it changes: pgrx is built again when this file is newer.
mkdir -p "$PGRX_HOME"
config=$(printf '[configs]\npg%s = "%s"\n' "$PG_MAJOR" "$PG_BIN/pg_config")
[[ $(cat "$PGRX_HOME/config.toml" 2>/dev/null) == "$config" ]] || echo "$config" >"$PGRX_HOME/config.toml"

say "Building pg_credits for PostgreSQL $PG_MAJOR and installing it into the private server"
cd "$ROOT"
cargo pgrx install --release "${FEATURES[@]}" --pg-config "$PG_BIN/pg_config"
