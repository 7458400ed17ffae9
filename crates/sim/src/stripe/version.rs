//! In which shape things are shown: <https://docs.stripe.com/changelog>.

use super::API_VERSION;

/// A version as `Stripe-Version` names it: a date, and since 2024-09 the name of its train.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(String);

/// From here on the period is on a subscription's items and an invoice says what it is of in
/// `parent`.
const BASIL: &str = "2025-03-31";

impl Version {
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    pub fn newest() -> Self {
        Self::new(API_VERSION)
    }

    /// What the fault board's old events are in.
    pub fn of_2024() -> Self {
        Self::new("2024-06-20")
    }

    pub fn name(&self) -> &str {
        &self.0
    }

    pub fn is_old(&self) -> bool {
        self.0.as_str() < BASIL
    }

    /// Whether this is a version at all, as far as its look goes.
    pub fn is_known(name: &str) -> bool {
        let date = name.get(..10).unwrap_or_default();
        chrono::NaiveDate::parse_from_str(date, "%Y-%m-%d").is_ok() && name <= API_VERSION
    }
}
