//! Lines to be invoiced: credits at a price, as money of a currency (SPEC 2 and 9).

use iso_currency::Currency;
use num_bigint::BigInt;
use uuid::Uuid;

use super::amount::{Amount, half_even};
use super::names::{ContractCode, WalletCode};
use super::time::Timestamp;
use super::wallet::codes;
use crate::error::{Error, Result};

/// Decimals of a currency's minor unit, of one that ISO 4217 does not know (or gives none) two.
fn minor_unit_decimals(currency: &str) -> u32 {
    Currency::from_code(currency).and_then(|currency| currency.exponent()).map_or(2, u32::from)
}

/// Quantity times unit price, rounded once, half to even, to the currency's minor unit; none if it does not fit an `i128`.
pub fn money(quantity: Amount, unit_price: Amount, currency: &str) -> Option<Amount> {
    let unit = 10_i128.pow(Amount::SCALE - minor_unit_decimals(currency).min(Amount::SCALE));
    let per_credit = Amount::from_credits(1).units();
    let minor_units = half_even(BigInt::from(quantity.units()) * unit_price.units(), &(BigInt::from(per_credit) * unit));
    i128::try_from(minor_units * unit).ok().map(Amount::from_units)
}

/// Refuses (22023) a price without its currency, or the other way round.
pub fn check_price(has_unit_price: bool, has_currency: bool) -> Result<()> {
    if has_unit_price == has_currency {
        return Ok(());
    }
    Err(Error::invalid(
        if has_currency { "unit_price" } else { "currency" },
        "a price and its currency belong together",
        "Give both unit_price and currency, or neither.",
    ))
}

codes! {
    /// What a line is for: usage beyond the grants, or a commitment that was not used.
    LineKind {
        Overage = "overage",
        TrueUp = "true_up",
    }
}

/// A line to be invoiced.
#[derive(Debug, Clone, PartialEq)]
pub struct InvoiceLine {
    pub line_id: Uuid,
    pub wallet: WalletCode,
    pub kind: LineKind,
    /// Of a true-up.
    pub contract: Option<ContractCode>,
    /// Credits; negative is what was refunded of earlier lines.
    pub quantity: Amount,
    pub unit_price: Amount,
    pub amount: Amount,
    pub currency: String,
    pub period_start: Timestamp,
    pub period_end: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_rounded_half_to_even_to_the_minor_unit() {
        let milli = |thousandths: i128| Amount::from_units(thousandths * 1_000_000_000);
        for (quantity, price, currency, expected) in [
            (milli(1_000), milli(125), "USD", 120),
            (milli(1_000), milli(135), "USD", 140),
            (milli(-1_000), milli(125), "USD", -120),
            (milli(1_500), milli(1_000), "JPY", 2_000),
            (milli(2_500), milli(1_000), "JPY", 2_000),
            (milli(1_000), milli(1_234), "BHD", 1_234),
            (milli(1_000), milli(1_234), "ZZZ", 1_230),
        ] {
            assert_eq!(money(quantity, price, currency), Some(milli(expected)), "{quantity} at {price} {currency}");
        }
        let largest = Amount::from_units(10_i128.pow(28) - 1);
        assert_eq!(money(largest, Amount::from_credits(1_000_000_000_000_000), "USD"), None);
    }
}
