//! Rows of one table as a call works on them: what was read, what is stored, what became of it.

use std::collections::BTreeMap;

#[derive(Debug)]
struct Row<T> {
    value: T,
    /// None for a row that this call created.
    stored: Option<T>,
}

/// Rows by their code, each read once.
#[derive(Debug)]
pub struct Rows<K, T>(BTreeMap<K, Row<T>>);

impl<K, T> Default for Rows<K, T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord, T: Clone + PartialEq> Rows<K, T> {
    /// Takes a stored row, unless it is here already and may have changed.
    pub fn keep(&mut self, code: K, stored: T) {
        self.0.entry(code).or_insert_with(|| Row { value: stored.clone(), stored: Some(stored) });
    }

    /// Adds a row that is not stored yet.
    pub fn create(&mut self, code: K, value: T) {
        self.0.insert(code, Row { value, stored: None });
    }

    /// Changes a row that is here, else adds it.
    pub fn set(&mut self, code: K, value: T) {
        match self.get_mut(&code) {
            Some(row) => *row = value,
            None => self.create(code, value),
        }
    }

    /// The row of a code: the one that is here, else the stored one, if there is one.
    pub fn find(&mut self, code: &K, stored: impl FnOnce() -> Option<T>) -> Option<&mut T>
    where
        K: Clone,
    {
        if !self.0.contains_key(code) {
            self.keep(code.clone(), stored()?);
        }
        self.get_mut(code)
    }

    pub fn get(&self, code: &K) -> Option<&T> {
        self.0.get(code).map(|row| &row.value)
    }

    pub fn get_mut(&mut self, code: &K) -> Option<&mut T> {
        self.0.get_mut(code).map(|row| &mut row.value)
    }

    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.0.values().map(|row| &row.value)
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.values_mut().map(|row| &mut row.value)
    }

    /// The rows to insert.
    pub fn created(&self) -> impl Iterator<Item = &T> {
        self.0.values().filter(|row| row.stored.is_none()).map(|row| &row.value)
    }

    /// The rows to update.
    pub fn changed(&self) -> impl Iterator<Item = &T> {
        self.0.values().filter(|row| row.stored.as_ref().is_some_and(|stored| *stored != row.value)).map(|row| &row.value)
    }

    /// Those of them of which a part changed.
    pub fn changed_in<P: PartialEq>(&self, part: impl Fn(&T) -> &P) -> impl Iterator<Item = &T> {
        let is_changed = move |row: &&Row<T>| row.stored.as_ref().is_some_and(|stored| part(stored) != part(&row.value));
        self.0.values().filter(is_changed).map(|row| &row.value)
    }
}
