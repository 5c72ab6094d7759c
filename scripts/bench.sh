#!/usr/bin/env bash
# Measures on one private server, interleaved, at equal settings and with asynchronous commit, so that the disk does not hide the
# code. What counts are the ratios within one run: machines are noisy.
#   ROUNDS=5 SECONDS_EACH=6 CUSTOMERS=10000 HISTORY=5000000 SUBSCRIBERS=100000 BATCH_ROUNDS=3 BATCH_CALLS=20 INBOX_SECONDS=60
#   INBOX_RATE=10000 change the size of the measurement.
source "$(dirname "$0")/common.sh"

use_private_server
cd "$ROOT"
bench=$RUN_DIR/bench
rounds=${ROUNDS:-5}
seconds=${SECONDS_EACH:-6}
customers=${CUSTOMERS:-10000}
history=${HISTORY:-5000000}
subscribers=${SUBSCRIBERS:-100000}
batch_rounds=${BATCH_ROUNDS:-3}
batch_calls=${BATCH_CALLS:-20}
inbox_seconds=${INBOX_SECONDS:-60}
inbox_rate=${INBOX_RATE:-10000}
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

say "Watching as many customers again: two alerts and an auto top-up each"
sql -d plain -v customers="$customers" -f benches/watched.sql >/dev/null

say "Defining meters, and each customer's first events"
sql -d plain -v customers="$customers" -f benches/meters.sql >/dev/null
sql -d plain -f benches/batches.sql >/dev/null

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
    measure deduct_usage_watched plain "$clients" deduct_watched
    measure tpcb plain "$clients" tpcb
    measure record_usage plain "$clients" record
    measure record_usage_two_meters plain "$clients" record_two_meters
    measure deduct_usage_3_grants plain 1 deduct_one -D customer=few
    measure deduct_usage_100000_grants plain 1 deduct_one -D customer=many
    measure deduct_usage_long_ledger long "$clients" deduct
    measure floor_long_ledger long "$clients" floor
done

# batch NAME WAY: events a second of one way, kept.
batch() {
    local rate
    rate=$(sql -d plain -c "call bench.run('$2')")
    [[ -n $rate ]] || die "no result for $1"
    echo "$1 $rate" >>"$results"
    printf '    %-28s %10.0f/s\n' "$1" "$rate"
}
for round in $(seq "$batch_rounds"); do
    for spread in "$customers" 1; do
        say "Batches of 1,000 events, round $round of $batch_rounds: $([[ $spread == 1 ]] && echo one hot customer || echo "$spread customers")"
        suffix=$([[ $spread == 1 ]] && echo hot || echo spread)
        for way in deduct inbox; do
            sql -d plain -c "call bench.prepare($batch_calls, $spread, '$way')"
            batch "batch_${way}_$suffix" "$way"
        done
        sql -d plain -c "call bench.prepare($batch_calls, $spread, 'record')" -c "call bench.copy_ledger()" -c "vacuum analyze" 2>/dev/null
        batch "batch_record_$suffix" record
        sql -d plain -c "call bench.take_rows()" 2>/dev/null
        batch "batch_floor_$suffix" bulk
    done
done

# The inbox beside those who fill it: two sessions COPY at a pace, one charges.
say "The inbox for $inbox_seconds s: COPY from 2 sessions, $inbox_rate events a second in all, process_inbox in one"
sql -d plain -c "truncate credits.usage_inbox" -c "vacuum analyze"
fill_inbox() {
    local second batch_size=$((inbox_rate / 2 / 5)) until=$((SECONDS + inbox_seconds))
    for ((second = 0; SECONDS < until; second++)); do
        echo "copy credits.usage_inbox (customer_id, event_id, event_name, properties) from stdin;"
        awk -v n="$batch_size" -v c="$customers" -v seed="$1$second" 'BEGIN { srand(seed); for (i = 0; i < n; i++)
            printf "customer-%d\t%s-%d\tcall\t{\"tokens\":%d}\n", 1 + int(rand() * c), seed, i, rand() * 4000 }'
        echo '\.'
        sleep 0.2 # the pace of what arrives, not a wait
    done | sql -d plain
}
charge_inbox() {
    sql -d plain -c "call bench.drain('$((inbox_seconds)) seconds')"
}
fill_inbox 1 &
fillers=($!)
fill_inbox 2 &
fillers+=($!)
IFS='|' read -r inbox_charged inbox_most inbox_oldest < <(charge_inbox)
wait "${fillers[@]}"
inbox_left=$(sql -d plain -c "select count(*) from credits.usage_inbox")

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
line "deduct_usage, with 2 alerts and a top-up" deduct_usage_watched "costs $(ratio deduct_usage deduct_usage_watched) times the same without"
line "pgbench's TPC-B" tpcb ""
line "record_usage, an event of one meter" record_usage "costs $(ratio deduct_usage record_usage) times deduct_usage (at most 1.4)"
line "record_usage, two meters, one with tiers" record_usage_two_meters "costs $(ratio deduct_usage record_usage_two_meters) times deduct_usage"
for suffix in spread hot; do
    where=$([[ $suffix == hot ]] && echo "one hot customer" || echo "$customers customers")
    target=$([[ $suffix == hot ]] && echo 0.40 || echo 0.20)
    line "bulk insert of the rows, $where" "batch_floor_$suffix" "1.00"
    line "deduct_usage_batch, $where" "batch_deduct_$suffix" "$(ratio "batch_deduct_$suffix" "batch_floor_$suffix") of it (to reach $target)"
    line "record_usage_batch, $where" "batch_record_$suffix" "$(ratio "batch_record_$suffix" "batch_floor_$suffix") of it (to reach $target)"
    line "process_inbox, $where" "batch_inbox_$suffix" "$(ratio "batch_inbox_$suffix" "batch_floor_$suffix") of it (to reach $target)"
done
echo "inbox beside COPY from 2 sessions: $((inbox_charged / inbox_seconds)) events/s charged for $inbox_seconds s, at most $inbox_most waiting, the oldest $inbox_oldest s; $inbox_left left at the end"
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
