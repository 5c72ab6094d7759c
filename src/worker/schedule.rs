//! When an attempt that failed is repeated: the schedule of Standard Webhooks.

use std::time::Duration;

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

/// Waits after the first attempt, the second, and so on; after the last one comes one more attempt, which is final.
const RETRY_AFTER: [Duration; 9] = [
    Duration::from_secs(5),
    minutes(5),
    minutes(30),
    minutes(2 * 60),
    minutes(5 * 60),
    minutes(10 * 60),
    minutes(14 * 60),
    minutes(20 * 60),
    minutes(24 * 60),
];

/// The longest wait a receiver can ask for.
pub const ASKED_MAX: Duration = minutes(24 * 60);

/// How far a wait may be from the schedule, so that not all receivers' retries fall on one instant.
const JITTER: f64 = 0.2;

/// How long to wait after attempt number `attempt`, from 1, has failed; none if it was the last. `asked` is what the receiver asked
/// for with Retry-After, which counts if it is longer. `random` is uniform from 0 to 1.
pub fn wait_after(attempt: u32, asked: Option<Duration>, random: f64) -> Option<Duration> {
    let scheduled = RETRY_AFTER.get(attempt.max(1) as usize - 1)?;
    let wait = scheduled.mul_f64(1.0 + JITTER * (2.0 * random - 1.0));
    Some(asked.map_or(wait, |asked| wait.max(asked.min(ASKED_MAX))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_attempts_in_about_three_days_are_made() {
        let waits: Vec<_> = (1..=10).map_while(|attempt| wait_after(attempt, None, 0.5)).map(|wait| wait.as_secs()).collect();
        assert_eq!(waits, [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]);
        assert_eq!(wait_after(10, Some(minutes(1)), 0.5), None);
        assert_eq!(wait_after(100, None, 0.5), None);
    }

    #[test]
    fn waits_differ_by_a_fifth() {
        assert_eq!(wait_after(1, None, 0.0), Some(Duration::from_secs(4)));
        assert_eq!(wait_after(1, None, 1.0), Some(Duration::from_secs(6)));
    }

    #[test]
    fn a_receiver_can_ask_for_more_time_up_to_a_day() {
        assert_eq!(wait_after(1, Some(Duration::from_secs(60)), 0.5), Some(Duration::from_secs(60)));
        assert_eq!(wait_after(2, Some(Duration::from_secs(60)), 0.5), Some(minutes(5)));
        assert_eq!(wait_after(1, Some(minutes(3 * 24 * 60)), 0.5), Some(minutes(24 * 60)));
    }
}
