//! Ids, codes, keys and names: 1 to 255 bytes of text (SPEC 2), each its own type so that they cannot be mixed up. Their text is
//! shared: what keeps one keeps the same.

use std::fmt;
use std::rc::Rc;

use crate::error::{Error, Result};

const NAME_BYTES_MAX: usize = 255;

/// Text of 1 to 255 bytes, or the error that names the argument (22023).
pub fn checked_name(argument: &'static str, text: &str) -> Result<String> {
    check_name(argument, text).map(str::to_owned)
}

fn check_name<'a>(argument: &'static str, text: &'a str) -> Result<&'a str> {
    match text.len() {
        0 => Err(Error::invalid(argument, "it is empty", format!("Pass 1 to {NAME_BYTES_MAX} bytes of text."))),
        bytes if bytes > NAME_BYTES_MAX => Err(Error::invalid(
            argument,
            format!("it has {bytes} bytes, {NAME_BYTES_MAX} are allowed"),
            format!("Pass 1 to {NAME_BYTES_MAX} bytes of text."),
        )),
        _ => Ok(text),
    }
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Rc<str>);

        impl $name {
            /// From an argument of a call: 1 to 255 bytes, else 22023 naming the argument.
            pub fn checked(argument: &'static str, text: &str) -> Result<Self> {
                check_name(argument, text).map(|text| Self(text.into()))
            }

            /// From a row that was checked when it was written.
            pub const fn stored(text: Rc<str>) -> Self {
                Self(text)
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

names! {
    /// Whoever owns credits: the application's own id.
    CustomerId
    /// The short code of one wallet of a customer.
    WalletCode
    /// The id of one transaction, which is the caller's idempotency key.
    TransactionId
    /// The name of a usage event.
    EventName
    /// The code of one recurring grant of a customer.
    RecurringCode
    /// The code of one contract of a customer.
    ContractCode
    /// The code of one meter.
    MeterCode
}
