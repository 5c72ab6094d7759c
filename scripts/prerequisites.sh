#!/usr/bin/env bash
# Installs what the build needs and is not there yet: PostgreSQL with headers, pg_cron, libclang, a C compiler, cargo-pgrx.
# Says what it does. Starts and stops no service, and does nothing at all when everything is there.
source "$(dirname "$0")/common.sh"

find_cargo
make_run_dir
command -v cargo >/dev/null || die "Rust is missing. Get it from https://rustup.rs:
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh
then open a new shell and run this again."

is_installed() { [[ $(dpkg-query -W -f '${Status}' "$1" 2>/dev/null) == 'install ok installed' ]]; }

# Debian's packages create and start a cluster called main when a server is installed. Nobody asked for one here, so that
# is switched off while we install, and the switch is removed again.
no_main_cluster=/etc/postgresql-common/createcluster.d/pg_credits.conf
install_packages() {
    say "Installing with apt: $*"
    is_installed postgresql-common || apt_install postgresql-common
    trap 'as_root rm -f "$no_main_cluster"' EXIT
    as_root mkdir -p "${no_main_cluster%/*}"
    echo 'create_main_cluster = false' | as_root tee "$no_main_cluster" >/dev/null
    apt_install "$@"
    as_root rm -f "$no_main_cluster"
    trap - EXIT
}

missing_packages() {
    local package
    for package in "postgresql-$PG_MAJOR" "postgresql-server-dev-$PG_MAJOR" libclang-dev gcc libc6-dev make \
        pkg-config libssl-dev; do
        is_installed "$package" || echo "$package"
    done
    # pg_cron runs the maintenance jobs. Without it all else works, so a release that has no such package is fine.
    package=postgresql-$PG_MAJOR-cron
    if ! is_installed "$package" && [[ -n $(apt-cache --quiet=2 madison "$package" 2>/dev/null) ]]; then
        echo "$package"
    fi
    [[ $(id -u) != 0 ]] || command -v runuser >/dev/null || echo util-linux
}

command -v apt-get >/dev/null || die "this script knows Debian and Ubuntu only. By hand: PostgreSQL 15 to 18 with server headers,
libclang, a C compiler, pg_cron (for scheduled jobs), and cargo install cargo-pgrx --version $CARGO_PGRX_VERSION --locked"

updated=false
if ! PG_MAJOR=$(pg_major) || [[ -n $(missing_packages) ]]; then
    if [[ $(id -u) != 0 ]] && ! command -v sudo >/dev/null; then
        : "${PG_MAJOR:=15}"
        die "neither root nor sudo. Ask for these packages: $(missing_packages | xargs)"
    fi
    say "Reading the package lists (apt-get update)"
    as_root apt-get update -q
    updated=true
    PG_MAJOR=$(pg_major) || die "apt offers no PostgreSQL of $PG_MAJORS; see https://wiki.postgresql.org/wiki/Apt"
fi
if $updated; then
    mapfile -t packages < <(missing_packages)
    [[ ${#packages[@]} == 0 ]] || install_packages "${packages[@]}"
fi

# A cargo-pgrx of another version stays as it is: ours then goes to RUN_DIR. The debug build serves, since it only drives
# cargo, and is there in two minutes instead of ten.
if [[ $(cargo pgrx --version 2>/dev/null) != "cargo-pgrx $CARGO_PGRX_VERSION" ]]; then
    where=()
    ! cargo pgrx --version >/dev/null 2>&1 || where=(--root "$RUN_DIR/tools")
    say "Installing cargo-pgrx $CARGO_PGRX_VERSION with cargo (about two minutes)"
    CARGO_PROFILE_DEV_DEBUG=0 cargo install cargo-pgrx --version "$CARGO_PGRX_VERSION" --locked --debug "${where[@]}"
fi
