#!/usr/bin/env bash
# Measures on one private server, interleaved, at equal settings and with asynchronous commit, so that the disk does not hide the
# code. What counts are the ratios within one run: machines are noisy.
#   ROUNDS=5 SECONDS_EACH=6 CUSTOMERS=10000 HISTORY=5000000 SUBSCRIBERS=100000 change the size of the measurement.
source "$(dirname "$0")/common.sh"

use_private_server
cd "$ROOT"
bench=$RUN_DIR/bench
rounds=${ROUNDS:-5}
seconds=${SECONDS_EACH:-6}
customers=${CUSTOMERS:-10000}
history=${HISTORY:-5000000}
subscribers=${SUBSCRIBERS:-100000}
clients=$(nproc)
results=$RUN_DIR/bench-results.txt
trap 'stop_cluster "$bench"' EXIT

sql() { client "$bench" psql -X -q -A -t -v ON_ERROR_STOP=1 "$@"; }

# run DATABASE CLIENTS SCRIPT-OR-BUILTIN ARGS...: transactions per second of one round.
run() {
    local database=$1 sessions=$2 what=$3
    shift 3
    local script=(-f "benches/$what.sql")
    [[ $what != tpcb ]] || script=(-b tpcb-like)
    client "$bench" pgbench -n -M prepared -c "$sessions" -j "$sessions" -T "$seconds" -D "customers=$customers" "$@" "${script[@]}" \
        "$database" 2>/dev/null | sed -n 's/^tps = \([0-9.]*\).*/\1/p'
}

# measure NAME DATABASE CLIENTS SCRIPT ARGS...: one round, kept.
measure() {
    local name=$1 tps
    shift
    tps=$(run "$@")
    [[ -n $tps ]] || die "no result for $name"
    echo "$name $tps" >>"$results"
    printf '    %-28s %10.0f/s\n' "$name" "$tps"
}

