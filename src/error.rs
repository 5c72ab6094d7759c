//! Every error a caller can meet, and the only place that turns one into a PostgreSQL report.
//!
//! One SQLSTATE for one meaning (SPEC 11). The message names the values, the DETAIL starts with `code=<symbol>` so that a
//! program can tell errors apart without reading prose, the HINT says what to do.

use pgrx::{PgSqlErrorCode, pg_sys::panic::ErrorReport};

use crate::domain::amount::Amount;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The wallets considered hold less than was asked for and no overage policy covers the rest.
    #[error("insufficient credits: customer \"{customer_id}\" needs {requested}, {available} can be spent in {considered}")]
    InsufficientCredits { customer_id: String, requested: Amount, available: Amount, considered: String, hint: &'static str },
    /// The key stands for another request of the same customer.
    #[error("idempotency key \"{key}\" of customer \"{customer_id}\" was used for another request: {first}")]
    IdempotencyKeyReused { customer_id: String, key: String, first: String },
    #[error("{what} {name} already exists")]
    AlreadyExists { what: &'static str, name: String, hint: String },
    #[error("{what} {name} not found")]
    NotFound { what: &'static str, name: String, hint: String },
    #[error("{problem}")]
    WrongState { problem: String, hint: String },
    #[error("invalid {argument}: {problem}")]
    InvalidArgument { argument: &'static str, problem: String, hint: String },
    #[error("{argument} must not be null")]
    NullArgument { argument: &'static str },
    #[error("{what} is out of range: {problem}")]
    OutOfRange { what: String, problem: String, hint: String },
}

impl Error {
    pub fn invalid(argument: &'static str, problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::InvalidArgument { argument, problem: problem.into(), hint: hint.into() }
    }

    pub fn out_of_range(what: impl Into<String>, problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::OutOfRange { what: what.into(), problem: problem.into(), hint: hint.into() }
    }

    pub fn wrong_state(problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::WrongState { problem: problem.into(), hint: hint.into() }
    }

    /// The stable name programs compare with (SPEC 11).
    pub fn symbol(&self) -> &'static str {
        match self {
            Self::InsufficientCredits { .. } => "insufficient_credits",
            Self::IdempotencyKeyReused { .. } => "idempotency_key_reused",
            Self::AlreadyExists { .. } => "already_exists",
            Self::NotFound { .. } => "not_found",
            Self::WrongState { .. } => "wrong_state",
            Self::InvalidArgument { .. } => "invalid_argument",
            Self::NullArgument { .. } => "null_argument",
            Self::OutOfRange { .. } => "out_of_range",
        }
    }

    /// As the row of a batch shows it: `<symbol>: <message>`.
    pub fn in_a_line(&self) -> String {
        format!("{}: {self}", self.symbol())
    }

    fn sqlstate(&self) -> PgSqlErrorCode {
        match self {
            Self::InsufficientCredits { .. } => PgSqlErrorCode::ERRCODE_CHECK_VIOLATION,
            Self::IdempotencyKeyReused { .. } => PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION,
            Self::AlreadyExists { .. } => PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
            Self::NotFound { .. } => PgSqlErrorCode::ERRCODE_NO_DATA_FOUND,
            Self::WrongState { .. } => PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            Self::InvalidArgument { .. } => PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            Self::NullArgument { .. } => PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
            Self::OutOfRange { .. } => PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::InsufficientCredits { hint, .. } => (*hint).to_owned(),
            Self::IdempotencyKeyReused { .. } => {
                "Use a new idempotency_key for a new request; a retry must repeat the first request.".into()
            }
            Self::NullArgument { argument } => format!("Pass a value for {argument}."),
            Self::AlreadyExists { hint, .. }
            | Self::NotFound { hint, .. }
            | Self::WrongState { hint, .. }
            | Self::InvalidArgument { hint, .. }
            | Self::OutOfRange { hint, .. } => hint.clone(),
        }
    }
}

impl From<Error> for ErrorReport {
    #[track_caller]
    fn from(error: Error) -> Self {
        ErrorReport::new(error.sqlstate(), error.to_string(), "")
            .set_detail(format!("code={}", error.symbol()))
            .set_hint(error.hint())
    }
}
