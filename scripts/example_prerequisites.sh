#!/usr/bin/env bash
# Installs what the tests of examples/ need and is not there yet: Node with npm, Python's venv, and into RUN_DIR/examples the
# packages that the examples import, at their locked versions. Says what it does; does nothing at all when everything is there.
#
# RUN_DIR/examples is where the tests run them: it has links to the folders of examples/, so that what is run is the source,
# beside a node_modules and a venv that are no part of it.
source "$(dirname "$0")/common.sh"

make_run_dir
sources=$ROOT/examples
installed=$RUN_DIR/examples
mkdir -p "$installed"

is_node_new() { node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)'; }
is_python_new() { python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))'; }

packages=()
command -v node >/dev/null || packages+=(nodejs)
command -v npm >/dev/null || packages+=(npm)
python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3 python3-venv)
if [[ ${#packages[@]} != 0 ]]; then
    command -v apt-get >/dev/null || die "the examples need Node with npm, and Python with venv"
    say "Installing with apt: ${packages[*]}"
    as_root apt-get update -q
    apt_install "${packages[@]}"
fi
is_node_new || die "the examples need Node 18 or later, and this is $(node --version)"
is_python_new || die "the examples need Python 3.10 or later, and this is $(python3 --version)"

# install_once NAME FILE...: runs install_NAME if the files, or the program that they are for, have changed since the last time.
install_once() {
    local name=$1 stamp
    shift
    stamp=$({ "${name}_version" && cat "$@"; } | cksum)
    if [[ $(cat "$installed/$name.stamp" 2>/dev/null) != "$stamp" ]]; then
        rm -f "$installed/$name.stamp"
        "install_$name"
        echo "$stamp" >"$installed/$name.stamp"
    fi
}

node_version() { node --version; }
install_node() {
    say "Installing the packages of examples/package-lock.json"
    cp "$sources/package.json" "$sources/package-lock.json" "$sources/.npmrc" "$installed/"
    npm ci --prefix "$installed" --ignore-scripts --no-audit --no-fund
}

python_version() { python3 --version && command -v python3; }
install_python() {
    say "Installing the packages of examples/requirements.txt"
    rm -rf "$installed/venv"
    python3 -m venv "$installed/venv"
    "$installed/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: --require-hashes \
        -r "$sources/requirements.txt"
}

exec 9>"$installed/lock" # one installation at a time
flock 9
install_once node "$sources/package.json" "$sources/package-lock.json"
install_once python "$sources/requirements.txt"
for folder in "$sources"/*/; do
    ln -sfn "${folder%/}" "$installed/$(basename "$folder")"
done
