//! What `verify_ledger` reads: customers page by page, a customer's grants, a wallet's entries page by page. Read-only, one snapshot.

use std::collections::HashMap;

use uuid::Uuid;

use super::codec::{Codec, text};
use super::ledger::{Sum, stored_kind};
use super::statement::{Access, Row, statements};
use crate::domain::amount::Amount;
use crate::domain::invoice::money;
use crate::domain::names::{CustomerId, EventName, WalletCode};
use crate::domain::verify::{PostedEntry, Violation};

statements! {
    /// The next customers, also those whose anchor is missing. Index scan on the primary key.
    CUSTOMERS(TEXTOID, INT8OID) = "
        select distinct customer_id
        from credits_data.wallets
        where customer_id > $1
        order by customer_id
        limit $2";

    ENTRIES(TEXTOID, TEXTOID, INT8OID, INT8OID) = "
        select seq, kind, credits, balance_after, grant_id, occurred_at, usage_at, event_name, transaction_id
        from credits_data.entries
        where customer_id = $1
          and wallet = $2
          and seq > $3
        order by seq
        limit $4";

    /// Transactions of a customer that are not one whole.
    BROKEN_TRANSACTIONS(TEXTOID) = "
        select transaction_id
        from credits_data.entries
        where customer_id = $1
        group by transaction_id
        having min(line) <> 1
            or max(line) <> count(*)
            or min(recorded_at) <> max(recorded_at)
            or count(fingerprint) <> 1
        order by transaction_id";

    /// A customer's anchor against its rows.
    BROKEN_ANCHOR(TEXTOID) = "
        select case
            when count(*) filter (where w.is_anchor) <> 1
                then 'the customer has no anchor'
            when max(w.wallet_count) filter (where w.is_anchor) <> count(*)
                then 'the anchor does not count its wallets'
            when min(w.next_due_at) filter (where w.is_anchor)
                > (select min(g.due_at) from credits_data.grants g where g.customer_id = $1 and g.due_at < 'infinity')
                then 'the anchor is due later than a grant'
            when min(w.next_due_at) filter (where w.is_anchor) > least(
                (select min(r.due_at) from credits_data.recurring_grants r where r.customer_id = $1 and r.due_at < 'infinity'),
                (select min(k.due_at) from credits_data.contracts k where k.customer_id = $1 and k.due_at < 'infinity'),
                (select min(h.due_at) from credits_data.holds h where h.customer_id = $1 and h.due_at < 'infinity'),
                (select min(t.due_at) from credits_data.top_up_rules t where t.customer_id = $1 and t.due_at < 'infinity'))
                then 'the anchor is due later than a recurring grant, a contract, a hold or a top-up'
            when max(w.last_recorded_at) filter (where w.is_anchor)
                < (select max(e.recorded_at) from credits_data.entries e where e.customer_id = $1)
                then 'the anchor''s time lies before that of an entry'
            when exists (
                select from credits_data.grants g
                where g.customer_id = $1
                  and g.due_at <> case g.status when 'scheduled' then g.effective_at when 'active' then g.expires_at else 'infinity' end
            )
                then 'a grant is not due when its status says'
            when count(*) filter (where (w.head_grant_id is null) <> (w.head_remaining is null)) > 0
                then 'a wallet has half of a riding grant'
            end
        from credits_data.wallets w
        where w.customer_id = $1";

    /// Open holds are those, and only those, of which something is held; what rolled over went somewhere.
    BROKEN_HOLDS(TEXTOID) = "
        select case when h.status = 'open' then 'open hold ' else h.status::text || ' hold ' end || h.hold_id || ' has '
               || trim_scale(held.credits) || ' credits held'
        from credits_data.holds h
        cross join lateral (
            select coalesce(sum(case e.kind when 15 then e.credits else -e.credits end), 0) as credits
            from credits_data.entries e
            where e.customer_id = h.customer_id
              and (e.transaction_id = h.hold_id and e.kind = 15 or e.refers_to = h.hold_id and e.kind in (16, 17))
        ) held
        where h.customer_id = $1
          and (h.status = 'open') <> (held.credits > 0)
        union all
        select 'hold ' || h.hold_id || ' is not due when its status says'
        from credits_data.holds h
        where h.customer_id = $1
          and h.due_at <> case h.status when 'open' then h.expires_at else 'infinity' end
        union all
        select 'hold ' || e.transaction_id || ' stands in the ledger only'
        from credits_data.entries e
        where e.customer_id = $1
          and e.kind = 15
          and not exists (select from credits_data.holds h where h.customer_id = $1 and h.hold_id = e.transaction_id)
        union all
        select 'transaction ' || e.transaction_id || ' does not move all of what leaves a grant to another'
        from credits_data.entries e
        where e.customer_id = $1
          and e.kind in (11, 12, 13, 14)
        group by e.transaction_id
        having sum(case when e.kind in (11, 13) then e.credits else -e.credits end) <> 0";

    /// Invoice lines against the entries they are of: by wallet, price and currency, up to the last entry that is on a line.
    BROKEN_OVERAGE(TEXTOID) = "
        with closed as (
            select e.wallet, e.unit_price, e.currency, sum(case e.kind when 18 then e.credits else -e.credits end) as quantity
            from credits_data.entries e
            join credits_data.wallets w
                on w.customer_id = e.customer_id
               and w.wallet = e.wallet
            where e.customer_id = $1
              and e.kind in (18, 19)
              and e.seq <= w.overage_closed_seq
            group by e.wallet, e.unit_price, e.currency
        ), lines as (
            select l.wallet, l.unit_price, l.currency, sum(l.quantity) as quantity
            from credits_data.invoice_lines l
            where l.customer_id = $1
              and l.kind = 'overage'
            group by l.wallet, l.unit_price, l.currency
        )
        select coalesce(c.wallet, l.wallet),
               'overage at ' || coalesce(c.unit_price, l.unit_price) || ' ' || coalesce(c.currency, l.currency) || ': lines have '
               || trim_scale(coalesce(l.quantity, 0)) || ' credits, the entries that are on lines '
               || trim_scale(coalesce(c.quantity, 0))
        from closed c
        full join lines l
            on l.wallet = c.wallet
           and l.unit_price = c.unit_price
           and l.currency = c.currency
        where coalesce(l.quantity, 0) <> coalesce(c.quantity, 0)
        union all
        select w.wallet, 'overage of entry ' || e.seq || ' is not on a line, and the wallet does not say that any is open'
        from credits_data.wallets w
        cross join lateral (
            select min(o.seq) as seq
            from credits_data.entries o
            where o.customer_id = w.customer_id
              and o.wallet = w.wallet
              and o.kind in (18, 19)
              and o.seq > w.overage_closed_seq
        ) e
        where w.customer_id = $1
          and not w.has_open_overage
          and e.seq is not null";

    /// Invoice lines. Primary key.
    LINES(TEXTOID) = "
        select line_id, wallet, kind = 'overage', quantity, unit_price, amount, currency
        from credits_data.invoice_lines
        where customer_id = $1
        order by line_id";

    /// What meters counted against what the events in the ledger say, and against the values that are kept.
    BROKEN_METERS(TEXTOID) = "
        with counted as (
            select k.key as meter,
                   (k.value ->> 'period_start')::timestamptz as period_start,
                   coalesce(k.value ->> 'rate', '') as rate,
                   case when k.value ? 'taken_out' then -1 else 1 end as sign,
                   (k.value ->> 'quantity')::numeric as quantity
            from credits_data.entries e
            cross join lateral jsonb_each(e.metered::jsonb) k
            where e.customer_id = $1
              and e.metered is not null
        ), of_events as (
            select meter, period_start, rate, sum(sign) as events, sum(sign * quantity) as quantity
            from counted
            group by meter, period_start, rate
        ), of_values as (
            select v.meter, v.period_start, v.rate,
                   sum(v.events) as events,
                   count(*) filter (where v.events > 0) as different,
                   (array_agg(v.number order by v.value desc, v.rank desc, v.arrival desc) filter (where v.events > 0))[1] as last
            from credits_data.meter_values v
            where v.customer_id = $1
            group by v.meter, v.period_start, v.rate
        ), of_periods as (
            select p.meter, p.period_start, p.rate, p.events, p.aggregate, m.aggregation::text as aggregation
            from credits_data.meter_periods p
            left join credits_data.meters m
                on m.meter = p.meter
            where p.customer_id = $1
        )
        select 'meter ' || meter || ' counts ' || coalesce(p.events, 0) || ' events, ' || trim_scale(coalesce(p.aggregate, 0))
               || ' in all, in its period from ' || period_start || ' (' || rate || '); its events and values say '
               || coalesce(e.events, 0) || ', '
               || trim_scale(coalesce(
                      case when p.aggregation in ('sum', 'count') then e.quantity when p.aggregation = 'unique' then v.different else v.last end,
                      0))
        from of_periods p
        full join of_events e using (meter, period_start, rate)
        full join of_values v using (meter, period_start, rate)
        where coalesce(p.events, 0) <> coalesce(e.events, 0)
           or coalesce(p.aggregate, 0) <> coalesce(
                  case when p.aggregation in ('sum', 'count') then e.quantity when p.aggregation = 'unique' then v.different else v.last end, 0)
           or coalesce(v.events, p.events) <> coalesce(p.events, 0)";

    /// Rows without a wallet, and kinds that the chart in the table does not know as the library does.
    ORPHANS(TEXTOID) = "
        select 1, customer_id, wallet, 'entries without a wallet'
        from (select distinct customer_id, wallet from credits_data.entries where $1 is null or customer_id = $1) e
        where not exists (select from credits_data.wallets w where w.customer_id = e.customer_id and w.wallet = e.wallet)
        union all
        select 1, customer_id, wallet, 'grants without a wallet'
        from (select distinct customer_id, wallet from credits_data.grants where $1 is null or customer_id = $1) g
        where not exists (select from credits_data.wallets w where w.customer_id = g.customer_id and w.wallet = g.wallet)
        union all
        select 8, '', null, 'the chart of accounts is not the extension''s for kind ' || kind
        from (
            (table credits_data.chart_of_accounts except select * from credits.chart_of_accounts())
            union all
            (select * from credits.chart_of_accounts() except table credits_data.chart_of_accounts)
        ) c";
}

