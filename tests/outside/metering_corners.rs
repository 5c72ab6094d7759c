//! Corners of metering that were found by trying to break it: what a fall gives back to an earlier grant, empty values, meters that
//! share wallets, refunds of what gave something back.

use pgrx_tests::{Session, assert_ledger_is_sound};

use crate::books::{grant, new_books, takes};

/// Status and deducted of one event of `acme`.
fn record(session: &mut Session, arguments: &str) -> String {
    session.lines(&format!("select status, deducted from credits.record_usage('acme', {arguments})")).concat()
}

#[test]
fn in_a_batch_credits_that_a_fall_gives_back_are_spent_first_if_they_come_first() {
    let mut session = new_books("a_fall_in_a_batch_and_fefo");
    grant(&mut session, "soon", "10", "expires_at => '2026-01-02 00:00+00'");
    grant(&mut session, "later", "100", "");
    session.exec(
        "select credits.create_meter('e', 'e', 'count',
             pricing => '{\"model\":\"volume\",\"tiers\":[{\"up_to\":2,\"credits\":10},{\"credits\":1}]}');
         select credits.create_meter('f', 'f', 'count')",
    );
    assert_eq!(record(&mut session, "'e'"), "charged|10");
    assert_eq!(record(&mut session, "'e'"), "charged|10");
    // The third event gives 17 of the 20 back, the last taken first: 10 to the grant that comes later, 7 to the one that comes first.
    assert_eq!(
        session.lines(
            "select status, deducted, balance from credits.record_usage_batch(
                 '[{\"customer_id\": \"acme\", \"event_name\": \"f\"}, {\"customer_id\": \"acme\", \"event_name\": \"e\"},
                   {\"customer_id\": \"acme\", \"event_name\": \"e\", \"event_id\": \"last\"}]')"
        ),
        ["charged|1|89", "charged|-17|106", "charged|1|105"]
    );
    assert_eq!(takes(&mut session, "7", ""), ["soon 6", "later 1"], "the last event took 1 of the 7");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn an_empty_text_is_a_value_like_any_other() {
    let mut session = new_books("an_empty_text_is_a_value");
    grant(&mut session, "bought", "100", "");
    session.exec("select credits.create_meter('users', 'seen', 'unique', 'user')");
    for (user, deducted) in [("", "1"), ("x", "1"), ("y", "1"), ("", "0")] {
        assert_eq!(record(&mut session, &format!("'seen', '{{\"user\": \"{user}\"}}'")), format!("charged|{deducted}"));
    }
    session
        .exec("select credits.refund_usage('acme', transaction_id) from credits.usage_events where properties ->> 'user' = ''");
    assert_eq!(session.one("select aggregate from credits.meter_usage"), "2");
    assert_eq!(record(&mut session, "'seen', '{\"user\": \"\"}'"), "charged|1");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_was_never_paid_is_not_given_back() {
    let mut session = new_books("what_was_never_paid");
    grant(&mut session, "bought", "10", "");
    session.exec(
        "select credits.create_meter('level', 'level', 'latest', 'n', pricing => '{\"model\":\"per_unit\",\"credits\":3}')",
    );
    assert_eq!(record(&mut session, "'level', '{\"n\": 25}', on_insufficient => 'partial'"), "partial|10");
    assert_eq!(record(&mut session, "'level', '{\"n\": 20}'"), "charged|0", "60 are due, 10 were paid");
    assert_eq!(record(&mut session, "'level', '{\"n\": 2}'"), "charged|-4", "6 are due");
    assert_eq!(record(&mut session, "'level', '{\"n\": 0}'"), "charged|-6");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_refund_of_an_event_that_gave_back_leaves_what_the_level_costs() {
    let mut session = new_books("a_refund_of_an_event_that_gave_back");
    grant(&mut session, "bought", "100", "");
    session.exec("select credits.create_meter('x1', 'x', 'latest', 'a'); select credits.create_meter('x2', 'x', 'latest', 'b')");
    assert_eq!(record(&mut session, "'x', '{\"a\": 5, \"b\": 0}', 'first'"), "charged|5");
    assert_eq!(record(&mut session, "'x', '{\"a\": 0, \"b\": 10}', 'second'"), "charged|5");
    assert_eq!(session.lines("select refunded, balance from credits.refund_usage('acme', 'second')"), ["5|95"], "what it cost");
    assert_eq!(session.lines("select meter, aggregate from credits.meter_usage order by meter"), ["x1|5", "x2|0"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn an_entitlement_of_meters_that_share_wallets_is_what_charging_does() {
    let mut session = new_books("entitlement_of_shared_wallets");
    session.exec(
        "select credits.create_wallet('zoe'); select credits.create_wallet('zoe', 'w'); select credits.grant_credits('zoe', 5, 'w');
         select credits.create_meter('s1', 'f', 'count', pricing => '{\"model\":\"per_unit\",\"credits\":5}', wallet => 'w');
         select credits.create_meter('s2', 'f', 'count', pricing => '{\"model\":\"per_unit\",\"credits\":5}')",
    );
    let check = "select * from credits.check_entitlement('zoe', event_name => 'f')";
    assert_eq!(session.lines(check), ["f|insufficient_credits|10|5|f"]);
    assert_eq!(session.error("select * from credits.record_usage('zoe', 'f')").symbol(), "insufficient_credits");
    session.exec("select credits.grant_credits('zoe', 5)");
    assert_eq!(session.lines(check), ["t||10|10|f"]);
    assert_eq!(session.one("select deducted from credits.record_usage('zoe', 'f')"), "10");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn an_entitlement_counts_what_the_event_itself_gives_back() {
    let mut session = new_books("entitlement_with_a_fall");
    grant(&mut session, "bought", "20", "");
    session.exec(
        "select credits.create_meter('v', 'e', 'sum', 'n',
             pricing => '{\"model\":\"volume\",\"tiers\":[{\"up_to\":10,\"credits\":2},{\"credits\":1}]}')",
    );
    assert_eq!(record(&mut session, "'e', '{\"n\": 10}'"), "charged|20");
    session.exec("select credits.create_meter('c', 'e', 'count', pricing => '{\"model\":\"per_unit\",\"credits\":5}')");
    let check = "select * from credits.check_entitlement('acme', event_name => 'e', properties => '{\"n\": 1}')";
    assert_eq!(session.lines(check), ["t||-4|0|f"]);
    assert_eq!(record(&mut session, "'e', '{\"n\": 1}'"), "charged|-4");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_meter_that_does_not_count_an_event_needs_no_wallet_for_it() {
    let mut session = new_books("an_excluded_meter_needs_no_wallet");
    grant(&mut session, "bought", "10", "");
    session.exec(
        "select credits.create_meter('w1', 'w', 'count', wallet => 'default', filter => '{\"plan\": 1}');
         select credits.create_meter('w2', 'w', 'count', wallet => 'other', filter => '{\"plan\": 2}')",
    );
    assert_eq!(record(&mut session, "'w', '{\"plan\": 1}'"), "charged|1");
    assert_eq!(session.error("select * from credits.record_usage('acme', 'w', '{\"plan\": 2}')").symbol(), "not_found");
    assert_eq!(record(&mut session, "'w', '{\"plan\": 3}'"), "charged|0");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn duplicates_that_maintenance_drops_do_not_stop_its_loop() {
    let mut session = new_books("duplicates_do_not_stop_maintenance");
    grant(&mut session, "bought", "10", "");
    session.exec("select credits.create_meter('m', 'call', 'count')");
    assert_eq!(record(&mut session, "'call', idempotency_key => 'known'"), "charged|1");
    session.exec(
        "insert into credits.usage_inbox (customer_id, event_id, event_name)
         values ('acme', 'known', 'call'), ('acme', 'known', 'call'), ('acme', 'new', 'call')",
    );
    let run = "select items, credits, more_due from credits.run_maintenance(2) where task = 'process_inbox'";
    assert_eq!(session.lines(run), ["2|0|t"]);
    assert_eq!(session.lines(run), ["1|1|f"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn an_event_that_waits_is_tried_again_when_a_refund_makes_room_for_overage() {
    let mut session = new_books("a_refund_makes_room_for_overage");
    session.exec(
        "select credits.create_wallet('ov', overage_policy => 'overdraft', overage_limit => 5);
         select credits.create_meter('m', 'call', 'count', pricing => '{\"model\":\"per_unit\",\"credits\":5}');
         select * from credits.deduct_usage('ov', 5, 'd');
         insert into credits.usage_inbox (customer_id, event_id, event_name) values ('ov', 'waits', 'call')",
    );
    assert_eq!(session.lines("select * from credits.process_inbox()"), ["0|1|0|f"]);
    session.exec("select * from credits.refund_usage('ov', 'd')");
    assert_eq!(session.lines("select * from credits.process_inbox()"), ["1|0|5|f"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn in_a_batch_a_used_key_replays_in_a_wallet_that_would_refuse_it_now() {
    let mut session = new_books("a_used_key_replays_in_a_batch");
    grant(&mut session, "bought", "5", "");
    session.exec("select credits.create_meter('m', 'call', 'count', pricing => '{\"model\":\"per_unit\",\"credits\":5}')");
    let batch = "select line, status, deducted, replayed, split_part(error, ':', 1) from credits.record_usage_batch(
             '[{\"customer_id\": \"acme\", \"event_name\": \"call\", \"event_id\": \"first\"},
               {\"customer_id\": \"acme\", \"event_name\": \"call\", \"event_id\": \"second\"},
               {\"customer_id\": \"acme\", \"event_name\": \"call\", \"event_id\": \"third\", \"on_insufficient\": \"report\"}]')";
    let second = ["2|failed|0|f|insufficient_credits", "3|insufficient|0|f|"];
    assert_eq!(session.lines(batch), [&["1|charged|5|f|"], &second[..]].concat());
    assert_eq!(session.lines(batch), [&["1|charged|5|t|"], &second[..]].concat(), "it is empty now");
    session.exec("select credits.set_wallet_status('acme', 'default', 'frozen')");
    let frozen = ["2|failed|0|f|wrong_state", "3|failed|0|f|wrong_state"];
    assert_eq!(session.lines(batch), [&["1|charged|5|t|"], &frozen[..]].concat());
    session.exec("select credits.set_wallet_status('acme', 'default', 'active'), credits.grant_credits('acme', 100)");
    assert_eq!(session.lines(batch), ["1|charged|5|t|", "2|charged|5|f|", "3|charged|5|f|"], "the index refuses the first");
    assert_eq!(session.lines(batch), ["1|charged|5|t|", "2|charged|5|t|", "3|charged|5|t|"]);
    let reused = "select status, split_part(error, ':', 1) from credits.deduct_usage_batch(
             '[{\"customer_id\": \"acme\", \"amount\": 1, \"idempotency_key\": \"first\"},
               {\"customer_id\": \"acme\", \"amount\": 1, \"idempotency_key\": \"fresh\"}]')";
    assert_eq!(session.lines(reused), ["failed|idempotency_key_reused", "charged|"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_trigger_or_an_index_that_somebody_added_is_served_by_every_event() {
    let mut session = new_books("a_trigger_on_the_periods");
    grant(&mut session, "bought", "100", "");
    session.exec("select credits.create_meter('calls', 'call', 'count')");
    for _ in 0..2 {
        assert_eq!(record(&mut session, "'call'"), "charged|1");
    }
    session.exec("create index by_half on credits_data.meter_periods ((aggregate / 2))");
    assert_eq!(record(&mut session, "'call'"), "charged|1");
    session.exec("set enable_seqscan = off");
    assert_eq!(session.one("select aggregate from credits_data.meter_periods where aggregate / 2 = 1.5"), "3");
    session.exec(
        "drop index credits_data.by_half;
         create table public.seen (aggregate numeric);
         create function public.see() returns trigger language plpgsql as $$
             begin insert into public.seen values (new.aggregate); return null; end $$;
         create trigger sees after update on credits_data.meter_periods for each row execute function public.see()",
    );
    for _ in 0..2 {
        assert_eq!(record(&mut session, "'call'"), "charged|1");
    }
    assert_eq!(session.lines("select aggregate from public.seen order by 1"), ["4", "5"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn events_of_one_statement_and_of_one_transaction_see_each_other() {
    let mut session = new_books("events_see_each_other");
    grant(&mut session, "bought", "100", "");
    session.exec("select credits.create_meter('calls', 'call', 'count')");
    assert_eq!(record(&mut session, "'call'"), "charged|1");
    let both = "select a.balance, b.balance from credits.record_usage('acme', 'call') a, credits.record_usage('acme', 'call') b";
    assert_eq!(session.lines(both), ["98|97"]);
    session.exec("begin isolation level repeatable read");
    assert_eq!(session.lines(both), ["96|95"]);
    assert_eq!(record(&mut session, "'call'"), "charged|1");
    session.exec("savepoint s");
    assert_eq!(record(&mut session, "'call'"), "charged|1");
    session.exec("rollback to s; commit");
    assert_eq!(session.one("select aggregate from credits.meter_usage"), "6");
    assert_ledger_is_sound(&mut session);
}
