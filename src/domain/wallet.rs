//! A wallet: a balance container of one customer with its settings (SPEC 3).

use super::amount::Amount;
use super::chart::Kind;
use super::names::WalletCode;
use super::time::Interval;
use crate::error::{Error, Result};

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $code:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($variant,)*
        }

        // Not every closed set is used in all three directions.
        #[allow(dead_code)]
        impl $name {
            pub const fn code(self) -> &'static str {
                match self {
                    $(Self::$variant => $code,)*
                }
            }

            pub fn from_code(code: &str) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// From an argument of a call; anything else is 22023, naming the argument and what it may be.
            pub fn checked(argument: &'static str, code: &str) -> $crate::error::Result<Self> {
                Self::from_code(code).ok_or_else(|| {
                    let shown: String = code.chars().take(60).collect();
                    $crate::error::Error::invalid(
                        argument,
                        format!("\"{shown}\" is not known"),
                        concat!("It is one of:", $(" ", $code,)* "."),
                    )
                })
            }
        }
    };
}
pub(crate) use codes;

codes! {
    /// Whether a wallet can be used: frozen keeps what is there, closed is the end.
    WalletStatus {
        Active = "active",
        Frozen = "frozen",
        Closed = "closed",
    }
}

impl WalletStatus {
    /// Where time goes on, and credits may come in.
    pub const NOT_CLOSED: &[WalletStatus] = &[WalletStatus::Active, WalletStatus::Frozen];
}

codes! {
    /// What happens to usage that the grants do not cover (SPEC 9).
    OveragePolicy {
        Block = "block",
        Invoice = "invoice",
        Overdraft = "overdraft",
    }
}

/// What a caller may choose about a wallet, but for its unit.
#[derive(Debug, Clone, PartialEq)]
pub struct WalletSettings {
    pub name: Option<String>,
    /// Lower is spent first.
    pub priority: i32,
    /// Life of a grant that gives no expiry itself.
    pub expires_after: Option<Interval>,
    pub overage_policy: OveragePolicy,
    /// The most overage that may be open; none is no limit.
    pub overage_limit: Option<Amount>,
    pub overage_unit_price: Option<Amount>,
    /// ISO 4217.
    pub overage_currency: Option<String>,
    /// How long after its expiry a grant still pays usage that happened before.
    pub late_usage_grace: Interval,
    /// JSON text.
    pub metadata: String,
}

impl WalletSettings {
    /// Refuses settings that contradict each other (22023).
    pub fn check(&self) -> Result<()> {
        if self.overage_policy == OveragePolicy::Invoice && (self.overage_unit_price.is_none() || self.overage_currency.is_none())
        {
            return Err(Error::invalid(
                "overage_policy",
                "'invoice' needs a price and a currency",
                "Give overage_unit_price and overage_currency.",
            ));
        }
        Ok(())
    }
}

impl Default for WalletSettings {
    fn default() -> Self {
        Self {
            name: None,
            priority: 100,
            expires_after: None,
            overage_policy: OveragePolicy::Block,
            overage_limit: None,
            overage_unit_price: None,
            overage_currency: None,
            late_usage_grace: Interval::ZERO,
            metadata: "{}".into(),
        }
    }
}

/// Between which levels of a wallet there is nothing to look at.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Watch {
    /// When the level falls to it, an alert fires or a top-up is requested.
    pub low_at: Option<Amount>,
    /// When the level rises above it, an alert is armed again.
    pub high_at: Option<Amount>,
    /// It has an auto top-up that is enabled.
    pub has_top_up: bool,
}

impl Watch {
    /// Whether anything watches the wallet.
    pub fn is_some(&self) -> bool {
        self.low_at.is_some() || self.high_at.is_some() || self.has_top_up
    }
}

/// A wallet with its totals, as of the last entry `last_seq`.
#[derive(Debug, Clone, PartialEq)]
pub struct Wallet {
    pub code: WalletCode,
    pub unit: String,
    pub status: WalletStatus,
    pub settings: WalletSettings,
    pub balance: Amount,
    pub held: Amount,
    pub scheduled: Amount,
    pub debt: Amount,
    /// Overage not yet on an invoice line; negative if what was on one has been refunded.
    pub overage: Amount,
    /// Whether entries of overage, or of its refunds, are not on an invoice line yet.
    pub has_open_overage: bool,
    /// Entries of overage up to this number are on invoice lines.
    pub overage_closed_seq: i64,
    /// The level right after the last credit: 100 percent of its alerts.
    pub credited_level: Amount,
    pub watch: Watch,
    /// Number of the last entry; the first is 1.
    pub last_seq: i64,
}

impl Wallet {
    /// What alerts and top-ups watch: credits that are there, set aside or not.
    pub fn level(&self) -> Amount {
        self.balance + self.held
    }

    /// Whether its level has passed one of those that are watched.
    pub fn is_worth_a_look(&self) -> bool {
        let level = self.level();
        self.watch.low_at.is_some_and(|low_at| level <= low_at) || self.watch.high_at.is_some_and(|high_at| level > high_at)
    }

    /// Refuses (22003) so many more credits than its totals can count. They are counted together, so that what is scheduled or
    /// held can always come (back) to the balance.
    pub fn fits_more(&self, credits: Amount) -> Result<()> {
        let total = self.balance + self.held + self.scheduled + credits;
        total.in_range(&format!("the total of wallet \"{}\"", self.code)).map(drop)
    }

    /// How this wallet takes overage, and how much more; none if its policy is to block.
    pub fn overage_room(&self) -> Option<OverageRoom> {
        let settings = &self.settings;
        let (kind, open, price) = match settings.overage_policy {
            OveragePolicy::Block => return None,
            OveragePolicy::Invoice => {
                (Kind::Overage, self.overage, settings.overage_unit_price.zip(settings.overage_currency.clone()))
            }
            OveragePolicy::Overdraft => (Kind::Overdraft, self.debt, None),
        };
        Some(OverageRoom {
            kind,
            price,
            credits_max: settings.overage_limit.map(|limit| (limit - open.max(Amount::ZERO)).max(Amount::ZERO)),
        })
    }
}

/// What an overage entry of a wallet would be.
#[derive(Debug, Clone, PartialEq)]
pub struct OverageRoom {
    pub kind: Kind,
    pub price: Option<(Amount, String)>,
    /// None is no limit.
    pub credits_max: Option<Amount>,
}

impl OverageRoom {
    /// How much of `credits` fits.
    pub fn fitting(&self, credits: Amount) -> Amount {
        self.credits_max.map_or(credits, |credits_max| credits_max.min(credits))
    }
}
