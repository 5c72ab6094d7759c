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

# Who hears of the guide's events: a receiver of webhooks on this machine, as long as the demo runs.
receiver=
trap '[[ -z $receiver ]] || kill "$receiver" 2>/dev/null || true' EXIT
secret=whsec_$(head -c 32 /dev/urandom | base64)
start_receiver() {
    local tries
    rm -f "$demo.received" "$demo.receiver"
    python3 examples/webhooks/receiver.py 0 "$secret" >"$demo.received" 2>"$demo.receiver" &
    receiver=$!
    for ((tries = 0; tries < 100; tries++)); do
        receiver_url=$(sed -n 's/^listening on //p' "$demo.receiver")
        [[ -z $receiver_url ]] || return 0
        kill -0 "$receiver" 2>/dev/null || break
        sleep 0.1 # asked again, at most 10 seconds
    done
    die "the receiver of webhooks did not start: $(cat "$demo.receiver")"
}

say "Starting a private PostgreSQL $PG_MAJOR in $demo"
new_cluster "$demo"
extensions='create extension pg_credits;'
libraries=pg_credits
configure_cluster "$demo" "credits.webhook_database = '$database'" "credits.webhook_allowed_hosts = '127.0.0.1'" \
    "max_worker_processes = 16"
if [[ -f $("$PG_BIN/pg_config" --pkglibdir)/pg_cron.so ]]; then
    extensions+=' create extension pg_cron;'
    # Jobs run in background workers, since the server listens on no network.
    libraries+=,pg_cron
    configure_cluster "$demo" "cron.database_name = '$database'" "cron.use_background_workers = on"
fi
configure_cluster "$demo" "shared_preload_libraries = '$libraries'"
start_cluster "$demo"
client "$demo" createdb "$database"
client "$demo" psql -q -d "$database" -c "$extensions"

run_sql() { client "$demo" psql -X -q -P pager=off -v ON_ERROR_STOP=1 -d "$database" "$@" 2>&1; }

if command -v python3 >/dev/null; then
    start_receiver
    types="'wallet.balance_low', 'wallet.balance_recovered', 'wallet.depleted', 'top_up.requested', 'top_up.succeeded', 'overage.started'"
    run_sql -q -o /dev/null -c "select credits.create_webhook_endpoint('$receiver_url/credits', array[$types], '$secret')"
fi

say "Running $guide"
run_sql -a -f "$guide"

if [[ -n $receiver ]]; then
    say "What a receiver of webhooks got of it, the first alert of customer hooli as it arrived:"
    pending="select count(*) from credits.webhook_deliveries where status = 'pending'"
    for ((tries = 0; tries < 300; tries++)); do
        [[ $(run_sql -A -t -c "$pending") != 0 ]] || break
        sleep 0.1 # asked again, at most 30 seconds
    done
    [[ $(run_sql -A -t -c "$pending") == 0 ]] || die "events were not delivered: see credits.webhook_deliveries and $demo/log"
    awk -v RS= '{ body = ""; getline body; if (body ~ /wallet.balance_low/ && body ~ /hooli/) { print $0 "\n\n" body; exit } }' "$demo.received"
    run_sql -c "select type, count(*), min(status) as status from credits.webhook_deliveries group by type order by type"
    run_sql -q -o /dev/null -c "select credits.drop_webhook_endpoint(endpoint_id) from credits.webhook_endpoints"
fi
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
