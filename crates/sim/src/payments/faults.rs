//! What can go wrong between a provider of payments and the backend, switched on at the board.

use serde::{Deserialize, Serialize};

/// Everything is off by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Every event is delivered twice.
    pub duplicate: bool,
    /// Every change is told by two events of different ids.
    pub twin: bool,
    /// What happens together is delivered in an order that this seed decides.
    pub reorder: Option<u64>,
    /// Seconds until an event is first delivered.
    pub delay_s: u32,
    /// Nothing is delivered; it can still be listed.
    pub drop: bool,
    /// Every event says that it happened in the second in which this was switched on.
    pub same_second: bool,
    /// Signed with another secret.
    pub bad_signature: bool,
    /// Signed with two secrets, as while one is rotated; ours is the second.
    pub two_signatures: bool,
    /// Events in the shape of 2024-06-20, to endpoints that name no version.
    pub old_version: bool,
    /// How the API answers instead.
    pub api: Option<ApiFault>,
    /// So many times; every time when not given.
    pub api_times: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApiFault {
    #[serde(rename = "500")]
    ServerError,
    #[serde(rename = "429")]
    RateLimited,
    /// Accepts, never answers.
    #[serde(rename = "timeout")]
    Timeout,
}

impl Faults {
    /// How this question to the API goes wrong, if it does; it counts.
    pub fn strike(&mut self) -> Option<ApiFault> {
        let fault = self.api?;
        match &mut self.api_times {
            None => Some(fault),
            Some(0) => {
                (self.api, self.api_times) = (None, None);
                None
            }
            Some(times) => {
                *times -= 1;
                Some(fault)
            }
        }
    }
}
