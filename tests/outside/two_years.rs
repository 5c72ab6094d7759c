//! Two years of recurring grants, contracts, holds and scheduled grants, settled every day or once at the end: one ledger (SPEC 6).

use std::thread;

use pgrx_tests::{Session, assert_ledger_is_sound, shared_cluster};

/// Forty-eight customers on 2026-01-01. What number n has is told by its remainders, so that most combinations occur.
fn books(rule: &str) -> Session {
    let mut session = shared_cluster().new_database(rule);
    session.set_clock("2026-01-01 00:00+00");
    session.exec(
        "create temporary table c as
         select n, 'c' || n as id, (array['UTC', 'Europe/Berlin', 'America/New_York', 'Australia/Lord_Howe', 'Asia/Kathmandu'])[n % 5 + 1] as zone
         from generate_series(1, 48) n;

         select credits.create_wallet(id, overage_policy => case when n % 6 = 0 then 'overdraft' else 'block' end,
             expires_after => case when n % 7 = 0 then interval '100 days' end) from c;
         select credits.create_wallet(id, 'invoiced', priority => 200, overage_policy => 'invoice', overage_unit_price => 0.02,
             overage_currency => 'USD') from c where n % 8 = 0;

         select credits.create_recurring_grant(id, 'daily', 10 + n, '1 day', time_zone => zone, starts_at => '2026-01-01 02:30+00',
             rollover_percent => (array[0, 50, 100])[n / 6 % 3 + 1], rollover_cap => case when n % 4 = 0 then 25 end,
             rollover_periods => case when n % 12 = 6 then 3 else 1 end)
         from c where n % 6 = 0;
         select credits.create_recurring_grant(id, 'monthly', 100 + n, '1 month', time_zone => zone, anchor => '2026-01-31 01:30+00',
             prorate => n % 2 = 0, rollover_percent => n * 2, rollover_cap => case when n % 3 = 0 then 150 end,
             rollover_periods => case when n % 10 <> 1 then n % 4 + 1 end, priority => 90 + n % 3,
             ends_at => case when n % 11 = 0 then timestamptz '2027-05-05 00:00+00' end)
         from c where n % 6 <> 0;
         select credits.create_recurring_grant(id, 'yearly', 1000, '1 year', time_zone => zone, starts_at => '2026-02-28 23:00+00',
             expires_after => case when n % 4 = 0 then interval '400 days' end, applies_to => case when n % 8 = 4 then array['chat'] end)
         from c where n % 2 = 0;
         select credits.cancel_recurring_grant(id, 'monthly', '2027-07-31 00:30+00') from c where n % 13 = 1 and n % 6 <> 0;

         select credits.create_contract(id, 'granted', 1000, '2025-12-15 00:00+00', '2027-03-15 00:00+00', installments => n % 5 + 1,
             on_end => case when n % 2 = 0 then 'rollover' else 'expire' end, rollover_percent => 50, rollover_cap => 300,
             rollover_expires_after => '200 days') from c where n % 3 = 0;
         select credits.create_contract(id, 'minimum', 500, '2026-02-01 00:00+00', '2026-12-01 00:00+00', wallet => 'invoiced',
             minimum_spend => true, unit_price => 0.03, currency => 'EUR') from c where n % 8 = 0;

         select credits.grant_credits(id, 10 * d, expires_at => timestamptz '2026-03-01 00:00+00' + d * interval '61 days 7 hours',
             effective_at => timestamptz '2026-01-01 00:00+00' + d * interval '40 days') from c, generate_series(1, 12) d
         where n % 4 = 1;
         select credits.grant_credits(id, 50), credits.hold_credits(id, 45, n * interval '13 days 11 hours',
             idempotency_key => 'hold', wallet => 'default') from c where n % 3 = 1;
         select credits.deduct_usage(id, 700 + n, 'debt', wallet => 'default') from c where n % 6 = 0",
    );
    session
}

