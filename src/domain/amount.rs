//! An exact amount of credits: a whole number of 10^-12 credits (SPEC 2).

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};

use num_bigint::BigInt;

use crate::error::{Error, Result};

/// Credits, exact to 12 decimals. Signed, so that an adjustment has a direction; what is stored is never negative.
///
/// Single amounts and every total of a wallet stay below 10^16 ([`Amount::in_range`]); an `i128` holds the sum of 10^10 such
/// totals, so sums over the wallets of one customer cannot overflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Amount(i128);

impl Amount {
    /// Decimals kept.
    pub const SCALE: u32 = 12;
    pub const ZERO: Amount = Amount(0);
    const UNITS_PER_CREDIT: i128 = 10_i128.pow(Self::SCALE);
    /// The first absolute value that is too large, in units: 10^16 credits.
    const LIMIT_UNITS: i128 = 10_i128.pow(16 + Self::SCALE);
    /// The largest that an entry or a total can have.
    pub const MAX: Amount = Amount(Self::LIMIT_UNITS - 1);

    pub const fn from_units(units: i128) -> Self {
        Self(units)
    }

    pub const fn from_credits(credits: i64) -> Self {
        Self(credits as i128 * Self::UNITS_PER_CREDIT)
    }

    /// The whole number of 10^-12 credits.
    pub const fn units(self) -> i128 {
        self.0
    }

    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }

    pub const fn is_positive(self) -> bool {
        self.0 > 0
    }

    /// This amount with the sign of an effect: 1, -1 or 0.
    pub const fn signed(self, sign: i8) -> Self {
        Self(self.0 * sign as i128)
    }

    /// This amount times `part / whole`, exact until it is rounded once, half to even, to 12 decimals (SPEC 2). `whole` is positive;
    /// a share beyond what an `i128` holds is none.
    pub fn share(self, part: i128, whole: i128) -> Option<Self> {
        i128::try_from(half_even(BigInt::from(self.0) * part, &BigInt::from(whole))).ok().map(Self)
    }

    /// An amount written as a decimal, as JSON writes numbers: digits with an optional sign, fraction and exponent.
    pub fn from_decimal(text: &str) -> Result<Self, NotAnAmount> {
        let Decimal { is_negative, digits, exponent } = Decimal::parse(text).ok_or(NotAnAmount::NotANumber)?;
        if digits.is_empty() {
            return Ok(Self::ZERO);
        }
        let scaled = exponent.saturating_add(i64::from(Self::SCALE));
        if scaled < 0 {
            return Err(NotAnAmount::TooManyDecimals);
        }
        // 28 digits are all that an amount has.
        if scaled.saturating_add(digits.len() as i64) > 28 {
            return Err(NotAnAmount::TooLarge);
        }
        let units =
            digits.bytes().fold(0, |units: i128, digit| units * 10 + i128::from(digit - b'0')) * 10_i128.pow(scaled as u32);
        Ok(Self(if is_negative { -units } else { units }))
    }

    /// This amount, if its absolute value is below 10^16; `what` names it in the error (22003).
    pub fn in_range(self, what: &str) -> Result<Self> {
        if self.0.abs() < Self::LIMIT_UNITS { Ok(self) } else { Err(Self::too_large(what)) }
    }

    /// The error of an amount of 10^16 or more.
    pub fn too_large(what: &str) -> Error {
        Error::out_of_range(
            what,
            "its absolute value must stay below 10000000000000000",
            "Amounts and totals have at most 16 digits before the decimal point.",
        )
    }
}

/// Why a number is no [`Amount`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAnAmount {
    /// Other text, NaN or infinite.
    #[error("it is not a number")]
    NotANumber,
    #[error("it has more than {} decimals", Amount::SCALE)]
    TooManyDecimals,
    #[error("it is too large")]
    TooLarge,
}

