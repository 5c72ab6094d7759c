//! The ledger: appending entries and reading them back.

use super::codec::{Codec, array, text};
use super::grants::Grants;
use super::statement::{Access, Parameter, Row, statements};
use crate::domain::amount::Amount;
use crate::domain::book::Book;
use crate::domain::chart::Kind;
use crate::domain::entry::{Entry, Line, Recorded, Repayment, Transaction};
use crate::domain::names::{CustomerId, EventName, TransactionId, WalletCode};
use crate::domain::request::Fingerprint;
use crate::domain::time::Timestamp;

statements! {
    /// Appends entries of many customers.
    APPEND(
        INT8ARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, INT8ARRAYOID, INT4ARRAYOID, INT2ARRAYOID, TEXTARRAYOID, TEXTARRAYOID,
        TEXTARRAYOID, NUMERICARRAYOID, NUMERICARRAYOID, UUIDARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, NUMERICARRAYOID,
        NUMERICARRAYOID, TEXTARRAYOID, TEXTARRAYOID, INT8ARRAYOID, TEXTARRAYOID
    ) = "
        insert into credits_data.entries (
            seq, occurred_at, recorded_at, fingerprint, line, kind, customer_id, wallet,
            transaction_id, credits, balance_after, grant_id, event_name, usage_at, requested,
            unit_price, currency, refers_to, reverses_seq, metadata
        )
        select seq, occurred_at, recorded_at, fingerprint, line, kind, customer_id, wallet,
               transaction_id, credits, balance_after, grant_id, event_name, usage_at, requested,
               unit_price, currency, refers_to, reverses_seq, metadata::jsonb
        from (
            select unnest($1) as seq, unnest($2) as occurred_at, unnest($3) as recorded_at, unnest($4) as fingerprint,
                   unnest($5) as line, unnest($6) as kind, unnest($7) as customer_id, unnest($8) as wallet,
                   unnest($9) as transaction_id, unnest($10) as credits, unnest($11) as balance_after, unnest($12) as grant_id,
                   unnest($13) as event_name, unnest($14) as usage_at, unnest($15) as requested, unnest($16) as unit_price,
                   unnest($17) as currency, unnest($18) as refers_to, unnest($19) as reverses_seq, unnest($20) as metadata
        ) n";

    /// The entries of one transaction, line by line. Index scan on entries_transaction.
    TRANSACTION(TEXTOID, TEXTOID) = "
        select wallet, seq, kind, credits, grant_id, fingerprint, requested, event_name, unit_price, currency
        from credits_data.entries
        where customer_id = $1
          and transaction_id = $2
        order by line";

    /// What refers to a transaction. Index scan on entries_refers_to.
    REFERRING(TEXTOID, TEXTOID) = "
        select kind, credits
        from credits_data.entries
        where customer_id = $1
          and refers_to = $2";

    /// Repayments of debt and what refunds gave back of each, the last first. Index scans on entries_repaid and entries_reverses.
    REPAYMENTS(TEXTOID, TEXTOID) = "
        select e.seq, e.grant_id, e.credits - coalesce(back.credits, 0)
        from credits_data.entries e
        left join lateral (
            select sum(r.credits) as credits
            from credits_data.entries r
            where r.customer_id = e.customer_id
              and r.wallet = e.wallet
              and r.reverses_seq = e.seq
        ) back on true
        where e.customer_id = $1
          and e.wallet = $2
          and e.kind = 22
          and e.credits > coalesce(back.credits, 0)
        order by e.seq desc";

    /// Overage (kind 18) since an instant less what was refunded of it. Index scans on entries_overage and entries_reverses.
    OVERAGE_SINCE(TEXTOID, TEXTOID, TIMESTAMPTZOID) = "
        select coalesce(sum(e.credits - coalesce(back.credits, 0)), 0)
        from credits_data.entries e
        left join lateral (
            select sum(r.credits) as credits
            from credits_data.entries r
            where r.customer_id = e.customer_id
              and r.wallet = e.wallet
              and r.reverses_seq = e.seq
            offset 0
        ) back on true
        where e.customer_id = $1
          and e.wallet = $2
          and e.kind = 18
          and e.occurred_at >= $3";

    /// One entry's time and balance: primary key.
    AT(TEXTOID, TEXTOID, INT8OID) = "
        select occurred_at, balance_after
        from credits_data.entries
        where customer_id = $1
          and wallet = $2
          and seq = $3";

    /// Entries of a wallet by number. Index scan on the primary key.
    RANGE(TEXTOID, TEXTOID, INT8OID, INT8OID) = "
        select seq, occurred_at, kind, credits, balance_after, transaction_id, grant_id, event_name, metadata::text
        from credits_data.entries
        where customer_id = $1
          and wallet = $2
          and seq >= $3
          and seq < $4
        order by seq";
}

