//! The plain deduction: a customer with one wallet, nothing due, paid by the grant that rides on the wallet's row.
//!
//! One row updated, one inserted, no decision but those that a column or two make. Whatever is not plain (no grant rides, it is used
//! up, a refusal, a due event, a used key) is put back and left to the general path, which ends by letting the next grant ride.

use super::codec::{Codec, text};
use super::statement::{Access, statements};
use crate::domain::amount::Amount;
use crate::domain::names::{CustomerId, TransactionId, WalletCode};
use crate::domain::time::Timestamp;
use crate::domain::usage::DeductUsage;
use uuid::Uuid;

statements! {
    /// Takes the lock and the credits in one. Index scan on wallets_anchor, one row, HOT. No row: not plain, nothing is locked.
    /// With its last credit a grant is exhausted, which is for its own row to say: hence more than $2.
    /// The clock of RETURNING is read under the lock; the one stored may have been read before waiting for it.
    TAKE(TEXTOID, NUMERICOID, TEXTOID, TEXTOID) = "
        update credits_data.wallets
        set balance = balance - $2,
            head_remaining = head_remaining - $2,
            last_seq = last_seq + 1,
            last_recorded_at = greatest(last_recorded_at, credits.clock())
        where customer_id = $1
          and is_anchor
          and wallet_count = 1
          and status = 'active'
          and head_remaining > $2
          and case when $3 is null then unit = $4 else wallet = $3 end
        returning wallet, balance, last_seq, last_recorded_at, credits.clock(), next_due_at, late_usage_grace = '0', head_grant_id";

    /// The entry, and with it the probe of the key, which asks no planner: no row, the key is used.
    APPEND(
        INT8OID, TIMESTAMPTZOID, INT8OID, TEXTOID, TEXTOID, TEXTOID, NUMERICOID, NUMERICOID, UUIDOID, TEXTOID, TIMESTAMPTZOID, TEXTOID
    ) = "
        insert into credits_data.entries (
            seq, occurred_at, recorded_at, fingerprint, line, kind, customer_id, wallet,
            transaction_id, credits, balance_after, grant_id, event_name, usage_at, metadata
        )
        values ($1, $2, $2, $3, 1, 4, $4, $5, $6, $7, $8, $9, $10, $11, $12::jsonb)
        on conflict (customer_id, transaction_id, line) do nothing";

    /// Undoes TAKE. With one wallet, the customer's last entry is that wallet's.
    PUT_BACK(TEXTOID, NUMERICOID) = "
        update credits_data.wallets w
        set balance = balance + $2,
            head_remaining = head_remaining + $2,
            last_seq = last_seq - 1,
            last_recorded_at = coalesce((
                select e.recorded_at
                from credits_data.entries e
                where e.customer_id = w.customer_id
                  and e.wallet = w.wallet
                  and e.seq = w.last_seq - 1
            ), '-infinity')
        where w.customer_id = $1
          and w.is_anchor";
}

/// Two clock readings of one statement lie this close together, unless it waited for the lock in between.
const WAIT_TOLERANCE_MICROSECONDS: i64 = 100_000;

struct Taken {
    wallet: WalletCode,
    balance: Amount,
    seq: i64,
    now: Timestamp,
    grant: Uuid,
}

/// Makes the deduction if it is plain, and returns the balance after it; none if it is not, with everything as before but for the lock.
pub fn deduct(customer_id: &CustomerId, id: &TransactionId, request: &DeductUsage) -> Option<Amount> {
    let taken = take(customer_id, request)?;
    if !append(customer_id, id, request, &taken) {
        put_back(customer_id, request.amount);
        return None;
    }
    Some(taken.balance)
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
    let wallet = WalletCode::stored(row.take());
    let (balance, seq, now) = (row.take(), row.take(), row.take());
    let clock: Timestamp = row.take();
    let next_due_at: Timestamp = row.take();
    let has_no_grace: bool = row.take();
    let taken = Taken { wallet, balance, seq, now, grant: row.take() };
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

fn append(customer_id: &CustomerId, id: &TransactionId, request: &DeductUsage, taken: &Taken) -> bool {
    let parameters = [
        Some(taken.seq.encode()),
        Some(taken.now.encode()),
        Some(request.fingerprint().0.encode()),
        Some(text(customer_id.as_str())),
        Some(text(taken.wallet.as_str())),
        Some(text(id.as_str())),
        Some(request.amount.encode()),
        Some(taken.balance.encode()),
        Some(taken.grant.encode()),
        request.event_name.as_ref().map(|event| text(event.as_str())),
        request.occurred_at.map(|at| at.encode()),
        request.metadata.as_deref().map(text),
    ];
    APPEND.with(|statement| statement.run(Access::Write, &parameters)).count() > 0
}
