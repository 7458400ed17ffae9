//! What happens to subscriptions: how they begin, are paid, change and end, by what someone does and
//! by what time brings.

pub mod billing;
pub mod change;
pub mod checkout;
pub mod dispute;
pub mod end;
pub mod payment;
pub mod start;
pub mod time;

pub const DAY_S: i64 = 24 * 60 * 60;
