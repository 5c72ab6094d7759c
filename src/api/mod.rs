//! The SQL face: one function for each function of SPEC, by noun. Arguments are checked here and become types of the domain; no
//! rule and no SQL text lives here. Comments on the SQL functions, defaults of which are seen here, stand in `sql/schema`.

mod alerts;
pub mod arguments;
mod batches;
pub mod contracts;
mod grants;
mod holds;
mod items;
mod metering;
mod overage;
pub mod reading;
mod recurring;
pub mod time;
mod top_ups;
pub mod usage;
pub mod wallets;
mod webhooks;
