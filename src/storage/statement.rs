//! Prepared statements, kept for the life of the session.
//!
//! Built on SPI directly rather than on pgrx's client for two reasons: a reading function must run all its statements on one
//! snapshot, read-only, even in a transaction that has written; and plans must be generic from the start, so that what is
//! measured and EXPLAINed is what runs.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::marker::PhantomData;

use pgrx::pg_sys;

use super::codec::Codec;

/// A value for a statement's parameter; none is null.
pub type Parameter = Option<pg_sys::Datum>;

/// A statement's text, and its plan once it was used in this session. The plan follows every change of the tables below it, and of
/// the extension: PostgreSQL makes it anew from the text.
pub struct Statement {
    sql: &'static str,
    parameter_types: &'static [pg_sys::Oid],
    plan: Cell<Option<Plan>>,
    /// PostgreSQL's count of the plans made, when the last one was made under [`PLANNING`].
    planned: Cell<Option<c_int>>,
}

#[derive(Clone, Copy)]
struct Plan {
    kept: pg_sys::SPIPlanPtr,
    /// Whether it is valid, and how often it was planned (`generation`).
    source: *const pg_sys::CachedPlanSource,
}

/// A kept plan outlives the statistics it was made with, so it must not depend on them: every statement here reads by index, and
/// says so to the planner; where it cannot, the penalty must not look like a reason to compile the plan (jit). Set while a plan is
/// made only, since setting them for every call cost 5 % of a deduction.
const PLANNING: [&CStr; 6] =
    [c"enable_seqscan", c"enable_bitmapscan", c"enable_sort", c"enable_hashjoin", c"enable_mergejoin", c"jit"];

/// Off as well while a statement is planned that finds its rows by ctid: to a planner that saw the table empty, walking an index of it
/// looks cheaper.
const PLANNING_BY_PLACE: [&CStr; 2] = [c"enable_indexscan", c"enable_indexonlyscan"];

/// How a statement says that it finds its rows by ctid.
const BY_PLACE: &str = ".ctid = n.place";

/// Declares statements of a storage module, each with the types of its parameters.
macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident($($parameter:ident),*) = $sql:expr;)*) => {
        thread_local! {$(
            $(#[$doc])*
            static $name: $crate::storage::statement::Statement =
                const { $crate::storage::statement::Statement::new($sql, &[$(pgrx::pg_sys::$parameter,)*]) };
        )*}
    };
}
pub(crate) use statements;

/// What a statement may see and do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Sees what was committed before it began, and its own transaction's work.
    Write,
    /// Runs on the snapshot of the calling query: all statements of a reading function see one state.
    Read,
}

impl Statement {
    pub const fn new(sql: &'static str, parameter_types: &'static [pg_sys::Oid]) -> Self {
        Self { sql, parameter_types, plan: Cell::new(None), planned: Cell::new(None) }
    }

    fn plan(&self) -> Plan {
        if let Some(plan) = self.plan.get() {
            return plan;
        }
        let sql = match CString::new(self.sql) {
            Ok(sql) => sql,
            Err(error) => panic!("a statement's text: {error}"),
        };
        // SAFETY: SPI is connected (`connected` is the only way here); text and types outlive the call, which copies them. A plan
        // has one source for each statement of its text, which is one.
        let plan = unsafe {
            let kept = pg_sys::SPI_prepare_cursor(
                sql.as_ptr(),
                self.parameter_types.len() as c_int,
                self.parameter_types.as_ptr().cast_mut(),
                pg_sys::CURSOR_OPT_GENERIC_PLAN as c_int,
            );
            let result = pg_sys::SPI_result;
            assert!(!kept.is_null(), "SPI_prepare failed with {result}");
            let result = pg_sys::SPI_keepplan(kept);
            assert!(result == 0, "SPI_keepplan failed with {result}");
            let sources = pg_sys::SPI_plan_get_plan_sources(kept);
            Plan { kept, source: (*(*sources).elements).ptr_value.cast() }
        };
        self.plan.set(Some(plan));
        plan
    }