/// Appends the entries of some books.
pub fn append(books: &[&Book<'_>]) {
    let entries: Vec<(&Book<'_>, &Entry, &Transaction)> = books
        .iter()
        .flat_map(|book| book.entries.iter().map(move |entry| (*book, entry, &book.transactions[entry.transaction])))
        .collect();
    if entries.is_empty() {
        return;
    }
    fn column<T: Codec>(
        entries: &[(&Book<'_>, &Entry, &Transaction)],
        value: impl Fn(&Book<'_>, &Entry, &Transaction) -> Option<T>,
    ) -> Parameter {
        Some(array(entries.iter().map(|(book, entry, transaction)| value(book, entry, transaction))))
    }
    let all = &entries;
    let parameters = [
        column(all, |_, entry, _| Some(entry.seq)),
        column(all, |_, entry, _| Some(entry.movement.occurred_at)),
        column(all, |book, _, _| Some(book.now)),
        column(all, |_, entry, transaction| (entry.line == 1).then_some(transaction.fingerprint.0)),
        column(all, |_, entry, _| Some(entry.line)),
        column(all, |_, entry, _| Some(entry.movement.kind as i16)),
        column(all, |book, _, _| Some(book.customer_id.to_string())),
        column(all, |book, entry, _| Some(book.wallets[entry.wallet].code.to_string())),
        column(all, |_, _, transaction| Some(transaction.id.to_string())),
        column(all, |_, entry, _| Some(entry.movement.credits)),
        column(all, |_, entry, _| Some(entry.balance_after)),
        column(all, |_, entry, _| entry.movement.grant),
        column(all, |_, _, transaction| transaction.event_name.as_ref().map(EventName::to_string)),
        column(all, |_, _, transaction| transaction.usage_at),
        column(all, |_, entry, transaction| transaction.requested.filter(|_| entry.line == 1)),
        column(all, |_, entry, _| entry.movement.price.as_ref().map(|(unit_price, _)| *unit_price)),
        column(all, |_, entry, _| entry.movement.price.as_ref().map(|(_, currency)| currency.clone())),
        column(all, |_, _, transaction| transaction.refers_to.as_ref().map(TransactionId::to_string)),
        column(all, |_, entry, _| entry.movement.reverses_seq),
        column(all, |_, _, transaction| transaction.metadata.clone()),
    ];
    APPEND.with(|statement| statement.run(Access::Write, &parameters));
}

/// A kind by its stored number.
pub fn stored_kind(id: i16) -> Kind {
    match Kind::from_id(id) {
        Some(kind) => kind,
        None => panic!("unknown kind {id} in the ledger"),
    }
}

/// The transaction recorded under an id.
pub fn transaction(grants: &Grants<'_>, id: &TransactionId) -> Option<Recorded> {
    let parameters = [Some(text(grants.customer_id.as_str())), Some(text(id.as_str()))];
    let rows = TRANSACTION.with(|statement| statement.run(grants.access, &parameters));
    let mut recorded: Option<Recorded> = None;
    for mut row in rows.iter() {
        let mut line = Line {
            wallet: grants.wallet_index(&row.take::<String>()),
            seq: row.take(),
            kind: stored_kind(row.take()),
            credits: row.take(),
            grant: row.optional(),
            price: None,
        };
        let fingerprint: Option<i64> = row.optional();
        let requested = row.optional();
        let event_name = row.optional().map(EventName::stored);
        line.price = row.optional().zip(row.optional());
        recorded
            .get_or_insert_with(|| Recorded {
                id: id.clone(),
                fingerprint: Fingerprint(fingerprint.unwrap_or_default()),
                requested,
                event_name,
                lines: Vec::new(),
            })
            .lines
            .push(line);
    }
    recorded
}

/// The entries of transactions that refer to one.
pub fn referring(access: Access, customer_id: &CustomerId, id: &TransactionId) -> Vec<(Kind, Amount)> {
    let parameters = [Some(text(customer_id.as_str())), Some(text(id.as_str()))];
    let rows = REFERRING.with(|statement| statement.run(access, &parameters));
    rows.iter().map(|mut row| (stored_kind(row.take()), row.take())).collect()
}

/// Overage that a wallet was charged since an instant, less what was refunded of it.
pub fn overage_since(access: Access, customer_id: &CustomerId, wallet: &WalletCode, from: Timestamp) -> Amount {
    let parameters = [Some(text(customer_id.as_str())), Some(text(wallet.as_str())), Some(from.encode())];
    let rows = OVERAGE_SINCE.with(|statement| statement.run(access, &parameters));
    rows.first().map(|mut row| row.take()).unwrap_or_default()
}

/// Stored repayments of a wallet's debt that were not given back in full, the last first.
pub fn repayments(access: Access, customer_id: &CustomerId, wallet: &WalletCode) -> Vec<Repayment> {
    let parameters = [Some(text(customer_id.as_str())), Some(text(wallet.as_str()))];
    let rows = REPAYMENTS.with(|statement| statement.run(access, &parameters));
    let read = |mut row: Row| Repayment { seq: row.take(), grant: row.take(), left: row.take() };
    rows.iter().map(read).collect()
}

/// When an entry took effect, and the balance after it.
pub fn at(customer_id: &CustomerId, wallet: &WalletCode, seq: i64) -> Option<(Timestamp, Amount)> {
    let parameters = [Some(text(customer_id.as_str())), Some(text(wallet.as_str())), Some(seq.encode())];
    let rows = AT.with(|statement| statement.run(Access::Read, &parameters));
    rows.first().map(|mut row| (row.take(), row.take()))
}

/// An entry as a statement shows it.
#[derive(Debug, Clone)]
pub struct StatementEntry {
    pub seq: i64,
    pub occurred_at: Timestamp,
    pub kind: Kind,
    pub credits: Amount,
    pub balance_after: Amount,
    pub transaction_id: String,
    pub grant: Option<uuid::Uuid>,
    pub event_name: Option<String>,
    pub metadata: Option<String>,
}

impl StatementEntry {
    /// The effect on the balance.
    pub fn amount(&self) -> Amount {
        self.credits.signed(self.kind.effect().balance)
    }
}

/// The stored entries of a wallet numbered `from` to before `to`.
pub fn range(customer_id: &CustomerId, wallet: &WalletCode, from: i64, to: i64) -> Vec<StatementEntry> {
    let parameters = [Some(text(customer_id.as_str())), Some(text(wallet.as_str())), Some(from.encode()), Some(to.encode())];
    let rows = RANGE.with(|statement| statement.run(Access::Read, &parameters));
    let read = |mut row: Row| StatementEntry {
        seq: row.take(),
        occurred_at: row.take(),
        kind: stored_kind(row.take()),
        credits: row.take(),
        balance_after: row.take(),
        transaction_id: row.take(),
        grant: row.optional(),
        event_name: row.optional(),
        metadata: row.optional(),
    };
    rows.iter().map(read).collect()
}
