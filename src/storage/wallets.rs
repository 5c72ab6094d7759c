//! Wallets: the customer's lock, reading and storing.

use std::collections::{HashMap, HashSet};

use pgrx::pg_sys;
use uuid::Uuid;

use super::clock;
use super::codec::{Codec, Place, array, text, texts};
use super::columns::instants;
use super::statement::{Access, Parameter, Row, statements};
use crate::domain::amount::Amount;
use crate::domain::names::{CustomerId, WalletCode};
use crate::domain::time::Timestamp;
use crate::domain::wallet::{OveragePolicy, Wallet, WalletSettings, WalletStatus, Watch};
use crate::error::Result;

macro_rules! column_list {
    () => {
        "wallet, unit, status::text, balance, held, scheduled, debt, overage, last_seq,
         name, priority, expires_after, overage_policy::text, overage_limit, overage_unit_price, overage_currency,
         late_usage_grace, metadata::text, has_open_overage, overage_closed_seq, credited_level, low_at, high_at, has_top_up, head_grant_id, head_remaining, is_anchor, ctid"
    };
}

macro_rules! columns {
    () => {
        concat!("select ", column_list!(), " from credits_data.wallets ")
    };
}

/// Locks the anchors of many customers in the order of the parameter, each with what its row says of the wallet. In a subquery, which
/// is not flattened: the order of the locks does not hang on the plan. A lock alone is enough: whatever changes anything of a
/// customer changes the anchor. Index scan on wallets_anchor, one row each.
macro_rules! lock_many {
    ($skip:literal) => {
        concat!(
            "select c.customer_id, a.*
             from unnest($1) as c (customer_id)
             cross join lateral (
                 select last_recorded_at, next_due_at, wallet_count, credit_count, ",
            column_list!(),
            "
                 from credits_data.wallets
                 where customer_id = c.customer_id
                   and is_anchor
                 for no key update ",
            $skip,
            "
             ) a"
        )
    };
}

