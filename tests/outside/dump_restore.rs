//! pg_dump and restore into a new database: the books are the same, keys stay used, privileges stay given, work goes on.

use pgrx_tests::{Session, assert_ledger_is_sound, shared_cluster};

/// A bit of everything that leaves a row somewhere.
fn write_history(session: &mut Session) {
    session.set_clock("2026-01-01 00:00+00");
    session.exec(
        "select credits.create_wallet('acme', metadata => '{\"plan\": \"pro\"}');
         select credits.create_wallet('acme', 'promo', priority => 10);
         select credits.create_wallet('umlaut-ü', overage_policy => 'overdraft', overage_limit => 100);
         select credits.grant_credits('acme', 50000, expires_at => '2026-03-01 00:00+00', unit_price => 0.001,
             currency => 'EUR', metadata => '{\"payment_intent\": \"pi_1\"}', idempotency_key => 'purchase-1');
         select credits.grant_credits('acme', 500, wallet => 'promo', grant_type => 'promotional',
             expires_at => '2026-01-10 00:00+00', applies_to => array['model.call', 'a,\"b\"']);
         select credits.grant_credits('acme', 1000, effective_at => '2026-02-01 00:00+00');
         select credits.grant_credits('umlaut-ü', 10.000000000001);
         select credits.create_wallet('renewing');
         select credits.create_wallet('renewing', 'metered', overage_policy => 'invoice', overage_unit_price => 0.02,
             overage_currency => 'EUR');
         select credits.create_recurring_grant('renewing', 'monthly', 100, '1 month', time_zone => 'Europe/Berlin',
             anchor => '2025-12-31 00:00+01', prorate => true, rollover_percent => 50, rollover_cap => 80, rollover_periods => 2);
         select credits.create_recurring_grant('renewing', 'daily', 1, '1 day', priority => 50, expires_after => '12 hours',
             ends_at => '2026-02-15 00:00+00');
         select credits.create_contract('renewing', 'committed', 1000, '2026-01-01 00:00+00', '2026-03-01 00:00+00', installments => 3,
             on_end => 'rollover', rollover_percent => 10, rollover_expires_after => '10 days');
         select credits.create_contract('renewing', 'minimum', 50, '2026-01-01 00:00+00', '2026-02-01 00:00+00', 'metered',
             0.015, 'EUR', minimum_spend => true)",
    );
    session.set_clock("2026-01-02 00:00+00");
    session.exec(
        "select * from credits.deduct_usage('acme', 25, 'call-1', event_name => 'model.call', metadata => '{\"tokens\": 17}');
         select * from credits.deduct_usage('acme', 0.5, 'call-2');
         select * from credits.deduct_usage('umlaut-ü', 15, 'call-1');
         select * from credits.refund_usage('acme', 'call-1', 5, 'half an answer', 'refund-1');
         select * from credits.adjust_credits('acme', 7, 'goodwill', idempotency_key => 'ticket-9');
         select * from credits.transfer_credits('acme', 100, 'default', 'promo', 'move-1');
         select * from credits.deduct_usage('renewing', 12.5, 'metered-1', 'metered');
         select * from credits.hold_credits('renewing', 120, '20 days', idempotency_key => 'captured later');
         select * from credits.hold_credits('renewing', 30, '100 days', 'default', idempotency_key => 'released later');
         select * from credits.hold_credits('renewing', 7, '30 days', event_name => 'model.call', idempotency_key => 'lapses later');
         select * from credits.hold_credits('renewing', 5, idempotency_key => 'captured');
         select * from credits.capture_hold('renewing', 'captured', 3, idempotency_key => 'capture-1')",
    );
    session.set_clock("2026-01-11 00:00+00");
    session.exec(
        "select * from credits.expire_grants();
         select credits.create_meter('tokens', 'metered', value_property => 'n',
             pricing => '{\"model\": \"volume\", \"tiers\": [{\"up_to\": 5, \"credits\": 2}, {\"credits\": 1}]}');
         select credits.create_meter('users', 'metered', 'unique', 'user', filter => '{\"kind\": \"chat\"}');
         select credits.set_meter_pricing('tokens', '{\"model\": \"per_unit\", \"credits\": 3}', '2026-06-01 00:00+00');
         select credits.set_meter_pricing('users', '{\"model\": \"per_unit\", \"credits\": 0.5}', customer_id => 'acme');
         select * from credits.record_usage('acme', 'metered', '{\"n\": 4, \"user\": \"u1\", \"kind\": \"chat\"}', 'event-1');
         insert into credits.usage_inbox (customer_id, event_id, event_name, properties)
         values ('acme', 'event-2', 'metered', '{\"n\": 1}'), ('acme', 'event-3', 'unknown', null), ('acme', 'event-4', 'metered', '{}');
         select * from credits.process_inbox()",
    );
}

/// Every table of the extension with the number of its rows and a digest of their text. When maintenance ran last is no part of the
/// books and not dumped, nor is the catalogue's token, which must be another one.
fn digests(session: &mut Session) -> Vec<String> {
    let tables = session.lines(
        "select format('%I.%I', nspname, relname) from pg_class join pg_namespace on pg_namespace.oid = relnamespace
         where nspname in ('credits', 'credits_data') and relkind in ('r', 'p') and relname not in ('jobs', 'meter_catalog')
         order by relname",
    );
    assert!(!tables.is_empty());
    let digest = |table: &String| {
        let rows = format!("select count(*), md5(string_agg(t::text, E'\\n' order by t::text collate \"C\")) from {table} as t");
        format!("{table}: {}", session.lines(&rows).concat())
    };
    tables.iter().map(digest).collect()
}

