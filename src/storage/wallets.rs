//! Wallets: the customer's lock, reading and storing.

use pgrx::pg_sys;
use uuid::Uuid;

use super::codec::{Codec, array, text};
use super::statement::{Access, Row, statements};
use crate::domain::amount::Amount;
use crate::domain::book::Book;
use crate::domain::names::{CustomerId, WalletCode};
use crate::domain::time::Timestamp;
use crate::domain::wallet::{OveragePolicy, Wallet, WalletSettings, WalletStatus};

statements! {
    /// Takes the customer's lock. Index scan on wallets_anchor, one row. An update, not `select for update`: under REPEATABLE READ
    /// a row that changed meanwhile raises 40001 only then. What it decides with is read by later statements.
    LOCK(TEXTOID) = "
        update credits_data.wallets
        set is_anchor = is_anchor
        where customer_id = $1
          and is_anchor
        returning greatest(credits.clock(), last_recorded_at), next_due_at";

    /// Locks up to $2 customers with something due at $1, those nobody else has locked, in one statement.
    LOCK_DUE(TIMESTAMPTZOID, INT8OID) = "
        update credits_data.wallets w
        set is_anchor = w.is_anchor
        from (
            select customer_id
            from credits_data.wallets
            where is_anchor
              and next_due_at <= $1
            order by next_due_at
            limit $2
            for update skip locked
        ) due
        where w.customer_id = due.customer_id
          and w.is_anchor
        returning w.customer_id, greatest(credits.clock(), w.last_recorded_at), w.next_due_at";

    /// Whether another customer is due. Index only, one row.
    ANY_DUE(TIMESTAMPTZOID) = "
        select 1
        from credits_data.wallets
        where is_anchor
          and next_due_at <= $1
        limit 1";

    /// All wallets of a customer; a handful of rows by the primary key.
    LOAD(TEXTOID) = "
        select wallet, unit, status::text, balance, held, scheduled, debt, overage, last_seq,
               name, priority, expires_after, overage_policy::text, overage_limit, overage_unit_price, overage_currency,
               late_usage_grace, metadata::text, head_grant_id, head_remaining
        from credits_data.wallets
        where customer_id = $1";

    /// The customer's now and next due instant, without a lock, for reading.
    GLANCE(TEXTOID) = "
        select greatest(credits.clock(), last_recorded_at), next_due_at
        from credits_data.wallets
        where customer_id = $1
          and is_anchor";

    /// Stores what changed of many wallets.
    STORE(
        TEXTARRAYOID, TEXTARRAYOID, NUMERICARRAYOID, NUMERICARRAYOID, NUMERICARRAYOID, NUMERICARRAYOID, NUMERICARRAYOID, INT8ARRAYOID,
        TEXTARRAYOID, UUIDARRAYOID, NUMERICARRAYOID
    ) = "
        update credits_data.wallets w
        set balance = n.balance,
            held = n.held,
            scheduled = n.scheduled,
            debt = n.debt,
            overage = n.overage,
            last_seq = n.last_seq,
            status = n.status::credits_data.wallet_status,
            head_grant_id = n.head_grant_id,
            head_remaining = n.head_remaining
        from unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
            as n (customer_id, wallet, balance, held, scheduled, debt, overage, last_seq, status, head_grant_id, head_remaining)
        where w.customer_id = n.customer_id
          and w.wallet = n.wallet";

    /// Sends a riding grant back to its own row: primary key, one row. Its wallet's row is stored after it.
    DISMOUNT(TEXTOID, UUIDOID, NUMERICOID) = "
        update credits_data.grants
        set remaining = $3
        where customer_id = $1
          and grant_id = $2";

    /// Stores a customer's time on its anchor.
    STORE_TIME(TEXTARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID) = "
        update credits_data.wallets w
        set last_recorded_at = greatest(w.last_recorded_at, n.recorded_at),
            next_due_at = n.next_due_at
        from unnest($1, $2, $3) as n (customer_id, recorded_at, next_due_at)
        where w.customer_id = n.customer_id
          and w.is_anchor";

    /// Creates a wallet. Nothing returned: it exists, or is being created and was committed while this waited.
    CREATE(TEXTOID, TEXTOID, BOOLOID, TEXTOID, TEXTOID, INT4OID, INTERVALOID, TEXTOID, NUMERICOID, NUMERICOID, TEXTOID, INTERVALOID, TEXTOID) = "
        insert into credits_data.wallets (
            customer_id, wallet, is_anchor, unit, name, priority, expires_after, overage_policy, overage_limit,
            overage_unit_price, overage_currency, late_usage_grace, metadata, created_at
        )
        values ($1, $2, $3, $4, $5, $6, $7, $8::credits_data.overage_policy, $9, $10, $11, $12, $13::jsonb, credits.clock())
        on conflict do nothing
        returning 1";

    COUNT_ONE_MORE(TEXTOID) = "
        update credits_data.wallets
        set wallet_count = wallet_count + 1
        where customer_id = $1
          and is_anchor";

    CONFIGURE(TEXTOID, TEXTOID, TEXTOID, INT4OID, INTERVALOID, TEXTOID, NUMERICOID, NUMERICOID, TEXTOID, INTERVALOID, TEXTOID) = "
        update credits_data.wallets
        set name = $3,
            priority = $4,
            expires_after = $5,
            overage_policy = $6::credits_data.overage_policy,
            overage_limit = $7,
            overage_unit_price = $8,
            overage_currency = $9,
            late_usage_grace = $10,
            metadata = $11::jsonb
        where customer_id = $1
          and wallet = $2";
}

