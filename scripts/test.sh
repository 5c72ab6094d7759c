#!/usr/bin/env bash
# Runs the tests against the private server (scripts/build_private.sh makes it) and prints, last, the totals of all parts.
#   scripts/test.sh [unit|outside|regress|isolation ...]     default: all of them
#   FILTER=name      only the cargo tests whose name contains it (and the SQL tests with that very name)
#   ACCEPT=1         writes what regress and isolation print into their expected files: look at the diff before committing
# A part that fails does not hide the later ones.
source "$(dirname "$0")/common.sh"

find_cargo
use_private_server
cd "$ROOT"
test_dir=$RUN_DIR/test/$$
filter=${FILTER:-}
parts=("$@")
[[ $# != 0 ]] || parts=(unit outside regress isolation)
passed=0
failed=0
failures=()

# Every run has its folder, named by the process: this script's, or a test binary's. Those of processes that are gone are
# cleared away, with the servers they may have left behind; those of somebody else's running tests stay.
clear_run() {
    local pid_file
    for pid_file in "$1"/*/data/postmaster.pid; do
        stop_cluster "${pid_file%/data/postmaster.pid}" immediate
    done
}
clear_dead_runs() {
    local run
    for run in "$RUN_DIR"/test/*; do
        if [[ -d $run ]] && ! kill -0 "${run##*/}" 2>/dev/null; then
            clear_run "$run"
            rm -rf "$run"
        fi
    done
}
trap 'clear_run "$test_dir"; clear_dead_runs' EXIT
trap 'exit 130' INT TERM
clear_dead_runs
mkdir -p "$test_dir"

# cargo_tests NAME ARGS...: runs cargo test and adds up its `test result:` lines.
cargo_tests() {
    local name=$1 log=$test_dir/$1.log status=0 counts
    shift
    say "cargo test $*"
    cargo test --no-fail-fast "${FEATURES[@]}" "$@" -- ${filter:+"$filter"} 2>&1 | tee "$log" || status=$?
    counts=$(sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed;.*/\1 \2/p' "$log" \
        | awk '{ passed += $1; failed += $2 } END { print passed + 0, failed + 0 }')
    passed=$((passed + ${counts% *}))
    failed=$((failed + ${counts#* }))
    if [[ $status != 0 ]]; then
        failures+=("$name: see $log")
        [[ ${counts#* } != 0 ]] || failed=$((failed + 1)) # it did not compile, or it crashed
    fi
}

# The SQL tests share one server; each gets a database of its own, a copy of one in which the extension was created.
sql_server=$test_dir/sql
start_sql_server() {
    [[ ! -d $sql_server ]] || return 0
    new_cluster "$sql_server"
    configure_cluster "$sql_server" 'fsync = off' "timezone = 'UTC'"
    start_cluster "$sql_server"
    client "$sql_server" createdb with_credits
    client "$sql_server" psql -q -d with_credits -c 'create extension pg_credits'
}

# sql_tests NAME SOURCE_FOLDER SUFFIX RUNNER: each file is run by pg_regress or pg_isolation_regress on its own.
sql_tests() {
    local name=$1 folder=tests/$1/$2 suffix=$3 runner=$4 file test out database
    compgen -G "$folder/*.$suffix" >/dev/null || return 0
    say "$name: $(find "$folder" -name "*.$suffix" | wc -l) files"
    if ! (start_sql_server); then
        failed=$((failed + 1))
        failures+=("$name: the server did not start")
        return 0
    fi
    out=$test_dir/$name
    mkdir -p "$out"
    for file in "$folder"/*."$suffix"; do
        test=$(basename "$file" ".$suffix")
        [[ -z $filter || $test == "$filter" ]] || continue
        database=${name}_$test
        client "$sql_server" createdb -T with_credits "$database"
        [[ -z ${ACCEPT:-} || -f tests/$name/expected/$test.out ]] || touch "tests/$name/expected/$test.out"
        rm -f "$out/regression.diffs"
        if client "$sql_server" "../lib/pgxs/src/test/$runner" --bindir="$PG_BIN" --use-existing --host="$sql_server/socket" \
            --user=postgres --dbname="$database" --inputdir="tests/$name" --outputdir="$out" "$test" >"$out/$test.log" 2>&1; then
            passed=$((passed + 1))
            echo "ok      $test"
        elif [[ -n ${ACCEPT:-} && -f $out/results/$test.out ]]; then
            cp "$out/results/$test.out" "tests/$name/expected/$test.out"
            passed=$((passed + 1))
            echo "written $test"
        else
            failed=$((failed + 1))
            failures+=("$name/$test: see $out")
            echo "FAILED  $test"
            cat "$out/regression.diffs" 2>/dev/null || cat "$out/$test.log"
        fi
    done
}

for part in "${parts[@]}"; do
    case $part in
        unit) cargo_tests unit --lib ;;
        outside)
            # Without them only the tests of the examples fail, and say so.
            "$ROOT/scripts/example_prerequisites.sh" || say "The examples cannot be tested"
            cargo_tests outside --test '*'
            ;;
        regress) sql_tests regress sql sql regress/pg_regress ;;
        isolation) sql_tests isolation specs spec isolation/pg_isolation_regress ;;
        *) die "no such part: $part" ;;
    esac
done

echo
[[ ${#failures[@]} == 0 ]] || printf 'FAILED %s\n' "${failures[@]}"
echo "$passed passed, $failed failed"
[[ $failed == 0 && $passed != 0 ]]
