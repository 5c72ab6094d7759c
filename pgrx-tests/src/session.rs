//! A connection, with answers as text so that whole results can be asserted, and errors with all their fields.

use std::fmt;
use std::path::Path;

use postgres::{Client, Config, NoTls, SimpleQueryMessage};

/// A row of a result, every value as the text psql would show; none is null.
pub type Row = Vec<Option<String>>;

/// The fields of an error that the extension promises; an absent one is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DbErrorInfo {
    pub sqlstate: String,
    pub message: String,
    pub detail: String,
    pub hint: String,
}

impl DbErrorInfo {
    /// The symbol of SPEC 11: what follows `code=` in the DETAIL.
    pub fn symbol(&self) -> &str {
        let rest = self.detail.strip_prefix("code=").unwrap_or("");
        rest.split(|letter: char| letter != '_' && !letter.is_ascii_alphanumeric()).next().unwrap_or("")
    }
}

impl fmt::Display for DbErrorInfo {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.sqlstate, self.message)?;
        if !self.detail.is_empty() {
            write!(out, "\nDETAIL: {}", self.detail)?;
        }
        if !self.hint.is_empty() {
            write!(out, "\nHINT: {}", self.hint)?;
        }
        Ok(())
    }
}

impl From<postgres::Error> for DbErrorInfo {
    /// An error that no server sent (a lost connection) has SQLSTATE 08006, so that callers have one way to look.
    fn from(error: postgres::Error) -> Self {
        match error.as_db_error() {
            Some(db) => DbErrorInfo {
                sqlstate: db.code().code().to_owned(),
                message: db.message().to_owned(),
                detail: db.detail().unwrap_or_default().to_owned(),
                hint: db.hint().unwrap_or_default().to_owned(),
            },
            None => DbErrorInfo { sqlstate: "08006".to_owned(), message: error.to_string(), ..DbErrorInfo::default() },
        }
    }
}

/// One connection to one database. What is not here is in [`Session::client`].
pub struct Session {
    client: Client,
}

impl Session {
    pub(crate) fn connect(socket: &Path, database: &str, role: &str) -> Result<Session, DbErrorInfo> {
        let client = Config::new().host_path(socket).port(5432).user(role).dbname(database).connect(NoTls)?;
        Ok(Session { client })
    }

    /// The driver's own connection, for typed parameters, transactions, COPY and notices.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Puts the ledger's clock at a time, for this session; an empty text gives it back to real time.
    pub fn set_clock(&mut self, at: &str) {
        self.exec(&format!("select set_config('credits.test_clock', {}, false)", quote_literal(at)));
    }

    /// Runs statements whose results do not matter; panics if one fails.
    pub fn exec(&mut self, sql: &str) {
        self.try_exec(sql).unwrap_or_else(|error| panic!("{sql}\n{error}"));
    }

    /// Runs statements whose results do not matter.
    pub fn try_exec(&mut self, sql: &str) -> Result<(), DbErrorInfo> {
        Ok(self.client.batch_execute(sql)?)
    }

    /// All rows of a statement; panics if it fails.
    pub fn rows(&mut self, sql: &str) -> Vec<Row> {
        self.try_rows(sql).unwrap_or_else(|error| panic!("{sql}\n{error}"))
    }

    /// All rows of a statement, by the simple protocol, which gives every type as text.
    pub fn try_rows(&mut self, sql: &str) -> Result<Vec<Row>, DbErrorInfo> {
        let mut rows = Vec::new();
        for message in self.client.simple_query(sql)? {
            if let SimpleQueryMessage::Row(row) = message {
                rows.push((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect());
            }
        }
        Ok(rows)
    }

    /// All rows of a statement with `$1`, `$2`, … in it, for which quoted literals are put in: of whatever type fits there.
    pub fn rows_text(&mut self, sql: &str, params: &[&str]) -> Vec<Row> {
        self.rows(&with_literals(sql, params))
    }

    /// All rows, each as one line of its values with `|` between them and nothing for a null, as `psql -At` prints them.
    pub fn lines(&mut self, sql: &str) -> Vec<String> {
        let cell = |value: Option<String>| value.unwrap_or_default();
        let line = |row: Row| row.into_iter().map(cell).collect::<Vec<_>>().join("|");
        self.rows(sql).into_iter().map(line).collect()
    }

    /// The one value of a statement that returns one row with one column that is not null.
    pub fn one(&mut self, sql: &str) -> String {
        self.one_or_null(sql).unwrap_or_else(|| panic!("{sql}\nreturned null"))
    }

    /// The one value of a statement that returns one row with one column.
    pub fn one_or_null(&mut self, sql: &str) -> Option<String> {
        let mut rows = self.rows(sql);
        assert!(rows.len() == 1 && rows[0].len() == 1, "{sql}\nreturned not one value but {rows:?}");
        rows[0].remove(0)
    }

    /// The error a statement raises; panics if it raises none.
    pub fn error(&mut self, sql: &str) -> DbErrorInfo {
        match self.try_rows(sql) {
            Err(error) => error,
            Ok(rows) => panic!("{sql}\nraised no error but returned {rows:?}"),
        }
    }

    /// The plan of a statement, without costs, which differ from machine to machine.
    pub fn explain(&mut self, sql: &str) -> String {
        self.lines(&format!("explain (costs off) {sql}")).join("\n")
    }
}

/// Panics with the violations if an invariant of the ledger in this database does not hold.
#[track_caller]
pub fn assert_ledger_is_sound(session: &mut Session) {
    let violations = session.lines("select invariant, customer_id, wallet, detail from credits.verify_ledger()");
    assert!(violations.is_empty(), "invariants are violated:\n{}", violations.join("\n"));
}

/// The text as an SQL literal.
pub fn quote_literal(text: &str) -> String {
    // E'' reads backslashes the same way whatever standard_conforming_strings is
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

fn with_literals(sql: &str, params: &[&str]) -> String {
    let mut out = String::new();
    let mut rest = sql;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let digits = after.len() - after.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
        match after[..digits].parse::<usize>() {
            Ok(number) => out.push_str(&quote_literal(params[number - 1])),
            Err(_) => out.push('$'),
        }
        rest = &after[digits..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_become_literals() {
        assert_eq!(with_literals("f($1, $2, '$')", &["a'b", "5"]), "f(E'a''b', E'5', '$')");
    }

    #[test]
    fn the_symbol_is_what_follows_code() {
        let detail = "code=not_found; wallet x".to_owned();
        assert_eq!(DbErrorInfo { detail, ..DbErrorInfo::default() }.symbol(), "not_found");
    }
}
