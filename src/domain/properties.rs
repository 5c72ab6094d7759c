//! Properties of the domain: random histories over an in-memory store against a naive model, and the proofs that must hold after.
//!
//! [`requests`] is the language of the histories, [`store`] what the tables hold, [`model`] a ledger written from the specification
//! alone, [`history`] runs both sides; [`settling`] compares settling with itself and with reading, [`proofs`] tampers with the
//! ledger, [`watching`] and [`closing`] have models of their own for alerts and invoice lines, [`worked`] has the rules with their numbers in the open.

mod closing;
mod history;
mod metering;
mod model;
mod proofs;
mod requests;
mod settling;
mod store;
mod watching;
mod worked;

use proptest::prelude::*;

use history::{History, Settling};
use requests::{Script, Theme, script};

/// So many cases, or as many as PROPTEST_CASES says.
fn config(cases: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { default.cases } else { cases };
    ProptestConfig { cases, failure_persistence: None, ..default }
}

fn agrees_with_the_model(script: &Script) {
    let history = History::run(script, Settling::AsScripted);
    for wallet in 0..script.wallets.len() {
        assert_eq!(history.subject.store.verify(wallet), [], "the ledger proves itself");
    }
}

proptest! {
    #![proptest_config(config(1_500))]

    #[test]
    fn any_history_ends_as_the_model_says(script in script(Theme::Everything)) {
        agrees_with_the_model(&script);
    }

    #[test]
    fn overage_and_debt_follow_the_policies(script in script(Theme::Overage)) {
        agrees_with_the_model(&script);
    }

    #[test]
    fn time_and_late_usage_are_as_the_model_says(script in script(Theme::Expiry)) {
        agrees_with_the_model(&script);
    }

    #[test]
    fn periods_renew_and_roll_over_as_the_model_says(script in script(Theme::Recurring)) {
        agrees_with_the_model(&script);
    }

    #[test]
    fn contracts_give_and_end_as_the_model_says(script in script(Theme::Contracts)) {
        agrees_with_the_model(&script);
    }

    #[test]
    fn holds_set_aside_and_give_back_as_the_model_says(script in script(Theme::Holds)) {
        agrees_with_the_model(&script);
    }

    #[test]
    fn a_used_key_answers_again_and_does_nothing(script in script(Theme::Keys)) {
        agrees_with_the_model(&script);
    }
}
