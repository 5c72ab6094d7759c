//! Rows of the extension's own tables, read and changed without a statement: by the calls with which PostgreSQL reads and changes its
//! catalogues (`systable_beginscan`, `CatalogTupleUpdate`). They find a row by an index, on a snapshot, and keep the index right.
//!
//! Three things they do not do as a statement does: wait for a row that another session changes (the caller holds the customer's lock,
//! under which all its rows are changed), fire triggers, and serve other kinds of tables and indexes. A table to which somebody has
//! added any of those is refused here, and the caller leaves the row to a statement.

use std::ffi::CStr;

use pgrx::pg_sys;

use super::codec::{Codec, text};
use super::statement::Parameter;
use crate::domain::time::Timestamp;

/// Runs `work` on the snapshot that a statement would get now.
pub fn with_snapshot<T>(work: impl FnOnce(pg_sys::Snapshot) -> T) -> T {
    // SAFETY: pushed and popped in pairs; an error unwinds to the end of the (sub)transaction, which pops it.
    unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let value = work(pg_sys::GetActiveSnapshot());
        pg_sys::PopActiveSnapshot();
        value
    }
}

/// What a table is opened for, and locked for until the end of the transaction, as by a statement.
#[derive(Debug, Clone, Copy)]
pub enum Purpose {
    Read,
    Change,
}

/// A table that is open.
pub struct Table {
    relation: pg_sys::Relation,
}

/// What a column of the primary key is equal to; texts are of the collation `C`.
#[derive(Debug, Clone, Copy)]
pub enum Key<'a> {
    Text(&'a str),
    Time(Timestamp),
}

impl Table {
    /// Runs `work` on a table of the schema `credits_data`; none if there is no such table.
    pub fn open<T>(name: &CStr, purpose: Purpose, work: impl FnOnce(&Self) -> Option<T>) -> Option<T> {
        let lock = match purpose {
            Purpose::Read => pg_sys::AccessShareLock,
            Purpose::Change => pg_sys::RowExclusiveLock,
        };
        // SAFETY: constant C strings; an error unwinds to the end of the (sub)transaction, which closes the table.
        unsafe {
            let schema = pg_sys::get_namespace_oid(c"credits_data".as_ptr(), true);
            let id = pg_sys::get_relname_relid(name.as_ptr(), schema);
            if id == pg_sys::InvalidOid {
                return None;
            }
            let table = Self { relation: pg_sys::table_open(id, lock as pg_sys::LOCKMODE) };
            let value = work(&table);
            pg_sys::table_close(table.relation, pg_sys::NoLock as pg_sys::LOCKMODE);
            value
        }
    }

    /// Reads the row of a table that has one.
    pub fn read_only_row<T>(&self, snapshot: pg_sys::Snapshot, read: impl FnOnce(&Values) -> T) -> Option<T> {
        // SAFETY: the table is open; the row lives until the scan ends.
        unsafe {
            let scan = pg_sys::systable_beginscan(self.relation, pg_sys::InvalidOid, false, snapshot, 0, std::ptr::null_mut());
            let row = pg_sys::systable_getnext(scan);
            let value = (!row.is_null()).then(|| read(&self.values(row)));
            pg_sys::systable_endscan(scan);
            value
        }
    }

    /// Changes the row of a primary key, whose columns are given in its order by their positions, as `change` says. None if there is
    /// none, or if the table has to be left to a statement.
    pub fn change_by_key<T>(
        &self,
        snapshot: pg_sys::Snapshot,
        key: [(usize, Key<'_>); 4],
        change: impl FnOnce(&mut Values) -> T,
    ) -> Option<T> {
        let index = self.only_index()?;
        let mut keys = [pg_sys::ScanKeyData::default(); 4];
        // SAFETY: the table is open, for a change; the old row lives until the scan ends, the new one is a copy.
        unsafe {
            for (entry, (column, equal_to)) in keys.iter_mut().zip(key) {
                let (procedure, datum) = match equal_to {
                    Key::Text(value) => (pg_sys::F_TEXTEQ, text(value)),
                    Key::Time(at) => (pg_sys::F_TIMESTAMPTZ_EQ, at.encode()),
                };
                let (column, strategy) = (column as pg_sys::AttrNumber + 1, pg_sys::BTEqualStrategyNumber as u16);
                pg_sys::ScanKeyInit(entry, column, strategy, pg_sys::RegProcedure::from(procedure), datum);
            }
            let scan = pg_sys::systable_beginscan(self.relation, index, true, snapshot, keys.len() as i32, keys.as_mut_ptr());
            let row = pg_sys::systable_getnext(scan);
            let value = (!row.is_null()).then(|| {
                let mut values = self.values(row);
                let value = change(&mut values);
                let Values { values, nulls } = &mut values;
                let changed = pg_sys::heap_form_tuple((*self.relation).rd_att, values.as_mut_ptr(), nulls.as_mut_ptr());
                pg_sys::CatalogTupleUpdate(self.relation, &raw mut (*row).t_self, changed);
                value
            });
            pg_sys::systable_endscan(scan);
            // What follows in this transaction sees the change.
            pg_sys::CommandCounterIncrement();
            value
        }
    }

    /// The primary key's index, of a heap that has no other index and no triggers.
    fn only_index(&self) -> Option<pg_sys::Oid> {
        // SAFETY: the relation is open; the list, if there is one, was made for this call.
        unsafe {
            let indexes = pg_sys::RelationGetIndexList(self.relation).as_ref()?;
            let relation = &*self.relation;
            let is_plain = indexes.length == 1
                && relation.trigdesc.is_null()
                && (*relation.rd_rel).relam == pg_sys::HEAP_TABLE_AM_OID
                && relation.rd_pkindex != pg_sys::InvalidOid;
            is_plain.then_some(relation.rd_pkindex)
        }
    }

    /// # Safety
    /// The row is of this table; values that are not passed in registers point into it.
    unsafe fn values(&self, row: pg_sys::HeapTuple) -> Values {
        // SAFETY: the two buffers have an element for every column.
        unsafe {
            let descriptor = (*self.relation).rd_att;
            let columns = (*descriptor).natts as usize;
            let (mut values, mut nulls) = (vec![pg_sys::Datum::from(0); columns], vec![false; columns]);
            pg_sys::heap_deform_tuple(row, descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            Values { values, nulls }
        }
    }
}

/// The values of a row, by the positions of their columns in the table.
pub struct Values {
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
}

impl Values {
    /// A value, null as none.
    pub fn optional<T: Codec>(&self, column: usize) -> Option<T> {
        // SAFETY: the column has the type the caller reads it as.
        (!self.nulls[column]).then(|| unsafe { T::decode(self.values[column]) })
    }

    /// A value that cannot be null.
    pub fn take<T: Codec>(&self, column: usize) -> T {
        match self.optional(column) {
            Some(value) => value,
            None => panic!("column {column} is null"),
        }
    }

    pub fn set(&mut self, column: usize, value: Parameter) {
        self.nulls[column] = value.is_none();
        self.values[column] = value.unwrap_or(pg_sys::Datum::from(0));
    }
}
