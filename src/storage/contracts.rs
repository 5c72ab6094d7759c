//! Contracts.

use super::codec::text;
use super::columns::{Columns, due_until, of_customers};
use super::statement::{Access, Row, statements};
use super::wallets::stored_code;
use crate::domain::book::Book;
use crate::domain::contract::{Contract, OnEnd};
use crate::domain::names::{ContractCode, CustomerId, WalletCode};
use crate::domain::time::Timestamp;

macro_rules! columns {
    () => {
        "select contract, wallet, committed, starts_at, ends_at, cancelled_at, installments, installment_every, on_end::text,
                rollover_percent, rollover_cap, rollover_expires_after, minimum_spend, unit_price, currency, metadata::text,
                granted, has_ended, granted_credits, rolled_over_credits
         from credits_data.contracts "
    };
}

statements! {
    /// What is due of many customers, until an instant of each. Index scan on contracts_due for each.
    DUE_UNTIL(TEXTARRAYOID, TIMESTAMPTZARRAYOID) = due_until!(columns!());

    /// Primary key, one row.
    BY_CODE(TEXTOID, TEXTOID) = concat!(columns!(), "
        where customer_id = $1
          and contract = $2");

    /// All of a wallet; a handful by the primary key.
    OF_WALLET(TEXTOID, TEXTOID) = concat!(columns!(), "
        where customer_id = $1
          and wallet = $2");

    /// Stores new and changed ones of many customers.
    STORE(
        TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, NUMERICARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID,
        INT4ARRAYOID, INTERVALARRAYOID, TEXTARRAYOID, NUMERICARRAYOID, NUMERICARRAYOID, INTERVALARRAYOID, BOOLARRAYOID, NUMERICARRAYOID,
        TEXTARRAYOID, TEXTARRAYOID, INT4ARRAYOID, BOOLARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID,
        NUMERICARRAYOID, NUMERICARRAYOID
    ) = "
        insert into credits_data.contracts (
            customer_id, contract, wallet, committed, starts_at, ends_at, cancelled_at, installments,
            installment_every, on_end, rollover_percent, rollover_cap, rollover_expires_after, minimum_spend, unit_price,
            currency, metadata, granted, has_ended, due_at, created_at, granted_credits, rolled_over_credits
        )
        select customer_id, contract, wallet, committed, starts_at, ends_at, cancelled_at, installments,
               installment_every, on_end::credits_data.on_end, rollover_percent, rollover_cap, rollover_expires_after, minimum_spend,
               unit_price, currency, metadata::jsonb, granted, has_ended, due_at, created_at, granted_credits, rolled_over_credits
        from (
            select unnest($1) as customer_id, unnest($2) as contract, unnest($3) as wallet, unnest($4) as committed,
                   unnest($5) as starts_at, unnest($6) as ends_at, unnest($7) as cancelled_at, unnest($8) as installments,
                   unnest($9) as installment_every, unnest($10) as on_end, unnest($11) as rollover_percent,
                   unnest($12) as rollover_cap, unnest($13) as rollover_expires_after, unnest($14) as minimum_spend,
                   unnest($15) as unit_price, unnest($16) as currency, unnest($17) as metadata, unnest($18) as granted,
                   unnest($19) as has_ended, unnest($20) as due_at, unnest($21) as created_at, unnest($22) as granted_credits,
                   unnest($23) as rolled_over_credits
        ) n
        on conflict (customer_id, contract) do update
        set cancelled_at = excluded.cancelled_at,
            granted = excluded.granted,
            granted_credits = excluded.granted_credits,
            rolled_over_credits = excluded.rolled_over_credits,
            has_ended = excluded.has_ended,
            due_at = excluded.due_at";
}

fn contract(mut row: Row<'_>) -> Contract {
    Contract {
        code: ContractCode::stored(row.take()),
        wallet: WalletCode::stored(row.take()),
        committed: row.take(),
        starts_at: row.take(),
        ends_at: row.take(),
        cancelled_at: row.optional(),
        installments: row.take(),
        installment_every: row.optional(),
        on_end: stored_code(row.take(), OnEnd::from_code),
        rollover_percent: row.take(),
        rollover_cap: row.optional(),
        rollover_expires_after: row.optional(),
        minimum_spend: row.take(),
        unit_price: row.optional(),
        currency: row.optional(),
        metadata: row.take(),
        granted: row.take(),
        has_ended: row.take(),
        granted_credits: row.take(),
        rolled_over_credits: row.take(),
    }
}

/// What is due of some customers, until an instant of each.
pub fn due_until(access: Access, customers: &[(&CustomerId, Timestamp)]) -> Vec<(CustomerId, Contract)> {
    of_customers(&DUE_UNTIL, access, customers, contract)
}

pub fn by_code(access: Access, customer_id: &CustomerId, code: &ContractCode) -> Option<Contract> {
    let parameters = [Some(text(customer_id.as_str())), Some(text(code.as_str()))];
    BY_CODE.with(|statement| statement.run(access, &parameters)).first().map(contract)
}

pub fn of_wallet(access: Access, customer_id: &CustomerId, wallet: &WalletCode) -> Vec<Contract> {
    let parameters = [Some(text(customer_id.as_str())), Some(text(wallet.as_str()))];
    OF_WALLET.with(|statement| statement.run(access, &parameters)).iter().map(contract).collect()
}

/// Stores the contracts that some books created and changed.
pub fn store(books: &[&Book<'_>]) {
    store_contracts(&Columns::of(books, |book| book.contracts.created().chain(book.contracts.changed())));
}

fn store_contracts(contracts: &Columns<'_, '_, Contract>) {
    if contracts.is_empty() {
        return;
    }
    let parameters = [
        contracts.customers(),
        contracts.column(|contract| Some(contract.code.to_string())),
        contracts.column(|contract| Some(contract.wallet.to_string())),
        contracts.column(|contract| Some(contract.committed)),
        contracts.column(|contract| Some(contract.starts_at)),
        contracts.column(|contract| Some(contract.ends_at)),
        contracts.column(|contract| contract.cancelled_at),
        contracts.column(|contract| Some(contract.installments)),
        contracts.column(|contract| contract.installment_every),
        contracts.column(|contract| Some(contract.on_end.code().to_owned())),
        contracts.column(|contract| Some(contract.rollover_percent)),
        contracts.column(|contract| contract.rollover_cap),
        contracts.column(|contract| contract.rollover_expires_after),
        contracts.column(|contract| Some(contract.minimum_spend)),
        contracts.column(|contract| contract.unit_price),
        contracts.column(|contract| contract.currency.clone()),
        contracts.column(|contract| Some(contract.metadata.clone())),
        contracts.column(|contract| Some(contract.granted)),
        contracts.column(|contract| Some(contract.has_ended)),
        contracts.column(|contract| Some(contract.due_at())),
        contracts.now(),
        contracts.column(|contract| Some(contract.granted_credits)),
        contracts.column(|contract| Some(contract.rolled_over_credits)),
    ];
    STORE.with(|statement| statement.run(Access::Write, &parameters));
}
