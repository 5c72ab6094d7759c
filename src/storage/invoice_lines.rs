//! Invoice lines, and the overage that is not on one yet.

use uuid::Uuid;

use super::codec::{Codec, text};
use super::columns::Columns;
use super::ledger::Sum;
use super::statement::{Access, Row, statements};
use crate::domain::book::Book;
use crate::domain::invoice::InvoiceLine;
use crate::domain::names::{CustomerId, WalletCode};
use crate::domain::overage::OpenOverage;
use crate::domain::time::Timestamp;

statements! {
    /// New lines of many customers.
    CREATE(
        TEXTARRAYOID, UUIDARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, NUMERICARRAYOID, NUMERICARRAYOID, NUMERICARRAYOID,
        TEXTARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID
    ) = "
        insert into credits_data.invoice_lines (
            customer_id, line_id, wallet, kind, contract, quantity, unit_price, amount, currency, period_start, period_end, created_at
        )
        select customer_id, line_id, wallet, kind::credits_data.invoice_line_kind, contract, quantity, unit_price, amount, currency,
               period_start, period_end, created_at
        from (
            select unnest($1) as customer_id, unnest($2) as line_id, unnest($3) as wallet, unnest($4) as kind, unnest($5) as contract,
                   unnest($6) as quantity, unnest($7) as unit_price, unnest($8) as amount, unnest($9) as currency,
                   unnest($10) as period_start, unnest($11) as period_end, unnest($12) as created_at
        ) n";

    /// Overage (18) and its refunds (19) after a number, by price. Times never run backwards in a wallet, so the index on them finds
    /// the first. Index scan on entries_overage.
    OPEN(TEXTOID, TEXTOID, INT8OID, TIMESTAMPTZOID) = "
        select unit_price, currency, sum(case kind when 18 then credits else -credits end), min(occurred_at), max(seq),
               occurred_at < $4
        from credits_data.entries
        where customer_id = $1
          and wallet = $2
          and kind in (18, 19)
          and occurred_at >= coalesce((
              select c.occurred_at
              from credits_data.entries c
              where c.customer_id = $1
                and c.wallet = $2
                and c.seq = $3
          ), '-infinity')
          and seq > $3
        group by unit_price, currency, occurred_at < $4";

    /// Up to $2 customers after $3 with overage older than $1 that is not on a line. Index scans on wallets_open_overage and
    /// entries_overage, one row each.
    CLOSABLE(TIMESTAMPTZOID, INT8OID, TEXTOID) = "
        select distinct w.customer_id
        from credits_data.wallets w
        cross join lateral (
            select e.occurred_at
            from credits_data.entries e
            where e.customer_id = w.customer_id
              and e.wallet = w.wallet
              and e.kind in (18, 19)
              and e.occurred_at >= coalesce((
                  select c.occurred_at
                  from credits_data.entries c
                  where c.customer_id = w.customer_id
                    and c.wallet = w.wallet
                    and c.seq = w.overage_closed_seq
              ), '-infinity')
              and e.seq > w.overage_closed_seq
            order by e.occurred_at
            limit 1
        ) oldest
        where w.has_open_overage
          and w.customer_id > $3
          and oldest.occurred_at < $1
        order by w.customer_id
        limit $2";

    /// A line's reference. Primary key, one row.
    REFERENCE(TEXTOID, UUIDOID) = "
        select invoice_reference
        from credits_data.invoice_lines
        where customer_id = $1
          and line_id = $2";

    /// Primary key, one row.
    MARK(TEXTOID, UUIDOID, TEXTOID) = "
        update credits_data.invoice_lines
        set status = 'invoiced',
            invoice_reference = $3
        where customer_id = $1
          and line_id = $2";
}

/// Stores the lines that some books made.
pub fn create(books: &[&Book<'_>]) {
    let lines = Columns::of(books, |book| book.lines.iter());
    if lines.is_empty() {
        return;
    }
    let parameters = [
        lines.customers(),
        lines.column(|line: &InvoiceLine| Some(line.line_id)),
        lines.texts(|line| Some(line.wallet.as_str())),
        lines.texts(|line| Some(line.kind.code())),
        lines.texts(|line| line.contract.as_ref().map(|contract| contract.as_str())),
        lines.column(|line| Some(line.quantity)),
        lines.column(|line| Some(line.unit_price)),
        lines.column(|line| Some(line.amount)),
        lines.texts(|line| Some(line.currency.as_str())),
        lines.column(|line| Some(line.period_start)),
        lines.column(|line| Some(line.period_end)),
        lines.now(),
    ];
    CREATE.with(|statement| statement.run(Access::Write, &parameters));
}

/// Overage of a wallet that is not on a line: entries after a number, by price, and whether they are older than an instant.
pub fn open_overage(
    access: Access,
    customer_id: &CustomerId,
    wallet: &WalletCode,
    after_seq: i64,
    before: Timestamp,
) -> Vec<OpenOverage> {
    let parameters =
        [Some(text(customer_id.as_str())), Some(text(wallet.as_str())), Some(after_seq.encode()), Some(before.encode())];
    let rows = OPEN.with(|statement| statement.run(access, &parameters));
    let read = |mut row: Row<'_>| OpenOverage {
        unit_price: row.take(),
        currency: row.take(),
        quantity: row.take::<Sum>().0,
        from: row.take(),
        last_seq: row.take(),
        is_older: row.take(),
    };
    rows.iter().map(read).collect()
}

/// Customers with overage older than an instant that is not on a line, in the order of their ids, after one.
pub fn closable(before: Timestamp, customers_max: i64, after: Option<&CustomerId>) -> Vec<CustomerId> {
    let after = after.map_or("", |customer_id| customer_id.as_str());
    let parameters = [Some(before.encode()), Some(customers_max.encode()), Some(text(after))];
    let rows = CLOSABLE.with(|statement| statement.run(Access::Write, &parameters));
    rows.iter().map(|mut row| CustomerId::stored(row.take())).collect()
}

/// The invoice of a line, none while it is open; none at all if there is no such line.
pub fn reference(customer_id: &CustomerId, line: Uuid) -> Option<Option<String>> {
    let parameters = [Some(text(customer_id.as_str())), Some(line.encode())];
    REFERENCE.with(|statement| statement.run(Access::Write, &parameters)).first().map(|mut row| row.optional())
}

/// Puts a line on an invoice.
pub fn mark(customer_id: &CustomerId, line: Uuid, reference: &str) {
    let parameters = [Some(text(customer_id.as_str())), Some(line.encode()), Some(text(reference))];
    MARK.with(|statement| statement.run(Access::Write, &parameters));
}
