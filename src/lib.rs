//! pg_credits: the credit ledger inside PostgreSQL. This file is the install manifest: modules, SQL in order, start-up.

use pgrx::prelude::*;

mod api;
mod domain;
mod error;
mod ops;
mod settings;
mod storage;
mod worker;

::pgrx::pg_module_magic!(name, version);

extension_sql_file!("../sql/schema/01_types.sql", name = "types", bootstrap);
extension_sql_file!("../sql/schema/10_tables.sql", name = "tables", requires = ["types"]);
extension_sql_file!("../sql/schema/15_rules.sql", name = "rules", requires = ["tables"]);
extension_sql_file!("../sql/schema/16_meters.sql", name = "meters", requires = ["rules", api::time::clock]);
extension_sql_file!("../sql/schema/17_outbox.sql", name = "outbox", requires = ["meters"]);
extension_sql_file!("../sql/schema/18_alerts.sql", name = "alerts", requires = ["outbox"]);
extension_sql_file!(
    "../sql/schema/20_views.sql",
    name = "views",
    requires = ["alerts", api::time::clock, api::time::chart_of_accounts]
);
extension_sql_file!("../sql/schema/25_rule_views.sql", name = "rule_views", requires = ["views"]);
extension_sql_file!("../sql/schema/26_meter_views.sql", name = "meter_views", requires = ["rule_views"]);
extension_sql_file!("../sql/schema/27_outbox_functions.sql", name = "outbox_functions", requires = ["meter_views"]);
extension_sql_file!("../sql/schema/28_alert_views.sql", name = "alert_views", requires = ["outbox_functions"]);
extension_sql_file!("../sql/schema/30_jobs.sql", name = "jobs", requires = ["alert_views"]);
extension_sql_file!("../sql/schema/40_access.sql", name = "access", requires = ["jobs"]);
extension_sql_file!("../sql/schema/90_functions.sql", name = "functions", finalize);

/// pgrx puts a backtrace into the DETAIL of PostgreSQL's own errors if the server's environment asks Rust for one; a caller who
/// retries on 40001 has no use for it. `RUST_LIB_BACKTRACE=1` still turns it on.
fn errors_without_backtraces() {
    if std::env::var_os("RUST_LIB_BACKTRACE").is_none() {
        // SAFETY: a server process has one thread when it loads a library.
        unsafe { std::env::set_var("RUST_LIB_BACKTRACE", "0") };
    }
}

#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    errors_without_backtraces();
    settings::define();
    worker::register();
}
