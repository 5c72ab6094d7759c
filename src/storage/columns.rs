//! Parameters of set-based statements: an array for each column.

use std::thread::LocalKey;

use super::codec::{Codec, array, texts};
use super::statement::{Access, Parameter, Row, Statement};
use crate::domain::book::Book;
use crate::domain::names::CustomerId;
use crate::domain::time::Timestamp;

/// Rows to be stored, each with the book it is of.
pub struct Columns<'a, 'b, R>(pub Vec<(&'a Book<'b>, &'a R)>);

impl<'a, 'b, R> Columns<'a, 'b, R> {
    /// The rows that `rows` finds in each book.
    pub fn of<I: Iterator<Item = &'a R>>(books: &[&'a Book<'b>], rows: impl Fn(&'a Book<'b>) -> I) -> Self {
        Self(books.iter().flat_map(|book| rows(book).map(move |row| (*book, row))).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn column<T: Codec>(&self, value: impl Fn(&R) -> Option<T>) -> Parameter {
        self.column_with_book(|_, row| value(row))
    }

    pub fn column_with_book<T: Codec>(&self, value: impl Fn(&Book<'_>, &R) -> Option<T>) -> Parameter {
        Some(array(self.0.iter().map(|(book, row)| value(book, row))))
    }

    pub fn texts<'t>(&'t self, value: impl Fn(&'t R) -> Option<&'t str>) -> Parameter {
        Some(texts(self.0.iter().map(|(_, row)| value(row))))
    }

    pub fn customers(&self) -> Parameter {
        Some(texts(self.0.iter().map(|(book, _)| Some(book.customer_id.as_str()))))
    }

    /// When the rows are written.
    pub fn now(&self) -> Parameter {
        self.column_with_book(|book, _| Some(book.now))
    }
}

/// The text of a statement that reads what is due of many customers, until an instant of each: by the columns of a table, whose
/// index on (customer_id, due_at) is scanned for each.
macro_rules! due_until {
    ($columns:expr) => {
        concat!(
            "select c.customer_id, due.*
             from unnest($1, $2) as c (customer_id, until)
             cross join lateral (",
            $columns,
            "where customer_id = c.customer_id
               and due_at <= c.until
               and due_at < 'infinity'
             offset 0
             ) due"
        )
    };
}
pub(super) use due_until;

/// Runs such a statement, whose first column is the customer.
pub fn of_customers<T>(
    statement: &'static LocalKey<Statement>,
    access: Access,
    customers: &[(&CustomerId, Timestamp)],
    read: fn(Row<'_>) -> T,
) -> Vec<(CustomerId, T)> {
    let rows = statement.with(|statement| statement.run(access, &instants(customers)));
    rows.iter().map(|mut row| (CustomerId::stored(row.take()), read(row))).collect()
}

/// Customers, and an instant of each.
pub fn instants(customers: &[(&CustomerId, Timestamp)]) -> [Parameter; 2] {
    [
        Some(texts(customers.iter().map(|(customer_id, _)| Some(customer_id.as_str())))),
        Some(array(customers.iter().map(|(_, at)| Some(*at)))),
    ]
}
