//! PostgreSQL's `numeric` as it lies in memory and on disk: a header of one or two words, then its digits to base 10000, the highest
//! first, without zeros at either end. On disk, so that no release may change it (`NumericChoice` in PostgreSQL's numeric.c).
//!
//! The functions `numeric_send` and `numeric_recv` say the same, at ten times the instructions; a test compares with them.

use crate::domain::amount::{Amount, NotAnAmount};

/// Base-10000 digits after the decimal point of an amount's units.
const FRACTION_DIGITS: i16 = Amount::SCALE as i16 / 4;

/// The two highest bits of the header say what follows: of a long number the sign alone, and the display scale below.
const KIND: u16 = 0xC000;
const LONG_NEGATIVE: u16 = 0x4000;
const SHORT: u16 = 0x8000;
/// NaN and the infinities.
const SPECIAL: u16 = 0xC000;

/// The header of a short number has all in one word: its sign, its display scale, and the weight of its first digit in 7 bits.
const SHORT_NEGATIVE: u16 = 0x2000;
const SHORT_SCALE_SHIFT: u16 = 7;
const SHORT_WEIGHT: u16 = 0x7F;

/// 10000 to the power of 0 to 8: an amount has four digits before the decimal point and three behind it, a sum of amounts two more.
const POWERS: [i128; 9] = {
    let mut powers = [1; 9];
    let mut exponent = 1;
    while exponent < powers.len() {
        powers[exponent] = powers[exponent - 1] * 10_000;
        exponent += 1;
    }
    powers
};

/// Reads any numeric, without the length before it.
pub fn read(bytes: &[u8]) -> Result<Amount, NotAnAmount> {
    // 10^16 is 10000^4: a digit of weight 4 is too large whatever it is.
    read_below(bytes, 4)
}

/// The same, of a numeric that may be a sum of amounts: below 10^24, so that an `i128` holds it.
pub fn read_sum(bytes: &[u8]) -> Result<Amount, NotAnAmount> {
    read_below(bytes, 6)
}

fn read_below(bytes: &[u8], weight_end: i16) -> Result<Amount, NotAnAmount> {
    let mut words = bytes.chunks_exact(2).map(|word| u16::from_ne_bytes([word[0], word[1]]));
    let header = words.next().unwrap_or(SPECIAL);
    let (is_negative, weight) = match header & KIND {
        SPECIAL => return Err(NotAnAmount::NotANumber),
        // The weight's sign is its highest bit.
        SHORT => (header & SHORT_NEGATIVE != 0, ((header & SHORT_WEIGHT) << 9) as i16 >> 9),
        sign => (sign == LONG_NEGATIVE, words.next().unwrap_or_default() as i16),
    };
    if words.len() > 0 && weight >= weight_end {
        return Err(NotAnAmount::TooLarge);
    }
    // So that no digit below stands for a unit or more.
    let mut exponent = weight.saturating_add(FRACTION_DIGITS);
    let mut units = 0_i128;
    for digit in words {
        match usize::try_from(exponent) {
            Ok(exponent) => units += i128::from(digit) * POWERS[exponent],
            Err(_) if digit == 0 => {}
            Err(_) => return Err(NotAnAmount::TooManyDecimals),
        }
        exponent = exponent.saturating_sub(1);
    }
    Ok(Amount::from_units(if is_negative { -units } else { units }))
}

/// A numeric as words, without the length before it.
pub struct Packed {
    /// The header and the digits of an `i128`, of which it has ten at most, right-aligned.
    words: [u16; 11],
    first: usize,
    end: usize,
}

impl Packed {
    /// Without padding zeros: the display scale is what the amount needs.
    pub fn of(amount: Amount) -> Self {
        let mut words = [0_u16; 11];
        let mut first = words.len();
        let mut rest = amount.units().unsigned_abs();
        while rest > 0 {
            first -= 1;
            // Most amounts fit 64 bits, and their division is an instruction.
            (rest, words[first]) = match u64::try_from(rest) {
                Ok(rest) => (u128::from(rest / 10_000), (rest % 10_000) as u16),
                Err(_) => (rest / 10_000, (rest % 10_000) as u16),
            };
        }
        let weight = (words.len() - first) as i16 - 1 - FRACTION_DIGITS;
        let mut end = words.len();
        while end > first && words[end - 1] == 0 {
            end -= 1;
        }
        let fraction_digits = FRACTION_DIGITS - (words.len() - end) as i16;
        let (scale, weight) = match words[first..end].last() {
            None => (0, 0),
            Some(_) if fraction_digits <= 0 => (0, weight),
            Some(last) => (4 * fraction_digits as u16 - trailing_zeros(*last), weight),
        };
        let sign = if amount.is_negative() { SHORT_NEGATIVE } else { 0 };
        first -= 1;
        words[first] = SHORT | sign | scale << SHORT_SCALE_SHIFT | weight as u16 & SHORT_WEIGHT;
        Self { words, first, end: end.max(first + 1) }
    }