/// Up to `customers_max` customers after one.
pub fn customers_after(customer_id: &str, customers_max: i64) -> Vec<CustomerId> {
    let parameters = [Some(text(customer_id)), Some(customers_max.encode())];
    let rows = CUSTOMERS.with(|statement| statement.run(Access::Read, &parameters));
    rows.iter().map(|mut row| CustomerId::stored(row.take())).collect()
}

/// Up to `entries_max` entries of a wallet after one.
pub fn entries_after(customer_id: &CustomerId, wallet: &WalletCode, seq: i64, entries_max: i64) -> Vec<PostedEntry> {
    let parameters =
        [Some(text(customer_id.as_str())), Some(text(wallet.as_str())), Some(seq.encode()), Some(entries_max.encode())];
    let rows = ENTRIES.with(|statement| statement.run(Access::Read, &parameters));
    let read = |mut row: Row| PostedEntry {
        seq: row.take(),
        kind: stored_kind(row.take()),
        credits: row.take(),
        balance_after: row.take(),
        grant: row.optional(),
        occurred_at: row.take(),
        usage_at: row.optional(),
        event_name: row.optional().map(EventName::stored),
        transaction_id: row.take(),
    };
    rows.iter().map(read).collect()
}

/// What is wrong with a customer's transactions and anchor.
pub fn broken(customer_id: &CustomerId) -> Vec<Violation> {
    let parameters = [Some(text(customer_id.as_str()))];
    let violation = |invariant, detail| Violation { invariant, customer_id: customer_id.to_string(), wallet: None, detail };
    let transactions = BROKEN_TRANSACTIONS.with(|statement| statement.run(Access::Read, &parameters));
    let mut violations: Vec<Violation> = transactions
        .iter()
        .map(|mut row| violation(4, format!("transaction \"{}\" is not one whole", row.take::<String>())))
        .collect();
    let holds = BROKEN_HOLDS.with(|statement| statement.run(Access::Read, &parameters));
    violations.extend(holds.iter().map(|mut row| violation(1, row.take())));
    let meters = BROKEN_METERS.with(|statement| statement.run(Access::Read, &parameters));
    violations.extend(meters.iter().map(|mut row| violation(10, row.take())));
    let overage = BROKEN_OVERAGE.with(|statement| statement.run(Access::Read, &parameters));
    violations.extend(overage.iter().map(|mut row| {
        let wallet = Some(row.take());
        Violation { wallet, ..violation(9, row.take()) }
    }));
    let anchor = BROKEN_ANCHOR.with(|statement| statement.run(Access::Read, &parameters));
    violations.extend(anchor.iter().filter_map(|mut row| Some(violation(1, row.optional()?))));
    violations
}