/// A customer's time: what the call's now is, and before which instant nothing is due.
#[derive(Debug, Clone, Copy)]
pub struct CustomerTime {
    pub now: Timestamp,
    pub next_due_at: Timestamp,
}

impl CustomerTime {
    fn read(row: &mut Row) -> Self {
        Self { now: row.take(), next_due_at: row.take() }
    }
}

/// Takes the customer's one lock; none if the customer has no wallet.
pub fn lock(customer_id: &CustomerId) -> Option<CustomerTime> {
    let parameters = [Some(text(customer_id.as_str()))];
    let rows = LOCK.with(|statement| statement.run(Access::Write, &parameters));
    rows.first().map(|mut row| CustomerTime::read(&mut row))
}

/// Locks customers with something due at `at`, those nobody else has locked.
pub fn lock_due(at: Timestamp, customers_max: i64) -> Vec<(CustomerId, CustomerTime)> {
    let parameters = [Some(at.encode()), Some(customers_max.encode())];
    let rows = LOCK_DUE.with(|statement| statement.run(Access::Write, &parameters));
    let read = |mut row: Row| (CustomerId::stored(row.take()), CustomerTime::read(&mut row));
    rows.iter().map(read).collect()
}

/// Whether a customer has something due at `at`.
pub fn any_due(at: Timestamp) -> bool {
    ANY_DUE.with(|statement| statement.run(Access::Write, &[Some(at.encode())])).count() > 0
}

/// The customer's time without its lock; none if the customer has no wallet.
pub fn glance(customer_id: &CustomerId) -> Option<CustomerTime> {
    let rows = GLANCE.with(|statement| statement.run(Access::Read, &[Some(text(customer_id.as_str()))]));
    rows.first().map(|mut row| CustomerTime::read(&mut row))
}

/// The grant that pays next while it rides on its wallet's row, so that a plain deduction touches one row: what is left of it
/// stands there and not in its own row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Head {
    pub grant: Uuid,
    pub remaining: Amount,
}

/// A wallet as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredWallet {
    pub wallet: Wallet,
    pub head: Option<Head>,
}

/// The wallets of a customer.
pub fn load(access: Access, customer_id: &CustomerId) -> Vec<StoredWallet> {
    let rows = LOAD.with(|statement| statement.run(access, &[Some(text(customer_id.as_str()))]));
    rows.iter().map(stored_wallet).collect()
}

/// Sends a riding grant back to its own row. The caller stores the wallet, with whatever rides on it from now on.
pub fn dismount(customer_id: &CustomerId, head: Head) {
    let parameters = [Some(text(customer_id.as_str())), Some(head.grant.encode()), Some(head.remaining.encode())];
    let dismounted = DISMOUNT.with(|statement| statement.run(Access::Write, &parameters)).count();
    assert!(dismounted == 1, "grant {} rides on a wallet and is missing", head.grant);
}

fn stored_wallet(mut row: Row) -> StoredWallet {
    let wallet = wallet(&mut row);
    let head = row.optional().zip(row.optional()).map(|(grant, remaining)| Head { grant, remaining });
    StoredWallet { wallet, head }
}

