//! The chart of accounts (SPEC 5): between which two accounts each kind of entry moves credits.
//!
//! This is the only place that knows it. What an entry does to a wallet's balance, held, scheduled, debt and overage and to a
//! grant's remaining follows from the two accounts; the table `credits_data.chart_of_accounts` is filled from here.

/// Where credits come from and go to. One of each for every wallet, but for `Issued`, `Usage` and the like, which are the world
/// outside the wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Account {
    Issued,
    Wallet,
    Scheduled,
    Held,
    Usage,
    Expired,
    Voided,
    Adjusted,
    Rollover,
    Transfer,
    Receivable,
    Debt,
}

impl Account {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Wallet => "wallet",
            Self::Scheduled => "scheduled",
            Self::Held => "held",
            Self::Usage => "usage",
            Self::Expired => "expired",
            Self::Voided => "voided",
            Self::Adjusted => "adjusted",
            Self::Rollover => "rollover",
            Self::Transfer => "transfer",
            Self::Receivable => "receivable",
            Self::Debt => "debt",
        }
    }
}

macro_rules! chart {
    ($($kind:ident = $id:literal $name:literal: $from:ident -> $to:ident)*) => {
        /// What an entry records.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(i16)]
        pub enum Kind {
            $($kind = $id,)*
        }

        impl Kind {
            pub const ALL: &'static [Kind] = &[$(Kind::$kind,)*];

            /// The name shown in `credits.ledger`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }

            /// The account debited and the account credited.
            pub const fn accounts(self) -> (Account, Account) {
                match self {
                    $(Self::$kind => (Account::$from, Account::$to),)*
                }
            }

            /// The kind stored under this number, if there is one.
            pub const fn from_id(id: i16) -> Option<Self> {
                match id {
                    $($id => Some(Self::$kind),)*
                    _ => None,
                }
            }
        }
    };
}

chart! {
    Grant = 1 "grant": Issued -> Wallet
    GrantScheduled = 2 "grant_scheduled": Issued -> Scheduled
    GrantActivated = 3 "grant_activated": Scheduled -> Wallet
    Usage = 4 "usage": Wallet -> Usage
    UsageRefunded = 5 "usage_refunded": Usage -> Wallet
    Expiration = 6 "expiration": Wallet -> Expired
    ExpirationReversed = 7 "expiration_reversed": Expired -> Wallet
    Void = 8 "void": Wallet -> Voided
    VoidScheduled = 9 "void_scheduled": Scheduled -> Voided
    Adjustment = 10 "adjustment": Wallet -> Adjusted
    RolloverOut = 11 "rollover_out": Wallet -> Rollover
    RolloverIn = 12 "rollover_in": Rollover -> Wallet
    TransferOut = 13 "transfer_out": Wallet -> Transfer
    TransferIn = 14 "transfer_in": Transfer -> Wallet
    Hold = 15 "hold": Wallet -> Held
    HoldReleased = 16 "hold_released": Held -> Wallet
    HoldCaptured = 17 "hold_captured": Held -> Usage
    Overage = 18 "overage": Receivable -> Usage
    OverageRefunded = 19 "overage_refunded": Usage -> Receivable
    Overdraft = 20 "overdraft": Debt -> Usage
    OverdraftRefunded = 21 "overdraft_refunded": Usage -> Debt
    OverdraftRepaid = 22 "overdraft_repaid": Wallet -> Debt
}

/// The effect of one credit of an entry: +1, -1 or 0 on each total of its wallet and on its grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effect {
    pub balance: i8,
    pub held: i8,
    pub scheduled: i8,
    /// What the customer owes: it grows when the account is debited.
    pub debt: i8,
    /// Likewise for overage that will be invoiced.
    pub overage: i8,
    /// The net amount of the grant that expired.
    pub expired: i8,
}

impl Effect {
    /// On the remaining of the entry's grant: what is in the wallet or scheduled to come.
    pub const fn remaining(self) -> i8 {
        self.balance + self.scheduled
    }

    /// Whether it changes what is stored of its grant.
    pub const fn is_on_grant(self) -> bool {
        self.remaining() != 0 || self.expired != 0
    }
}

impl Kind {
    pub fn effect(self) -> Effect {
        let (from, to) = self.accounts();
        let credited = |account: Account| i8::from(to == account) - i8::from(from == account);
        Effect {
            balance: credited(Account::Wallet),
            held: credited(Account::Held),
            scheduled: credited(Account::Scheduled),
            debt: -credited(Account::Debt),
            overage: -credited(Account::Receivable),
            expired: credited(Account::Expired),
        }
    }

    /// Usage paid from grants.
    pub const fn is_usage(self) -> bool {
        matches!(self, Self::Usage | Self::HoldCaptured)
    }

    /// Usage that grants did not cover.
    pub const fn is_overage(self) -> bool {
        matches!(self, Self::Overage | Self::Overdraft)
    }

    /// Usage, whoever pays it.
    pub const fn is_charge(self) -> bool {
        self.is_usage() || self.is_overage()
    }

    /// Usage taken back, whoever had paid it.
    pub const fn is_refund(self) -> bool {
        matches!(self, Self::UsageRefunded | Self::OverageRefunded | Self::OverdraftRefunded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The two columns of SPEC 5's table, written out once more on purpose.
    #[test]
    fn effects_are_those_of_the_specification() {
        let table = [
            ("grant", 1, 0),
            ("grant_scheduled", 0, 0),
            ("grant_activated", 1, 0),
            ("usage", -1, 0),
            ("usage_refunded", 1, 0),
            ("expiration", -1, 0),
            ("expiration_reversed", 1, 0),
            ("void", -1, 0),
            ("void_scheduled", 0, 0),
            ("adjustment", -1, 0),
            ("rollover_out", -1, 0),
            ("rollover_in", 1, 0),
            ("transfer_out", -1, 0),
            ("transfer_in", 1, 0),
            ("hold", -1, 1),
            ("hold_released", 1, -1),
            ("hold_captured", 0, -1),
            ("overage", 0, 0),
            ("overage_refunded", 0, 0),
            ("overdraft", 0, 0),
            ("overdraft_refunded", 0, 0),
            ("overdraft_repaid", -1, 0),
        ];
        let chart: Vec<_> = Kind::ALL.iter().map(|kind| (kind.name(), kind.effect().balance, kind.effect().held)).collect();
        assert_eq!(chart, table);
    }

    #[test]
    fn debt_and_overage_grow_when_usage_is_not_covered() {
        let owed = |kind: Kind| (kind.effect().debt, kind.effect().overage);
        assert_eq!(owed(Kind::Overdraft), (1, 0));
        assert_eq!(owed(Kind::OverdraftRefunded), (-1, 0));
        assert_eq!(owed(Kind::OverdraftRepaid), (-1, 0));
        assert_eq!(owed(Kind::Overage), (0, 1));
        assert_eq!(owed(Kind::OverageRefunded), (0, -1));
    }

    /// Statements and partial indexes name these by number.
    #[test]
    fn the_numbers_in_sql_are_those_of_the_chart() {
        let numbers = [Kind::Usage, Kind::Void, Kind::Hold, Kind::Overage, Kind::OverdraftRepaid].map(|kind| kind as i16);
        assert_eq!(numbers, [4, 8, 15, 18, 22]);
    }

    #[test]
    fn every_kind_is_found_by_its_number() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_id(*kind as i16), Some(*kind));
        }
        assert_eq!(Kind::from_id(0), None);
    }
}