/// Credits of overage on the invoice lines of a customer's wallets, and the lines whose money is not quantity times unit price.
pub fn invoiced(customer_id: &CustomerId) -> (HashMap<WalletCode, Amount>, Vec<Violation>) {
    let rows = LINES.with(|statement| statement.run(Access::Read, &[Some(text(customer_id.as_str()))]));
    let (mut invoiced, mut wrong) = (HashMap::<WalletCode, Amount>::new(), Vec::new());
    for mut row in rows.iter() {
        let (line, wallet, is_overage): (Uuid, String, bool) = (row.take(), row.take(), row.take());
        let (Sum(quantity), unit_price, Sum(amount), currency): (Sum, Amount, Sum, String) =
            (row.take(), row.take(), row.take(), row.take());
        if money(quantity, unit_price, &currency) != Some(amount) {
            wrong.push(Violation {
                invariant: 9,
                customer_id: customer_id.to_string(),
                wallet: Some(wallet.clone()),
                detail: format!("line {line} says {amount} {currency} for {quantity} credits at {unit_price}"),
            });
        }
        if is_overage {
            *invoiced.entry(WalletCode::stored(wallet.into())).or_default() += quantity;
        }
    }
    (invoiced, wrong)
}

/// Rows that belong to no wallet, of a customer or of all, and a chart of accounts that was changed.
pub fn orphans(customer_id: Option<&CustomerId>) -> Vec<Violation> {
    let parameters = [customer_id.map(|id| text(id.as_str()))];
    let rows = ORPHANS.with(|statement| statement.run(Access::Read, &parameters));
    let read =
        |mut row: Row| Violation { invariant: row.take(), customer_id: row.take(), wallet: row.optional(), detail: row.take() };
    rows.iter().map(read).collect()
}
