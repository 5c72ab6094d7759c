//! `verify_ledger`: every customer's ledger replayed, one after the other.

use super::{connected, no_wallet};
use crate::domain::names::CustomerId;
use crate::domain::verify::{Replay, Violation};
use crate::error::Result;
use crate::storage::grants::Grants;
use crate::storage::statement::Access;
use crate::storage::verification;
use crate::storage::wallets::{self, StoredWallet};

const CUSTOMERS_PER_PAGE: i64 = 1000;
const ENTRIES_PER_PAGE: i64 = 10_000;

/// One violation for every promise of SPEC 12 that the books break; none is the proof.
pub fn verify(customer_id: Option<&CustomerId>) -> Result<Vec<Violation>> {
    let mut violations = connected(|| verification::orphans(customer_id));
    if let Some(customer_id) = customer_id {
        if violations.is_empty() && connected(|| wallets::load(Access::Read, customer_id)).is_empty() {
            return Err(no_wallet(customer_id));
        }
        violations.extend(connected(|| verify_customer(customer_id)));
        return Ok(violations);
    }
    let mut last = String::new();
    loop {
        let page = connected(|| verification::customers_after(&last, CUSTOMERS_PER_PAGE));
        let Some(last_of_page) = page.last() else {
            return Ok(violations);
        };
        last = last_of_page.to_string();
        for customer_id in &page {
            // Connected for each customer: what one read is freed before the next.
            violations.extend(connected(|| verify_customer(customer_id)));
        }
    }
}

fn verify_customer(customer_id: &CustomerId) -> Vec<Violation> {
    let stored = wallets::load(Access::Read, customer_id);
    let reader = Grants::of(customer_id, Access::Read, &stored);
    reader.set_order(stored.iter().map(|stored| &stored.wallet));
    let grants = reader.all();
    let mut violations = verification::broken(customer_id);
    let (invoiced, wrong_lines) = verification::invoiced(customer_id);
    violations.extend(wrong_lines);
    for (index, StoredWallet { wallet, head, .. }) in stored.iter().enumerate() {
        let of_wallet = grants.iter().filter(|grant| grant.wallet == index);
        let mut replay = Replay::new(customer_id.as_str(), wallet, of_wallet);
        let mut last_seq = 0;
        loop {
            let page = verification::entries_after(customer_id, &wallet.code, last_seq, ENTRIES_PER_PAGE);
            for entry in &page {
                replay.entry(entry);
                last_seq = entry.seq;
            }
            if page.len() < ENTRIES_PER_PAGE as usize {
                break;
            }
        }
        let invoiced = invoiced.get(&wallet.code).copied().unwrap_or_default();
        violations.extend(replay.finish(head.map(|head| head.grant), invoiced));
    }
    violations
}
