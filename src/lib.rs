//! pg_credits: the credit ledger inside PostgreSQL. This file is the install manifest: modules, SQL in order, start-up.

use pgrx::prelude::*;

mod api;
mod domain;
mod error;
mod ops;
mod settings;
mod storage;

::pgrx::pg_module_magic!(name, version);

extension_sql_file!("../sql/schema/01_types.sql", name = "types", bootstrap);
extension_sql_file!("../sql/schema/10_tables.sql", name = "tables", requires = ["types"]);
extension_sql_file!(
    "../sql/schema/20_views.sql",
    name = "views",
    requires = ["tables", api::time::clock, api::time::chart_of_accounts]
);
extension_sql_file!("../sql/schema/30_jobs.sql", name = "jobs", requires = ["views"]);
extension_sql_file!("../sql/schema/40_access.sql", name = "access", requires = ["jobs"]);
extension_sql_file!("../sql/schema/90_functions.sql", name = "functions", finalize);

#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    settings::define();
}
