//! The language in which the model and the domain are asked the same things, and random histories in it.

pub mod rules;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use rules::Rule;

/// Units of 10^-12 credits.
pub type Credits = i128;
/// Microseconds since 2000.
pub type Instant = i64;

pub const CREDIT: Credits = 1_000_000_000_000;
pub const MINUTE: Instant = 60_000_000;
pub const HOUR: Instant = 60 * MINUTE;
pub const DAY: Instant = 24 * HOUR;
pub const NEVER: Instant = i64::MAX;
/// Where histories begin: 2026-01-01.
pub const START: Instant = 820_540_800_000_000;
/// Names no wallet.
pub const MISSING: usize = usize::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Active,
    Frozen,
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    Block,
    Invoice,
    Overdraft,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Error,
    Report,
    Partial,
}

#[derive(Debug, Clone)]
pub enum Scope {
    Wallet(usize),
    Unit(&'static str),
}

/// The settings of a wallet that matter here.
#[derive(Debug, Clone)]
pub struct Setup {
    pub priority: i32,
    pub policy: Policy,
    pub limit: Option<Credits>,
    pub expires_after: Option<Instant>,
    pub grace: Instant,
}

/// One call. As generated, instants are relative to the call's now, wallets, grants and usages are numbers to be taken modulo
/// what there is; [`super::history`] makes them absolute.
#[derive(Debug, Clone)]
pub enum Request {
    Grant {
        wallet: usize,
        amount: Credits,
        /// The place of the type on a tie: promotional, committed, prepaid.
        kind: u8,
        priority: i32,
        effective: Option<Instant>,
        expires: Option<Instant>,
        applies: Option<Vec<&'static str>>,
    },
    Void {
        grant: Option<usize>,
        amount: Option<Credits>,
    },
    ChangeExpiry {
        grant: Option<usize>,
        expires: Instant,
    },
    Transfer {
        from: usize,
        to: usize,
        amount: Credits,
    },
    Adjust {
        wallet: usize,
        amount: Credits,
    },
    Deduct {
        amount: Credits,
        scope: Scope,
        event: Option<&'static str>,
        occurred: Option<Instant>,
        mode: Mode,
    },
    Refund {
        usage: Option<usize>,
        amount: Option<Credits>,
    },
    Hold {
        amount: Credits,
        scope: Scope,
        event: Option<&'static str>,
        expires_in: Instant,
    },
    Capture {
        hold: Option<usize>,
        amount: Option<Credits>,
        mode: Mode,
    },
    Release {
        hold: Option<usize>,
    },
    Rule(Box<Rule>),
    SetStatus {
        wallet: usize,
        status: Status,
    },
    Configure {
        wallet: usize,
        setup: Setup,
    },
}

/// What a call answered; grants by their order of creation.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Refused(&'static str),
    Granted(usize),
    Voided(Credits),
    Deducted { status: &'static str, requested: Credits, deducted: Credits, overage: Credits, balance: Credits, replayed: bool },
    Refunded { refunded: Credits, balance: Credits, replayed: bool },
    Transferred { transferred: Credits, from_balance: Credits, to_balance: Credits, replayed: bool },
    Adjusted { adjusted: Credits, balance: Credits, replayed: bool },
    Held { held: Credits, balance: Credits, lapses: Instant, replayed: bool },
    Released { released: Credits, balance: Credits },
    Done,
}

#[derive(Debug, Clone)]
pub enum Key {
    None,
    Fresh,
    /// One that was tried before.
    Used(usize),
}

#[derive(Debug, Clone)]
pub enum Step {
    Ask(Request, Key),
    /// An earlier request with its key again; with another amount if so said, else differing only in what is not compared.
    Retry {
        number: usize,
        with_another_amount: bool,
    },
    /// Time passes and nobody does anything, or the scheduled job settles.
    Wait {
        units: i64,
        settles: bool,
    },
    /// To the very instant at which something falls due.
    WaitForDue {
        number: usize,
        settles: bool,
    },
}

/// What a history is mostly about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Theme {
    Everything,
    Overage,
    Expiry,
    Keys,
    Recurring,
    Contracts,
    Holds,
}

