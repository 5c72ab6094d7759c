//! Makes generated requests mean something in the history so far, and repeats them.

use crate::domain::properties::model::time::after;
use crate::domain::properties::model::{HoldState, Model};
use crate::domain::properties::requests::rules::{CODES, Every, Rule, Terms};
use crate::domain::properties::requests::{HOUR, Instant, MISSING, Mode, NEVER, Request, Scope};

/// Makes a request's instants absolute and its numbers those of something that is there.
pub fn anchored(request: &Request, model: &Model, unit: Instant) -> Request {
    let (now, wallets, holds) = (model.now, model.accounts.len(), model.holds.len());
    let (grants, usages) = (model.blocks.len(), model.usage_count());
    // Whole hours are units; minutes are minutes.
    let scaled = |span: Instant| if span % HOUR == 0 { span / HOUR * unit } else { span };
    let wallet_of = |number: usize| if number % 24 == 23 { MISSING } else { number % wallets };
    let pick = |number: Option<usize>, count: usize| number.filter(|_| count > 0).map(|number| number % count);
    let later = |offset: Instant| if offset == NEVER { NEVER } else { now + scaled(offset) };
    let mut request = request.clone();
    match &mut request {
        Request::Grant { wallet, effective, expires, .. } => {
            *wallet = wallet_of(*wallet);
            *effective = effective.map(later);
            *expires = expires.map(later);
        }
        Request::Void { grant, .. } => *grant = pick(*grant, grants),
        Request::ChangeExpiry { grant, expires } => (*grant, *expires) = (pick(*grant, grants), later(*expires)),
        Request::Transfer { from, to, .. } => {
            (*from, *to) = (wallet_of(*from), wallet_of(*to));
            if from == to {
                *to = if *from == MISSING { 0 } else { (*from + 1) % wallets };
            }
            if from == to {
                *to = MISSING;
            }
        }
        Request::Adjust { wallet, .. } | Request::SetStatus { wallet, .. } | Request::Configure { wallet, .. } => {
            *wallet = wallet_of(*wallet)
        }
        Request::Deduct { scope, occurred, .. } => {
            if let Scope::Wallet(wallet) = scope {
                *wallet = wallet_of(*wallet);
            }
            *occurred = occurred.map(later);
        }
        Request::Refund { usage, .. } => *usage = pick(*usage, usages),
        Request::Hold { scope, expires_in, .. } => {
            if let Scope::Wallet(wallet) = scope {
                *wallet = wallet_of(*wallet);
            }
            *expires_in = scaled(*expires_in);
        }
        Request::Capture { hold, .. } | Request::Release { hold } => {
            let open: Vec<usize> = (0..holds).filter(|number| model.holds[*number].state == HoldState::Open).collect();
            let is_open = |number: usize| !number.is_multiple_of(4) && !open.is_empty();
            *hold = hold.filter(|number| is_open(*number)).map(|number| open[number % open.len()]).or(pick(*hold, holds));
        }
        Request::Rule(rule) => {
            name(rule, model);
            anchor(rule, &wallet_of, &later, &scaled);
        }
    }
    request
}

/// Gives a rule a code: for a new one that of none, else that of one there is; sometimes the other way round.
fn name(rule: &mut Rule, model: &Model) {
    let (recurring, contracts) = (Vec::from_iter(model.recurring.keys()), Vec::from_iter(model.contracts.keys()));
    let (code, taken, is_new) = match rule {
        Rule::CreateRecurring(new) => (&mut new.code, recurring, true),
        Rule::CreateContract(new) => (&mut new.code, contracts, true),
        Rule::UpdateRecurring { code, .. } | Rule::CancelRecurring { code, .. } => (code, recurring, false),
        Rule::CancelContract { code, .. } => (code, contracts, false),
    };
    let free = || (0..CODES.len()).filter(|code| !taken.contains(&code)).collect();
    let is_common = *code % 8 > 0;
    let choice: Vec<usize> = if is_common == is_new { free() } else { taken.iter().map(|code| **code).collect() };
    *code = choice.get(*code % choice.len().max(1)).copied().unwrap_or(*code % CODES.len());
}

fn anchor(
    rule: &mut Rule,
    wallet_of: &impl Fn(usize) -> usize,
    later: &impl Fn(Instant) -> Instant,
    scaled: &impl Fn(Instant) -> Instant,
) {
    let every = |every: Every| Every { microseconds: scaled(every.microseconds), ..every };
    let terms_of = |terms: &mut Terms| terms.life = terms.life.map(every);
    match rule {
        Rule::CreateRecurring(new) => {
            terms_of(&mut new.terms);
            new.wallet = wallet_of(new.wallet);
            new.every = every(new.every);
            new.starts = new.starts.map(later);
            new.ends = new.ends.map(later);
            new.anchor = new.anchor.map(later);
        }
        Rule::UpdateRecurring { terms, ends, .. } => {
            terms_of(terms);
            *ends = ends.map(later);
        }
        Rule::CreateContract(new) => {
            new.wallet = wallet_of(new.wallet);
            new.starts = later(new.starts);
            new.ends = new.term.map_or(later(new.ends), |term| after(new.starts, term, 1));
            new.every = new.every.map(every);
            new.life = new.life.map(every);
        }
        Rule::CancelRecurring { at, .. } | Rule::CancelContract { at, .. } => *at = at.map(later),
    }
}

/// The same request with another amount, or with all that is not compared changed; none if that makes no sense.
pub fn again(request: &Request, with_another_amount: bool) -> Option<Request> {
    let mut request = request.clone();
    let more = i128::from(with_another_amount);
    match &mut request {
        Request::Grant { amount, priority, expires, .. } => {
            *amount += more;
            *priority += 1;
            *expires = None;
        }
        Request::Deduct { amount, mode, occurred, .. } => {
            *amount += more;
            *occurred = None;
            *mode = if *mode == Mode::Error { Mode::Partial } else { Mode::Error };
        }
        Request::Transfer { amount, .. } => *amount += more,
        Request::Adjust { amount, .. } => *amount += if *amount < 0 { -more } else { more },
        Request::Void { amount, .. } | Request::Refund { amount, .. } => *amount = amount.map(|amount| amount + more),
        Request::ChangeExpiry { expires, .. } => *expires = NEVER,
        Request::Hold { amount, expires_in, .. } => {
            *amount += more;
            *expires_in += 1;
        }
        Request::Capture { amount, mode, .. } => {
            *amount = amount.map(|amount| amount + more);
            *mode = if *mode == Mode::Error { Mode::Partial } else { Mode::Error };
        }
        Request::SetStatus { .. } | Request::Configure { .. } | Request::Release { .. } | Request::Rule(_) => return None,
    }
    Some(request)
}
