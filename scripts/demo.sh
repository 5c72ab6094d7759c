#!/usr/bin/env bash
# The demo: a private server with the extension, the guide run in it, and the commands to go on by hand.
# TRACE="a.csv b.csv" also meters and charges traces of model calls (columns TIMESTAMP,ContextTokens,GeneratedTokens): files, or
# folders of them. The name of a file is the model's.
#   scripts/demo.sh                 the demo
#   scripts/demo.sh stop            stops its server
#   scripts/demo.sh rows a.csv ...  prints the traces as examples/trace.sql reads them, and does nothing else
source "$(dirname "$0")/common.sh"

# The files of some traces, one a line: those named, and the *.csv of folders.
trace_files() {
    local path file
    for path in "$@"; do
        if [[ -d $path ]]; then
            compgen -G "$path/*.csv" >/dev/null || die "no *.csv in the folder $path of TRACE"
            for file in "$path"/*.csv; do realpath "$file"; done
        else
            [[ -r $path ]] || die "the file $path of TRACE cannot be read"
            realpath "$path"
        fi
    done
}

# The rows of some traces, with the model before: "model",time,context tokens,generated tokens.
trace_rows() {
    LC_ALL=C awk '
        { sub(/\r$/, "") }
        FNR == 1 {
            sub(/^\357\273\277/, "")
            if ($0 != "TIMESTAMP,ContextTokens,GeneratedTokens") {
                print "error: " FILENAME " does not begin with TIMESTAMP,ContextTokens,GeneratedTokens" >"/dev/stderr"
                exit 1
            }
            model = FILENAME
            sub(/.*\//, "", model)
            sub(/\.csv$/, "", model)
            gsub(/"/, "\"\"", model)
            next
        }
        $0 != "" { print "\"" model "\"," $0 }' "$@"
}

if [[ ${1:-} == rows ]]; then
    shift
    files=$(trace_files "$@")
    mapfile -t files <<<"$files"
    trace_rows "${files[@]}"
    exit
fi

use_private_server
demo=$RUN_DIR/demo
database=credits_demo
guide=${GUIDE:-examples/guide.sql}
if [[ ${1:-} == stop ]]; then
    stop_cluster "$demo"
    exit
fi
traces=()
if [[ -n ${TRACE:-} ]]; then
    # One path that may hold spaces, or several.
    if [[ -e $TRACE ]]; then traces=("$TRACE"); else read -ra traces <<<"$TRACE"; fi
    files=$(trace_files "${traces[@]}")
    mapfile -t traces <<<"$files"
fi
cd "$ROOT"

say "Starting a private PostgreSQL $PG_MAJOR in $demo"
new_cluster "$demo"
extensions='create extension pg_credits;'
if [[ -f $("$PG_BIN/pg_config" --pkglibdir)/pg_cron.so ]]; then
    extensions+=' create extension pg_cron;'
    # Jobs run in background workers, since the server listens on no network.
    configure_cluster "$demo" "shared_preload_libraries = 'pg_cron'" "cron.database_name = '$database'" \
        "cron.use_background_workers = on" "max_worker_processes = 16"
fi
start_cluster "$demo"
client "$demo" createdb "$database"
client "$demo" psql -q -d "$database" -c "$extensions"

run_sql() { client "$demo" psql -X -q -P pager=off -v ON_ERROR_STOP=1 -d "$database" "$@" 2>&1; }

say "Running $guide"
run_sql -a -f "$guide"
if [[ ${#traces[@]} != 0 ]]; then
    say "Charging the traces ${traces[*]}"
    trace_rows "${traces[@]}" | run_sql -f examples/trace.sql
fi

say "The server is running. Go on by hand:"
echo "    $PG_BIN/psql -h $demo/socket -U postgres $database"
as=""
[[ $(id -u) != 0 ]] || as="runuser -u postgres -- "
say "Stop it with \`make stop\`, or:"
echo "    $as$PG_BIN/pg_ctl -D $demo/data stop"
