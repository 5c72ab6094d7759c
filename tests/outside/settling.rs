//! However often settling runs, the books are the same: random histories, once settled every hour and once only when somebody
//! comes, read before and after (SPEC 6 and 10).

use pgrx_tests::{Session, assert_ledger_is_sound, shared_cluster};

use crate::workload::{Random, seed};

const STEPS: u64 = 45;

/// Who settles between the steps.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Settled {
    /// Maintenance, every hour.
    Hourly,
    /// Only the steps themselves.
    Lazily,
}

fn set_hour(session: &mut Session, hour: u64) {
    let at = format!("('2026-01-01 00:00+00'::timestamptz + interval '{hour} hours')::text");
    session.rows(&format!("select set_config('credits.test_clock', {at}, false)"));
}

/// Two wallets, one of which may be overdrawn; recurring grants that roll over, lapse early, and end; contracts of both kinds.
fn new_customer(rule: &str) -> Session {
    let mut session = shared_cluster().new_database(rule);
    session.set_clock("2026-01-01 00:00+00");
    session.exec(
        "select credits.create_wallet('acme', overage_policy => 'overdraft', overage_limit => 400);
         select credits.create_wallet('acme', 'promo', priority => 10, expires_after => '3 days');
         select credits.create_wallet('acme', 'metered', priority => 900, overage_policy => 'invoice', overage_unit_price => 0.5,
             overage_currency => 'EUR');
         select credits.create_recurring_grant('acme', 'daily', 30, '1 day', rollover_percent => 33.3, rollover_cap => 40, rollover_periods => 2);
         select credits.create_recurring_grant('acme', 'eight hours', 7, '8 hours', 'promo', rollover_percent => 100, rollover_cap => 9,
             starts_at => '2025-12-31 23:00+00', prorate => true);
         select credits.create_recurring_grant('acme', 'short', 5, '7 hours', 'promo', expires_after => '90 minutes',
             ends_at => '2026-01-20 00:00+00');
         select credits.create_recurring_grant('acme', 'for ever', 1, '5 days', rollover_percent => 50, rollover_periods => null,
             applies_to => array['chat']);
         select credits.create_contract('acme', 'committed', 100, '2026-01-02 06:00+00', '2026-01-12 06:00+00', installments => 7,
             on_end => 'rollover', rollover_percent => 60, rollover_cap => 30, rollover_expires_after => '2 days');
         select credits.create_contract('acme', 'minimum', 70, '2026-01-03 00:00+00', '2026-01-15 00:00+00', 'metered', 0.25, 'EUR',
             minimum_spend => true)",
    );
    session
}

/// One random call, the same in every play of a seed. `step` names its key.
fn random_call(random: &mut Random, step: u64) -> String {
    let earlier = random.below(step + 1);
    let amount = random.between(1, 60);
    let event = random.pick(&["null", "'chat'"]);
    let wallet = random.pick(&["null", "null", "'default'", "'promo'", "'metered'"]);
    let hours = random.between(1, 40);
    match random.below(12) {
        0..3 => {
            format!("deduct_usage('acme', {amount}, 'k{step}', {wallet}, event_name => {event}, on_insufficient => 'partial')")
        }
        3..6 => format!(
            "hold_credits('acme', {amount}, '{hours} hours', {wallet}, event_name => {event}, idempotency_key => 'k{step}')"
        ),
        6 | 7 => format!("capture_hold('acme', 'k{earlier}', {amount}, idempotency_key => 'k{step}')"),
        8 => format!("release_hold('acme', 'k{earlier}')"),
        9 => format!("refund_usage('acme', 'k{earlier}', idempotency_key => 'k{step}')"),
        10 => format!(
            "grant_credits('acme', {amount}, 'default', expires_at => credits.clock() + interval '{hours} hours',
                 idempotency_key => 'k{step}')"
        ),
        _ => format!("transfer_credits('acme', {amount}, 'promo', 'default', 'k{step}')"),
    }
}