    /// Runs the statement and returns its rows. SPI must be connected.
    pub fn run(&self, access: Access, parameters: &[Parameter]) -> Rows {
        assert_eq!(parameters.len(), self.parameter_types.len(), "parameters of {}", self.sql);
        let plan = self.plan();
        let mut values: Vec<pg_sys::Datum> = parameters.iter().map(|value| value.unwrap_or(pg_sys::Datum::from(0))).collect();
        let nulls: Vec<c_char> = parameters.iter().map(|value| if value.is_none() { b'n' } else { b' ' } as c_char).collect();
        let mut execute = || {
            // SAFETY: the plan is kept; values and nulls have its number of parameters, of its types.
            unsafe {
                let result = pg_sys::SPI_execute_plan(plan.kept, values.as_mut_ptr(), nulls.as_ptr(), access == Access::Read, 0);
                assert!(result >= 0, "SPI_execute_plan failed with {result}");
                Rows { table: pg_sys::SPI_tuptable, count: pg_sys::SPI_processed as usize }
            }
        };
        // SAFETY: the source of a kept plan lives as long as the plan.
        let source = unsafe { &*plan.source };
        let is_planned = source.is_valid && self.planned.get() == Some(source.generation);
        let rows = if is_planned { execute() } else { planning(self.sql.contains(BY_PLACE), execute) };
        if self.plan.get().is_none_or(|current| current.kept != plan.kept) {
            // A run of the same statement within this one has given the plan up.
            return rows;
        }
        // SAFETY: the plan is still kept; running it may have changed its source.
        let generation = unsafe { (&raw const (*plan.source).generation).read() };
        if !is_planned {
            self.planned.set(Some(generation));
        } else if self.planned.get() != Some(generation) {
            // Invalidated between the look and the run, and planned without the settings: the next run plans it again.
            self.plan.set(None);
            self.planned.set(None);
            // SAFETY: nothing else points to it, and its rows have memory of their own.
            unsafe { pg_sys::SPI_freeplan(plan.kept) };
        }
        rows
    }
}

/// Runs `work` with the planner's settings for kept plans.
fn planning<T>(by_place: bool, work: impl FnOnce() -> T) -> T {
    // SAFETY: constant C strings; an error unwinds to the end of the (sub)transaction, which restores the settings.
    unsafe {
        let level = pg_sys::NewGUCNestLevel();
        let more: &[&CStr] = if by_place { &PLANNING_BY_PLACE } else { &[] };
        for setting in PLANNING.iter().chain(more) {
            pg_sys::set_config_option(
                setting.as_ptr(),
                c"off".as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
        }
        let result = work();
        pg_sys::AtEOXact_GUC(true, level);
        result
    }
}

/// The rows of one statement.
pub struct Rows {
    table: *mut pg_sys::SPITupleTable,
    count: usize,
}

/// Not only when SPI is finished: a call may run a statement for each of thousands of rows.
impl Drop for Rows {
    fn drop(&mut self) {
        // SAFETY: the table, if there is one, is of the SPI connection that is open; rows borrow from this, and own what they decoded.
        unsafe { pg_sys::SPI_freetuptable(self.table) };
    }
}

impl Rows {
    /// How many rows were returned, or changed by a statement that returns none.
    pub fn count(&self) -> usize {
        self.count
    }

    pub fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        // SAFETY: SPI_tuptable holds `numvals` tuples of one descriptor until it is freed.
        let (descriptor, tuples, count) = unsafe {
            match self.table.as_ref() {
                Some(table) => (table.tupdesc, table.vals, table.numvals as usize),
                None => (std::ptr::null_mut(), std::ptr::null_mut(), 0),
            }
        };
        (0..count).map(move |index| {
            // SAFETY: as above; the two buffers have an element for every attribute.
            unsafe {
                let attributes = (*descriptor).natts as usize;
                let mut values = vec![pg_sys::Datum::from(0); attributes];
                let mut nulls = vec![false; attributes];
                pg_sys::heap_deform_tuple(*tuples.add(index), descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
                Row { values, nulls, next: 0, rows: PhantomData }
            }
        })
    }

    pub fn first(&self) -> Option<Row<'_>> {
        self.iter().next()
    }
}

/// One row, read column by column from the left.
pub struct Row<'a> {
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
    next: usize,
    /// The values point into these.
    rows: PhantomData<&'a Rows>,
}

impl Row<'_> {
    /// The next column, null as none.
    pub fn optional<T: Codec>(&mut self) -> Option<T> {
        // SAFETY: the statement's column has the type the caller reads it as.
        self.datum().map(|datum| unsafe { T::decode(datum) })
    }

    /// The next column as it is, null as none.
    pub fn datum(&mut self) -> Parameter {
        let index = self.next;
        self.next += 1;
        (!self.nulls[index]).then(|| self.values[index])
    }

    /// The next column, which cannot be null.
    pub fn take<T: Codec>(&mut self) -> T {
        let index = self.next;
        match self.optional() {
            Some(value) => value,
            None => panic!("column {index} is null"),
        }
    }
}

/// Runs `work` with SPI connected. What it returns must not point into SPI's memory.
pub fn connected<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: plain calls; when `work` unwinds, the end of the (sub)transaction finishes SPI.
    unsafe {
        let result = pg_sys::SPI_connect();
        assert!(result == pg_sys::SPI_OK_CONNECT as c_int, "SPI_connect failed with {result}");
        let value = work();
        pg_sys::SPI_finish();
        value
    }
}
