//! What the tests of pg_credits stand on: scratch clusters, sessions as any role, and the proof that a ledger is sound.
//!
//! A [`Cluster`] is a real PostgreSQL of its own: a folder, a unix socket, no network. It is stopped and removed when it
//! is dropped. Only processes named by the `postmaster.pid` in a cluster's own folder are ever signalled.
//!
//! Tests that need no settings of their own share [`shared_cluster`] and take a database each:
//!
//! ```ignore
//! let mut session = shared_cluster().new_database("promo_before_paid");
//! session.set_clock("2026-01-01 00:00+00");
//! session.exec("select credits.create_wallet('acme')");
//! assert_eq!(session.one("select balance from credits.balance('acme')"), "0");
//! assert_eq!(session.error("select credits.create_wallet(null)").sqlstate, "22004");
//! assert_ledger_is_sound(&mut session);
//! ```

mod cluster;
mod place;
mod receiver;
mod session;

pub use cluster::{Cluster, shared_cluster, wait_until};
pub use place::{pg_bin, run_dir};
pub use postgres;
pub use receiver::{Answer, Authority, Received, Receiver};
pub use session::{DbErrorInfo, Row, Session, assert_ledger_is_sound, quote_literal};
#[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17", feature = "pg18"))]
pub use upstream::*;
