//! Grants: reading in the order of spending and of becoming due, and storing.

use std::cell::OnceCell;

use pgrx::pg_sys;
use uuid::Uuid;

use super::codec::{Codec, array, text};
use super::statement::{Access, Parameter, Row, Statement, statements};
use super::wallets::{Head, StoredWallet, stored_code};
use crate::domain::book::Book;
use crate::domain::grant::{Grant, GrantStatus, GrantTerms, GrantType, SpendingOrder};
use crate::domain::names::{CustomerId, WalletCode};
use crate::domain::time::Timestamp;
use crate::domain::wallet::Wallet;

/// The columns of a grant. The two casts are renamed: `order by` prefers the name of an output column to that of the table's, and
/// the text of a type sorts otherwise than the type.
macro_rules! columns {
    () => {
        "select grant_id, wallet, created_seq, status::text as status_code, amount, remaining, expired,
                grant_type::text as grant_type_code, priority, effective_at,
                expires_at, unit_price, currency, applies_to, metadata::text
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

    /// The next grants to spend after a place. Index scan on grants_live from there on.
    LIVE_AFTER(TEXTOID, TEXTOID, INT4OID, TIMESTAMPTZOID, BOOLOID, TEXTOID, TIMESTAMPTZOID, INT8OID, INT8OID) = concat!(columns!(), "
        where customer_id = $1
          and wallet = $2
          and status = 'active'
          and (priority, expires_at, unlimited, grant_type, effective_at, created_seq)
            > ($3, $4, $5, $6::credits_data.grant_type, $7, $8)
        order by priority, expires_at, unlimited, grant_type, effective_at, created_seq
        limit $9");

    /// What is due. Index scan on grants_due.
    DUE_UNTIL(TEXTOID, TIMESTAMPTZOID) = concat!(columns!(), "
        where customer_id = $1
          and due_at <= $2
          and due_at < 'infinity'");

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

    /// New grants of many customers. `applies_to` crosses as text, since arrays of arrays must be rectangular.
    CREATE(
        TEXTARRAYOID, UUIDARRAYOID, TEXTARRAYOID, INT8ARRAYOID, INT4ARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID,
        TIMESTAMPTZARRAYOID, TEXTARRAYOID, NUMERICARRAYOID, NUMERICARRAYOID, NUMERICARRAYOID, NUMERICARRAYOID, TEXTARRAYOID, TEXTARRAYOID,
        TEXTARRAYOID
    ) = "
        insert into credits_data.grants (
            customer_id, grant_id, wallet, created_seq, priority, grant_type, effective_at, expires_at, due_at, status, amount,
            remaining, expired, unit_price, currency, applies_to, unlimited, metadata
        )
        select customer_id, grant_id, wallet, created_seq, priority, grant_type::credits_data.grant_type, effective_at, expires_at,
               due_at, status::credits_data.grant_status, amount, remaining, expired, unit_price, currency,
               (select array_agg(name) from jsonb_array_elements_text(applies_to::jsonb) name), applies_to is null, metadata::jsonb
        from unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
            as n (customer_id, grant_id, wallet, created_seq, priority, grant_type, effective_at, expires_at, due_at, status, amount,
                  remaining, expired, unit_price, currency, applies_to, metadata)";

    /// What changed of many grants: primary key, one row each.
    STORE(TEXTARRAYOID, UUIDARRAYOID, TEXTARRAYOID, NUMERICARRAYOID, NUMERICARRAYOID, TIMESTAMPTZARRAYOID) = "
        update credits_data.grants g
        set status = n.status::credits_data.grant_status,
            remaining = n.remaining,
            expired = n.expired,
            due_at = n.due_at
        from unnest($1, $2, $3, $4, $5, $6) as n (customer_id, grant_id, status, remaining, expired, due_at)
        where g.customer_id = n.customer_id
          and g.grant_id = n.grant_id";
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
        rows.iter().map(|row| self.grant(row)).collect()
    }

    /// The index of a stored wallet in the book.
    pub fn wallet_index(&self, code: &str) -> usize {
        let wallets = self.wallets.get().map(Vec::as_slice).unwrap_or_default();
        match wallets.iter().position(|wallet| wallet.as_str() == code) {
            Some(index) => index,
            None => panic!("wallet {code} is not in the book"),
        }
    }

    fn grant(&self, mut row: Row) -> Grant {
        let mut grant = Grant {
            id: row.take(),
            wallet: self.wallet_index(&row.take::<String>()),
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
            },
        };
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

    pub fn due_until(&self, until: Timestamp) -> Vec<Grant> {
        self.read(&DUE_UNTIL, &[self.customer(), Some(until.encode())])
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

    pub fn by_id(&self, id: Uuid) -> Option<Grant> {
        self.read(&BY_ID, &[self.customer(), Some(id.encode())]).pop()
    }
}

/// Stores the grants that some books created and changed.
pub fn store(books: &[&Book<'_>]) {
    let all = || books.iter().flat_map(|book| book.grants.values().map(move |copy| (*book, copy)));
    let created: Vec<_> = all().filter(|(_, copy)| copy.is_new()).map(|(book, copy)| (book, &copy.grant)).collect();
    let changed: Vec<_> = all().filter(|(_, copy)| copy.is_changed()).map(|(book, copy)| (book, &copy.grant)).collect();
    create(&created);
    update(&changed);
}

fn column<T: Codec>(grants: &[(&Book<'_>, &Grant)], value: impl Fn(&Grant) -> Option<T>) -> Parameter {
    Some(array(grants.iter().map(|(_, grant)| value(grant))))
}

fn customers(grants: &[(&Book<'_>, &Grant)]) -> Option<pg_sys::Datum> {
    Some(array(grants.iter().map(|(book, _)| Some(book.customer_id.to_string()))))
}

fn create(grants: &[(&Book<'_>, &Grant)]) {
    if grants.is_empty() {
        return;
    }
    let parameters = [
        customers(grants),
        column(grants, |grant| Some(grant.id)),
        Some(array(grants.iter().map(|(book, grant)| Some(book.wallets[grant.wallet].code.to_string())))),
        column(grants, |grant| Some(grant.created_seq)),
        column(grants, |grant| Some(grant.terms.priority)),
        column(grants, |grant| Some(grant.terms.grant_type.code().to_owned())),
        column(grants, |grant| Some(grant.terms.effective_at)),
        column(grants, |grant| Some(grant.terms.expires_at)),
        column(grants, |grant| Some(grant.due_at())),
        column(grants, |grant| Some(grant.status.code().to_owned())),
        column(grants, |grant| Some(grant.amount)),
        column(grants, |grant| Some(grant.remaining)),
        column(grants, |grant| Some(grant.expired)),
        column(grants, |grant| grant.terms.unit_price),
        column(grants, |grant| grant.terms.currency.clone()),
        column(grants, |grant| grant.terms.applies_to.as_ref().map(|names| serde_json::Value::from(names.clone()).to_string())),
        column(grants, |grant| Some(grant.terms.metadata.clone())),
    ];
    CREATE.with(|statement| statement.run(Access::Write, &parameters));
}

fn update(grants: &[(&Book<'_>, &Grant)]) {
    if grants.is_empty() {
        return;
    }
    let parameters = [
        customers(grants),
        column(grants, |grant| Some(grant.id)),
        column(grants, |grant| Some(grant.status.code().to_owned())),
        column(grants, |grant| Some(grant.remaining)),
        column(grants, |grant| Some(grant.expired)),
        column(grants, |grant| Some(grant.due_at())),
    ];
    STORE.with(|statement| statement.run(Access::Write, &parameters));
}
