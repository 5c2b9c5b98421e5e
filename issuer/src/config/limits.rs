//! `limits` of the configuration: what one caller may ask for.

use std::ops::RangeInclusive;

use ::config::Fields;

/// What one caller may ask for. [`crate::api::limits`] holds callers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitSettings {
    /// SVIDs (and renewals) that a bot, with all its instances, may have a second.
    pub issue_per_second_per_bot: u32,
    /// And at once, after a pause.
    pub issue_burst_per_bot: u32,
    /// SVIDs (and renewals) that one instance may have a second.
    pub issue_per_second_per_instance: u32,
    /// And at once, after a pause.
    pub issue_burst_per_instance: u32,
    /// Calls of one instance that may be under way.
    pub calls_per_instance: u32,
    /// Streams of one instance that may be open.
    pub streams_per_instance: u32,
}

impl Default for LimitSettings {
    /// Wide enough for an agent that starts with ten thousand identities, or a fleet
    /// that starts at once; an instance has a quarter of what two cores can sign.
    fn default() -> Self {
        Self {
            issue_per_second_per_bot: 5_000,
            issue_burst_per_bot: 50_000,
            issue_per_second_per_instance: 1_000,
            issue_burst_per_instance: 10_000,
            calls_per_instance: 256,
            streams_per_instance: 16,
        }
    }
}

const RATES: RangeInclusive<u64> = 1..=1_000_000;
const PLACES: RangeInclusive<u64> = 1..=10_000;

impl LimitSettings {
    pub(super) fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let mut number = |key, range: RangeInclusive<u64>, default: u32| {
            let value = fields.integer(key, range);
            value
                .and_then(|value| u32::try_from(value).ok())
                .unwrap_or(default)
        };
        let default = Self::default();
        Some(Self {
            issue_per_second_per_bot: number(
                "issue_per_second_per_bot",
                RATES,
                default.issue_per_second_per_bot,
            ),
            issue_burst_per_bot: number("issue_burst_per_bot", RATES, default.issue_burst_per_bot),
            issue_per_second_per_instance: number(
                "issue_per_second_per_instance",
                RATES,
                default.issue_per_second_per_instance,
            ),
            issue_burst_per_instance: number(
                "issue_burst_per_instance",
                RATES,
                default.issue_burst_per_instance,
            ),
            calls_per_instance: number("calls_per_instance", PLACES, default.calls_per_instance),
            streams_per_instance: number(
                "streams_per_instance",
                PLACES,
                default.streams_per_instance,
            ),
        })
    }
}