impl NotAnAmount {
    /// The error of the argument that held it (22023, or 22003 if it is too large). `place` says where in the argument, or is empty.
    pub fn error(self, argument: &'static str, place: &str) -> Error {
        let colon = if place.is_empty() { "" } else { ": " };
        let hint = match self {
            Self::NotANumber => "Pass a finite decimal number.",
            Self::TooManyDecimals => "Amounts are exact and are never rounded silently: round it to 12 decimals yourself.",
            Self::TooLarge => return Amount::too_large(&format!("{argument}{colon}{place}")),
        };
        Error::invalid(argument, format!("{place}{colon}{self}"), hint)
    }
}

/// A decimal number by value: two that are equal have the same parts, however they are written.
#[derive(Debug, PartialEq, Eq)]
pub struct Decimal<'a> {
    pub is_negative: bool,
    /// Without zeros at either end; empty for zero.
    pub digits: Cow<'a, str>,
    /// The value is `digits` times ten to this power.
    pub exponent: i64,
}

impl<'a> Decimal<'a> {
    /// Digits with an optional sign, fraction and exponent; anything else is none.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (is_negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
            Some(at) => {
                let written = &unsigned[at + 1..];
                let magnitude = written.strip_prefix(['+', '-']).unwrap_or(written);
                if magnitude.is_empty() || !magnitude.bytes().all(|byte| byte.is_ascii_digit()) {
                    return None;
                }
                // Beyond what an i64 holds it is as good as endless.
                let sign = if written.starts_with('-') { -1 } else { 1 };
                (&unsigned[..at], sign * magnitude.parse::<i64>().unwrap_or(i64::MAX / 4).min(i64::MAX / 4))
            }
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.len() + fraction.len() == 0 || !all_digits(whole) || !all_digits(fraction) {
            return None;
        }
        // The digits of a whole number, or of a fraction alone, are where they were written.
        let fraction = fraction.trim_end_matches('0');
        let whole = whole.trim_start_matches('0');
        let (digits, trailing) = if fraction.is_empty() {
            let digits = whole.trim_end_matches('0');
            (Cow::from(digits), whole.len() - digits.len())
        } else if whole.is_empty() {
            (Cow::from(fraction.trim_start_matches('0')), 0)
        } else {
            (Cow::from([whole, fraction].concat()), 0)
        };
        let is_zero = digits.is_empty();
        Some(Self {
            is_negative: is_negative && !is_zero,
            digits,
            exponent: if is_zero { 0 } else { exponent - fraction.len() as i64 + trailing as i64 },
        })
    }
}

/// A quotient rounded half to even; the divisor is positive.
pub fn half_even(dividend: BigInt, divisor: &BigInt) -> BigInt {
    let mut floor = &dividend / divisor;
    if &floor * divisor > dividend {
        floor -= 1;
    }
    let twice_rest: BigInt = (dividend - &floor * divisor) * 2;
    let is_odd = floor.bit(0);
    match twice_rest.cmp(divisor) {
        Ordering::Greater => floor + 1,
        Ordering::Equal if is_odd => floor + 1,
        _ => floor,
    }
}

impl Add for Amount {
    type Output = Amount;
    fn add(self, other: Amount) -> Amount {
        Amount(self.0 + other.0)
    }
}

impl Sub for Amount {
    type Output = Amount;
    fn sub(self, other: Amount) -> Amount {
        Amount(self.0 - other.0)
    }
}

impl Neg for Amount {
    type Output = Amount;
    fn neg(self) -> Amount {
        Amount(-self.0)
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Amount) {
        self.0 += other.0;
    }
}

impl SubAssign for Amount {
    fn sub_assign(&mut self, other: Amount) {
        self.0 -= other.0;
    }
}

impl Sum for Amount {
    fn sum<I: Iterator<Item = Amount>>(amounts: I) -> Amount {
        amounts.fold(Amount::ZERO, Add::add)
    }
}

