//! What calls of many customers will ask for, read together.

use std::collections::{HashMap, HashSet};

use super::grants::{self, StoredGrant};
use super::ledger::StoredLine;
use super::meter_periods::StoredPeriod;
use super::statement::Access;
use super::wallets::{Head, StoredWallet};
use super::{ledger, meter_periods};
use crate::domain::meter::{MeterValue, PeriodKey, ValueKey};
use crate::domain::names::{CustomerId, TransactionId};
use crate::domain::wallet::WalletStatus;

/// What a call will ask for of one customer, to be read together with that of others.
#[derive(Default)]
pub struct Wanted {
    pub transactions: HashSet<TransactionId>,
    pub periods: HashSet<PeriodKey>,
    pub values: HashSet<ValueKey>,
    /// Whether something is due first.
    pub is_due: bool,
    /// Whether usage is asked for that happened earlier, which grants may pay that have expired since.
    pub is_late: bool,
    /// Whether credits may go back to grants: another one than the first may be the first then.
    pub can_give_back: bool,
}

impl Wanted {
    /// The grant that rides on a wallet's row, if what the row says of it is enough.
    fn head(&self, stored: &StoredWallet) -> Option<Head> {
        let is_late = self.is_late && !stored.wallet.settings.late_usage_grace.is_zero();
        stored.head.filter(|_| !self.is_due && !is_late && !self.can_give_back)
    }
}

/// What was read of it, under the customer's lock: what is asked for and not found is not stored.
#[derive(Default)]
pub struct Ahead {
    pub wanted: Wanted,
    /// Whether the transactions wanted were looked for.
    pub looks: bool,
    pub transactions: HashMap<TransactionId, Vec<StoredLine>>,
    pub periods: Vec<StoredPeriod>,
    pub values: Vec<MeterValue>,
    /// The first grant to spend of each wallet.
    pub live_first: Vec<StoredGrant>,
}

impl Ahead {
    /// Of many customers, in one statement a table; transactions only if `looks`.
    pub fn read(
        access: Access,
        customers: Vec<(&CustomerId, &[StoredWallet], Wanted)>,
        looks: bool,
    ) -> HashMap<CustomerId, Ahead> {
        // Where a grant rides, the wallet's row says enough of it.
        let wallets: Vec<_> = customers
            .iter()
            .flat_map(|(customer_id, wallets, wanted)| wallets.iter().map(move |stored| (*customer_id, stored, wanted)))
            .filter(|(_, stored, wanted)| stored.wallet.status == WalletStatus::Active && wanted.head(stored).is_none())
            .map(|(customer_id, stored, _)| (customer_id, &stored.wallet.code))
            .collect();
        fn keys<'a, K>(
            customers: &'a [(&'a CustomerId, &[StoredWallet], Wanted)],
            of: impl Fn(&'a Wanted) -> Vec<&'a K>,
        ) -> Vec<(&'a CustomerId, &'a K)> {
            customers
                .iter()
                .flat_map(|(customer_id, _, wanted)| of(wanted).into_iter().map(move |key| (*customer_id, key)))
                .collect()
        }
        let looked_for = keys(&customers, |wanted| if looks { wanted.transactions.iter().collect() } else { Vec::new() });
        let lines = read_some(looked_for, |keys| ledger::transactions(access, keys));
        let mut periods =
            read_some(keys(&customers, |wanted| wanted.periods.iter().collect()), |keys| meter_periods::periods(access, keys));
        let mut values =
            read_some(keys(&customers, |wanted| wanted.values.iter().collect()), |keys| meter_periods::values(access, keys));
        let live_first = read_some(wallets, |wallets| grants::live_first(access, wallets));
        let mut ahead: HashMap<CustomerId, Ahead> = HashMap::with_capacity(customers.len());
        for (customer_id, wallets, wanted) in customers {
            let riding = wallets.iter().filter_map(|stored| Some(grants::riding(&stored.wallet.code, wanted.head(stored)?)));
            let live_first = riding.collect();
            let periods = periods.remove(customer_id).unwrap_or_default();
            let values = values.remove(customer_id).unwrap_or_default();
            ahead.insert(customer_id.clone(), Ahead { wanted, looks, periods, values, live_first, ..Ahead::default() });
        }
        for (customer_id, id, line) in lines {
            if let Some(ahead) = ahead.get_mut(&customer_id) {
                ahead.transactions.entry(id).or_default().push(line);
            }
        }
        for (customer_id, grant) in live_first {
            if let Some(ahead) = ahead.get_mut(&customer_id) {
                ahead.live_first.push(grant);
            }
        }
        ahead
    }
}

/// Runs a statement for keys, if there are any.
pub fn read_some<K, T: Default>(keys: Vec<K>, read: impl FnOnce(&[K]) -> T) -> T {
    if keys.is_empty() { T::default() } else { read(&keys) }
}
