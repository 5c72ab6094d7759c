#!/usr/bin/env bash
# Installs the release build into the PostgreSQL of this system: the one of PG_CONFIG, by default the newest with headers.
source "$(dirname "$0")/common.sh"

find_cargo
make_run_dir
if [[ -n ${PG_CONFIG:-} ]]; then
    [[ -x $(command -v "$PG_CONFIG") ]] || die "PG_CONFIG=$PG_CONFIG is not a program"
    PG_MAJOR=$("$PG_CONFIG" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
else
    PG_MAJOR=$(pg_major) || die "no PostgreSQL of $PG_MAJORS is installed"
    PG_CONFIG=/usr/lib/postgresql/$PG_MAJOR/bin/pg_config
fi
export PGRX_HOME=$RUN_DIR/pgrx PGRX_PG_CONFIG_PATH=$PG_CONFIG

say "Building pg_credits for PostgreSQL $PG_MAJOR"
cd "$ROOT"
staging=$(mktemp -d)
trap 'rm -rf "$staging"' EXIT
cargo pgrx package --no-default-features --features "pg$PG_MAJOR" --pg-config "$PG_CONFIG" --out-dir "$staging"

# Built as ourselves, only the copying asks for root, and only if it has to.
as_installer=()
[[ -w $("$PG_CONFIG" --pkglibdir) && -w $("$PG_CONFIG" --sharedir)/extension ]] || as_installer=(sudo)
(cd "$staging" && find . -type f -print) | while read -r file; do
    "${as_installer[@]}" install -D -m 644 "$staging/$file" "/${file#./}"
    echo "installed /${file#./}"
done
say "Done. In the database that is to have it: create extension pg_credits;"
