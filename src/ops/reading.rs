//! Reading a customer's books: right at any moment, settled or not, and on a standby.

use super::{no_wallet, read};
use crate::domain::amount::Amount;
use crate::domain::book::Book;
use crate::domain::entry::Entry;
use crate::domain::names::{CustomerId, EventName, WalletCode};
use crate::domain::time::Timestamp;
use crate::domain::usage::wallet as find_wallet;
use crate::domain::wallet::Wallet;
use crate::error::Result;
use crate::storage::ledger::{self, StatementEntry};

/// The wallets of a customer, or the one named, each with its next expiry. A customer without wallets has none.
pub fn balances(customer_id: &CustomerId, code: Option<&WalletCode>) -> Result<Vec<(Wallet, Option<(Timestamp, Amount)>)>> {
    let rows = read(customer_id, None, |book| {
        let indexes = match code {
            Some(code) => vec![find_wallet(book, code)?],
            None => (0..book.wallets.len()).collect(),
        };
        let row = |index: usize| (book.wallets[index].clone(), book.next_expiry(index));
        Ok(indexes.into_iter().map(row).collect())
    })?;
    match (rows, code) {
        (Some(rows), _) => Ok(rows),
        (None, None) => Ok(Vec::new()),
        (None, Some(_)) => Err(no_wallet(customer_id)),
    }
}

/// The balance of a wallet after everything with `occurred_at` up to `at`. For a later `at` than now, with what is known to
/// become effective and to expire until then.
pub fn balance_at(customer_id: &CustomerId, code: &WalletCode, at: Timestamp) -> Result<Amount> {
    read(customer_id, Some(at), |book| {
        let history = History::of(book, find_wallet(book, code)?);
        Ok(history.balance_before(history.first_after(at)))
    })?
    .ok_or_else(|| no_wallet(customer_id))
}

/// The entries of a wallet from `from_at` to just before `to_at`, with the balances around them.
pub struct Statement {
    pub opening: Amount,
    pub entries: Vec<StatementEntry>,
    pub closing: Amount,
}

pub fn statement(customer_id: &CustomerId, code: &WalletCode, from_at: Timestamp, to_at: Timestamp) -> Result<Statement> {
    read(customer_id, None, |book| {
        let history = History::of(book, find_wallet(book, code)?);
        let just_before = |at: Timestamp| at.plus_microseconds(-1);
        let from = history.first_after(just_before(from_at));
        let to = history.first_after(just_before(to_at));
        Ok(Statement {
            opening: history.balance_before(from),
            entries: history.range(from, to),
            closing: history.balance_before(to),
        })
    })?
    .ok_or_else(|| no_wallet(customer_id))
}

/// All entries of a wallet: the stored ones, and after them those that settling would write now.
struct History<'a, 'b> {
    book: &'a Book<'b>,
    wallet: usize,
    stored_seq: i64,
}

impl<'a, 'b> History<'a, 'b> {
    fn of(book: &'a Book<'b>, wallet: usize) -> Self {
        let unsettled = book.entries.iter().filter(|entry| entry.wallet == wallet).count() as i64;
        Self { book, wallet, stored_seq: book.wallets[wallet].last_seq - unsettled }
    }

    fn code(&self) -> &WalletCode {
        &self.book.wallets[self.wallet].code
    }

    fn unsettled(&self) -> impl Iterator<Item = &'a Entry> + use<'a, 'b> {
        let wallet = self.wallet;
        self.book.entries.iter().filter(move |entry| entry.wallet == wallet)
    }

    fn at(&self, seq: i64) -> (Timestamp, Amount) {
        let entry = if seq > self.stored_seq {
            self.unsettled().find(|entry| entry.seq == seq).map(|entry| (entry.movement.occurred_at, entry.balance_after))
        } else {
            ledger::at(&self.book.customer_id, self.code(), seq)
        };
        match entry {
            Some(entry) => entry,
            None => panic!("entry {seq} of wallet {} is missing", self.code()),
        }
    }

    /// The number of the first entry after an instant. `occurred_at` never decreases with `seq`: a binary search.
    fn first_after(&self, at: Timestamp) -> i64 {
        let (mut low, mut high) = (1, self.book.wallets[self.wallet].last_seq + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.at(middle).0 <= at {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    fn balance_before(&self, seq: i64) -> Amount {
        if seq <= 1 { Amount::ZERO } else { self.at(seq - 1).1 }
    }

    fn range(&self, from: i64, to: i64) -> Vec<StatementEntry> {
        let mut entries = ledger::range(&self.book.customer_id, self.code(), from, to.min(self.stored_seq + 1));
        let unsettled = self.unsettled().filter(|entry| (from..to).contains(&entry.seq));
        entries.extend(unsettled.map(|entry| {
            let transaction = &self.book.transactions[entry.transaction];
            StatementEntry {
                seq: entry.seq,
                occurred_at: entry.movement.occurred_at,
                kind: entry.movement.kind,
                credits: entry.movement.credits,
                balance_after: entry.balance_after,
                transaction_id: transaction.id.to_string(),
                grant: entry.movement.grant,
                event_name: transaction.event_name.as_ref().map(EventName::to_string),
                metadata: transaction.metadata.clone(),
            }
        }));
        entries
    }
}