    pub fn words(&self) -> &[u16] {
        &self.words[self.first..self.end]
    }
}

/// Of a base-10000 digit above zero.
fn trailing_zeros(digit: u16) -> u16 {
    match digit {
        _ if digit.is_multiple_of(1000) => 3,
        _ if digit.is_multiple_of(100) => 2,
        _ if digit.is_multiple_of(10) => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(words: &[u16]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn amount(text: &str) -> Amount {
        Amount::from_decimal(text).unwrap()
    }

    /// What the server stores: `select substring(heap_tuple_attr from 2)` of each, read as words.
    #[test]
    fn an_amount_is_packed_as_the_server_packs_it() {
        for (text, words) in [
            ("0", &[0x8000][..]),
            ("1", &[0x8000, 1]),
            ("-1", &[0xA000, 1]),
            ("10000", &[0x8001, 1]),
            ("12345", &[0x8001, 1, 2345]),
            ("0.5", &[0x80FF, 5000]),
            ("0.001", &[0x81FF, 10]),
            ("2.345", &[0x8180, 2, 3450]),
            ("-0.000000000001", &[0xA67D, 1]),
            ("9999999999999999.999999999999", &[0x8603, 9999, 9999, 9999, 9999, 9999, 9999, 9999]),
        ] {
            assert_eq!(Packed::of(amount(text)).words(), words, "{text}");
            assert_eq!(read(&bytes(words)), Ok(amount(text)), "{text}");
        }
    }

    #[test]
    fn a_long_header_is_read_as_well() {
        for (words, expected) in [
            // 1 with 64 decimals.
            (&[0x0040, 0, 1][..], Ok(amount("1"))),
            (&[0x4040, 0xFFFF, 5000], Ok(amount("-0.5"))),
            // Digits below a unit that are zero, as none that is stored has.
            (&[0x0040, 0, 1, 0, 0, 0, 0], Ok(amount("1"))),
            (&[0x0040, 0xFFFC, 1], Err(NotAnAmount::TooManyDecimals)),
            (&[0x0000, 4, 1], Err(NotAnAmount::TooLarge)),
            (&[0x0000, 0x7FFF, 1], Err(NotAnAmount::TooLarge)),
            (&[0x0040, 0x8000, 1], Err(NotAnAmount::TooManyDecimals)),
            (&[0x0040, 0], Ok(Amount::ZERO)),
            (&[0xC000], Err(NotAnAmount::NotANumber)),
            (&[0xD000], Err(NotAnAmount::NotANumber)),
            (&[0xF000], Err(NotAnAmount::NotANumber)),
        ] {
            assert_eq!(read(&bytes(words)), expected, "{words:04x?}");
        }
    }

    /// Amounts of every size, many with few digits.
    fn amounts() -> impl Strategy<Value = Amount> {
        (0..28_u32, 0..28_u32, any::<u128>(), any::<bool>()).prop_map(|(digits, zeros, number, is_negative)| {
            let units = (number % 10_u128.pow(digits)) as i128 * 10_i128.pow(zeros.min(28 - digits));
            Amount::from_units(if is_negative { -units } else { units })
        })
    }

    proptest! {
        #[test]
        fn any_amount_is_read_as_it_was_packed(amount in amounts()) {
            let packed = Packed::of(amount);
            prop_assert_eq!(read(&bytes(packed.words())), Ok(amount));
            // The rules of the format: no zeros at either end, and as many decimals shown as there are.
            let (header, digits) = packed.words().split_first().unwrap();
            prop_assert!(digits.first() != Some(&0) && digits.last() != Some(&0));
            let text = amount.to_string();
            let decimals = text.split_once('.').map_or(0, |(_, decimals)| decimals.len());
            prop_assert_eq!(usize::from(header >> SHORT_SCALE_SHIFT & 0x3F), decimals);
        }

        #[test]
        fn sums_beyond_an_amounts_range_are_packed_too(units in any::<i128>()) {
            let packed = Packed::of(Amount::from_units(units));
            let digits = &packed.words()[1..];
            let weight = (packed.words()[0] << 9) as i16 >> 9;
            let lowest = weight + FRACTION_DIGITS + 1 - digits.len() as i16;
            let value = digits.iter().fold(0_u128, |value, digit| value * 10_000 + u128::from(*digit));
            prop_assert_eq!(value * 10_000_u128.pow(lowest as u32), units.unsigned_abs());
        }
    }
}
