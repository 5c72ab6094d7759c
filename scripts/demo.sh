#!/usr/bin/env bash
# The demo: a private server with the extension, the guide run in it, and the commands to go on by hand.
# TRACE=file.csv also charges a trace of model calls (columns TIMESTAMP,ContextTokens,GeneratedTokens).
source "$(dirname "$0")/common.sh"

use_private_server
demo=$RUN_DIR/demo
database=credits_demo
trace=${TRACE:+$(realpath "$TRACE")}
[[ -z $trace || -r $trace ]] || die "TRACE=$TRACE cannot be read"
guide=${GUIDE:-examples/guide.sql}
cd "$ROOT"
if [[ ${1:-} == stop ]]; then
    stop_cluster "$demo"
    exit
fi

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
if [[ -n $trace ]]; then
    say "Charging the trace $trace"
    run_sql -v trace="$trace" -f examples/trace.sql
fi

say "The server is running. Go on by hand:"
echo "    $PG_BIN/psql -h $demo/socket -U postgres $database"
as=""
[[ $(id -u) != 0 ]] || as="runuser -u postgres -- "
say "Stop it with \`make stop\`, or:"
echo "    $as$PG_BIN/pg_ctl -D $demo/data stop"
