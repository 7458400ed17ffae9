//! What one user buys, as both providers tell it, and what it has to come to in whatever order it is told.
use crate::{
    events::{self, MONTH_S, Purchase},
    person::User,
};
use serde_json::{Value, json};

/// Events of one story.
pub const EVENTS: usize = STRIPE + PURCHASES + CURRENCY;
const STRIPE: usize = 20;
const PURCHASES: usize = 15;
const CURRENCY: usize = 15;
const COIN: &str = "COIN";
const HOUR_S: i64 = 3600;
const DAY_S: i64 = 24 * HOUR_S;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    Stripe,
    RevenueCat,
}

/// One event, as its provider sends it however often.
#[derive(Debug, Clone)]
pub struct Event {
    pub provider: Provider,
    pub id: String,
    pub body: String,
}

pub struct Story {
    pub user: User,
    pub events: Vec<Event>,
    pub end: End,
}

/// What it comes to.
#[derive(Debug, Default)]
pub struct End {
    pub plan: &'static str,
    /// Each with when it ends at the earliest, in unix seconds, whether it renews, and who sold it.
    pub entitlements: Vec<(&'static str, i64, bool, &'static str)>,
    pub coins: i64,
    /// What is mailed: that it is open, that it has ended.
    pub opened: bool,
    pub ended: u8,
}

impl Story {
    /// The `n`th story, which begins an hour before `now`. Neighbours end differently.
    pub fn new(n: usize, user: User, now: i64) -> Self {
        let (mut events, mut end) = (
            vec![],
            End {
                plan: "free",
                ..End::default()
            },
        );
        let web = on_the_web(n, &user, now, &mut events, &mut end);
        let phone = on_a_phone(n, &user, now, &mut events, &mut end);
        let mut open: Vec<_> = web.into_iter().chain(phone).collect();
        // Of two that sell the same, the one that reaches further is shown: the web's.
        open.dedup_by_key(|(entitlement, ..)| *entitlement);
        for (entitlement, ..) in &open {
            if *entitlement == "pro" || end.plan == "free" {
                end.plan = *entitlement;
            }
        }
        end.entitlements = open;
        for k in 0..CURRENCY {
            let amount = 1 + (n + 7 * k) as i64;
            end.coins += amount;
            events.push(currency(n, k, &user, now, amount));
        }
        Self { user, events, end }
    }
}

type Open = (&'static str, i64, bool, &'static str);

/// A subscription that goes to and fro between plans.
fn on_the_web(
    n: usize,
    user: &User,
    now: i64,
    events: &mut Vec<Event>,
    end: &mut End,
) -> Option<Open> {
    let began = now - HOUR_S;
    let key = format!("{:0>24}", format!("storm{n}"));
    let mut period_end = 0;
    for k in 0..STRIPE {
        let is_last = k + 1 == STRIPE;
        let plan = match (is_last, n % 4) {
            (true, 1) => "standard",
            (true, _) => "pro",
            (false, _) => ["standard", "pro"][k % 2],
        };
        let bought = Purchase {
            key: &key,
            user: &user.id,
            price: &format!("price_{plan}"),
        };
        let mut event = events::subscription(&bought, began);
        let at = began + k as i64 * 30;
        let id = format!("evt_{key}_{k}");
        event["id"] = json!(id);
        event["created"] = json!(at);
        let object = &mut event["data"]["object"];
        period_end = began + MONTH_S + k as i64 * DAY_S;
        object["items"]["data"][0]["current_period_end"] = json!(period_end);
        if is_last && n % 4 == 2 {
            object["status"] = json!("canceled");
            object["ended_at"] = json!(at);
            object["canceled_at"] = json!(at);
        }
        if is_last && n % 4 == 3 {
            object["cancel_at_period_end"] = json!(true);
            object["cancel_at"] = json!(period_end);
            object["canceled_at"] = json!(at);
        }
        if k > 0 {
            let ended = is_last && n % 4 == 2;
            event["type"] = json!(format!(
                "customer.subscription.{}",
                if ended { "deleted" } else { "updated" }
            ));
        }
        events.push(Event {
            provider: Provider::Stripe,
            id,
            body: event.to_string(),
        });
    }
    match n % 4 {
        2 => {
            end.ended += 1;
            None
        }
        kind => {
            end.opened = true;
            let plan = if kind == 1 { "standard" } else { "pro" };
            Some((plan, period_end, kind != 3, "stripe"))
        }
    }
}