/// Whether the anchor `a` has something due at a parameter, of the task that another one names, if it names one.
macro_rules! due {
    ($at:literal, $task:literal) => {
        concat!(
            "a.is_anchor
              and a.next_due_at <= ",
            $at,
            "
              and case ",
            $task,
            "
                  when 'expire_grants' then exists (
                      select from credits_data.grants g
                      where g.customer_id = a.customer_id and g.due_at <= ",
            $at,
            " and g.status = 'active' offset 0)
                  when 'renew_grants' then exists (
                      select from credits_data.recurring_grants r
                      where r.customer_id = a.customer_id and r.due_at <= ",
            $at,
            " offset 0)
                  else true
                  end"
        )
    };
}

statements! {
    /// Takes the customer's lock. Index scan on wallets_anchor, one row. An update, not `select for update`: under REPEATABLE READ
    /// a row that changed meanwhile raises 40001 only then. What it decides with is read by later statements.
    LOCK(TEXTOID) = "
        update credits_data.wallets
        set is_anchor = is_anchor
        where customer_id = $1
          and is_anchor
        returning greatest(credits.clock(), last_recorded_at), next_due_at";

    LOCK_MANY(TEXTARRAYOID) = lock_many!("");

    /// The same, but for those that another session has locked.
    LOCK_FREE(TEXTARRAYOID) = lock_many!("skip locked");

    /// Which of some customers have a wallet.
    KNOWN(TEXTARRAYOID) = "
        select c.customer_id
        from unnest($1) as c (customer_id)
        where exists (select from credits_data.wallets a where a.customer_id = c.customer_id and a.is_anchor)";

    /// Locks up to $2 customers with something due at $1, those nobody else has locked; if $3 says so, only those with a grant that
    /// expires, or a recurring grant that renews. A lock alone is enough here: what is due changes the anchor, and if that fails
    /// nothing was done that another session would have to see.
    LOCK_DUE(TIMESTAMPTZOID, INT8OID, TEXTOID) = concat!("
        select a.customer_id, greatest(credits.clock(), a.last_recorded_at), a.next_due_at, a.credit_count
        from credits_data.wallets a
        where ", due!("$1", "$3"), "
        order by a.next_due_at
        limit $2
        for no key update skip locked");

    /// Whether another customer is due. One row of wallets_due.
    ANY_DUE(TIMESTAMPTZOID, TEXTOID) = concat!("
        select 1
        from credits_data.wallets a
        where ", due!("$1", "$2"), "
        limit 1");

    /// All wallets of a customer; a handful of rows by the primary key.
    LOAD(TEXTOID) = concat!(columns!(), "where customer_id = $1");

    /// The same of many customers.
    LOAD_MANY(TEXTARRAYOID) = concat!("
        select c.customer_id, w.*
        from unnest($1) as c (customer_id)
        cross join lateral (", columns!(), "where customer_id = c.customer_id offset 0) w");

    /// The customer's now and next due instant, without a lock, for reading.
    GLANCE(TEXTOID) = "
        select greatest(credits.clock(), last_recorded_at), next_due_at
        from credits_data.wallets
        where customer_id = $1
          and is_anchor";

    /// Stores what changed of many wallets, and on the anchors the customer's time: where their rows were when they were read, under
    /// the customers' locks. Tid scan, one row each.
    STORE(
        TIDARRAYOID, NUMERICARRAYOID, NUMERICARRAYOID, NUMERICARRAYOID, NUMERICARRAYOID, NUMERICARRAYOID, INT8ARRAYOID,
        TEXTARRAYOID, UUIDARRAYOID, NUMERICARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, INT8ARRAYOID, NUMERICARRAYOID
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
            head_remaining = n.head_remaining,
            credited_level = n.credited_level,
            last_recorded_at = case when w.is_anchor then greatest(w.last_recorded_at, n.recorded_at) else w.last_recorded_at end,
            next_due_at = case when w.is_anchor then n.next_due_at else w.next_due_at end,
            credit_count = case when w.is_anchor then w.credit_count + n.credit_count else w.credit_count end
        from (
            select unnest($1) as place, unnest($2) as balance, unnest($3) as held, unnest($4) as scheduled, unnest($5) as debt,
                   unnest($6) as overage, unnest($7) as last_seq, unnest($8) as status, unnest($9) as head_grant_id,
                   unnest($10) as head_remaining, unnest($11) as recorded_at, unnest($12) as next_due_at,
                   unnest($13) as credit_count, unnest($14) as credited_level
        ) n
        where w.ctid = n.place";

    /// Stores what is watched of wallets, and what of their overage is on invoice lines, after [`STORE`]: it changes seldom. Primary key,
    /// one row each.
    STORE_WATCH(TEXTARRAYOID, TEXTARRAYOID, BOOLARRAYOID, INT8ARRAYOID, NUMERICARRAYOID, NUMERICARRAYOID, BOOLARRAYOID) = "
        update credits_data.wallets w
        set has_open_overage = n.has_open_overage,
            overage_closed_seq = n.overage_closed_seq,
            low_at = n.low_at,
            high_at = n.high_at,
            has_top_up = n.has_top_up
        from (
            select unnest($1) as customer_id, unnest($2) as wallet, unnest($3) as has_open_overage, unnest($4) as overage_closed_seq,
                   unnest($5) as low_at, unnest($6) as high_at, unnest($7) as has_top_up
        ) n
        where w.customer_id = n.customer_id
          and w.wallet = n.wallet";

    /// The next instant after one of each customer at which something of it falls due. One row of each of five indexes.
    NEXT_DUE_AFTER(TEXTARRAYOID, TIMESTAMPTZARRAYOID) = "
        select c.customer_id,
               least(
                   (select g.due_at from credits_data.grants g
                    where g.customer_id = c.customer_id and g.due_at > c.at and g.due_at < 'infinity' order by g.due_at limit 1),
                   (select r.due_at from credits_data.recurring_grants r
                    where r.customer_id = c.customer_id and r.due_at > c.at and r.due_at < 'infinity' order by r.due_at limit 1),
                   (select k.due_at from credits_data.contracts k
                    where k.customer_id = c.customer_id and k.due_at > c.at and k.due_at < 'infinity' order by k.due_at limit 1),
                   (select h.due_at from credits_data.holds h
                    where h.customer_id = c.customer_id and h.due_at > c.at and h.due_at < 'infinity' order by h.due_at limit 1),
                   (select t.due_at from credits_data.top_up_rules t
                    where t.customer_id = c.customer_id and t.due_at > c.at and t.due_at < 'infinity' order by t.due_at limit 1),
                   'infinity')
        from unnest($1, $2) as c (customer_id, at)";

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

/// A customer that is locked.
#[derive(Debug, Clone)]
pub struct Locked {
    pub customer_id: CustomerId,
    pub time: CustomerTime,
    /// How many calls brought it credits.
    pub credit_count: i64,
    /// Its wallets, if the lock has read them: those of a customer with one.
    pub wallets: Option<Vec<StoredWallet>>,
}

impl Locked {
    /// The same, whose wallets are to be read again.
    pub fn without_wallets(&self) -> Self {
        Self { customer_id: self.customer_id.clone(), wallets: None, ..*self }
    }
}

/// What to do about customers that another session has locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contended {
    Wait,
    Skip,
}

/// Takes the locks of some customers in their order; those that have no wallet, or are skipped, are not returned.
pub fn lock_many(customers: &[&CustomerId], contended: Contended) -> Result<Vec<Locked>> {
    let parameters = [Some(texts(customers.iter().map(|customer_id| Some(customer_id.as_str()))))];
    let statement = if contended == Contended::Wait { &LOCK_MANY } else { &LOCK_FREE };
    let rows = statement.with(|statement| statement.run(Access::Write, &parameters));
    // After the statement, so under all the locks.
    let clock = clock::now()?;
    let read = |mut row: Row<'_>| {
        let customer_id = CustomerId::stored(row.take());
        let time = CustomerTime { now: clock.max(row.take()), next_due_at: row.take() };
        let is_only_one = row.take::<i32>() == 1;
        let credit_count = row.take();
        let anchor = stored_wallet(row);
        Locked { customer_id, time, credit_count, wallets: is_only_one.then(|| vec![anchor]) }
    };
    Ok(rows.iter().map(read).collect())
}

/// Which of some customers have a wallet.
pub fn known(customers: &[&CustomerId]) -> HashSet<CustomerId> {
    let parameters = [Some(texts(customers.iter().map(|customer_id| Some(customer_id.as_str()))))];
    let rows = KNOWN.with(|statement| statement.run(Access::Write, &parameters));
    rows.iter().map(|mut row| CustomerId::stored(row.take())).collect()
}

/// Locks customers with something due at `at` (of one task, if named), those nobody else has locked.
pub fn lock_due(at: Timestamp, customers_max: i64, task: Option<&str>) -> Vec<Locked> {
    let parameters = [Some(at.encode()), Some(customers_max.encode()), task.map(text)];
    let rows = LOCK_DUE.with(|statement| statement.run(Access::Write, &parameters));
    let read = |mut row: Row| Locked {
        customer_id: CustomerId::stored(row.take()),
        time: CustomerTime::read(&mut row),
        credit_count: row.take(),
        wallets: None,
    };
    rows.iter().map(read).collect()
}

/// Whether a customer has something due at `at` (of one task, if named).
pub fn any_due(at: Timestamp, task: Option<&str>) -> bool {
    ANY_DUE.with(|statement| statement.run(Access::Write, &[Some(at.encode()), task.map(text)])).count() > 0
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
    pub is_anchor: bool,
    /// Under the customer's lock nobody moves the row.
    place: Place,
}

/// The wallets of a customer.
pub fn load(access: Access, customer_id: &CustomerId) -> Vec<StoredWallet> {
    let rows = LOAD.with(|statement| statement.run(access, &[Some(text(customer_id.as_str()))]));
    rows.iter().map(stored_wallet).collect()
}

/// The wallets of many customers.
pub fn load_many(access: Access, customers: &[&CustomerId]) -> HashMap<CustomerId, Vec<StoredWallet>> {
    let parameters = [Some(texts(customers.iter().map(|customer_id| Some(customer_id.as_str()))))];
    let rows = LOAD_MANY.with(|statement| statement.run(access, &parameters));
    let mut loaded: HashMap<CustomerId, Vec<StoredWallet>> = HashMap::new();
    for mut row in rows.iter() {
        loaded.entry(CustomerId::stored(row.take())).or_default().push(stored_wallet(row));
    }
    loaded
}

/// When something of each of some customers falls due next after an instant.
pub fn next_due_after(access: Access, customers: &[(&CustomerId, Timestamp)]) -> HashMap<CustomerId, Timestamp> {
    let rows = NEXT_DUE_AFTER.with(|statement| statement.run(access, &instants(customers)));
    rows.iter().map(|mut row| (CustomerId::stored(row.take()), row.take())).collect()
}

fn stored_wallet(mut row: Row) -> StoredWallet {
    let wallet = wallet(&mut row);
    let head = row.optional().zip(row.optional()).map(|(grant, remaining)| Head { grant, remaining });
    StoredWallet { wallet, head, is_anchor: row.take(), place: row.take() }
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
        has_open_overage: row.take(),
        overage_closed_seq: row.take(),
        credited_level: row.take(),
        watch: Watch { low_at: row.optional(), high_at: row.optional(), has_top_up: row.take() },
    }
}

/// A code that the type of its column guards.
pub fn stored_code<T>(code: String, from_code: impl Fn(&str) -> Option<T>) -> T {
    match from_code(&code) {
        Some(value) => value,
        None => panic!("unknown code {code} in a table"),
    }
}

/// A wallet to be stored.
pub struct ChangedWallet<'a> {
    pub customer_id: &'a CustomerId,
    pub wallet: &'a Wallet,
    /// What is stored of it.
    pub before: &'a StoredWallet,
    /// The grant that rides on it from now on.
    pub head: Option<Head>,
    /// When the customer's entries were recorded; [`Timestamp::BEFORE_ALL`] if there were none.
    pub recorded_at: Timestamp,
    /// When the customer is due next.
    pub next_due_at: Timestamp,
    /// Whether the customer got credits.
    pub has_credited: bool,
}

/// Stores wallets that some calls changed, each row once.
pub fn store(changed: &[ChangedWallet<'_>]) {
    if changed.is_empty() {
        return;
    }
    fn column<T: Codec>(changed: &[ChangedWallet<'_>], value: impl Fn(&ChangedWallet<'_>) -> Option<T>) -> Parameter {
        Some(array(changed.iter().map(value)))
    }
    let parameters = [
        column(changed, |row| Some(row.before.place)),
        column(changed, |row| Some(row.wallet.balance)),
        column(changed, |row| Some(row.wallet.held)),
        column(changed, |row| Some(row.wallet.scheduled)),
        column(changed, |row| Some(row.wallet.debt)),
        column(changed, |row| Some(row.wallet.overage)),
        column(changed, |row| Some(row.wallet.last_seq)),
        Some(texts(changed.iter().map(|row| Some(row.wallet.status.code())))),
        column(changed, |row| row.head.map(|head| head.grant)),
        column(changed, |row| row.head.map(|head| head.remaining)),
        column(changed, |row| Some(row.recorded_at)),
        column(changed, |row| Some(row.next_due_at)),
        column(changed, |row| Some(i64::from(row.has_credited))),
        column(changed, |row| Some(row.wallet.credited_level)),
    ];
    let stored = STORE.with(|statement| statement.run(Access::Write, &parameters)).count();
    assert!(stored == changed.len(), "a wallet was changed elsewhere in the call that has read it");
    store_watch(changed.iter().filter(|row| row.watch_changed()).collect());
}

impl ChangedWallet<'_> {
    fn watch_changed(&self) -> bool {
        let parts = |wallet: &Wallet| (wallet.has_open_overage, wallet.overage_closed_seq, wallet.watch);
        parts(self.wallet) != parts(&self.before.wallet)
    }
}

fn store_watch(changed: Vec<&ChangedWallet<'_>>) {
    if changed.is_empty() {
        return;
    }
    fn column<T: Codec>(changed: &[&ChangedWallet<'_>], value: impl Fn(&Wallet) -> Option<T>) -> Parameter {
        Some(array(changed.iter().map(|row| value(row.wallet))))
    }
    let parameters = [
        Some(texts(changed.iter().map(|row| Some(row.customer_id.as_str())))),
        Some(texts(changed.iter().map(|row| Some(row.wallet.code.as_str())))),
        column(&changed, |wallet| Some(wallet.has_open_overage)),
        column(&changed, |wallet| Some(wallet.overage_closed_seq)),
        column(&changed, |wallet| wallet.watch.low_at),
        column(&changed, |wallet| wallet.watch.high_at),
        column(&changed, |wallet| Some(wallet.watch.has_top_up)),
    ];
    STORE_WATCH.with(|statement| statement.run(Access::Write, &parameters));
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

/// Stores the settings of a wallet, after the book that has read it.
pub fn configure(customer_id: &CustomerId, code: &WalletCode, settings: &WalletSettings) {
    let mut parameters = vec![Some(text(customer_id.as_str())), Some(text(code.as_str()))];
    parameters.extend(settings_parameters(settings));
    CONFIGURE.with(|statement| statement.run(Access::Write, &parameters));
}
