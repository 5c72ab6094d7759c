//! What watches wallets, as the book knows it: alerts, auto top-ups, and what the step at hand did to levels.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::Book;
use crate::domain::amount::Amount;
use crate::domain::chart::Kind;
use crate::domain::time::Timestamp;
use crate::domain::top_up::{Recent, TopUp, TopUpRule, TopUpStatus};
use crate::domain::watch::Alert;

/// What happened since the last look.
#[derive(Debug, Default)]
pub struct Watching {
    /// Level of each wallet at the last look.
    levels: Vec<Amount>,
    /// Wallets to look at whatever their level.
    again: BTreeSet<usize>,
    /// The most that usage asked for in vain.
    shortages: BTreeMap<usize, Amount>,
    /// The transaction that brought a wallet its last credits.
    credited_by: BTreeMap<usize, usize>,
    /// Wallets whose alerts have been read, and whose rule and open top-up have been looked for.
    alerts_read: BTreeSet<usize>,
    rules_read: BTreeSet<usize>,
    open_read: BTreeSet<usize>,
}

impl Watching {
    pub fn of(levels: Vec<Amount>) -> Self {
        Self { levels, ..Self::default() }
    }
}

impl Book<'_> {
    /// The level of a wallet at the last look, which is over.
    pub fn take_level(&mut self, wallet: usize) -> Amount {
        let level = self.wallets[wallet].level();
        std::mem::replace(&mut self.watching.levels[wallet], level)
    }

    /// Looks at a wallet at the end of the step whatever its level.
    pub fn watch_again(&mut self, wallet: usize) {
        self.watching.again.insert(wallet);
    }

    pub fn take_watch_again(&mut self, wallet: usize) -> bool {
        self.watching.again.remove(&wallet)
    }

    /// Notes that usage asked these wallets for more than there is: one with an auto top-up may request one.
    pub fn note_shortage(&mut self, wallets: &[usize], wanted: Amount) {
        for wallet in wallets.iter().copied().filter(|wallet| self.wallets[*wallet].watch.has_top_up) {
            let noted = self.watching.shortages.entry(wallet).or_default();
            *noted = wanted.max(*noted);
            self.watching.again.insert(wallet);
        }
    }

    /// Forgets them: the usage had been charged before.
    pub fn forget_shortages(&mut self) {
        self.watching.shortages.clear();
    }

    pub fn take_shortage(&mut self, wallet: usize) -> Option<Amount> {
        self.watching.shortages.remove(&wallet)
    }

    /// Keeps what 100 percent of a wallet are: its level when credits have come in and have repaid debt.
    pub(super) fn note_credit(&mut self, transaction: usize, wallet: usize, kind: Kind) {
        let is_credit = match kind {
            Kind::Grant | Kind::GrantActivated | Kind::RolloverIn => true,
            // A change of expiry moves credits within the wallet.
            Kind::TransferIn => {
                let from = self.entries.iter().rev().nth(1).filter(|entry| entry.transaction == transaction);
                from.is_none_or(|entry| entry.wallet != wallet)
            }
            _ => false,
        };
        if is_credit {
            self.watching.credited_by.insert(wallet, transaction);
        }
        let repays = kind == Kind::OverdraftRepaid && self.watching.credited_by.get(&wallet) == Some(&transaction);
        if is_credit || repays {
            self.wallets[wallet].credited_level = self.wallets[wallet].level();
            if self.wallets[wallet].watch.is_some() {
                self.watch_again(wallet);
            }
        }
    }

    /// The alerts of a wallet that are in use.
    pub fn alerts_of(&mut self, wallet: usize) -> Vec<Alert> {
        let code = self.wallets[wallet].code.clone();
        if self.watching.alerts_read.insert(wallet) {
            for alert in self.reader.alerts_of(&code) {
                self.alerts.keep(alert.id, alert);
            }
        }
        self.alerts.values().filter(|alert| alert.wallet == code && alert.dropped_at.is_none()).cloned().collect()
    }

    /// The alert of this id, if the customer has it.
    pub fn find_alert(&mut self, id: Uuid) -> Option<&mut Alert> {
        self.alerts.find(&id, || self.reader.alert(id))
    }

    /// The auto top-up of a wallet, if it has one.
    pub fn top_up_rule(&mut self, wallet: usize) -> Option<TopUpRule> {
        let code = self.wallets[wallet].code.clone();
        if self.watching.rules_read.insert(wallet)
            && let Some(rule) = self.reader.top_up_rule(&code)
        {
            self.top_up_rules.keep(code.clone(), rule);
        }
        self.top_up_rules.get(&code).cloned()
    }

    /// The auto top-up of a wallet, if it has one that is enabled.
    pub fn enabled_rule(&mut self, wallet: usize) -> Option<TopUpRule> {
        let is_here = self.top_up_rules.get(&self.wallets[wallet].code).is_some();
        let rule = (is_here || self.wallets[wallet].watch.has_top_up).then(|| self.top_up_rule(wallet)).flatten();
        rule.filter(|rule| rule.enabled)
    }

    /// Takes the rules whose requests are held back until an instant.
    pub fn read_top_up_rules_due(&mut self, until: Timestamp) {
        for rule in self.reader.top_up_rules_due_until(until) {
            self.top_up_rules.keep(rule.wallet.clone(), rule);
        }
    }

    /// The open top-up of a wallet, if it has one.
    pub fn open_top_up(&mut self, wallet: usize) -> Option<TopUp> {
        let code = self.wallets[wallet].code.clone();
        if self.watching.open_read.insert(wallet)
            && let Some(top_up) = self.reader.open_top_up(&code)
        {
            self.top_ups.keep(top_up.id, top_up);
        }
        self.top_ups.values().find(|top_up| top_up.wallet == code && top_up.status == TopUpStatus::Open).cloned()
    }

    /// The top-up of this id, if the customer has it.
    pub fn find_top_up(&mut self, id: Uuid) -> Option<TopUp> {
        self.top_ups.find(&id, || self.reader.top_up(id)).cloned()
    }

    /// The last top-ups of a wallet that bear on a rule's cooldown and cap, the last first.
    pub fn recent_top_ups(&self, wallet: usize, rule: &TopUpRule) -> Vec<Recent> {
        let code = &self.wallets[wallet].code;
        let top_ups_max = rule.max_per_period.unwrap_or(1).max(1);
        let mut recent: Vec<Recent> = self
            .top_ups
            .created()
            .filter(|top_up| top_up.wallet == *code && matches!(top_up.status, TopUpStatus::Open | TopUpStatus::Succeeded))
            .map(|top_up| Recent { requested_at: top_up.requested_at, finished_at: top_up.finished_at })
            .collect();
        for stored in self.reader.recent_top_ups(code, i64::from(top_ups_max) + 1) {
            let changed = self.top_ups.get(&stored.id).unwrap_or(&stored);
            if matches!(changed.status, TopUpStatus::Open | TopUpStatus::Succeeded) {
                recent.push(Recent { requested_at: changed.requested_at, finished_at: changed.finished_at });
            }
        }
        recent.sort_by_key(|recent| std::cmp::Reverse(recent.requested_at));
        recent
    }
}
