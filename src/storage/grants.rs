//! Grants: reading in the order of spending and of becoming due, and storing.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::rc::Rc;

use uuid::Uuid;

use super::codec::{Codec, array, json_array, text, texts};
use super::columns::{Columns, due_until, of_customers};
use super::statement::{Access, Parameter, Row, Statement, statements};
use super::wallets::{Head, StoredWallet, stored_code};
use crate::domain::amount::Amount;
use crate::domain::book::{Book, Copy};
use crate::domain::grant::{Grant, GrantStatus, GrantTerms, GrantType, Origin, SpendingOrder};
use crate::domain::names::{ContractCode, CustomerId, RecurringCode, WalletCode};
use crate::domain::time::Timestamp;
use crate::domain::wallet::Wallet;

/// The columns of a grant. The two casts are renamed: `order by` prefers the name of an output column to that of the table's, and
/// the text of a type sorts otherwise than the type.
macro_rules! columns {
    () => {
        "select grant_id, wallet, created_seq, status::text as status_code, amount, remaining, expired,
                grant_type::text as grant_type_code, priority, effective_at,
                expires_at, unit_price, currency, applies_to, metadata::text, recurring_grant, contract, rolled_over
         from credits_data.grants "
    };
}

statements! {
    /// The first grant to spend. Index scan on grants_live, one row, however many live and dead grants there are: the predicate
    /// is a literal, so that the kept plan can use the partial index.
    LIVE_FIRST(TEXTOID, TEXTOID) = concat!(columns!(), "
        where customer_id = $1
          and wallet = $2
          and status = 'active'
        order by priority, expires_at, unlimited, grant_type, effective_at, created_seq
        limit 1");

    /// The same of many wallets.
    LIVE_FIRST_OF(TEXTARRAYOID, TEXTARRAYOID) = concat!("
        select c.customer_id, g.*
        from unnest($1, $2) as c (customer_id, wallet)
        cross join lateral (", columns!(), "
            where customer_id = c.customer_id
              and wallet = c.wallet
              and status = 'active'
            order by priority, expires_at, unlimited, grant_type, effective_at, created_seq
            limit 1
        ) g");

    /// The next grants to spend after a place. Index scan on grants_live from there on.
    LIVE_AFTER(TEXTOID, TEXTOID, INT4OID, TIMESTAMPTZOID, BOOLOID, TEXTOID, TIMESTAMPTZOID, INT8OID, INT8OID) = concat!(columns!(), "
        where customer_id = $1
          and wallet = $2
          and status = 'active'
          and (priority, expires_at, unlimited, grant_type, effective_at, created_seq)
            > ($3, $4, $5, $6::credits_data.grant_type, $7, $8)
        order by priority, expires_at, unlimited, grant_type, effective_at, created_seq
        limit $9");

    /// What is due of many customers, until an instant of each. Index scan on grants_due for each.
    DUE_UNTIL(TEXTARRAYOID, TIMESTAMPTZARRAYOID) = due_until!(columns!());

    /// What is due next. Index scan on grants_due, as many rows as asked for.
    DUE_AFTER(TEXTOID, TIMESTAMPTZOID, INT8OID, INT8OID) = concat!(columns!(), "
        where customer_id = $1
          and due_at > $2
          and due_at < 'infinity'
        order by due_at
        offset $3
        limit $4");

    /// For late usage. Index scan on grants_expired.
    EXPIRED_SINCE(TEXTOID, TEXTOID, TIMESTAMPTZOID) = concat!(columns!(), "
        where customer_id = $1
          and wallet = $2
          and status = 'expired'
          and expires_at > $3
          and effective_at <= $3
          and expired > 0");

    /// Primary key, one row.
    BY_ID(TEXTOID, UUIDOID) = concat!(columns!(), "
        where customer_id = $1
          and grant_id = $2");

    /// All of a customer: primary key.
    ALL(TEXTOID) = concat!(columns!(), "
        where customer_id = $1
          and wallet in (select w.wallet from credits_data.wallets w where w.customer_id = $1)");

    /// What rolled over from a recurring grant and can be spent. Index scan on grants_rolled_over.
    ROLLED_OVER(TEXTOID, TEXTOID) = concat!(columns!(), "
        where customer_id = $1
          and recurring_grant = $2
          and rolled_over
          and status = 'active'");

    /// The same of every recurring grant with a cap that is due, of many customers, until an instant of each.
    ROLLED_OVER_DUE(TEXTARRAYOID, TIMESTAMPTZARRAYOID) = concat!("
        select c.customer_id, g.*
        from unnest($1, $2) as c (customer_id, until)
        cross join lateral (
            select r.recurring_grant
            from credits_data.recurring_grants r
            where r.customer_id = c.customer_id
              and r.due_at <= c.until
              and r.due_at < 'infinity'
              and (r.rollover_cap is not null or r.period_rollover_cap is not null)
            offset 0
        ) due
        cross join lateral (", columns!(), "
            where customer_id = c.customer_id
              and recurring_grant = due.recurring_grant
              and rolled_over
              and status = 'active'
            offset 0
        ) g");

    /// The grants of a contract that it can still end. Index scan on grants_contract.
    INSTALMENTS(TEXTOID, TEXTOID) = concat!(columns!(), "
        where customer_id = $1
          and contract = $2
          and not rolled_over
          and status in ('active', 'exhausted')");

    /// New grants of many customers. `applies_to` crosses as text, since arrays of arrays must be rectangular.
    CREATE(
        TEXTARRAYOID, UUIDARRAYOID, TEXTARRAYOID, INT8ARRAYOID, INT4ARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID,
        TIMESTAMPTZARRAYOID, TEXTARRAYOID, NUMERICARRAYOID, NUMERICARRAYOID, NUMERICARRAYOID, NUMERICARRAYOID, TEXTARRAYOID, TEXTARRAYOID,
        TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, BOOLARRAYOID
    ) = "
        insert into credits_data.grants (
            customer_id, grant_id, wallet, created_seq, priority, grant_type, effective_at, expires_at, due_at, status, amount,
            remaining, expired, unit_price, currency, applies_to, unlimited, metadata, recurring_grant, contract, rolled_over
        )
        select customer_id, grant_id, wallet, created_seq, priority, grant_type::credits_data.grant_type, effective_at, expires_at,
               due_at, status::credits_data.grant_status, amount, remaining, expired, unit_price, currency,
               (select array_agg(name) from jsonb_array_elements_text(applies_to::jsonb) name), applies_to is null, metadata::jsonb,
               recurring_grant, contract, rolled_over
        from (
            select unnest($1) as customer_id, unnest($2) as grant_id, unnest($3) as wallet, unnest($4) as created_seq,
                   unnest($5) as priority, unnest($6) as grant_type, unnest($7) as effective_at, unnest($8) as expires_at,
                   unnest($9) as due_at, unnest($10) as status, unnest($11) as amount, unnest($12) as remaining,
                   unnest($13) as expired, unnest($14) as unit_price, unnest($15) as currency, unnest($16) as applies_to,
                   unnest($17) as metadata, unnest($18) as recurring_grant, unnest($19) as contract, unnest($20) as rolled_over
        ) n";

    /// Grants that expire after $1 and until $2 of which nobody has been told, the next first. Index scan on grants_expiring.
    EXPIRING(TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID) = "
        select customer_id, grant_id
        from credits_data.grants
        where status = 'active'
          and not expiring_noticed
          and expires_at < 'infinity'
          and expires_at > $1
          and expires_at <= $2
        order by expires_at
        limit $3";

    /// Those of some grants of which nobody has been told yet. Primary key, one row each.
    UNNOTICED(TEXTARRAYOID, UUIDARRAYOID) = "
        select g.grant_id
        from unnest($1, $2) as c (customer_id, grant_id)
        cross join lateral (
            select grant_id
            from credits_data.grants
            where customer_id = c.customer_id
              and grant_id = c.grant_id
              and not expiring_noticed
            offset 0
        ) g";

    /// Primary key, one row each.
    NOTICE(TEXTARRAYOID, UUIDARRAYOID) = "
        update credits_data.grants g
        set expiring_noticed = true
        from (
            select unnest($1) as customer_id, unnest($2) as grant_id
        ) n
        where g.customer_id = n.customer_id
          and g.grant_id = n.grant_id";

    /// Sends riding grants back to their own rows: primary key, one row each. Their wallets' rows are stored after it.
    DISMOUNT(TEXTARRAYOID, UUIDARRAYOID, NUMERICARRAYOID) = "
        update credits_data.grants g
        set remaining = n.remaining
        from (
            select unnest($1) as customer_id, unnest($2) as grant_id, unnest($3) as remaining
        ) n
        where g.customer_id = n.customer_id
          and g.grant_id = n.grant_id";

    /// What changed of many grants: primary key, one row each.
    STORE(TEXTARRAYOID, UUIDARRAYOID, TEXTARRAYOID, NUMERICARRAYOID, NUMERICARRAYOID, TIMESTAMPTZARRAYOID) = "
        update credits_data.grants g
        set status = n.status::credits_data.grant_status,
            remaining = n.remaining,
            expired = n.expired,
            due_at = n.due_at
        from (
            select unnest($1) as customer_id, unnest($2) as grant_id, unnest($3) as status, unnest($4) as remaining,
                   unnest($5) as expired, unnest($6) as due_at
        ) n
        where g.customer_id = n.customer_id
          and g.grant_id = n.grant_id";
}

/// A grant as stored, with the code of its wallet.
#[derive(Clone)]
pub struct StoredGrant {
    pub wallet: String,
    grant: Grant,
}

impl StoredGrant {
    fn read(mut row: Row<'_>) -> Self {
        let id = row.take();
        let wallet = row.take();
        let grant = Grant {
            id,
            wallet: 0,
            created_seq: row.take(),
            status: stored_code(row.take(), GrantStatus::from_code),
            amount: row.take(),
            remaining: row.take(),
            expired: row.take(),
            terms: GrantTerms {
                grant_type: stored_code(row.take(), GrantType::from_code),
                priority: row.take(),
                effective_at: row.take(),
                expires_at: row.take(),
                unit_price: row.optional(),
                currency: row.optional(),
                applies_to: row.optional(),
                metadata: row.take(),
                origin: origin(row.optional(), row.optional(), row.take()),
            },
        };
        Self { wallet, grant }
    }
}

/// The first grant to spend of some wallets, where there is one.
pub fn live_first(access: Access, wallets: &[(&CustomerId, &WalletCode)]) -> Vec<(CustomerId, StoredGrant)> {
    let parameters = [
        Some(texts(wallets.iter().map(|(customer_id, _)| Some(customer_id.as_str())))),
        Some(texts(wallets.iter().map(|(_, wallet)| Some(wallet.as_str())))),
    ];
    let rows = LIVE_FIRST_OF.with(|statement| statement.run(access, &parameters));
    rows.iter().map(|mut row| (CustomerId::stored(row.take()), StoredGrant::read(row))).collect()
}

/// A grant that rides on its wallet's row as far as that row knows it, for calls that only take from it: it pays for any usage, and
/// comes before every other live grant of the wallet. Its place in the order and its expiry are not known, but that it is the first,
/// and not due.
pub fn riding(wallet: &WalletCode, head: Head) -> StoredGrant {
    let grant = Grant {
        id: head.grant,
        wallet: 0,
        created_seq: 0,
        status: GrantStatus::Active,
        amount: Amount::from_units(i128::MAX),
        remaining: head.remaining,
        expired: Amount::ZERO,
        terms: GrantTerms {
            grant_type: GrantType::Promotional,
            priority: i32::MIN,
            effective_at: Timestamp::BEFORE_ALL,
            expires_at: Timestamp::NEVER,
            unit_price: None,
            currency: None,
            applies_to: None,
            metadata: String::new(),
            origin: None,
        },
    };
    StoredGrant { wallet: wallet.to_string(), grant }
}

/// What is due of some customers, until an instant of each.
pub fn due_until(access: Access, customers: &[(&CustomerId, Timestamp)]) -> Vec<(CustomerId, StoredGrant)> {
    of_customers(&DUE_UNTIL, access, customers, StoredGrant::read)
}

/// What rolled over and is not spent of the capped recurring grants that are due, until an instant of each customer.
pub fn rolled_over_due(access: Access, customers: &[(&CustomerId, Timestamp)]) -> Vec<(CustomerId, StoredGrant)> {
    of_customers(&ROLLED_OVER_DUE, access, customers, StoredGrant::read)
}

/// The stored grants of one customer.
pub struct Grants<'a> {
    pub customer_id: &'a CustomerId,
    pub access: Access,
    /// The wallets in the book's order, to translate codes into indexes.
    wallets: OnceCell<Vec<WalletCode>>,
    /// The grants that ride on their wallets' rows: what is left of them stands there.
    heads: Vec<Head>,
}

impl<'a> Grants<'a> {
    /// The grants of a customer, some of which ride on the wallets loaded.
    pub fn of(customer_id: &'a CustomerId, access: Access, stored: &[StoredWallet]) -> Self {
        let heads = stored.iter().filter_map(|stored| stored.head).collect();
        Self { customer_id, access, wallets: OnceCell::new(), heads }
    }

    /// Says in which order the wallets stand.
    pub fn set_order<'w>(&self, wallets: impl Iterator<Item = &'w Wallet>) {
        let codes = wallets.map(|wallet| wallet.code.clone()).collect();
        assert!(self.wallets.set(codes).is_ok(), "the order of wallets is set once");
    }

    fn read(&self, statement: &'static std::thread::LocalKey<Statement>, parameters: &[Parameter]) -> Vec<Grant> {
        let rows = statement.with(|statement| statement.run(self.access, parameters));
        rows.iter().map(|row| self.placed(StoredGrant::read(row))).collect()
    }

    /// The index of a stored wallet in the book.
    pub fn wallet_index(&self, code: &str) -> usize {
        let wallets = self.wallets.get().map(Vec::as_slice).unwrap_or_default();
        match wallets.iter().position(|wallet| wallet.as_str() == code) {
            Some(index) => index,
            None => panic!("wallet {code} is not in the book"),
        }
    }

    /// The grant as the book knows it: by the index of its wallet, and with what is left of it if it rides.
    pub fn placed(&self, StoredGrant { wallet, mut grant }: StoredGrant) -> Grant {
        grant.wallet = self.wallet_index(&wallet);
        if let Some(head) = self.heads.iter().find(|head| head.grant == grant.id) {
            grant.remaining = head.remaining;
        }
        grant
    }

    fn customer(&self) -> Parameter {
        Some(text(self.customer_id.as_str()))
    }

    pub fn live_after(&self, wallet: &WalletCode, after: Option<SpendingOrder>, grants_max: usize) -> Vec<Grant> {
        let wallet = Some(text(wallet.as_str()));
        let Some(place) = after else {
            // The first page is one row: the plan of a larger limit may be another (DESIGN, facts).
            return self.read(&LIVE_FIRST, &[self.customer(), wallet]);
        };
        let parameters = [
            self.customer(),
            wallet,
            Some(place.priority.encode()),
            Some(place.expires_at.encode()),
            Some(place.unlimited.encode()),
            Some(text(place.grant_type.code())),
            Some(place.effective_at.encode()),
            Some(place.created_seq.encode()),
            Some((grants_max as i64).encode()),
        ];
        self.read(&LIVE_AFTER, &parameters)
    }

    pub fn due_after(&self, after: Timestamp, skip: usize, grants_max: usize) -> Vec<Grant> {
        let parameters =
            [self.customer(), Some(after.encode()), Some((skip as i64).encode()), Some((grants_max as i64).encode())];
        self.read(&DUE_AFTER, &parameters)
    }

    pub fn expired_since(&self, wallet: &WalletCode, live_at: Timestamp) -> Vec<Grant> {
        self.read(&EXPIRED_SINCE, &[self.customer(), Some(text(wallet.as_str())), Some(live_at.encode())])
    }

    /// Every grant of the customer's wallets. One without a wallet is reported by other means.
    pub fn all(&self) -> Vec<Grant> {
        self.read(&ALL, &[self.customer()])
    }

    pub fn rolled_over(&self, code: &RecurringCode) -> Vec<Grant> {
        self.read(&ROLLED_OVER, &[self.customer(), Some(text(code.as_str()))])
    }

    pub fn instalments(&self, code: &ContractCode) -> Vec<Grant> {
        self.read(&INSTALMENTS, &[self.customer(), Some(text(code.as_str()))])
    }

    pub fn by_id(&self, id: Uuid) -> Option<Grant> {
        self.read(&BY_ID, &[self.customer(), Some(id.encode())]).pop()
    }
}

fn origin(recurring: Option<Rc<str>>, contract: Option<Rc<str>>, rolled_over: bool) -> Option<Origin> {
    let recurring = recurring.map(RecurringCode::stored);
    let contract = contract.map(ContractCode::stored);
    match (recurring, contract, rolled_over) {
        (Some(code), _, false) => Some(Origin::Period(code)),
        (Some(code), _, true) => Some(Origin::PeriodRollover(code)),
        (None, Some(code), false) => Some(Origin::Instalment(code)),
        (None, Some(code), true) => Some(Origin::ContractRollover(code)),
        (None, None, _) => None,
    }
}

/// Up to `grants_max` live grants that expire until an instant, and of which nobody has been told.
pub fn expiring(now: Timestamp, until: Timestamp, grants_max: i64) -> Vec<(CustomerId, Uuid)> {
    let parameters = [Some(now.encode()), Some(until.encode()), Some(grants_max.encode())];
    let rows = EXPIRING.with(|statement| statement.run(Access::Write, &parameters));
    rows.iter().map(|mut row| (CustomerId::stored(row.take()), row.take())).collect()
}

fn keys(grants: &[(CustomerId, Uuid)]) -> [Parameter; 2] {
    [
        Some(texts(grants.iter().map(|(customer_id, _)| Some(customer_id.as_str())))),
        Some(array(grants.iter().map(|(_, grant)| Some(*grant)))),
    ]
}

/// Those of some grants of which nobody has been told yet; their customers are locked.
pub fn unnoticed(grants: &[(CustomerId, Uuid)]) -> HashSet<Uuid> {
    UNNOTICED.with(|statement| statement.run(Access::Write, &keys(grants))).iter().map(|mut row| row.take()).collect()
}

/// Keeps in mind that somebody was told of them.
pub fn notice(grants: &[(CustomerId, Uuid)]) {
    NOTICE.with(|statement| statement.run(Access::Write, &keys(grants)));
}

/// Stores the grants that some books created and changed. Those that ride on their wallets' rows, before and after, are stored there
/// as long as what is left of them is all that changed.
pub fn store(books: &[&Book<'_>], riding: &HashSet<Uuid>) {
    let is_stored_elsewhere = |copy: &&Copy| copy.is_same_but_for_remaining() && riding.contains(&copy.grant.id);
    create(&Columns::of(books, |book| book.grants.values().filter(|copy| copy.is_new()).map(|copy| &copy.grant)));
    update(&Columns::of(books, |book| {
        book.grants.values().filter(|copy| copy.is_changed() && !is_stored_elsewhere(copy)).map(|copy| &copy.grant)
    }));
}

fn create(grants: &Columns<'_, '_, Grant>) {
    if grants.is_empty() {
        return;
    }
    let parameters = [
        grants.customers(),
        grants.column(|grant| Some(grant.id)),
        grants.column_with_book(|book, grant| Some(book.wallets[grant.wallet].code.to_string())),
        grants.column(|grant| Some(grant.created_seq)),
        grants.column(|grant| Some(grant.terms.priority)),
        grants.column(|grant| Some(grant.terms.grant_type.code().to_owned())),
        grants.column(|grant| Some(grant.terms.effective_at)),
        grants.column(|grant| Some(grant.terms.expires_at)),
        grants.column(|grant| Some(grant.due_at())),
        grants.column(|grant| Some(grant.status.code().to_owned())),
        grants.column(|grant| Some(grant.amount)),
        grants.column(|grant| Some(grant.remaining)),
        grants.column(|grant| Some(grant.expired)),
        grants.column(|grant| grant.terms.unit_price),
        grants.column(|grant| grant.terms.currency.clone()),
        grants.column(|grant| grant.terms.applies_to.as_deref().map(json_array)),
        grants.column(|grant| Some(grant.terms.metadata.clone())),
        grants.column(|grant| match &grant.terms.origin {
            Some(Origin::Period(code) | Origin::PeriodRollover(code)) => Some(code.to_string()),
            _ => None,
        }),
        grants.column(|grant| match &grant.terms.origin {
            Some(Origin::Instalment(code) | Origin::ContractRollover(code)) => Some(code.to_string()),
            _ => None,
        }),
        grants.column(|grant| Some(matches!(grant.terms.origin, Some(Origin::PeriodRollover(_) | Origin::ContractRollover(_))))),
    ];
    CREATE.with(|statement| statement.run(Access::Write, &parameters));
}

fn update(grants: &Columns<'_, '_, Grant>) {
    if grants.is_empty() {
        return;
    }
    let parameters = [
        grants.customers(),
        grants.column(|grant| Some(grant.id)),
        grants.column(|grant| Some(grant.status.code().to_owned())),
        grants.column(|grant| Some(grant.remaining)),
        grants.column(|grant| Some(grant.expired)),
        grants.column(|grant| Some(grant.due_at())),
    ];
    STORE.with(|statement| statement.run(Access::Write, &parameters));
}

/// Sends riding grants back to their own rows. The caller stores the wallets, with whatever rides on them from now on.
pub fn dismount(heads: &[(&CustomerId, Head)]) {
    if heads.is_empty() {
        return;
    }
    let parameters = [
        Some(array(heads.iter().map(|(customer_id, _)| Some(customer_id.to_string())))),
        Some(array(heads.iter().map(|(_, head)| Some(head.grant)))),
        Some(array(heads.iter().map(|(_, head)| Some(head.remaining)))),
    ];
    let dismounted = DISMOUNT.with(|statement| statement.run(Access::Write, &parameters)).count();
    assert!(dismounted == heads.len(), "a grant that rides on a wallet is missing");
}
