# Sourced by every script here: where things are, and how a private PostgreSQL is made, started and stopped.
#
# PostgreSQL is relocatable: it finds its libraries and its share folder relative to its own binary. So the scripts copy
# the installed server's program tree into RUN_DIR and install the extension into the copy: nothing of the system is
# touched, no root is needed once the packages are there, and two checkouts never meet.
#
# RUN_DIR lies outside the checkout because a server started by root runs as the user postgres, who may not be able to
# enter root's home, and because the path of a unix socket must stay under 108 bytes.
# shellcheck shell=bash
# shellcheck disable=SC2034 # the variables are for the scripts that source this one
set -euo pipefail
umask 022

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
RUN_DIR=${PG_CREDITS_RUN_DIR:-/var/tmp/pg_credits-$(id -u)-$(printf %s "$ROOT" | cksum | cut -d' ' -f1)}
CARGO_PGRX_VERSION=0.18.1
PG_MAJORS="18 17 16 15"

# A caller's own connection settings must not lead a script to somebody's real server.
unset PGHOST PGHOSTADDR PGPORT PGDATABASE PGUSER PGPASSWORD PGSERVICE PGDATA PGOPTIONS
export PGCONNECT_TIMEOUT=10 PSQLRC=/dev/null

say() { printf '\n==> %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Finds cargo where rustup puts it, also in a shell that has not read the profile.
find_cargo() {
    command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    PATH=$RUN_DIR/tools/bin:$PATH
    export PATH
}

# Makes RUN_DIR, and refuses one that somebody else made: /var/tmp is everybody's.
make_run_dir() {
    mkdir -p "$RUN_DIR"
    [[ -O $RUN_DIR && ! -L $RUN_DIR ]] || die "$RUN_DIR is not a folder of $(id -un); set PG_CREDITS_RUN_DIR to another one"
    mkdir -p "$ROOT/target"
    ln -sfn "$RUN_DIR" "$ROOT/target/run" # by this a plain `cargo test` finds the private server
}

has_headers() { [[ -x /usr/lib/postgresql/$1/bin/postgres && -f /usr/include/postgresql/$1/server/postgres.h ]]; }

# The PostgreSQL to use: PG_MAJOR, else the newest installed one with headers, else the newest one apt offers.
pg_major() {
    local major
    [[ -z ${PG_MAJOR:-} ]] || { echo "$PG_MAJOR"; return; }
    for major in $PG_MAJORS; do
        has_headers "$major" && { echo "$major"; return; }
    done
    for major in $PG_MAJORS; do
        [[ -z $(apt-cache --quiet=2 madison "postgresql-server-dev-$major" 2>/dev/null) ]] || { echo "$major"; return; }
    done
    return 1
}

# Sets the variables that name the private server. The same two are needed by every cargo command on this crate:
# with another PGRX_HOME cargo would build pgrx again. PGRX_PG_CONFIG_PATH stays unset for the same reason, so that a
# plain `cargo test` in a shell without any of this reuses the build.
use_private_server() {
    PG_MAJOR=$(pg_major) || die "no PostgreSQL of $PG_MAJORS is installed: run scripts/prerequisites.sh"
    PG_TREE=$RUN_DIR/pg
    PG_BIN=$PG_TREE/usr/lib/postgresql/$PG_MAJOR/bin
    FEATURES=(--no-default-features --features "pg$PG_MAJOR")
    unset PGRX_PG_CONFIG_PATH PGRX_PG_CONFIG_AS_ENV
    export PGRX_HOME=$RUN_DIR/pgrx PG_CREDITS_RUN_DIR=$RUN_DIR PG_CREDITS_PG_BIN=$PG_BIN
}

# What `cargo pgrx init` would write. Rewritten only when it changes: pgrx is built again when this file is newer.
write_pgrx_config() {
    local config
    mkdir -p "$PGRX_HOME"
    config=$(printf '[configs]\npg%s = "%s"\n' "$PG_MAJOR" "$PG_BIN/pg_config")
    [[ $(cat "$PGRX_HOME/config.toml" 2>/dev/null) == "$config" ]] || echo "$config" >"$PGRX_HOME/config.toml"
}

# Copies the server into RUN_DIR, again only when its packages have changed: by name, size and time of every file.
copy_server() {
    local stamp part
    has_headers "$PG_MAJOR" || die "PostgreSQL $PG_MAJOR or its headers are missing: run scripts/prerequisites.sh"
    stamp=$(find "/usr/lib/postgresql/$PG_MAJOR" "/usr/share/postgresql/$PG_MAJOR" -type f ! -name 'pg_credits*' \
        -printf '%p %s %T@\n' | sort | cksum)
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
}

as_root() {
    if [[ $(id -u) == 0 ]]; then "$@"; else sudo "$@"; fi
}

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}

# Runs a command as the user the servers belong to: postgres if we are root (PostgreSQL refuses root), else ourselves.
as_server() {
    if [[ $(id -u) == 0 ]]; then (cd / && runuser -u postgres -- "$@"); else "$@"; fi
}

# new_cluster DIR: an empty cluster in DIR/data whose socket is in DIR/socket. It listens on no network, and the socket's
# folder is closed to other users, which is why no password is asked.
new_cluster() {
    local dir=$1
    stop_cluster "$dir"
    rm -rf "$dir"
    mkdir -p "$dir"
    [[ $(id -u) != 0 ]] || chown postgres: "$dir"
    as_server mkdir -m 700 "$dir/socket"
    as_server "$PG_BIN/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync --no-instructions \
        >"$RUN_DIR/initdb.log" 2>&1 || { cat "$RUN_DIR/initdb.log"; die "initdb failed"; }
    configure_cluster "$dir" "listen_addresses = ''" "unix_socket_directories = '$dir/socket'"
}

# configure_cluster DIR LINE...: adds lines to the settings.
configure_cluster() {
    local dir=$1
    shift
    printf '%s\n' "$@" | as_server tee -a "$dir/data/postgresql.conf" >/dev/null
}

start_cluster() {
    as_server "$PG_BIN/pg_ctl" -D "$1/data" -l "$1/log" -w -t 60 start >/dev/null || { tail -20 "$1/log"; die "the server in $1 did not start"; }
}

# stop_cluster DIR: stops the server of DIR, if one runs. Only the process named in that folder is ever signalled.
stop_cluster() {
    [[ -f $1/data/postmaster.pid ]] || return 0
    as_server "$PG_BIN/pg_ctl" -D "$1/data" -m "${2:-fast}" -w -t 60 stop >/dev/null 2>&1 || true
}

# client DIR PROGRAM ARGS...: a client program of the private server, connected to the cluster of DIR.
client() {
    local dir=$1 program=$2
    shift 2
    PGHOST=$dir/socket PGUSER=postgres "$PG_BIN/$program" "$@"
}