impl Theme {
    /// Whether it is about what time does by itself.
    fn is_of_rules(self) -> bool {
        matches!(self, Self::Recurring | Self::Contracts | Self::Holds)
    }
}

#[derive(Debug, Clone)]
pub struct Script {
    pub begins: Instant,
    /// What requests and waits count as one hour is this long.
    pub unit: Instant,
    /// Unit and settings of each wallet.
    pub wallets: Vec<(&'static str, Setup)>,
    pub steps: Vec<Step>,
}

pub fn script(theme: Theme) -> impl Strategy<Value = Script> {
    let unit = prop_oneof![5 => Just("credits"), 1 => Just("tokens")];
    let wallets = vec((unit, setup(theme)), 1..=3);
    // Most rules need few steps to break; the long histories are for what adds up.
    let steps = prop_oneof![3 => vec(step(theme), 5..=14), 1 => vec(step(theme), 15..=40)];
    // Hours, or days for calendars; then some begin at the end of a month.
    let clock = if theme.is_of_rules() {
        prop_oneof![1 => Just((START, HOUR)), 1 => (0..100_i64).prop_map(|days| (START + days * DAY, DAY))].boxed()
    } else {
        Just((START, HOUR)).boxed()
    };
    (clock, wallets, rules::first_requests(theme), steps).prop_map(|((begins, unit), wallets, first, steps)| {
        let first = first.into_iter().map(|request| Step::Ask(request, Key::None));
        Script { begins, unit, wallets, steps: first.chain(steps).collect() }
    })
}

fn setup(theme: Theme) -> impl Strategy<Value = Setup> {
    let blocked = if theme == Theme::Overage { 1 } else { 4 };
    let invoiced = if theme == Theme::Contracts { 8 } else { 2 };
    let policy = prop_oneof![blocked => Just(Policy::Block), invoiced => Just(Policy::Invoice), 3 => Just(Policy::Overdraft)];
    let limit = option::of((0..20_i128).prop_map(|halves| halves * CREDIT / 2));
    let graceful = if theme == Theme::Expiry { 3 } else { 1 };
    let grace = prop_oneof![2 => Just(0), graceful => (1..12_i64).prop_map(|hours| hours * HOUR)];
    let expires_after = option::weighted(0.3, (1..24_i64).prop_map(|hours| hours * HOUR));
    (1..4_i32, policy, limit, expires_after, grace).prop_map(|(priority, policy, limit, expires_after, grace)| Setup {
        priority,
        policy,
        limit,
        expires_after,
        grace,
    })
}

/// More than zero; often equal to others, sometimes with all 12 decimals.
fn amount() -> impl Strategy<Value = Credits> {
    prop_oneof![
        8 => (1..30_i128).prop_map(|halves| halves * CREDIT / 2),
        2 => 1..5_i128,
        1 => (1..20_i128).prop_map(|thirds| thirds * CREDIT / 3),
    ]
}

fn event() -> impl Strategy<Value = Option<&'static str>> {
    prop_oneof![Just(None), Just(Some("chat")), Just(Some("image"))]
}

/// So many units of time.
fn units(units: std::ops::Range<i64>) -> impl Strategy<Value = Instant> {
    units.prop_map(|units| units * HOUR)
}

fn scope() -> impl Strategy<Value = Scope> {
    let unit = prop_oneof![20 => Just("credits"), 3 => Just("tokens"), 1 => Just("nothing")];
    prop_oneof![2 => unit.prop_map(Scope::Unit), 1 => (0..24_usize).prop_map(Scope::Wallet)]
}

