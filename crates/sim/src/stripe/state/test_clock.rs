use serde_json::{Value, json};

use super::{Show, thing};
use crate::stripe::version::Version;

/// A clock of its own for the customers that were made with it.
#[derive(Debug, Clone)]
pub struct TestClock {
    pub id: String,
    pub created: i64,
    pub name: Option<String>,
    pub frozen_at: i64,
}

thing!(TestClock, "test_helpers.test_clock", test_clocks);

impl Show for TestClock {
    fn show(&self, _: &Version) -> Value {
        json!({
            "id": self.id,
            "object": "test_helpers.test_clock",
            "created": self.created,
            "deletes_after": self.created + 30 * 24 * 60 * 60,
            "frozen_time": self.frozen_at,
            "livemode": false,
            "name": self.name,
            "status": "ready",
            "status_details": {},
        })
    }
}
