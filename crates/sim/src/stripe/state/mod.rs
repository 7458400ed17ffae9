//! What an account holds: for each kind of thing its state, and how a version of the API shows it.

pub mod card;
pub mod catalog;
pub mod customer;
pub mod dispute;
pub mod endpoint;
pub mod invoice;
pub mod payment;
pub mod portal;
pub mod promotion;
pub mod session;
pub mod subscription;
pub mod test_clock;

use serde_json::{Map, Value};

use super::books::{Books, Table};
use super::version::Version;

pub use card::Card;
pub use catalog::{Price, Product};
pub use customer::Customer;
pub use dispute::Dispute;
pub use endpoint::Endpoint;
pub use invoice::Invoice;
pub use payment::{Charge, InvoicePayment, Payment, Refund};
pub use portal::{PortalConfiguration, PortalSession};
pub use promotion::{Coupon, Discount, PromotionCode};
pub use session::Session;
pub use subscription::Subscription;
pub use test_clock::TestClock;

pub trait Show: Send + Sync {
    fn show(&self, version: &Version) -> Value;
}

/// What has an id and is kept.
pub trait Thing: Show + Clone + 'static {
    /// Its `object`.
    const KIND: &'static str;
    fn id(&self) -> &str;
    fn table(books: &Books) -> &Table<Self>;
    fn table_mut(books: &mut Books) -> &mut Table<Self>;
}

macro_rules! thing {
    ($thing:ident, $kind:literal, $table:ident) => {
        impl $crate::stripe::state::Thing for $thing {
            const KIND: &'static str = $kind;
            fn id(&self) -> &str {
                &self.id
            }
            fn table(books: &$crate::stripe::books::Books) -> &$crate::stripe::books::Table<Self> {
                &books.$table
            }
            fn table_mut(
                books: &mut $crate::stripe::books::Books,
            ) -> &mut $crate::stripe::books::Table<Self> {
                &mut books.$table
            }
        }
    };
}
pub(in crate::stripe) use thing;

/// Puts these members over those of an object; what is old is null or different there.
fn put(shown: &mut Value, members: Value) {
    if let (Some(shown), Value::Object(members)) = (shown.as_object_mut(), members) {
        shown.extend(members);
    }
}

pub fn take(shown: &mut Value, members: &[&str]) {
    if let Some(shown) = shown.as_object_mut() {
        members.iter().for_each(|name| drop(shown.remove(*name)));
    }
}

/// A whole list within a thing.
fn list(data: Vec<Value>, url: String) -> Value {
    let mut list = Map::new();
    list.insert("object".to_owned(), "list".into());
    list.insert("total_count".to_owned(), data.len().into());
    list.insert("data".to_owned(), data.into());
    list.insert("has_more".to_owned(), false.into());
    list.insert("url".to_owned(), url.into());
    list.into()
}

/// `$29.00`, `€9.00`, `9.00 CHF`, `¥900`.
pub fn money(minor: i64, currency: &str) -> String {
    let sign = if minor < 0 { "-" } else { "" };
    let whole = matches!(currency, "jpy" | "krw");
    let amount = minor.unsigned_abs();
    let amount = if whole {
        amount.to_string()
    } else {
        format!("{}.{:02}", amount / 100, amount % 100)
    };
    match currency {
        "usd" => format!("{sign}${amount}"),
        "eur" => format!("{sign}€{amount}"),
        "gbp" => format!("{sign}£{amount}"),
        "jpy" => format!("{sign}¥{amount}"),
        other => format!("{sign}{amount} {}", other.to_uppercase()),
    }
}
