//! When each task of maintenance ran last.

use super::codec::{Codec, array};
use super::statement::{Access, statements};
use crate::domain::time::Timestamp;

statements! {
    /// A row that another run of maintenance has locked says the same in a moment: it is skipped, so that runs never wait for each
    /// other. Nor does one fail for it: under REPEATABLE READ, where a row changed meanwhile is an error, nothing is recorded.
    RECORD(TIMESTAMPTZOID, TEXTARRAYOID, INT8ARRAYOID) = "
        update credits_data.jobs j
        set last_run_at = $1,
            last_items = n.items
        from (
            select unnest($2) as task, unnest($3) as items
        ) n
        where current_setting('transaction_isolation') = 'read committed'
          and j.task = n.task
          and j.task in (select f.task from credits_data.jobs f where f.task = any ($2) for update skip locked)";
}

/// Records that tasks ran, and how many items each did.
pub fn record(at: Timestamp, tasks: &[(&'static str, i64)]) {
    let parameters = [
        Some(at.encode()),
        Some(array(tasks.iter().map(|(task, _)| Some((*task).to_owned())))),
        Some(array(tasks.iter().map(|(_, items)| Some(*items)))),
    ];
    RECORD.with(|statement| statement.run(Access::Write, &parameters));
}
