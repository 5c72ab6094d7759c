//! The plain deduction: a customer with one wallet, nothing due, paid by the grant that is first in order.
//!
//! Three statements, no decision but those that a column or two make. Whatever is not plain (a refusal, a split, a limited grant,
//! a due event, a used key) is put back and left to the general path, under the lock already held.

use super::codec::{Codec, text};
use super::statement::{Access, statements};
use crate::domain::amount::Amount;
use crate::domain::names::{CustomerId, TransactionId, WalletCode};
use crate::domain::time::Timestamp;
use crate::domain::usage::DeductUsage;
use uuid::Uuid;

statements! {
    /// Takes the lock and the credits in one. Index scan on wallets_anchor, one row, HOT. No row: not plain, nothing is locked.
    /// The clock of RETURNING is read under the lock; the one stored may have been read before waiting for it.
    TAKE(TEXTOID, NUMERICOID, TEXTOID, TEXTOID) = "
        update credits_data.wallets
        set balance = balance - $2,
            last_seq = last_seq + 1,
            last_recorded_at = greatest(last_recorded_at, credits.clock())
        where customer_id = $1
          and is_anchor
          and wallet_count = 1
          and status = 'active'
          and balance >= $2
          and case when $3 is null then unit = $4 else wallet = $3 end
        returning wallet, balance, last_seq, last_recorded_at, credits.clock(), next_due_at, late_usage_grace = '0'";

    /// The grant that pays: index scan on grants_live, one row; then its primary key, HOT. No row: not plain.
    PAY(TEXTOID, TEXTOID, NUMERICOID) = "
        update credits_data.grants
        set remaining = remaining - $3,
            status = case when remaining = $3 then 'exhausted' else status end,
            due_at = case when remaining = $3 then 'infinity' else due_at end
        where customer_id = $1
          and grant_id = (
              select grant_id
              from credits_data.grants
              where customer_id = $1
                and wallet = $2
                and status = 'active'
              order by priority, expires_at, unlimited, grant_type, effective_at, created_seq
              limit 1
          )
          and unlimited
          and remaining >= $3
        returning grant_id";

    /// The entry, and with it the probe of the key: no row, the key is used.
    APPEND(
        INT8OID, TIMESTAMPTZOID, INT8OID, TEXTOID, TEXTOID, TEXTOID, NUMERICOID, NUMERICOID, UUIDOID, TEXTOID, TIMESTAMPTZOID, TEXTOID
    ) = "
        insert into credits_data.entries (
            seq, occurred_at, recorded_at, fingerprint, line, kind, customer_id, wallet,
            transaction_id, credits, balance_after, grant_id, event_name, usage_at, metadata
        )
        values ($1, $2, $2, $3, 1, 4, $4, $5, $6, $7, $8, $9, $10, $11, $12::jsonb)
        on conflict (customer_id, transaction_id, line) do nothing";

    PUT_BACK(TEXTOID, NUMERICOID) = "
        update credits_data.wallets
        set balance = balance + $2,
            last_seq = last_seq - 1
        where customer_id = $1
          and is_anchor";

    UNPAY(TEXTOID, UUIDOID, NUMERICOID) = "
        update credits_data.grants
        set remaining = remaining + $3,
            status = 'active',
            due_at = expires_at
        where customer_id = $1
          and grant_id = $2";
}

/// Two clock readings of one statement lie this close together, unless it waited for the lock in between.
const WAIT_TOLERANCE_MICROSECONDS: i64 = 100_000;

/// A plain deduction that was made.
pub struct Plain {
    pub balance: Amount,
}

struct Taken {
    wallet: WalletCode,
    balance: Amount,
    seq: i64,
    now: Timestamp,
}

/// Makes the deduction if it is plain; none if it is not, with everything as before but for the lock.
pub fn deduct(customer_id: &CustomerId, id: &TransactionId, request: &DeductUsage) -> Option<Plain> {
    let taken = take(customer_id, request)?;
    let Some(grant) = pay(customer_id, &taken, request.amount) else {
        put_back(customer_id, request.amount);
        return None;
    };
    if !append(customer_id, id, request, &taken, grant) {
        let parameters = [Some(text(customer_id.as_str())), Some(grant.encode()), Some(request.amount.encode())];
        UNPAY.with(|statement| statement.run(Access::Write, &parameters));
        put_back(customer_id, request.amount);
        return None;
    }
    Some(Plain { balance: taken.balance })
}

fn take(customer_id: &CustomerId, request: &DeductUsage) -> Option<Taken> {
    let parameters = [
        Some(text(customer_id.as_str())),
        Some(request.amount.encode()),
        request.scope.wallet.as_ref().map(|wallet| text(wallet.as_str())),
        Some(text(&request.scope.unit)),
    ];
    let rows = TAKE.with(|statement| statement.run(Access::Write, &parameters));
    let mut row = rows.first()?;
    let taken = Taken {
        wallet: WalletCode::stored(row.take()),
        balance: row.take(),
        seq: row.take(),
        now: row.take(),
    };
    let clock: Timestamp = row.take();
    let next_due_at: Timestamp = row.take();
    let has_no_grace: bool = row.take();
    let waited = clock > taken.now.plus_microseconds(WAIT_TOLERANCE_MICROSECONDS);
    let is_due = next_due_at <= clock.max(taken.now);
    let may_be_late = request.occurred_at.is_some_and(|at| !has_no_grace || at > taken.now);
    if waited || is_due || may_be_late {
        put_back(customer_id, request.amount);
        return None;
    }
    Some(taken)
}

fn put_back(customer_id: &CustomerId, amount: Amount) {
    let parameters = [Some(text(customer_id.as_str())), Some(amount.encode())];
    PUT_BACK.with(|statement| statement.run(Access::Write, &parameters));
}

fn pay(customer_id: &CustomerId, taken: &Taken, amount: Amount) -> Option<Uuid> {
    let parameters = [Some(text(customer_id.as_str())), Some(text(taken.wallet.as_str())), Some(amount.encode())];
    let rows = PAY.with(|statement| statement.run(Access::Write, &parameters));
    rows.first().map(|mut row| row.take())
}

fn append(customer_id: &CustomerId, id: &TransactionId, request: &DeductUsage, taken: &Taken, grant: Uuid) -> bool {
    let parameters = [
        Some(taken.seq.encode()),
        Some(taken.now.encode()),
        Some(request.fingerprint().0.encode()),
        Some(text(customer_id.as_str())),
        Some(text(taken.wallet.as_str())),
        Some(text(id.as_str())),
        Some(request.amount.encode()),
        Some(taken.balance.encode()),
        Some(grant.encode()),
        request.event_name.as_ref().map(|event| text(event.as_str())),
        request.occurred_at.map(|at| at.encode()),
        request.metadata.as_deref().map(text),
    ];
    APPEND.with(|statement| statement.run(Access::Write, &parameters)).count() > 0
}