/// What some of the customers do meanwhile, which settles them. The others are touched by nobody.
fn meanwhile(session: &mut Session, day: u32) {
    match day {
        123 => session.exec(
            "select credits.deduct_usage(id, 60 + n, 'spring', wallet => 'default') from c where n % 12 = 1;
             select credits.deduct_usage(id, 90, 'invoiced', wallet => 'invoiced') from c where n % 16 = 8",
        ),
        400 => session.exec(
            "select credits.refund_usage(id, 'spring') from c where n % 12 = 1;
             select credits.update_recurring_grant(id, 'monthly', amount => 333, rollover_percent => 75) from c where n % 12 = 1",
        ),
        _ => {}
    }
}

/// Everything but what no two runs share: ids and when it was recorded. A transaction and a grant are named by their first entry.
fn everything(session: &mut Session) -> Vec<String> {
    session.exec(
        "create temporary view l as
         select *, min(seq) over (partition by customer_id, wallet, transaction_id) as transaction,
             case when grant_id is not null then min(seq) over (partition by customer_id, wallet, grant_id) end as grant_number
         from credits.ledger",
    );
    let mut all = session.lines(
        "select customer_id, wallet, seq, occurred_at, transaction, line, kind, credits, amount, balance_after, grant_number,
             refers_to, unit_price, currency, event_name, usage_at, metadata
         from l order by customer_id, wallet, seq",
    );
    all.extend(session.lines(
        "select customer_id, wallet, grant_number, grant_type, status, g.amount, remaining, priority, effective_at, expires_at,
             applies_to, recurring_grant, contract, rolled_over
         from credits.grants g join l using (customer_id, wallet, grant_id)
         where l.seq = l.grant_number order by customer_id, wallet, grant_number",
    ));
    for rest in [
        "select * from credits.recurring_grants order by 1, 2",
        "select * from credits.contract_progress order by 1, 2",
        "select customer_id, hold_id, status, held, expires_at from credits.holds order by 1, 2",
        "select customer_id, wallet, kind, contract, quantity, amount, period_start, period_end, status from credits.invoice_lines
         order by 1, 2, period_end",
        "select b.* from (select distinct customer_id from credits.wallets) c, credits.balance(customer_id) b order by customer_id, b.wallet",
    ] {
        all.extend(session.lines(rest));
    }
    all
}

/// The books after 730 days, settled on those that `is_settled` names.
fn two_years(rule: &str, is_settled: impl Fn(u32) -> bool) -> Vec<String> {
    let mut session = books(rule);
    for day in 1..=730 {
        session.exec(&format!(
            "select set_config('credits.test_clock', (timestamptz '2026-01-01 00:00+00' + interval '{day} days')::text, false)"
        ));
        if is_settled(day) {
            assert_eq!(session.lines("select * from credits.run_maintenance() where more_due"), [""; 0]);
        }
        meanwhile(&mut session, day);
    }
    assert_ledger_is_sound(&mut session);
    everything(&mut session)
}

#[track_caller]
fn assert_same(left: &[String], right: &[String], what: &str) {
    let difference = left.iter().zip(right).position(|(left, right)| left != right);
    if let Some(at) = difference {
        let around = at.saturating_sub(5)..at + 6;
        let part = |all: &[String]| all.iter().take(around.end).skip(around.start).cloned().collect::<Vec<_>>().join("\n");
        panic!("{what}: line {at} is another:\n{}\n\n{}", part(left), part(right));
    }
    assert_eq!(left.len(), right.len(), "{what}");
}

#[test]
fn two_years_settled_daily_now_and_then_or_once_are_one_ledger() {
    let (daily, seldom, once) = thread::scope(|scope| {
        let daily = scope.spawn(|| two_years("two_years_daily", |_| true));
        let seldom = scope.spawn(|| two_years("two_years_seldom", |day| day % 37 == 5 || day == 730));
        let once = two_years("two_years_once", |day| day == 730);
        (daily.join().expect("the daily run"), seldom.join().expect("the seldom run"), once)
    });
    assert!(once.len() > 20_000, "{}", once.len());
    assert_same(&daily, &once, "daily and once");
    assert_same(&seldom, &once, "now and then and once");
}
