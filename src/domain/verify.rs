//! Proving a wallet's books by replaying its ledger from the first entry (SPEC 12).
//!
//! The replay knows only entries and what grants were given; every stored total is then compared with what it arrived at. One
//! pass, in the order of `seq`.

use std::collections::{BTreeMap, HashMap, HashSet};

use uuid::Uuid;

use super::amount::Amount;
use super::chart::{Effect, Kind};
use super::grant::{Grant, GrantStatus, SpendingOrder};
use super::names::EventName;
use super::time::Timestamp;
use super::wallet::Wallet;

/// One broken promise. The number is that of SPEC 12.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub invariant: i32,
    pub customer_id: String,
    pub wallet: Option<String>,
    pub detail: String,
}

/// An entry as it stands in the ledger.
#[derive(Debug, Clone)]
pub struct PostedEntry {
    pub seq: i64,
    pub kind: Kind,
    pub credits: Amount,
    pub balance_after: Amount,
    pub grant: Option<Uuid>,
    pub occurred_at: Timestamp,
    pub usage_at: Option<Timestamp>,
    pub event_name: Option<EventName>,
    pub transaction_id: String,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Totals {
    balance: Amount,
    held: Amount,
    scheduled: Amount,
    debt: Amount,
    overage: Amount,
}

#[derive(Debug, Default, Clone, Copy)]
struct GrantTotals {
    in_wallet: Amount,
    scheduled: Amount,
    expired: Amount,
}

/// The replay of one wallet.
pub struct Replay<'a> {
    customer_id: &'a str,
    wallet: &'a Wallet,
    grants: HashMap<Uuid, (&'a Grant, GrantTotals)>,
    /// Grants with credits in the wallet, in the order of spending.
    live: BTreeMap<SpendingOrder, Uuid>,
    /// Grants whose first entry gave them the amount they are stored with.
    created: HashSet<Uuid>,
    totals: Totals,
    last_seq: i64,
    last_occurred_at: Option<Timestamp>,
    /// The grant whose expiry the entry before reversed, and in which transaction.
    reversed: Option<(Uuid, String)>,
    violations: Vec<Violation>,
}

impl<'a> Replay<'a> {
    /// `grants` are those of this wallet.
    pub fn new(customer_id: &'a str, wallet: &'a Wallet, grants: impl Iterator<Item = &'a Grant>) -> Self {
        Self {
            customer_id,
            wallet,
            grants: grants.map(|grant| (grant.id, (grant, GrantTotals::default()))).collect(),
            live: BTreeMap::new(),
            created: HashSet::new(),
            totals: Totals::default(),
            last_seq: 0,
            last_occurred_at: None,
            reversed: None,
            violations: Vec::new(),
        }
    }

    fn violation(&mut self, invariant: i32, detail: String) {
        self.violations.push(Violation {
            invariant,
            customer_id: self.customer_id.to_owned(),
            wallet: Some(self.wallet.code.to_string()),
            detail,
        });
    }

    /// Replays the next entry.
    pub fn entry(&mut self, entry: &PostedEntry) {
        if entry.seq != self.last_seq + 1 {
            self.violation(3, format!("entry {} follows entry {}", entry.seq, self.last_seq));
        }
        self.last_seq = entry.seq;
        if self.last_occurred_at.is_some_and(|last| entry.occurred_at < last) {
            self.violation(3, format!("entry {} occurred before the entry before it", entry.seq));
        }
        self.last_occurred_at = Some(entry.occurred_at);
        if matches!(entry.kind, Kind::Usage | Kind::Hold)
            && let Some(id) = entry.grant
        {
            self.check_payer(entry, id);
        }
        let effect = entry.kind.effect();
        self.move_totals(entry, effect);
        if let Some(id) = entry.grant {
            self.move_grant(entry, effect, id);
        }
        let reverses = entry.kind == Kind::ExpirationReversed;
        self.reversed = entry.grant.filter(|_| reverses).map(|id| (id, entry.transaction_id.clone()));
    }

    /// Invariants 5 and 7: usage took from a grant that was live, and skipped none that comes earlier.
    fn check_payer(&mut self, entry: &PostedEntry, id: Uuid) {
        let Some((payer, _)) = self.grants.get(&id) else {
            return;
        };
        let payer = *payer;
        let under_grace =
            self.reversed.as_ref().is_some_and(|(grant, transaction)| *grant == id && *transaction == entry.transaction_id);
        let live_at = if under_grace { entry.usage_at.unwrap_or(entry.occurred_at) } else { entry.occurred_at };
        // A grant may begin before it was given; it is dated then, and spent from when it is there.
        if !payer.is_live_at(live_at) {
            self.violation(5, format!("entry {} took from grant {id}, which was not live at {live_at}", entry.seq));
        }
        if !payer.applies_to(entry.event_name.as_ref()) {
            self.violation(5, format!("entry {} took from grant {id}, which does not pay for its event", entry.seq));
        }
        let skipped = self.live.range(..payer.spending_order()).find(|(_, other)| {
            let grant = self.grants[*other].0;
            grant.is_live_at(entry.occurred_at) && grant.applies_to(entry.event_name.as_ref())
        });
        if let Some((_, skipped)) = skipped {
            let detail = format!("entry {} took from grant {id} and skipped grant {skipped}, which comes earlier", entry.seq);
            self.violation(7, detail);
        }
    }

