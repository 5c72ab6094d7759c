//! The language of what time does by itself: recurring grants, contracts and holds.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::{CREDIT, Credits, HOUR, Instant, Mode, NEVER, Request, Theme, amount, event, scope, units};

/// A span of time: months by the calendar, then days, then microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Every {
    pub months: i32,
    pub days: i32,
    pub microseconds: i64,
}

impl Every {
    pub const fn months(months: i32) -> Self {
        Self { months, days: 0, microseconds: 0 }
    }

    pub const fn days(days: i32) -> Self {
        Self { months: 0, days, microseconds: 0 }
    }

    pub const fn hours(hours: i64) -> Self {
        Self { months: 0, days: 0, microseconds: hours * HOUR }
    }
}

/// What of a recurring grant can be changed.
#[derive(Debug, Clone)]
pub struct Terms {
    pub amount: Credits,
    /// The place of the type on a tie: promotional, committed, prepaid.
    pub kind: u8,
    pub priority: i32,
    pub life: Option<Every>,
    /// Of a hundred, in units of 10^-12.
    pub percent: Credits,
    pub cap: Option<Credits>,
    pub periods: Option<u32>,
    pub applies: Option<Vec<&'static str>>,
}

#[derive(Debug, Clone)]
pub struct NewRecurring {
    pub code: usize,
    pub wallet: usize,
    pub terms: Terms,
    pub every: Every,
    pub starts: Option<Instant>,
    pub ends: Option<Instant>,
    pub anchor: Option<Instant>,
    pub prorate: bool,
}

#[derive(Debug, Clone)]
pub struct NewContract {
    pub code: usize,
    pub wallet: usize,
    pub committed: Credits,
    pub starts: Instant,
    /// Replaced by `starts` plus `term`, if that is given.
    pub ends: Instant,
    pub term: Option<Every>,
    pub installments: i32,
    pub every: Option<Every>,
    /// At the end: whether the rest rolls over, or expires.
    pub rolls_over: bool,
    pub percent: Credits,
    pub cap: Option<Credits>,
    pub life: Option<Every>,
    pub minimum_spend: bool,
    pub price: Option<Credits>,
}

/// A recurring grant or a contract is named by its code, a small number.
#[derive(Debug, Clone)]
pub enum Rule {
    CreateRecurring(NewRecurring),
    UpdateRecurring {
        code: usize,
        terms: Terms,
        /// None leaves it; never takes it away.
        ends: Option<Instant>,
    },
    CancelRecurring {
        code: usize,
        at: Option<Instant>,
    },
    CreateContract(NewContract),
    CancelContract {
        code: usize,
        at: Option<Instant>,
    },
}

/// The codes, in their order.
pub const CODES: [&str; 7] = ["alpha", "beta", "delta", "epsilon", "gamma", "omega", "zeta"];

/// As generated: one that is there for a change or an end, one that is not for a new one, but for one number in eight.
fn code() -> impl Strategy<Value = usize> {
    0..64_usize
}

fn every() -> impl Strategy<Value = Every> {
    prop_oneof![
        4 => (1..=12_i64).prop_map(Every::hours),
        1 => (1..=3_i32).prop_map(Every::days),
        2 => (1..=2_i32).prop_map(Every::months),
    ]
}

fn percent() -> impl Strategy<Value = Credits> {
    prop_oneof![
        3 => Just(100 * CREDIT),
        3 => Just(50 * CREDIT),
        1 => Just(0),
        1 => Just(25 * CREDIT / 2),
        1 => Just(100 * CREDIT / 3),
        1 => Just(1),
    ]
}

fn cap() -> impl Strategy<Value = Option<Credits>> {
    option::of((0..20_i128).prop_map(|halves| halves * CREDIT / 2))
}

fn terms() -> impl Strategy<Value = Terms> {
    let life = prop_oneof![5 => Just(None), 1 => every().prop_map(Some)];
    let periods = prop_oneof![4 => Just(Some(1)), 2 => (2..4_u32).prop_map(Some), 1 => Just(None)];
    let applies = prop_oneof![6 => Just(None), 1 => Just(Some(vec!["chat"]))];
    let clashes = prop::bool::weighted(0.1);
    (amount(), 0..3_u8, 1..3_i32, life, percent(), cap(), periods, applies, clashes).prop_map(
        |(amount, kind, priority, life, percent, cap, periods, applies, clashes)| {
            let percent = if life.is_some() && !clashes { 0 } else { percent };
            Terms { amount, kind, priority, life, percent, cap, periods, applies }
        },
    )
}

fn recurring() -> impl Strategy<Value = NewRecurring> {
    let starts = prop_oneof![3 => Just(None), 2 => units(-12..8).prop_map(Some)];
    let ends = option::weighted(0.3, units(-1..40));
    let anchor = option::weighted(0.4, units(-40..40));
    (code(), 0..24_usize, terms(), every(), starts, ends, anchor, any::<bool>()).prop_map(
        |(code, wallet, terms, every, starts, ends, anchor, prorate)| NewRecurring {
            code,
            wallet,
            terms,
            every,
            starts,
            ends,
            anchor,
            prorate,
        },
    )
}

