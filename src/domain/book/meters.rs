//! What meters count, as the book knows it.

use super::Book;
use crate::domain::meter::{MeterPeriod, MeterValue, PeriodKey, ValueKey};

impl Book<'_> {
    /// The period of this key, a new one if nothing was counted in it yet.
    pub fn meter_period(&mut self, key: &PeriodKey) -> MeterPeriod {
        let found = self.meter_periods.find(key, || self.reader.meter_period(key));
        found.map_or_else(|| MeterPeriod::new(key.clone()), |period| period.clone())
    }

    pub fn set_meter_period(&mut self, period: MeterPeriod) {
        self.meter_periods.set(period.key.clone(), period);
    }

    /// How often a value was counted, and as which number.
    pub fn meter_value(&mut self, key: &ValueKey) -> Option<MeterValue> {
        self.meter_values.find(key, || self.reader.meter_value(key)).cloned()
    }

    pub fn set_meter_value(&mut self, value: MeterValue) {
        self.meter_values.set(value.key.clone(), value);
    }

    /// The last value of a period that a stored event counts; without one of them.
    pub fn last_value(&self, period: &PeriodKey, without: &ValueKey) -> Option<MeterValue> {
        self.reader.last_value(period, without)
    }
}