fn comes_back_whole(format: &str) {
    let cluster = shared_cluster();
    let (original, copy) = (format!("dumped_{format}"), format!("restored_{format}"));
    let (reader, writer) = (format!("dump_reader_{format}"), format!("dump_writer_{format}"));
    let mut session = cluster.new_database(&original);
    write_history(&mut session);
    for (role, level) in [(&reader, "reader"), (&writer, "writer")] {
        cluster.create_role(role);
        session.exec(&format!("select * from credits.grant_access('{role}', '{level}')"));
    }
    assert_ledger_is_sound(&mut session);

    let file = cluster.dump(&original, format);
    cluster.restore(&file, format, &copy);
    let mut restored = cluster.session(&copy);
    assert_eq!(digests(&mut restored), digests(&mut session));
    assert_ledger_is_sound(&mut restored);

    // What was done stays done: each key replays its first result.
    restored.set_clock("2026-01-12 00:00+00");
    restored.exec("select * from credits.run_maintenance()");
    let settled = digests(&mut restored);
    assert_eq!(
        restored.lines(
            "select deducted, replayed from credits.capture_hold('renewing', 'captured', 3, idempotency_key => 'capture-1')"
        ),
        ["3|t"]
    );
    assert_eq!(
        restored.lines(
            "select status, deducted, replayed from credits.deduct_usage('acme', 25, 'call-1', event_name => 'model.call')"
        ),
        ["charged|25|t"]
    );
    assert_eq!(
        restored.lines("select refunded, replayed from credits.refund_usage('acme', 'call-1', 5, 'half an answer', 'refund-1')"),
        ["5|t"]
    );
    assert_eq!(restored.error("select * from credits.deduct_usage('acme', 26, 'call-1')").sqlstate, "23505");
    assert_eq!(digests(&mut restored), settled, "replays write nothing");

    // Work goes on: the same calls in both databases have the same answers, and what falls due does.
    for (at, end_of_a_hold) in [
        ("2026-01-13 00:00+00", "status, deducted, balance from credits.capture_hold('renewing', 'captured later', 50)"),
        ("2026-02-02 00:00+00", "released, balance from credits.release_hold('renewing', 'released later')"),
        ("2026-03-02 00:00+00", "released, balance from credits.release_hold('renewing', 'lapses later')"),
    ] {
        let calls = "select customer_id, status, deducted, overage, balance, replayed
             from (values ('acme'), ('umlaut-ü'), ('renewing')) as c (customer_id)
             cross join lateral credits.deduct_usage(customer_id, 1.25)";
        for calls in [calls, &format!("select {end_of_a_hold}"), "select * from credits.run_maintenance()"] {
            session.set_clock(at);
            restored.set_clock(at);
            assert_eq!(restored.lines(calls), session.lines(calls), "{at}");
        }
    }
    for books in [
        "select customer_id, wallet, seq, kind, amount, credits, balance_after, occurred_at from credits.ledger order by 1, 2, 3",
        "select customer_id, wallet, amount, remaining, status, effective_at, expires_at, recurring_grant, contract, rolled_over
         from credits.grants order by customer_id, wallet, effective_at, amount, expires_at, remaining",
        "select * from credits.recurring_grants order by customer_id, recurring_grant",
        "select * from credits.contract_progress order by customer_id, contract",
        "select * from credits.holds order by customer_id, hold_id",
        "select customer_id, wallet, kind, quantity, unit_price, amount, currency, period_start, period_end, status from credits.invoice_lines",
    ] {
        let lines = session.lines(books);
        assert!(!lines.is_empty(), "{books}");
        assert_eq!(restored.lines(books), lines);
    }
    assert_ledger_is_sound(&mut restored);

    // Privileges that were given are in the dump, and no others.
    let mut as_reader = cluster.session_as(&copy, &reader);
    assert_eq!(as_reader.one("select count(*) from credits.balance('acme')"), "2");
    assert_eq!(as_reader.error("select * from credits.deduct_usage('acme', 1)").sqlstate, "42501");
    let mut as_writer = cluster.session_as(&copy, &writer);
    assert_eq!(as_writer.one("select status from credits.deduct_usage('acme', 0)"), "charged");
    assert_eq!(as_writer.error("select * from credits_data.entries").sqlstate, "42501");
    as_writer.exec("insert into credits.usage_inbox (customer_id, event_name) values ('acme', 'metered')");
    assert_eq!(as_writer.error("insert into credits.usage_inbox (customer_id, error) values ('acme', 'x')").sqlstate, "42501");

    // The guards came back too.
    let error = restored.error("update credits_data.entries set credits = 0");
    assert_eq!((error.sqlstate.as_str(), error.symbol()), ("42501", "append_only"), "{error}");
}

#[test]
fn a_custom_format_dump_comes_back_whole() {
    comes_back_whole("c");
}

#[test]
fn a_plain_dump_comes_back_whole() {
    comes_back_whole("p");
}

#[test]
fn an_empty_ledger_can_be_dumped_and_restored() {
    let cluster = shared_cluster();
    let mut session = cluster.new_database("dumped_empty");
    let file = cluster.dump("dumped_empty", "c");
    cluster.restore(&file, "c", "restored_empty");
    let mut restored = cluster.session("restored_empty");
    assert_eq!(digests(&mut restored), digests(&mut session));
    write_history(&mut restored);
    assert_ledger_is_sound(&mut restored);
}
