//! A customer's grants, as the book knows them: read as far as a call needs them.

use std::collections::{BTreeMap, btree_map};
use std::ops::Bound;

use uuid::Uuid;

use super::{Book, Copy};
use crate::domain::amount::Amount;
use crate::domain::grant::{Grant, GrantStatus, SpendingOrder};
use crate::domain::time::Timestamp;

/// The live grants of one wallet, as far as they have been read.
#[derive(Debug, Default)]
pub struct Shelf {
    pub live: BTreeMap<SpendingOrder, Uuid>,
    /// Every stored live grant up to this place has been read.
    read_until: Option<SpendingOrder>,
    read_all: bool,
    pages_read: u32,
}

impl Book<'_> {
    /// The next grant of a wallet that can be spent, after a place in the order of spending.
    pub fn next_live(&mut self, wallet: usize, after: Option<SpendingOrder>) -> Option<Uuid> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        loop {
            let shelf = &self.shelves[wallet];
            let first = shelf.live.range((from, Bound::Unbounded)).next().map(|(order, id)| (*order, *id));
            if shelf.read_all {
                return first.map(|(_, id)| id);
            }
            if let Some((order, id)) = first
                && shelf.read_until.is_some_and(|read_until| order <= read_until)
            {
                return Some(id);
            }
            self.read_live_page(wallet);
        }
    }

    /// The first grant of a wallet that can be spent, if that is known without reading.
    pub fn first_live_read(&self, wallet: usize) -> Option<&Grant> {
        let shelf = &self.shelves[wallet];
        let (order, id) = shelf.live.first_key_value()?;
        let is_known = shelf.read_all || shelf.read_until.is_some_and(|read_until| *order <= read_until);
        is_known.then(|| self.grant(*id))
    }

    fn read_live_page(&mut self, wallet: usize) {
        let shelf = &self.shelves[wallet];
        // Most calls are paid by the first grant, few by hundreds.
        let grants_max = 8_usize.pow(shelf.pages_read.min(4));
        let page = self.reader.live_after(&self.wallets[wallet].code, shelf.read_until, grants_max);
        let read_all = page.len() < grants_max;
        let read_until = page.last().map(Grant::spending_order);
        for grant in page {
            self.keep(grant);
        }
        let shelf = &mut self.shelves[wallet];
        shelf.pages_read += 1;
        shelf.read_all = read_all;
        shelf.read_until = read_until.or(shelf.read_until);
    }

    /// Takes a stored grant into the book, unless it is there already and may have changed.
    fn keep(&mut self, grant: Grant) -> Uuid {
        let id = grant.id;
        if let btree_map::Entry::Vacant(place) = self.grants.entry(id) {
            let stored = Some((grant.status, grant.remaining, grant.expired));
            let status = grant.status;
            place.insert(Copy { grant, stored });
            self.set_status(id, status);
        }
        id
    }

    /// Reads every grant that falls due up to an instant.
    pub fn read_due(&mut self, until: Timestamp) -> Vec<Uuid> {
        let due = self.reader.due_until(until);
        self.keep_all(due)
    }

    pub(super) fn keep_all(&mut self, grants: Vec<Grant>) -> Vec<Uuid> {
        grants.into_iter().map(|grant| self.keep(grant)).collect()
    }

    /// Grants of a wallet that were live at `live_at` and have expired credits left, in the order of spending.
    pub fn expired_since(&mut self, wallet: usize, live_at: Timestamp) -> BTreeMap<SpendingOrder, Uuid> {
        for grant in self.reader.expired_since(&self.wallets[wallet].code, live_at) {
            self.keep(grant);
        }
        self.grants
            .values()
            .map(|copy| &copy.grant)
            .filter(|grant| grant.wallet == wallet && grant.status == GrantStatus::Expired)
            .filter(|grant| grant.expired.is_positive() && grant.is_live_at(live_at))
            .map(|grant| (grant.spending_order(), grant.id))
            .collect()
    }

    /// The scheduled grants of a wallet, in the order in which they become effective.
    pub fn scheduled(&mut self, wallet: usize) -> Vec<Uuid> {
        self.read_due(Timestamp::NEVER);
        let scheduled = self.grants.values().map(|copy| &copy.grant);
        let mut scheduled: Vec<_> = scheduled
            .filter(|grant| grant.wallet == wallet && grant.status == GrantStatus::Scheduled)
            .map(|grant| (grant.terms.effective_at, grant.created_seq, grant.id))
            .collect();
        scheduled.sort_unstable();
        scheduled.into_iter().map(|(_, _, id)| id).collect()
    }

    /// The grant of this id, if the customer has it.
    pub fn find_grant(&mut self, id: Uuid) -> Option<&Grant> {
        if !self.grants.contains_key(&id) {
            let stored = self.reader.by_id(id)?;
            self.keep(stored);
        }
        Some(self.grant(id))
    }

    /// A grant that is in the book.
    pub fn grant(&self, id: Uuid) -> &Grant {
        &self.grants[&id].grant
    }

    pub(super) fn copy_mut(&mut self, id: Uuid) -> &mut Copy {
        match self.grants.get_mut(&id) {
            Some(copy) => {
                self.journal.note(&copy.grant);
                copy
            }
            None => panic!("grant {id} is not in the book"),
        }
    }

    /// When credits of a wallet expire next, and how many do then.
    pub fn next_expiry(&self, wallet: usize) -> Option<(Timestamp, Amount)> {
        let expiring = |grant: &Grant| {
            let expires_at = grant.terms.expires_at;
            (grant.wallet == wallet && grant.status == GrantStatus::Active && !expires_at.is_never())
                .then_some((expires_at, grant.remaining))
        };
        let mut by_instant: BTreeMap<Timestamp, Amount> = BTreeMap::new();
        for (expires_at, remaining) in self.grants.values().filter_map(|copy| expiring(&copy.grant)) {
            *by_instant.entry(expires_at).or_default() += remaining;
        }
        const GRANTS_PER_PAGE: usize = 64;
        for page_number in 0.. {
            let page = self.reader.due_after(self.now, page_number * GRANTS_PER_PAGE, GRANTS_PER_PAGE);
            for grant in page.iter().filter(|grant| !self.grants.contains_key(&grant.id)) {
                if let Some((expires_at, remaining)) = expiring(grant) {
                    *by_instant.entry(expires_at).or_default() += remaining;
                }
            }
            // Whatever comes later than the first instant found does not matter.
            let read_until = page.last().map(Grant::due_at);
            let found = by_instant.first_key_value().map(|(instant, credits)| (*instant, *credits));
            let is_whole = found.is_some_and(|(instant, _)| read_until.is_some_and(|read_until| instant < read_until));
            if page.len() < GRANTS_PER_PAGE || is_whole {
                return found;
            }
        }
        None
    }
}