/// A subscription of an app store that is renewed every day.
fn on_a_phone(
    n: usize,
    user: &User,
    now: i64,
    events: &mut Vec<Event>,
    end: &mut End,
) -> Option<Open> {
    let kind = (n / 4) % 3;
    // One that has expired did so an hour ago; another is open for twenty days.
    let last_end = if kind == 2 {
        now - HOUR_S
    } else {
        now + 20 * DAY_S
    };
    for k in 0..PURCHASES {
        let is_last = k + 1 == PURCHASES;
        let periods_to_come = (PURCHASES - 1 - k) as i64 - i64::from(kind != 0);
        let expires = last_end - periods_to_come.max(0) * DAY_S;
        let word = match (k, is_last, kind) {
            (0, ..) => "INITIAL_PURCHASE",
            (_, true, 1) => "CANCELLATION",
            (_, true, 2) => "EXPIRATION",
            _ => "RENEWAL",
        };
        let at = now - 2 * HOUR_S + k as i64 * 60;
        let id = format!("storm-{n}-{k}");
        let mut event = purchase(&id, word, user, at * 1000);
        let fields = &mut event["event"];
        fields["original_transaction_id"] = json!(format!("storm{n}"));
        fields["transaction_id"] = json!(format!("storm{n}x{k}"));
        fields["purchased_at_ms"] = json!((expires - DAY_S) * 1000);
        fields["expiration_at_ms"] = json!(expires * 1000);
        match word {
            "CANCELLATION" => fields["cancel_reason"] = json!("UNSUBSCRIBE"),
            "EXPIRATION" => fields["expiration_reason"] = json!("UNSUBSCRIBE"),
            _ => {}
        }
        events.push(Event {
            provider: Provider::RevenueCat,
            id,
            body: event.to_string(),
        });
    }
    if kind == 2 {
        end.ended += 1;
        return None;
    }
    Some(("standard", last_end, kind == 0, "revenuecat"))
}

fn purchase(id: &str, word: &str, user: &User, at_ms: i64) -> Value {
    json!({"api_version": "1.0", "event": {
        "aliases": [user.id], "app_id": "appprobe", "app_user_id": user.id, "country_code": "US", "currency": "USD",
        "entitlement_id": null, "entitlement_ids": ["standard_access"], "environment": "SANDBOX",
        "event_timestamp_ms": at_ms, "id": id, "is_family_share": false, "original_app_user_id": user.id,
        "period_type": "NORMAL", "price": 9.0, "price_in_purchased_currency": 9.0,
        "product_id": "com.example.standard.monthly", "store": "APP_STORE", "subscriber_attributes": {}, "type": word,
    }})
}

/// An amount that is added to a balance: applied twice or not at all, the sum tells.
pub fn currency(n: usize, k: usize, user: &User, now: i64, amount: i64) -> Event {
    let id = format!("storm-{n}-coin-{k}");
    let body = json!({"api_version": "1.0", "event": {
        "adjustments": [{"amount": amount, "currency": {"code": COIN, "name": "Coins", "description": ""}}],
        "aliases": [user.id], "app_id": "appprobe", "app_user_id": user.id, "country_code": "US",
        "event_timestamp_ms": (now - HOUR_S) * 1000 + k as i64, "id": id, "purchase_environment": "SANDBOX",
        "source": "in_app_purchase", "store": "APP_STORE", "subscriber_attributes": {},
        "transaction_id": format!("storm{n}coin{k}"), "type": "VIRTUAL_CURRENCY_TRANSACTION",
        "virtual_currency_transaction_id": format!("vctx_storm_{n}_{k}"),
    }});
    Event {
        provider: Provider::RevenueCat,
        id,
        body: body.to_string(),
    }
}

impl End {
    /// What a user has that the story does not give, or the other way round.
    pub fn differs(&self, entitlements: &Value, billing: &Value) -> Option<String> {
        let held = entitlements["entitlements"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        if entitlements["plan"] != self.plan || held.len() != self.entitlements.len() {
            return Some(format!(
                "plan {} with {} entitlements, not {}",
                entitlements["plan"],
                held.len(),
                self.plan
            ));
        }
        for (name, ends, renews, source) in &self.entitlements {
            let Some(one) = held.iter().find(|one| one["entitlement"] == *name) else {
                return Some(format!("no {name}"));
            };
            let expires = one["expires_at"].as_str().unwrap_or_default();
            let expires =
                chrono::DateTime::parse_from_rfc3339(expires).map_or(0, |time| time.timestamp());
            // What renews may be open a little longer, until the renewal is told.
            let slack = if *renews { 2 * DAY_S } else { 0 };
            let is_right = (*ends..=ends + slack).contains(&expires);
            if !is_right || one["will_renew"] != *renews || one["source"] != *source {
                return Some(format!("{name} until {expires} instead of {ends}: {one}"));
            }
        }
        let balances = billing["credits"].as_array().cloned().unwrap_or_default();
        let coins = balances.iter().find(|one| one["currency"] == COIN);
        let coins = coins.and_then(|one| one["amount"].as_i64()).unwrap_or(0);
        (coins != self.coins).then(|| format!("{coins} coins instead of {}", self.coins))
    }
}
