//! What the tests of the ledger share: a customer `acme` on January 1st, 2026, grants that carry a name, and who paid what.

use pgrx_tests::{Session, shared_cluster};

/// A new database, its clock at 2026-01-01, in which `acme` has the wallet `default`.
pub fn new_books(rule: &str) -> Session {
    let mut session = shared_cluster().new_database(rule);
    session.set_clock("2026-01-01 00:00+00");
    session.exec("select credits.create_wallet('acme')");
    session
}

/// Grants `acme` credits under a name, which [`takes`] and [`entries`] show. `more` is further arguments as in SQL, or empty.
/// Returns the grant's id.
pub fn grant(session: &mut Session, name: &str, amount: &str, more: &str) -> String {
    let more = if more.is_empty() { String::new() } else { format!(", {more}") };
    session.one(&format!("select credits.grant_credits('acme', {amount}, metadata => '{{\"name\": \"{name}\"}}'{more})"))
}

/// Status, requested, deducted, overage, balance and replayed of one deduction of `acme`.
pub fn deduct(session: &mut Session, arguments: &str) -> String {
    let rows = session.lines(&format!(
        "select status, requested, deducted, overage, balance, replayed from credits.deduct_usage('acme', {arguments})"
    ));
    assert_eq!(rows.len(), 1, "always one row");
    rows.concat()
}

/// The entries of one transaction of `acme`, line by line: wallet, kind, credits and, if there is one, the grant's name.
pub fn entries(session: &mut Session, transaction_id: &str) -> Vec<String> {
    session
        .rows_text(
            "select concat_ws(' ', l.wallet, kind, credits, g.metadata ->> 'name')
             from credits.ledger l left join credits.grants g using (customer_id, grant_id)
             where customer_id = 'acme' and transaction_id = $1
             order by line",
            &[transaction_id],
        )
        .into_iter()
        .map(|row| row[0].clone().expect("concat_ws is never null"))
        .collect()
}

/// Spends credits of `acme` and returns whose they were, as `name credits` in the order in which they were taken.
/// What a preview says a moment before must be the same. `more` is further arguments for both, or empty.
pub fn takes(session: &mut Session, amount: &str, more: &str) -> Vec<String> {
    let more = if more.is_empty() { String::new() } else { format!(", {more}") };
    let previewed = session.lines(&format!(
        "select concat_ws(' ', g.metadata ->> 'name', credits)
         from rows from (credits.preview_deduction('acme', {amount}{more})) with ordinality as p
         join credits.grants g on g.customer_id = 'acme' and g.grant_id = p.grant_id
         order by p.ordinality"
    ));
    let transaction_id = session.one(&format!("select transaction_id from credits.deduct_usage('acme', {amount}{more})"));
    let taken: Vec<String> = entries(session, &transaction_id)
        .into_iter()
        .map(|entry| entry.splitn(3, ' ').nth(2).expect("wallet, kind and the rest").to_owned())
        .map(|rest| rest.split_once(' ').map_or(rest.clone(), |(credits, name)| format!("{name} {credits}")))
        .collect();
    assert_eq!(previewed, taken, "the preview says what is taken");
    taken
}

/// The whole ledger of `acme` without ids: wallet, seq, kind, amount, balance after it and the day or time it is dated.
pub fn ledger(session: &mut Session) -> Vec<String> {
    session.lines(
        "select concat_ws(' ', wallet, seq, kind, amount, balance_after, to_char(occurred_at, 'MM-DD HH24:MI'))
         from credits.ledger where customer_id = 'acme' order by wallet, seq",
    )
}

/// A digest of everything the extension has written, to prove that nothing was.
pub fn everything(session: &mut Session) -> Vec<String> {
    session.lines(
        "select 'wallet ' || t::text from credits_data.wallets t
         union all select 'grant ' || t::text from credits_data.grants t
         union all select 'entry ' || t::text from credits_data.entries t
         union all select 'hold ' || t::text from credits_data.holds t
         union all select 'recurring grant ' || t::text from credits_data.recurring_grants t
         union all select 'contract ' || t::text from credits_data.contracts t
         union all select 'invoice line ' || t::text from credits_data.invoice_lines t
         union all select 'meter ' || t::text from credits_data.meters t
         union all select 'price list ' || t::text from credits_data.meter_prices t
         union all select 'own price list ' || t::text from credits_data.customer_prices t
         union all select 'period ' || t::text from credits_data.meter_periods t
         union all select 'value ' || t::text from credits_data.meter_values t
         union all select 'endpoint ' || t::text from credits_data.webhook_endpoints t
         union all select 'event ' || t::text from credits_data.events t
         union all select 'delivery ' || t::text from credits_data.webhook_deliveries t
         union all select 'alert ' || t::text from credits_data.alerts t
         union all select 'auto top-up ' || t::text from credits_data.top_up_rules t
         union all select 'top-up ' || t::text from credits_data.top_ups t
         union all select 'waiting event ' || t::text from credits.usage_inbox t
         order by 1",
    )
}