fn grant() -> impl Strategy<Value = Request> {
    let applies = prop_oneof![3 => Just(None), 1 => Just(Some(vec!["chat"])), 1 => Just(Some(vec!["chat", "image"]))];
    let effective = prop_oneof![3 => Just(None), 1 => units(-6..12).prop_map(Some)];
    (0..24_usize, amount(), 0..3_u8, 1..3_i32, effective, option::of(units(-1..24)), applies).prop_map(
        |(wallet, amount, kind, priority, effective, expires, applies)| Request::Grant {
            wallet,
            amount,
            kind,
            priority,
            effective,
            expires,
            applies,
        },
    )
}

fn request(theme: Theme) -> BoxedStrategy<Request> {
    let wallet = || 0..24_usize;
    let grant = grant();
    let used = prop_oneof![12 => amount(), 1 => Just(0)];
    let late = if theme == Theme::Expiry { 3 } else { 1 };
    let occurred = prop_oneof![3 => Just(None), late => units(-14..1).prop_map(Some), 1 => (3..7_i64).prop_map(|minutes| Some(minutes * MINUTE))];
    let mode = prop_oneof![Just(Mode::Error), Just(Mode::Report), Just(Mode::Partial)];
    let deduct = (used, scope(), event(), occurred, mode).prop_map(|(amount, scope, event, occurred, mode)| Request::Deduct {
        amount,
        scope,
        event,
        occurred,
        mode,
    });
    let pick = || option::weighted(0.95, 0..64_usize);
    let some_amount = || option::of(amount());
    let refund = (pick(), some_amount()).prop_map(|(usage, amount)| Request::Refund { usage, amount });
    let void = (pick(), some_amount()).prop_map(|(grant, amount)| Request::Void { grant, amount });
    let change_expiry = (pick(), prop_oneof![4 => units(-1..36), 1 => Just(NEVER)])
        .prop_map(|(grant, expires)| Request::ChangeExpiry { grant, expires });
    let transfer = (wallet(), wallet(), amount()).prop_map(|(from, to, amount)| Request::Transfer { from, to, amount });
    let adjust = (wallet(), amount(), any::<bool>())
        .prop_map(|(wallet, amount, gives)| Request::Adjust { wallet, amount: if gives { amount } else { -amount } });
    let status = prop_oneof![6 => Just(Status::Active), 3 => Just(Status::Frozen), 1 => Just(Status::Closed)];
    let set_status = (wallet(), status).prop_map(|(wallet, status)| Request::SetStatus { wallet, status });
    let configure = (wallet(), setup(theme)).prop_map(|(wallet, setup)| Request::Configure { wallet, setup });
    let ruled = if theme.is_of_rules() { 24 } else { 6 };
    prop_oneof![
        ruled => rules::request(theme),
        8 => grant,
        12 => deduct,
        6 => refund,
        2 => void,
        2 => change_expiry,
        2 => transfer,
        2 => adjust,
        1 => set_status,
        1 => configure,
    ]
    .boxed()
}

fn step(theme: Theme) -> BoxedStrategy<Step> {
    let key = prop_oneof![6 => Just(Key::None), 6 => Just(Key::Fresh), 1 => (0..64_usize).prop_map(Key::Used)];
    let retries = if theme == Theme::Keys { 8 } else { 1 };
    let due = if theme.is_of_rules() { 5 } else { 2 };
    prop_oneof![
        16 => (request(theme), key).prop_map(|(request, key)| Step::Ask(request, key)),
        retries => (0..64_usize, prop::bool::weighted(0.2))
            .prop_map(|(number, with_another_amount)| Step::Retry { number, with_another_amount }),
        3 => (0..12_i64, any::<bool>()).prop_map(|(units, settles)| Step::Wait { units, settles }),
        1 => (12..50_i64, any::<bool>()).prop_map(|(units, settles)| Step::Wait { units, settles }),
        due => (0..64_usize, any::<bool>()).prop_map(|(number, settles)| Step::WaitForDue { number, settles }),
    ]
    .boxed()
}
