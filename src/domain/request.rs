//! What makes two requests the same (SPEC 4, idempotency): operation, amount, unit, named wallet, event name, properties and
//! referenced id, numbers by value. Times, metadata, reason and `on_insufficient` differ in honest retries and do not count.

use sha2::{Digest, Sha256};

use super::amount::Amount;
use super::wallet::codes;

codes! {
    /// What a transaction was opened for; those that take an idempotency key are told apart by it. The code goes into the fingerprint and must never change.
    Operation {
        GrantCredits = "grant_credits",
        VoidGrant = "void_grant",
        ChangeExpiry = "change_expiry",
        TransferCredits = "transfer_credits",
        AdjustCredits = "adjust_credits",
        DeductUsage = "deduct_usage",
        RecordUsage = "record_usage",
        RefundUsage = "refund_usage",
        HoldCredits = "hold_credits",
        CaptureHold = "capture_hold",
        ReleaseHold = "release_hold",
        CreateRecurringGrant = "create_recurring_grant",
        CreateContract = "create_contract",
        CancelContract = "cancel_contract",
        CloseWallet = "close_wallet",
        TopUp = "complete_top_up",
        Settle = "settle",
    }
}

/// 64 bits of the SHA-256 of a request's compared parts, kept with the first entry of its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub i64);

/// One compared part of a request.
pub enum Part<'a> {
    Text(Option<&'a str>),
    Amount(Option<Amount>),
}

impl Fingerprint {
    pub fn of(operation: Operation, parts: &[Part<'_>]) -> Self {
        let mut hash = Sha256::new();
        // Every part is preceded by its length, so that no two requests write the same bytes.
        let mut part = |bytes: Option<&[u8]>| {
            hash.update(bytes.map_or(u64::MAX, |bytes| bytes.len() as u64).to_le_bytes());
            hash.update(bytes.unwrap_or_default());
        };
        part(Some(operation.code().as_bytes()));
        for value in parts {
            match value {
                Part::Text(text) => part(text.map(str::as_bytes)),
                Part::Amount(amount) => part(amount.map(|amount| amount.units().to_le_bytes()).as_ref().map(|bytes| &bytes[..])),
            }
        }
        let digest = hash.finalize();
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        Self(i64::from_le_bytes(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_never_changes_between_releases() {
        let parts = [Part::Amount(Some(Amount::from_credits(25))), Part::Text(None), Part::Text(Some("credits"))];
        assert_eq!(Fingerprint::of(Operation::DeductUsage, &parts), Fingerprint(STABLE));
    }
    const STABLE: i64 = 728_276_731_188_311_112;

    #[test]
    fn absent_empty_and_shifted_parts_differ() {
        let of = |parts: &[Part<'_>]| Fingerprint::of(Operation::DeductUsage, parts).0;
        let texts = |a, b| of(&[Part::Text(a), Part::Text(b)]);
        let all = [
            texts(Some("ab"), Some("c")),
            texts(Some("a"), Some("bc")),
            texts(Some("abc"), None),
            texts(None, Some("abc")),
            texts(Some("abc"), Some("")),
        ];
        for (i, a) in all.iter().enumerate() {
            for b in &all[i + 1..] {
                assert_ne!(a, b);
            }
        }
    }
}
