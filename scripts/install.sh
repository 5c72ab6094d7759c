#!/usr/bin/env bash
# Installs the release build into the PostgreSQL of this system: the one of PG_CONFIG, by default the newest with headers.
# It is built in the private server first, as ourselves; only the copying asks for root, and only if it has to.
source "$(dirname "$0")/common.sh"

if [[ -n ${PG_CONFIG:-} ]]; then
    [[ -x $(command -v "$PG_CONFIG") ]] || die "PG_CONFIG=$PG_CONFIG is not a program"
    PG_MAJOR=$("$PG_CONFIG" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
    export PG_MAJOR
fi
"$ROOT/scripts/prerequisites.sh"
"$ROOT/scripts/build_private.sh"
use_private_server
to=${PG_CONFIG:-/usr/lib/postgresql/$PG_MAJOR/bin/pg_config}

# install_files FOLDER_OPTION SUBFOLDER FILE...: from the private server's folder to the same one of the other server.
install_files() {
    local from folder as_installer=() file
    from=$("$PG_BIN/pg_config" "$1")$2
    folder=$("$to" "$1")$2
    [[ -w $folder || $(id -u) == 0 ]] || as_installer=(sudo)
    shift 2
    for file in "$@"; do
        "${as_installer[@]}" install -m 644 "$from/$file" "$folder/$file"
        echo "installed $folder/$file"
    done
}

say "Installing into the server of $to"
mapfile -t scripts < <(cd "$("$PG_BIN/pg_config" --sharedir)/extension" && ls pg_credits.control pg_credits--*.sql)
install_files --pkglibdir "" pg_credits.so
install_files --sharedir /extension "${scripts[@]}"
say "Done. In each database that is to have it: create extension pg_credits;"
