//! Settling does not care when it runs, and reading answers what it would leave.

use proptest::prelude::*;

use super::history::{History, Settling, Subject, at};
use super::requests::{Instant, Script, Theme, script};
use super::store::Store;
use crate::domain::book::Book;
use crate::domain::names::TransactionId;

/// The ledger but for generated ids: grants by their order of creation, transactions by their first entry.
fn ledger(store: &Store) -> Vec<String> {
    let grant_number = |id| store.grants.iter().position(|grant| grant.id == id).unwrap();
    let rows = store.entries.iter().map(|entry| {
        let transaction = store.entries.iter().position(|first| first.transaction_id == entry.transaction_id);
        let refers_to = store.entries.iter().position(|first| Some(&first.transaction_id) == entry.refers_to.as_ref());
        let made = &entry.movement;
        let grant = made.grant.map(grant_number);
        let what = (entry.wallet, entry.seq, made.kind.name(), made.credits, grant, entry.balance_after);
        let when = (made.occurred_at, entry.usage_at, made.reverses_seq, &made.price);
        let which = (transaction, entry.line, entry.requested, &entry.event_name, refers_to);
        format!("{what:?} {when:?} {which:?}")
    });
    rows.collect()
}

/// The other rows but for generated ids: holds by the entry that set them aside.
fn other_rows(store: &Store) -> Vec<String> {
    let first_entry = |id: &TransactionId| store.entries.iter().position(|entry| entry.transaction_id == *id);
    let mut holds: Vec<_> = store.holds.values().map(|hold| (first_entry(&hold.id), hold.status, hold.expires_at)).collect();
    holds.sort_by_key(|(entry, _, _)| *entry);
    let true_ups = store.lines.iter().map(|line| {
        let what = (&line.contract, line.quantity, line.amount, &line.currency);
        format!("{what:?} {:?}", (line.period_start, line.period_end))
    });
    let wallets = store.wallets.iter().map(|wallet| format!("{wallet:?}"));
    let recurring = store.recurring.values().map(|recurring| format!("{recurring:?}"));
    let contracts = store.contracts.values().map(|contract| format!("{contract:?}"));
    let holds = holds.iter().map(|hold| format!("{hold:?}"));
    wallets.chain(recurring).chain(contracts).chain(holds).chain(true_ups).collect()
}

/// The books after a script that nobody, or the scheduled job all the time, settled in between; settled at its end.
fn books_after(script: &Script, settling: Settling) -> Store {
    let mut subject = History::run(script, settling).subject;
    subject.settle();
    subject.store
}

fn settles_the_same_whenever(script: &Script) {
    let at_once = books_after(script, Settling::OnlyWhenNeeded);
    let step_by_step = books_after(script, Settling::EveryUnit);
    let (at_once_rows, step_by_step_rows) = (ledger(&at_once), ledger(&step_by_step));
    for (at_once, step_by_step) in at_once_rows.iter().zip(&step_by_step_rows) {
        assert_eq!(at_once, step_by_step, "an entry of the ledger settled at once and of the one settled day by day");
    }
    assert_eq!(at_once_rows.len(), step_by_step_rows.len());
    assert_eq!(other_rows(&at_once), other_rows(&step_by_step), "rows settled at once and those settled day by day");
}

/// Everything a book shows but for generated ids.
fn shown(store: &Store, book: &mut Book<'_>) -> Vec<String> {
    for grant in &store.grants {
        book.find_grant(grant.id);
    }
    let recurring = store.recurring.keys().map(|code| format!("{:?}", book.find_recurring(code))).collect::<Vec<_>>();
    let contracts = store.contracts.keys().map(|code| format!("{:?}", book.find_contract(code))).collect::<Vec<_>>();
    let holds = store.holds.keys().map(|id| format!("{:?} {:?}", book.find_hold(id).cloned(), book.given_back(id)));
    let holds = holds.collect::<Vec<_>>();
    let grants = book.grants.values().map(|copy| {
        let grant = &copy.grant;
        let state = (grant.wallet, grant.created_seq, grant.status, grant.amount, grant.remaining, grant.expired);
        format!("{state:?} {:?}", grant.terms)
    });
    let wallets = (0..book.wallets.len()).map(|index| format!("{:?} {:?}", book.wallets[index], book.next_expiry(index)));
    let true_ups = store.lines.len() + book.lines.len();
    let written = format!("{} entries, {true_ups} true-ups", store.entries.len() + book.entries.len());
    wallets.chain(grants).chain(recurring).chain(contracts).chain(holds).chain([written]).collect()
}

fn reads_what_settling_leaves(subject: &mut Subject, until: Instant) {
    let read = |subject: &Subject| subject.store.read(at(until), |book| shown(&subject.store, book)).unwrap();
    let before = read(subject);
    subject.wait(until, true);
    assert!(subject.store.next_due_at > at(until), "settled until {until}, but something is due");
    assert_eq!(before, read(subject), "what reading shows before settling (left) and after it (right)");
}

/// A script, and for how long time goes on afterwards, in units.
fn script_and_after() -> impl Strategy<Value = (Script, Vec<Instant>)> {
    let theme = prop_oneof![Just(Theme::Recurring), Just(Theme::Contracts), Just(Theme::Holds)];
    (theme.prop_flat_map(script), prop::collection::vec(1..20_i64, 1..4))
}

proptest! {
    #![proptest_config(super::config(300))]

    #[test]
    fn a_ledger_settled_once_is_the_one_settled_hour_by_hour(script in script(Theme::Expiry)) {
        settles_the_same_whenever(&script);
    }

    #[test]
    fn debt_is_repaid_at_the_same_instants_whenever_it_is_settled(script in script(Theme::Overage)) {
        settles_the_same_whenever(&script);
    }

    #[test]
    fn periods_end_and_begin_at_the_same_instants_whenever_they_are_settled(script in script(Theme::Recurring)) {
        settles_the_same_whenever(&script);
    }

    #[test]
    fn contracts_give_and_end_at_the_same_instants_whenever_they_are_settled(script in script(Theme::Contracts)) {
        settles_the_same_whenever(&script);
    }

    #[test]
    fn holds_lapse_at_the_same_instants_whenever_they_are_settled(script in script(Theme::Holds)) {
        settles_the_same_whenever(&script);
    }

    #[test]
    fn reading_answers_what_settling_leaves((script, after) in script_and_after()) {
        let mut subject = History::run(&script, Settling::OnlyWhenNeeded).subject;
        for units in after {
            let until = subject.now + units * script.unit;
            reads_what_settling_leaves(&mut subject, until);
        }
    }
}