fn wallet(row: &mut Row) -> Wallet {
    Wallet {
        code: WalletCode::stored(row.take()),
        unit: row.take(),
        status: stored_code(row.take(), WalletStatus::from_code),
        balance: row.take(),
        held: row.take(),
        scheduled: row.take(),
        debt: row.take(),
        overage: row.take(),
        last_seq: row.take(),
        settings: WalletSettings {
            name: row.optional(),
            priority: row.take(),
            expires_after: row.optional(),
            overage_policy: stored_code(row.take(), OveragePolicy::from_code),
            overage_limit: row.optional(),
            overage_unit_price: row.optional(),
            overage_currency: row.optional(),
            late_usage_grace: row.take(),
            metadata: row.take(),
        },
    }
}

/// A code that the type of its column guards.
pub fn stored_code<T>(code: String, from_code: impl Fn(&str) -> Option<T>) -> T {
    match from_code(&code) {
        Some(value) => value,
        None => panic!("unknown code {code} in a table"),
    }
}

/// Stores wallets that a call changed, each with the grant that rides on it from now on.
pub fn store(changed: &[(&CustomerId, &Wallet, Option<Head>)]) {
    if changed.is_empty() {
        return;
    }
    macro_rules! column {
        ($value:expr) => {
            Some(array(changed.iter().map(|(customer_id, wallet, head)| $value(*customer_id, *wallet, *head))))
        };
    }
    let parameters = [
        column!(|customer_id: &CustomerId, _, _| Some(customer_id.to_string())),
        column!(|_, wallet: &Wallet, _| Some(wallet.code.to_string())),
        column!(|_, wallet: &Wallet, _| Some(wallet.balance)),
        column!(|_, wallet: &Wallet, _| Some(wallet.held)),
        column!(|_, wallet: &Wallet, _| Some(wallet.scheduled)),
        column!(|_, wallet: &Wallet, _| Some(wallet.debt)),
        column!(|_, wallet: &Wallet, _| Some(wallet.overage)),
        column!(|_, wallet: &Wallet, _| Some(wallet.last_seq)),
        column!(|_, wallet: &Wallet, _| Some(wallet.status.code().to_owned())),
        column!(|_, _, head: Option<Head>| head.map(|head| head.grant)),
        column!(|_, _, head: Option<Head>| head.map(|head| head.remaining)),
    ];
    STORE.with(|statement| statement.run(Access::Write, &parameters));
}

/// Stores when each book's entries were recorded (`-infinity`: none were), and when the customer is due next.
pub fn store_time(times: &[(&CustomerId, Timestamp, Timestamp)]) {
    if times.is_empty() {
        return;
    }
    let parameters = [
        Some(array(times.iter().map(|(customer_id, _, _)| Some(customer_id.to_string())))),
        Some(array(times.iter().map(|(_, recorded_at, _)| Some(*recorded_at)))),
        Some(array(times.iter().map(|(_, _, next_due_at)| Some(*next_due_at)))),
    ];
    STORE_TIME.with(|statement| statement.run(Access::Write, &parameters));
}

fn settings_parameters(settings: &WalletSettings) -> [Option<pg_sys::Datum>; 9] {
    [
        settings.name.as_deref().map(text),
        Some(settings.priority.encode()),
        settings.expires_after.map(|interval| interval.encode()),
        Some(text(settings.overage_policy.code())),
        settings.overage_limit.map(|limit| limit.encode()),
        settings.overage_unit_price.map(|price| price.encode()),
        settings.overage_currency.as_deref().map(text),
        Some(settings.late_usage_grace.encode()),
        Some(text(&settings.metadata)),
    ]
}

/// Creates a wallet; false if the customer has one of this code, or, for an anchor, any.
pub fn create(customer_id: &CustomerId, code: &WalletCode, is_anchor: bool, unit: &str, settings: &WalletSettings) -> bool {
    let mut parameters =
        vec![Some(text(customer_id.as_str())), Some(text(code.as_str())), Some(is_anchor.encode()), Some(text(unit))];
    parameters.extend(settings_parameters(settings));
    let created = CREATE.with(|statement| statement.run(Access::Write, &parameters)).count() > 0;
    if created && !is_anchor {
        COUNT_ONE_MORE.with(|statement| statement.run(Access::Write, &[Some(text(customer_id.as_str()))]));
    }
    created
}

/// Stores the settings of a wallet.
pub fn configure(book: &Book<'_>, index: usize) {
    let wallet = &book.wallets[index];
    let mut parameters = vec![Some(text(book.customer_id.as_str())), Some(text(wallet.code.as_str()))];
    parameters.extend(settings_parameters(&wallet.settings));
    CONFIGURE.with(|statement| statement.run(Access::Write, &parameters));
}
