//! Turning open overage into invoice lines, and putting those on invoices.

use uuid::Uuid;

use super::{change, connected};
use crate::domain::book::Book;
use crate::domain::invoice::InvoiceLine;
use crate::domain::names::CustomerId;
use crate::domain::overage;
use crate::domain::time::Timestamp;
use crate::error::{Error, Result};
use crate::storage::wallets::{self, Contended};
use crate::storage::{books, clock, invoice_lines};

/// A new line of a customer.
pub type NewLine = (CustomerId, InvoiceLine);

/// Closes what is open of one customer before an instant (none is now), or of up to `customers_max` customers that nobody has locked.
pub fn close(customer_id: Option<&CustomerId>, as_of: Option<Timestamp>, customers_max: i64) -> Result<Vec<NewLine>> {
    connected(|| match customer_id {
        Some(customer_id) => change(customer_id, |book| close_book(book, as_of)),
        None => close_many(as_of, customers_max),
    })
}

fn close_book(book: &mut Book<'_>, as_of: Option<Timestamp>) -> Result<Vec<NewLine>> {
    let made = book.lines.len();
    overage::close(book, as_of.unwrap_or(book.now))?;
    Ok(lines_since(book, made))
}

fn lines_since(book: &Book<'_>, made: usize) -> Vec<NewLine> {
    book.lines[made..].iter().map(|line| (book.customer_id.clone(), line.clone())).collect()
}

/// Goes on until a line was made or nobody is left: who is locked, comes to nothing or cannot be closed stands in nobody's way.
fn close_many(as_of: Option<Timestamp>, customers_max: i64) -> Result<Vec<NewLine>> {
    let before = as_of.map_or_else(clock::now, Ok)?;
    let mut lines = Vec::new();
    let mut after = None;
    while lines.is_empty() {
        let closable = invoice_lines::closable(before, customers_max, after.as_ref());
        if closable.is_empty() {
            break;
        }
        let locked = wallets::lock_many(&closable.iter().collect::<Vec<_>>(), Contended::Skip)?;
        let not_closed = |customer_id: &CustomerId, error: Error| {
            pgrx::warning!("overage of customer \"{customer_id}\" was not closed: {error}");
        };
        books::each_settled(
            locked,
            &mut |_| None,
            &mut |book, is_last| {
                if is_last {
                    let made = book.lines.len();
                    if let Err(error) = overage::close(book, as_of.unwrap_or(book.now)) {
                        not_closed(&book.customer_id, error);
                    }
                    lines.extend(lines_since(book, made));
                }
            },
            &mut |customer_id, error| not_closed(customer_id, error),
        );
        after = closable.last().cloned();
    }
    Ok(lines)
}

/// Puts a line on an invoice, once.
pub fn mark_invoiced(customer_id: &CustomerId, line: Uuid, reference: &str) -> Result<()> {
    connected(|| {
        change(customer_id, |_| Ok(()))?;
        match invoice_lines::reference(customer_id, line) {
            None => Err(Error::NotFound {
                what: "invoice line",
                name: format!("{line} of customer \"{customer_id}\""),
                hint: "Pass a line_id of credits.invoice_lines.".into(),
            }),
            Some(Some(first)) if first != reference => Err(Error::wrong_state(
                format!("invoice line {line} of customer \"{customer_id}\" is on invoice \"{first}\""),
                "A line is invoiced once.",
            )),
            Some(Some(_)) => Ok(()),
            Some(None) => {
                invoice_lines::mark(customer_id, line, reference);
                Ok(())
            }
        }
    })
}