/// What the world outside was told since the last call: the customer but for `acme`, type, the wallet but for `default`, the alert's
/// threshold, balance + held after `at`, then an amount and a reason.
pub fn told(session: &mut Session) -> Vec<String> {
    session.lines(
        "with told as (
             update credits_data.events set acknowledged_at = clock_timestamp() where acknowledged_at is null
             returning event_number, customer_id, type, payload -> 'data' as data)
         select concat_ws(' ', nullif(customer_id, 'acme'), type, nullif(data ->> 'wallet', 'default'),
             (data ->> 'threshold_percent') || '%', data ->> 'threshold_credits',
             'at ' || trim_scale((data ->> 'balance')::numeric + (data ->> 'held')::numeric),
             coalesce(data ->> 'amount', data ->> 'credits', data ->> 'remaining'), data ->> 'reason')
         from told order by event_number",
    )
}

/// Held, balance and replayed of one hold of `acme`.
pub fn hold(session: &mut Session, arguments: &str) -> String {
    let rows = session.lines(&format!("select held, balance, replayed from credits.hold_credits('acme', {arguments})"));
    assert_eq!(rows.len(), 1, "always one row");
    rows.concat()
}

/// Status, requested, deducted, overage, balance and replayed of one capture of `acme`.
pub fn capture(session: &mut Session, arguments: &str) -> String {
    let rows = session.lines(&format!(
        "select status, requested, deducted, overage, balance, replayed from credits.capture_hold('acme', {arguments})"
    ));
    assert_eq!(rows.len(), 1, "always one row");
    rows.concat()
}

/// Hold, released and balance of one release of `acme`.
pub fn release(session: &mut Session, hold_id: &str) -> String {
    let rows = session.rows_text("select hold_id, released, balance from credits.release_hold('acme', $1)", &[hold_id]);
    assert_eq!(rows.len(), 1, "always one row");
    rows.into_iter().flatten().map(Option::unwrap_or_default).collect::<Vec<_>>().join("|")
}

/// The holds of `acme` by the clock: id and status, and of an open one what it holds.
pub fn holds(session: &mut Session) -> Vec<String> {
    session.lines(
        "select concat_ws(' ', hold_id, status, case when status = 'open' then held end)
         from credits.holds where customer_id = 'acme' order by hold_id",
    )
}

/// What was moved in the name of a hold after it was made, in the order of the ledger: wallet, kind, credits, the grant's name and
/// the day and time it is dated.
pub fn end_of(session: &mut Session, hold_id: &str) -> Vec<String> {
    session
        .rows_text(
            "select concat_ws(' ', l.wallet, kind, credits, g.metadata ->> 'name', to_char(occurred_at, 'MM-DD HH24:MI'))
             from credits.ledger l left join credits.grants g using (customer_id, grant_id)
             where customer_id = 'acme' and refers_to = $1
             order by occurred_at, l.wallet, seq",
            &[hold_id],
        )
        .into_iter()
        .map(|row| row[0].clone().expect("concat_ws is never null"))
        .collect()
}

/// Calls that must be refused without a trace: what follows `select * from credits.`, its SQLSTATE and its symbol.
#[track_caller]
pub fn assert_refused(session: &mut Session, refusals: &[(&str, &str, &str)]) {
    let before = everything(session);
    for (call, sqlstate, symbol) in refusals {
        let error = session.error(&format!("select * from credits.{call}"));
        assert_eq!((error.sqlstate.as_str(), error.symbol()), (*sqlstate, *symbol), "{call}\n{error}");
    }
    assert_eq!(everything(session), before, "what is refused leaves nothing");
}