median() { sed -n "s/^$1 //p" "$results" | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
# The median of the ratios of each round: what was measured side by side had the same machine.
ratio() {
    paste <(sed -n "s/^$1 //p" "$results") <(sed -n "s/^$2 //p" "$results") | awk '{ print $1 / $2 }' | sort -n \
        | awk '{ v[NR] = $1 } END { printf "%.2f", v[int((NR + 1) / 2)] }'
}

# A quarter of the memory, as is usual: both databases then stay in it, and the length of a ledger is not the speed of a disk.
shared_buffers_mb=$(awk '/^MemTotal/ { print int($2 / 4096) }' /proc/meminfo)
say "Starting a private PostgreSQL $PG_MAJOR in $bench"
new_cluster "$bench"
configure_cluster "$bench" "synchronous_commit = off" "shared_buffers = '${shared_buffers_mb}MB'" "max_wal_size = '16GB'" "checkpoint_timeout = '1h'" \
    "autovacuum_naptime = '15s'" "max_connections = 50"
start_cluster "$bench"
rm -f "$results"

for database in plain long; do
    say "Filling database $database: $customers customers with 3 grants each"
    client "$bench" createdb "$database"
    sql -d "$database" -c 'create extension pg_credits' >/dev/null
    sql -d "$database" -v customers="$customers" -f benches/setup.sql >/dev/null
done
client "$bench" pgbench -i -s 10 -q plain >/dev/null 2>&1
say "Filling database long: a ledger of $history entries"
sql -d long -v history="$history" -v customers="$customers" -f benches/history.sql >/dev/null
say "Filling database plain: a customer with 100,000 live grants and one with 3"
sql -d plain -f benches/grants.sql >/dev/null

say "Warming up: every customer's first deduction"
for database in plain long; do
    sql -d "$database" -v customers="$customers" -f benches/warm.sql >/dev/null
done

say "Bytes: $((customers * 5)) deductions, each of a new key"
sizes="select pg_total_relation_size('credits_data.entries'), pg_total_relation_size('credits_data.wallets')
    + pg_total_relation_size('credits_data.grants'), pg_current_wal_insert_lsn() - '0/0'"
IFS='|' read -r entries_before others_before wal_before < <(sql -d plain -c "$sizes")
client "$bench" pgbench -n -M prepared -c "$clients" -j "$clients" -t $((customers * 5 / clients)) -D "customers=$customers" \
    -f benches/deduct.sql plain >/dev/null 2>&1
IFS='|' read -r entries_after others_after wal_after < <(sql -d plain -c "$sizes")
deductions=$((customers * 5 / clients * clients))
bytes=$(((entries_after - entries_before) / deductions))
bytes_others=$(((others_after - others_before) / deductions))
bytes_wal=$(((wal_after - wal_before) / deductions))

for round in $(seq "$rounds"); do
    say "Round $round of $rounds"
    measure floor plain "$clients" floor
    measure deduct_usage plain "$clients" deduct
    measure tpcb plain "$clients" tpcb
    measure deduct_usage_3_grants plain 1 deduct_one -D customer=few
    measure deduct_usage_100000_grants plain 1 deduct_one -D customer=many
    measure deduct_usage_long_ledger long "$clients" deduct
    measure floor_long_ledger long "$clients" floor
done

say "Filling database due: $subscribers subscriptions that renew at the same instant, half of them with rollover"
client "$bench" createdb due
sql -d due -c 'create extension pg_credits' >/dev/null
sql -d due -v customers="$subscribers" -f benches/due.sql >/dev/null
for month in 02 03 04; do
    say "Settling all of them, on one session: month $month"
    started=$(date +%s%N)
    sql -d due -c "set credits.test_clock = '2026-$month-15 00:00+00'" -c 'call settle_all()' >/dev/null
    finished=$(date +%s%N)
    echo "run_maintenance $(awk -v n="$subscribers" -v ns=$((finished - started)) 'BEGIN { print n / ns * 1e9 }')" >>"$results"
done

violations=$(($(sql -d plain -c 'select count(*) from credits.verify_ledger()') + $(sql -d due -c 'select count(*) from credits.verify_ledger()')))
stop_cluster "$bench"

# Instructions: counted by the processor where it can, else by valgrind, on the server in single-user mode: the difference between
# a long and a short run of the same statements.
instructions() {
    local input=$RUN_DIR/bench-input.sql count short=100 long=600 short_count=0
    local body
    body=$(sed -e '/^\\/d' -e '/^--/d' -e 's/:customers*/$1/g' "benches/$1.sql" | tr '\n' ' ' | sed 's/; *$//')
    for count in "$short" "$long"; do
        {
            echo "prepare measured (int) as $body"
            for n in $(seq "$count"); do echo "execute measured ($((n * 7919 % customers + 1)))"; done
        } >"$input"
        chmod 644 "$input"
        # shellcheck disable=SC2086
        counted=$(as_server $counter "$PG_BIN/postgres" --single -D "$bench/data" -c shared_buffers=128MB plain <"$input" 2>&1 | sed -n "$counter_line" | tr -d ', ')
        [[ $count == "$short" ]] && short_count=$counted
    done
    echo $(((counted - short_count) / (long - short)))
}
counter=""
if perf stat -x, -e instructions:u true 2>&1 | grep -q '^[0-9]'; then
    counter="perf stat -e instructions:u" counter_line='s/^ *\([0-9,]*\) *instructions.*/\1/p'
elif command -v valgrind >/dev/null; then
    counter="valgrind --tool=callgrind --callgrind-out-file=/dev/null" counter_line='s/.*Collected : *\([0-9]*\).*/\1/p'
fi
if [[ -n $counter ]]; then
    say "Counting instructions by ${counter%% *}"
    instructions_floor=$(instructions floor)
    instructions_deduct=$(instructions deduct)
fi

say "Results: medians of $rounds rounds of $seconds s, $clients sessions, PostgreSQL $PG_MAJOR, $(nproc) cores of $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1)"
line() { printf '%-46s %10.0f/s   %s\n' "$1" "$(median "$2")" "${3:-}"; }
line "floor: one update, one insert" floor "1.00"
line "deduct_usage, $customers customers" deduct_usage "$(ratio deduct_usage floor) of the floor (to reach 0.50), $(ratio deduct_usage tpcb) of TPC-B (to reach 1.4)"
line "pgbench's TPC-B" tpcb ""
line "one session, customer with 3 grants" deduct_usage_3_grants ""
line "one session, customer with 100,000 grants" deduct_usage_100000_grants "costs $(ratio deduct_usage_3_grants deduct_usage_100000_grants) times 3 grants (at most 1.3)"
line "deduct_usage, ledger of $history entries" deduct_usage_long_ledger "costs $(ratio deduct_usage deduct_usage_long_ledger) times a short one (at most 1.3)"
line "floor, ledger of the same length" floor_long_ledger ""
line "run_maintenance, $subscribers due wallets" run_maintenance "one session (to reach 5000)"
if [[ -n $counter ]]; then
    printf '%-46s %10d     %s\n' "instructions of the floor" "$instructions_floor" ""
    printf '%-46s %10d     %s\n' "instructions of deduct_usage" "$instructions_deduct" \
        "$(awk -v a="$instructions_deduct" -v b="$instructions_floor" 'BEGIN { printf "%.2f", a / b }') times the floor (at most 2.5)"
else
    echo "instructions: neither perf nor valgrind can count them on this machine"
fi
printf '%-46s %10d     %s\n' "bytes of ledger and its indexes, a deduction" "$bytes" "(at most 400)"
printf '%-46s %10d\n' "bytes of wallets and grants, a deduction" "$bytes_others"
printf '%-46s %10d\n' "bytes of WAL, a deduction" "$bytes_wal"
echo "verify_ledger() after it all: $violations violations"
