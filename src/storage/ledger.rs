//! The ledger: appending entries and reading them back.

use std::rc::Rc;

use super::codec::{self, Codec, array, text, texts};
use super::grants::Grants;
use super::metered;
use super::statement::{Access, Parameter, Row, statements};
use crate::domain::amount::Amount;
use crate::domain::book::Book;
use crate::domain::chart::Kind;
use crate::domain::entry::{Entry, Line, Recorded, Referring, Repayment, Transaction};
use crate::domain::metering::Metered;
use crate::domain::names::{CustomerId, EventName, TransactionId, WalletCode};
use crate::domain::request::Fingerprint;
use crate::domain::time::Timestamp;

statements! {
    /// Appends entries of many customers.
    APPEND(
        INT8ARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, INT8ARRAYOID, INT4ARRAYOID, INT2ARRAYOID, TEXTARRAYOID, TEXTARRAYOID,
        TEXTARRAYOID, NUMERICARRAYOID, NUMERICARRAYOID, UUIDARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, NUMERICARRAYOID,
        NUMERICARRAYOID, TEXTARRAYOID, TEXTARRAYOID, INT8ARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID
    ) = "
        insert into credits_data.entries (
            seq, occurred_at, recorded_at, fingerprint, line, kind, customer_id, wallet,
            transaction_id, credits, balance_after, grant_id, event_name, usage_at, requested,
            unit_price, currency, refers_to, reverses_seq, metadata, properties, metered
        )
        select seq, occurred_at, recorded_at, fingerprint, line, kind, customer_id, wallet,
               transaction_id, credits, balance_after, grant_id, event_name, usage_at, requested,
               unit_price, currency, refers_to, reverses_seq, metadata::jsonb, properties::jsonb, metered
        from (
            select unnest($1) as seq, unnest($2) as occurred_at, unnest($3) as recorded_at, unnest($4) as fingerprint,
                   unnest($5) as line, unnest($6) as kind, unnest($7) as customer_id, unnest($8) as wallet,
                   unnest($9) as transaction_id, unnest($10) as credits, unnest($11) as balance_after, unnest($12) as grant_id,
                   unnest($13) as event_name, unnest($14) as usage_at, unnest($15) as requested, unnest($16) as unit_price,
                   unnest($17) as currency, unnest($18) as refers_to, unnest($19) as reverses_seq, unnest($20) as metadata,
                   unnest($21) as properties, unnest($22) as metered
        ) n";

    /// The entries of one transaction, line by line. Index scan on entries_transaction.
    TRANSACTION(TEXTOID, TEXTOID) = "
        select wallet, seq, kind, credits, grant_id, fingerprint, requested, event_name, metered, unit_price, currency
        from credits_data.entries
        where customer_id = $1
          and transaction_id = $2
        order by line";

    /// The same of many customers' transactions, those of them that are recorded.
    TRANSACTIONS(TEXTARRAYOID, TEXTARRAYOID) = "
        select k.customer_id, k.transaction_id,
               e.wallet, e.seq, e.kind, e.credits, e.grant_id, e.fingerprint, e.requested, e.event_name, e.metered, e.unit_price,
               e.currency
        from (select unnest($1) as customer_id, unnest($2) as transaction_id) k
        cross join lateral (
            select *
            from credits_data.entries
            where customer_id = k.customer_id
              and transaction_id = k.transaction_id
            order by line
            offset 0
        ) e";

    /// What refers to a transaction. Index scan on entries_refers_to.
    REFERRING(TEXTOID, TEXTOID) = "
        select kind, credits, coalesce(metered, '')
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
    type Appended<'a, 'b> = (&'a Book<'b>, &'a Entry, &'a Transaction);
    fn column<T: Codec>(entries: &[Appended<'_, '_>], value: impl Fn(&Book<'_>, &Entry, &Transaction) -> Option<T>) -> Parameter {
        Some(array(entries.iter().map(|(book, entry, transaction)| value(book, entry, transaction))))
    }
    fn text_column<'a, 'b>(
        entries: &[Appended<'a, 'b>],
        value: impl Fn(&'a Book<'b>, &'a Entry, &'a Transaction) -> Option<&'a str>,
    ) -> Parameter {
        Some(texts(entries.iter().map(|(book, entry, transaction)| value(book, entry, transaction))))
    }
    let all = &entries;
    let parameters = [
        column(all, |_, entry, _| Some(entry.seq)),
        column(all, |_, entry, _| Some(entry.movement.occurred_at)),
        column(all, |book, _, _| Some(book.now)),
        column(all, |_, entry, transaction| (entry.line == 1).then_some(transaction.fingerprint.0)),
        column(all, |_, entry, _| Some(entry.line)),
        column(all, |_, entry, _| Some(entry.movement.kind as i16)),
        text_column(all, |book, _, _| Some(book.customer_id.as_str())),
        text_column(all, |book, entry, _| Some(book.wallets[entry.wallet].code.as_str())),
        text_column(all, |_, _, transaction| Some(transaction.id.as_str())),
        column(all, |_, entry, _| Some(entry.movement.credits)),
        column(all, |_, entry, _| Some(entry.balance_after)),
        column(all, |_, entry, _| entry.movement.grant),
        text_column(all, |_, _, transaction| transaction.event_name.as_ref().map(EventName::as_str)),
        column(all, |_, _, transaction| transaction.usage_at),
        column(all, |_, entry, transaction| transaction.requested.filter(|_| entry.line == 1)),
        column(all, |_, entry, _| entry.movement.price.as_ref().map(|(unit_price, _)| *unit_price)),
        text_column(all, |_, entry, _| entry.movement.price.as_ref().map(|(_, currency)| currency.as_str())),
        text_column(all, |_, entry, transaction| {
            let referred = entry.movement.refers_to.as_ref().or(transaction.refers_to.as_ref());
            referred.map(TransactionId::as_str)
        }),
        column(all, |_, entry, _| entry.movement.reverses_seq),
        text_column(all, |_, _, transaction| transaction.metadata.as_deref()),
        text_column(all, |_, entry, transaction| transaction.properties.as_deref().filter(|_| entry.line == 1)),
        column(all, |_, entry, transaction| {
            transaction.metered.as_ref().filter(|_| entry.line == 1).map(|metered| metered::encode(metered))
        }),
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
    let mut recorded = None;
    for row in rows.iter() {
        StoredLine::read(row).add_to(&mut recorded, id, grants);
    }
    recorded
}

/// A line of a recorded transaction, as stored.
#[derive(Clone)]
pub struct StoredLine {
    wallet: String,
    line: Line,
    fingerprint: Option<i64>,
    requested: Option<Amount>,
    event_name: Option<EventName>,
    metered: Option<String>,
}

impl StoredLine {
    fn read(mut row: Row<'_>) -> Self {
        let wallet = row.take();
        let mut line = Line {
            wallet: 0,
            seq: row.take(),
            kind: stored_kind(row.take()),
            credits: row.take(),
            grant: row.optional(),
            price: None,
        };
        let fingerprint = row.optional();
        let requested = row.optional();
        let event_name = row.optional().map(EventName::stored);
        let metered = row.optional();
        line.price = row.optional().zip(row.optional());
        Self { wallet, line, fingerprint, requested, event_name, metered }
    }

    /// Adds the line to the transaction, which begins with the first one.
    pub fn add_to(mut self, recorded: &mut Option<Recorded>, id: &TransactionId, grants: &Grants<'_>) {
        self.line.wallet = grants.wallet_index(&self.wallet);
        let first = || Recorded {
            id: id.clone(),
            fingerprint: Fingerprint(self.fingerprint.unwrap_or_default()),
            requested: self.requested,
            event_name: self.event_name,
            metered: self.metered.as_deref().map(metered::decode).map(Rc::new),
            lines: Vec::new(),
        };
        recorded.get_or_insert_with(first).lines.push(self.line);
    }
}

/// The lines of many customers' transactions, those that are recorded, in order.
pub fn transactions(access: Access, keys: &[(&CustomerId, &TransactionId)]) -> Vec<(CustomerId, TransactionId, StoredLine)> {
    let parameters = [
        Some(texts(keys.iter().map(|(customer_id, _)| Some(customer_id.as_str())))),
        Some(texts(keys.iter().map(|(_, id)| Some(id.as_str())))),
    ];
    let rows = TRANSACTIONS.with(|statement| statement.run(access, &parameters));
    let read = |mut row: Row<'_>| {
        let (customer_id, id) = (CustomerId::stored(row.take()), TransactionId::stored(row.take()));
        // What is left of the row is a line.
        (customer_id, id, StoredLine::read(row))
    };
    rows.iter().map(read).collect()
}

/// The entries of transactions that refer to one.
pub fn referring(access: Access, customer_id: &CustomerId, id: &TransactionId) -> Vec<Referring> {
    let parameters = [Some(text(customer_id.as_str())), Some(text(id.as_str()))];
    let rows = REFERRING.with(|statement| statement.run(access, &parameters));
    let read = |mut row: Row<'_>| {
        let (kind, credits, metered) = (stored_kind(row.take()), row.take(), row.take::<String>());
        let takes_out = !metered.is_empty() && matches!(metered::decode(&metered), Metered::TakenOut(_));
        Referring { kind, credits, takes_out }
    };
    rows.iter().map(read).collect()
}

/// A sum of the ledger that no limit of a total holds, since what was on invoice lines is no part of a total any more: below 10^24.
pub struct Sum(pub Amount);

impl Codec for Sum {
    const OID: pgrx::pg_sys::Oid = Amount::OID;
    const LAYOUT: (i16, bool, u8) = Amount::LAYOUT;

    unsafe fn decode(datum: pgrx::pg_sys::Datum) -> Self {
        // SAFETY: the caller's promise.
        match unsafe { codec::sum(datum) } {
            Ok(sum) => Self(sum),
            Err(error) => panic!("a sum of stored amounts: {error:?}"),
        }
    }

    fn encode(&self) -> pgrx::pg_sys::Datum {
        self.0.encode()
    }
}

/// Overage that a wallet was charged since an instant, less what was refunded of it.
pub fn overage_since(access: Access, customer_id: &CustomerId, wallet: &WalletCode, from: Timestamp) -> Amount {
    let parameters = [Some(text(customer_id.as_str())), Some(text(wallet.as_str())), Some(from.encode())];
    let rows = OVERAGE_SINCE.with(|statement| statement.run(access, &parameters));
    rows.first().map(|mut row| row.take::<Sum>().0).unwrap_or_default()
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