/// Plain decimal notation without padding zeros: `25`, `0.5`, `-3.000000000001`.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS_PER_CREDIT: u64 = Amount::UNITS_PER_CREDIT as u64;
        let sign = if self.0 < 0 { "-" } else { "" };
        let units = self.0.unsigned_abs();
        // Most amounts fit 64 bits, and their division is an instruction.
        let (credits, mut fraction) = match u64::try_from(units) {
            Ok(units) => (u128::from(units / UNITS_PER_CREDIT), units % UNITS_PER_CREDIT),
            Err(_) => (units / u128::from(UNITS_PER_CREDIT), (units % u128::from(UNITS_PER_CREDIT)) as u64),
        };
        write!(f, "{sign}{credits}")?;
        if fraction == 0 {
            return Ok(());
        }
        let mut decimals = Self::SCALE as usize;
        while fraction.is_multiple_of(10) {
            fraction /= 10;
            decimals -= 1;
        }
        write!(f, ".{fraction:0decimals$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_prints_without_padding_zeros() {
        for (units, text) in [
            (0, "0"),
            (25_000_000_000_000, "25"),
            (500_000_000_000, "0.5"),
            (-3_000_000_000_001, "-3.000000000001"),
            (1, "0.000000000001"),
        ] {
            assert_eq!(Amount::from_units(units).to_string(), text);
        }
    }

    #[test]
    fn a_share_is_rounded_half_to_even() {
        let share = |units, part, whole| Amount::from_units(units).share(part, whole).unwrap().units();
        assert_eq!(
            [share(5, 1, 2), share(7, 1, 2), share(-5, 1, 2), share(-7, 1, 2), share(10, 2, 3), share(-10, 2, 3)],
            [2, 4, -2, -4, 7, -7]
        );
        let largest = 10_i128.pow(28) - 1;
        let century = 100 * 366 * 86_400_000_000_i128;
        assert_eq!(share(largest, century, century), largest);
        assert_eq!(share(largest, century - 1, century), largest - 3_162_315_320_785);
        assert_eq!(Amount::from_units(i128::MAX).share(2, 1), None);
    }

    #[test]
    fn a_decimal_is_read_exactly_or_not_at_all() {
        let units = |text| Amount::from_decimal(text).map(Amount::units);
        for (text, expected) in [
            ("0", 0),
            ("-0.0", 0),
            ("0e999999999999999999999", 0),
            ("25", 25 * 10_i128.pow(12)),
            ("0025.50", 255 * 10_i128.pow(11)),
            ("-1.5E-11", -15),
            ("1000000e-18", 1),
            ("+.5", 5 * 10_i128.pow(11)),
            ("9999999999999999.999999999999", 10_i128.pow(28) - 1),
        ] {
            assert_eq!(units(text), Ok(expected), "{text}");
        }
        for text in ["1e16", "10000000000000000", "1e400", "1e99999999999999999999"] {
            assert_eq!(units(text), Err(NotAnAmount::TooLarge), "{text}");
        }
        for text in ["0.0000000000001", "1e-13", "1e-99999999999999999999"] {
            assert_eq!(units(text), Err(NotAnAmount::TooManyDecimals), "{text}");
        }
        for text in ["", ".", "-", "1,5", "NaN", "Infinity", " 1", "1e", "1e+", "0x10", "1_000", "--1"] {
            assert_eq!(units(text), Err(NotAnAmount::NotANumber), "{text}");
        }
    }

    #[test]
    fn decimals_of_one_value_are_equal() {
        for (a, b) in [("1", "1.0"), ("100", "1e2"), ("0", "-0.00"), ("1.50e-3", "0.0015"), ("1e400", "10e399")] {
            assert_eq!(Decimal::parse(a), Decimal::parse(b), "{a} {b}");
        }
        assert_ne!(Decimal::parse("1"), Decimal::parse("-1"));
        assert_ne!(Decimal::parse("1"), Decimal::parse("10"));
    }

    #[test]
    fn a_total_of_ten_to_the_sixteen_is_refused() {
        let largest = Amount::from_units(10_i128.pow(28) - 1);
        assert_eq!(largest.in_range("x"), Ok(largest));
        for too_large in [10_i128.pow(28), -(10_i128.pow(28))] {
            let error = Amount::from_units(too_large).in_range("balance").unwrap_err();
            assert_eq!(error.symbol(), "out_of_range");
        }
    }
}