    fn move_totals(&mut self, entry: &PostedEntry, effect: Effect) {
        let totals = &mut self.totals;
        let mut negative = None;
        for (total, sign, what) in [
            (&mut totals.balance, effect.balance, "balance"),
            (&mut totals.held, effect.held, "held"),
            (&mut totals.scheduled, effect.scheduled, "scheduled"),
            (&mut totals.debt, effect.debt, "debt"),
            (&mut totals.overage, effect.overage, "overage"),
        ] {
            *total += entry.credits.signed(sign);
            if total.is_negative() {
                negative = Some(format!("{what} is {total} after entry {}", entry.seq));
            }
        }
        if let Some(detail) = negative {
            self.violation(6, detail);
        }
        if self.totals.balance != entry.balance_after {
            let detail = format!(
                "entry {} says a balance of {}, its entries make {}",
                entry.seq, entry.balance_after, self.totals.balance
            );
            self.violation(3, detail);
        }
    }

    fn move_grant(&mut self, entry: &PostedEntry, effect: Effect, id: Uuid) {
        let Some((grant, totals)) = self.grants.get_mut(&id) else {
            return self.violation(2, format!("entry {} moves grant {id}, which this wallet does not have", entry.seq));
        };
        totals.in_wallet += entry.credits.signed(effect.balance);
        totals.scheduled += entry.credits.signed(effect.scheduled);
        totals.expired += entry.credits.signed(effect.expired);
        let remaining = totals.in_wallet + totals.scheduled;
        if entry.seq == grant.created_seq && remaining == grant.amount {
            self.created.insert(id);
        }
        let order = grant.spending_order();
        let amount = grant.amount;
        if totals.in_wallet.is_positive() {
            self.live.insert(order, id);
        } else {
            self.live.remove(&order);
        }
        if remaining.is_negative() || remaining > amount {
            self.violation(2, format!("grant {id} has {remaining} of {amount} credits after entry {}", entry.seq));
        }
    }

    /// Compares what is stored with where the replay arrived. `rides` is the grant that pays next according to the wallet's row,
    /// `invoiced` what of its overage is on invoice lines.
    pub fn finish(mut self, rides: Option<Uuid>, invoiced: Amount) -> Vec<Violation> {
        if let Some(id) = rides {
            let first = self.live.first_key_value().map(|(_, first)| *first);
            let is_limited = self.grants.get(&id).is_none_or(|(grant, _)| grant.terms.applies_to.is_some());
            if first != Some(id) || is_limited {
                self.violation(7, format!("grant {id} rides on the wallet's row, but is not the one to pay next for any usage"));
            }
        }
        let wallet = self.wallet;
        let replayed = self.totals;
        if wallet.last_seq != self.last_seq {
            self.violation(3, format!("the wallet's last entry is said to be {}, it is {}", wallet.last_seq, self.last_seq));
        }
        for (invariant, what, stored, replayed) in [
            (1, "balance", wallet.balance, replayed.balance),
            (1, "held", wallet.held, replayed.held),
            (1, "scheduled", wallet.scheduled, replayed.scheduled),
            (1, "debt", wallet.debt, replayed.debt),
            (9, "overage", wallet.overage, replayed.overage - invoiced),
        ] {
            if stored != replayed {
                self.violation(invariant, format!("{what} is stored as {stored}, its entries make {replayed}"));
            }
        }
        let of_status = |status: GrantStatus| -> Amount {
            let grants = self.grants.values().map(|(grant, _)| grant).filter(|grant| grant.status == status);
            grants.map(|grant| grant.remaining).sum()
        };
        let (active, scheduled) = (of_status(GrantStatus::Active), of_status(GrantStatus::Scheduled));
        for (what, stored, grants) in [("balance", wallet.balance, active), ("scheduled", wallet.scheduled, scheduled)] {
            if stored != grants {
                self.violation(1, format!("{what} is stored as {stored}, its grants have {grants}"));
            }
        }
        let mut ids: Vec<Uuid> = self.grants.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let (grant, totals) = self.grants[&id];
            if !self.created.contains(&id) {
                let detail =
                    format!("grant {id} is stored with an amount of {}, which its first entry did not give", grant.amount);
                self.violation(2, detail);
            }
            let remaining = totals.in_wallet + totals.scheduled;
            if grant.remaining != remaining {
                self.violation(
                    2,
                    format!("grant {id} is stored with {} remaining, its entries make {remaining}", grant.remaining),
                );
            }
            if grant.expired != totals.expired {
                self.violation(
                    2,
                    format!("grant {id} is stored with {} expired, its entries make {}", grant.expired, totals.expired),
                );
            }
        }
        self.violations
    }
}