/// What anybody would read now, without ids.
fn readings(session: &mut Session, hour: u64) -> Vec<String> {
    let mut readings = Vec::new();
    for sql in [
        "select * from credits.balance('acme') order by wallet".to_owned(),
        format!(
            "select w, at, credits.balance_at('acme', w, at) from unnest(array['default', 'promo', 'metered']) w
             cross join generate_series('2026-01-01 00:00+00'::timestamptz + interval '{hour} hours' - interval '30 hours',
                 '2026-01-01 00:00+00'::timestamptz + interval '{hour} hours', '5 hours') at"
        ),
        format!(
            "select w, s.seq, s.occurred_at, s.kind, s.amount, s.balance from unnest(array['default', 'promo', 'metered']) w
             cross join lateral credits.statement('acme', w, '2026-01-01 00:00+00'::timestamptz + interval '{hour} hours' - interval '20 hours',
                 '2026-01-01 00:00+00'::timestamptz + interval '{hour} hours') s"
        ),
        "select wallet, credits from credits.preview_deduction('acme', 1000, event_name => 'chat')".to_owned(),
        "select hold_id, status from credits.holds order by 1".to_owned(),
    ] {
        readings.push(format!("-- {sql}"));
        readings.extend(session.lines(&sql));
    }
    readings
}

/// Everything that is written in the end, without ids.
fn books(session: &mut Session) -> Vec<String> {
    let mut books = Vec::new();
    for sql in [
        "select wallet, seq, line, kind, amount, credits, balance_after, occurred_at, refers_to from credits.ledger order by wallet, seq",
        "select wallet, amount, remaining, status, effective_at, expires_at, recurring_grant, contract, rolled_over from credits.grants
         order by wallet, effective_at, expires_at, amount, recurring_grant, rolled_over, remaining, status",
        "select hold_id, status, held from credits.holds order by 1",
        "select recurring_grant, status, period_starts_at, next_period_at from credits.recurring_grants order by 1",
        "select * from credits.contract_progress order by contract",
        "select wallet, kind, contract, quantity, unit_price, amount, currency, period_start, period_end from credits.invoice_lines",
    ] {
        books.push(format!("-- {sql}"));
        books.extend(session.lines(sql));
    }
    books
}

/// Plays a history and returns, step by step, what was answered and read, and the books in the end.
fn play(rule: &str, seed: u64, settled: Settled) -> Vec<Vec<String>> {
    let mut session = new_customer(rule);
    let mut random = Random::new(seed);
    let mut hour = 0;
    let mut pages = Vec::new();
    for step in 0..STEPS {
        let until = hour + random.pick(&[0, 0, 1, 2, 3, 5, 8, 13, 24, 30]);
        while settled == Settled::Hourly && hour < until {
            hour += 1;
            set_hour(&mut session, hour);
            session.exec("select * from credits.run_maintenance()");
        }
        hour = until;
        set_hour(&mut session, hour);
        let mut page = readings(&mut session, hour);
        let call = random_call(&mut random, step);
        // A grant's id is its own in each play.
        let columns = if call.starts_with("grant") { "null" } else { "*" };
        let answer = match session.try_rows(&format!("select {columns} from credits.{call}")) {
            Ok(rows) if call.starts_with("release") || call.contains("'k") => format!("{rows:?}"),
            Ok(rows) => format!("{} rows", rows.len()),
            Err(error) => error.symbol().to_owned(),
        };
        page.push(format!("at hour {hour}: {call}: {answer}"));
        pages.push(page);
    }
    set_hour(&mut session, hour + 50);
    pages.push(readings(&mut session, hour + 50));
    session.exec("select * from credits.run_maintenance()");
    pages.push(readings(&mut session, hour + 50));
    assert_eq!(pages[pages.len() - 2], pages[pages.len() - 1], "settling changes no answer, seed {seed}");
    pages.push(books(&mut session));
    assert_ledger_is_sound(&mut session);
    pages
}

#[test]
fn however_often_it_is_settled_every_answer_and_the_books_are_the_same() {
    let first = seed();
    for round in 0..6 {
        let seed = first + round;
        let lazily = play(&format!("settled_lazily_{round}"), seed, Settled::Lazily);
        let hourly = play(&format!("settled_hourly_{round}"), seed, Settled::Hourly);
        for (step, (lazy, hour)) in lazily.iter().zip(&hourly).enumerate() {
            let answers: Vec<&String> = lazily[..=step].iter().filter_map(|page| page.last()).collect();
            assert_eq!(lazy, hour, "seed {seed}, step {step}, after {answers:#?}");
        }
    }
}