fn contract() -> impl Strategy<Value = NewContract> {
    let committed = (amount(), 1..4_i128).prop_map(|(amount, times)| amount * times);
    let term = option::weighted(0.4, (1..5_i32).prop_map(Every::months));
    let times = (units(-12..8), units(-1..40), term);
    let parts = (1..6_i32, option::weighted(0.4, every()));
    let price = prop_oneof![1 => Just(None), 2 => Just(Some(CREDIT / 8)), 2 => Just(Some(CREDIT / 3))];
    let end = (any::<bool>(), percent(), cap(), option::of(every()));
    (code(), 0..24_usize, committed, times, parts, end, prop::bool::weighted(0.35), price).prop_map(
        |(
            code,
            wallet,
            committed,
            (starts, ends, term),
            (installments, every),
            (rolls_over, percent, cap, life),
            minimum,
            price,
        )| NewContract {
            code,
            wallet,
            committed,
            starts,
            ends,
            term,
            installments,
            every,
            rolls_over,
            percent,
            cap,
            life,
            minimum_spend: minimum,
            price,
        },
    )
}

fn when() -> impl Strategy<Value = Option<Instant>> {
    prop_oneof![2 => Just(None), 2 => units(-3..20).prop_map(Some)]
}

fn pick() -> impl Strategy<Value = Option<usize>> {
    option::weighted(0.95, 0..64_usize)
}

fn to_request(rule: Rule) -> Request {
    Request::Rule(Box::new(rule))
}

fn hold() -> impl Strategy<Value = Request> {
    let part = prop_oneof![1 => amount(), 3 => (1..8_i128).prop_map(|halves| halves * CREDIT / 2)];
    (part, scope(), event(), units(1..20)).prop_map(|(amount, scope, event, expires_in)| Request::Hold {
        amount,
        scope,
        event,
        expires_in,
    })
}

/// Requests about recurring grants, contracts and holds, in the mixture of the theme.
pub fn request(theme: Theme) -> BoxedStrategy<Request> {
    let mode = prop_oneof![Just(Mode::Error), Just(Mode::Report), Just(Mode::Partial)];
    let captured = prop_oneof![2 => Just(None), 4 => amount().prop_map(Some), 1 => Just(Some(0))];
    let capture = (pick(), captured, mode).prop_map(|(hold, amount, mode)| Request::Capture { hold, amount, mode });
    let release = pick().prop_map(|hold| Request::Release { hold });
    let update = (code(), terms(), option::weighted(0.3, prop_oneof![3 => units(-1..30), 1 => Just(NEVER)]))
        .prop_map(|(code, terms, ends)| Rule::UpdateRecurring { code, terms, ends });
    let recurring = prop_oneof![
        4 => recurring().prop_map(Rule::CreateRecurring),
        2 => update,
        1 => (code(), when()).prop_map(|(code, at)| Rule::CancelRecurring { code, at }),
    ];
    let contract = prop_oneof![
        4 => contract().prop_map(Rule::CreateContract),
        1 => (code(), when()).prop_map(|(code, at)| Rule::CancelContract { code, at }),
    ];
    let [holds, recurrings, contracts] = match theme {
        Theme::Holds => [24, 2, 1],
        Theme::Recurring => [3, 10, 1],
        Theme::Contracts => [3, 1, 10],
        Theme::Keys => [8, 1, 1],
        Theme::Everything | Theme::Overage | Theme::Expiry => [2, 2, 2],
    };
    prop_oneof![
        holds => prop_oneof![4 => hold(), 3 => capture, 1 => release],
        recurrings => recurring.prop_map(to_request),
        contracts => contract.prop_map(to_request),
    ]
    .boxed()
}

/// Credits to hold.
fn first_grant() -> impl Strategy<Value = Request> {
    let expires = option::of(units(1..24));
    (0..24_usize, 4..20_i128, expires).prop_map(|(wallet, credits, expires)| {
        let (effective, applies) = (None, None);
        Request::Grant { wallet, amount: credits * CREDIT, kind: 2, priority: 1, effective, expires, applies }
    })
}

/// Something to renew, end or hold from the beginning on, so that short histories have it too.
pub fn first_requests(theme: Theme) -> BoxedStrategy<Vec<Request>> {
    let recurring = || recurring().prop_map(|new| to_request(Rule::CreateRecurring(new)));
    match theme {
        Theme::Recurring => vec(recurring(), 1..=2).boxed(),
        Theme::Contracts => vec(contract().prop_map(|new| to_request(Rule::CreateContract(new))), 1..=2).boxed(),
        Theme::Holds => {
            let first = (recurring(), first_grant(), hold(), hold());
            first.prop_map(|(recurring, grant, hold, other)| vec![recurring, grant, hold, other]).boxed()
        }
        _ => Just(Vec::new()).boxed(),
    }
}
