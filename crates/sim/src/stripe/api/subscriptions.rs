use serde_json::Value;

use crate::dice::fresh;
use crate::stripe::books::{Books, within};
use crate::stripe::call::Call;
use crate::stripe::life::billing::{self, Outcome, Presence};
use crate::stripe::life::change::{self, Proration};
use crate::stripe::life::start::{self, Wanted};
use crate::stripe::life::{DAY_S, checkout, end, time};
use crate::stripe::params::Params;
use crate::stripe::refusal::{Refusal, Result};
use crate::stripe::state::subscription::{Item, Pause, Status};
use crate::stripe::state::{Card, Price, Show, Subscription};

const PARAMS: &[&str] = &[
    "automatic_tax",
    "billing_cycle_anchor",
    "billing_mode",
    "cancel_at",
    "cancel_at_period_end",
    "cancellation_details",
    "collection_method",
    "currency",
    "customer",
    "default_payment_method",
    "description",
    "discounts",
    "items",
    "metadata",
    "off_session",
    "pause_collection",
    "payment_behavior",
    "payment_settings",
    "proration_behavior",
    "proration_date",
    "trial_end",
    "trial_from_plan",
    "trial_period_days",
    "trial_settings",
];
const BEHAVIOURS: &[&str] = &[
    "allow_incomplete",
    "default_incomplete",
    "error_if_incomplete",
];

pub fn create(books: &mut Books, call: &Call) -> Result<Value> {
    let params = &call.params;
    params.only(PARAMS)?;
    let customer = books
        .customer(params.required("customer")?, "customer")?
        .clone();
    let at = books.now_of(&customer.id);
    let mut items = vec![];
    for item in params.each("items") {
        items.push(new_item(books, &item, at)?);
    }
    if items.is_empty() {
        return Err(Refusal::missing("items"));
    }
    let behaviour = params
        .word("payment_behavior", BEHAVIOURS)?
        .unwrap_or("allow_incomplete");
    let days = params
        .int("trial_period_days")?
        .map(|days| at + days * DAY_S);
    let trial_end = trial_end(params, at)?.or(days).filter(|end| *end > at);
    let card = card(books, params, &customer.id, at)?;
    let charged = card
        .as_ref()
        .or(customer.card.as_ref())
        .and_then(|id| books.get::<Card>(id))
        .cloned();
    let waits = behaviour == "default_incomplete";
    if trial_end.is_none() && !waits {
        match &charged {
            None => {
                let message = "This customer has no attached payment source or default payment method. Please consider adding a default payment method.";
                return Err(Refusal::not_now(Some("resource_missing"), message));
            }
            Some(card) if behaviour == "error_if_incomplete" => drop(card.charge(true, false)?),
            Some(_) => {}
        }
    }
    let without_card = params.inside("trial_settings").inside("end_behavior");
    let wanted = Wanted {
        customer: customer.id,
        items,
        card,
        trial_end,
        without_card: without_card
            .word(
                "missing_payment_method",
                &["create_invoice", "cancel", "pause"],
            )?
            .unwrap_or("create_invoice"),
        discount: super::checkout::discount(books, params, at)?,
        description: params.owned("description"),
        metadata: params.metadata(),
        cancels_at_period_end: params.flag("cancel_at_period_end")?.unwrap_or(false),
        cancel_at: params.int("cancel_at")?,
        waits,
    };
    let presence = if params.flag("off_session")? == Some(true) {
        Presence::Away
    } else {
        Presence::There
    };
    let (id, _) = start::subscribe(books, wanted, presence, at);
    show(books, call, &id)
}

fn show(books: &Books, call: &Call, id: &str) -> Result<Value> {
    Ok(books.find::<Subscription>(id, "id")?.show(&call.version))
}

fn new_item(books: &Books, item: &Params, at: i64) -> Result<Item> {
    let price = books.find::<Price>(item.required("price")?, &item.name("price"))?;
    if price.recurring.is_none() {
        let message = format!(
            "The price specified is set to `type=one_time` but this field only accepts prices with `type=recurring`: {}.",
            price.id
        );
        return Err(Refusal::invalid(&item.name("price"), message));
    }
    Ok(Item {
        id: fresh("si", 14),
        created: at,
        price: price.clone(),
        quantity: item.int("quantity")?.unwrap_or(1),
        metadata: item.metadata(),
    })
}

/// The card of its own, if one is named: one that is there, or a token.
fn card(books: &mut Books, params: &Params, customer: &str, at: i64) -> Result<Option<String>> {
    let Some(id) = params.text("default_payment_method") else {
        return Ok(None);
    };
    if books.get::<Card>(id).is_some() {
        return Ok(Some(id.to_owned()));
    }
    let card = Card::read(id, at)
        .map_err(|_| Refusal::no_such("payment_method", id, "default_payment_method"))?;
    Ok(Some(checkout::attach(books, card, customer, "", at)))
}

/// `now` is now.
fn trial_end(params: &Params, at: i64) -> Result<Option<i64>> {
    if params.text("trial_end") == Some("now") {
        Ok(Some(at))
    } else {
        params.int("trial_end")
    }
}

pub fn retrieve(books: &mut Books, call: &Call) -> Result<Value> {
    show(books, call, call.id())
}

pub fn list(books: &mut Books, call: &Call) -> Result<Value> {
    let params = &call.params;
    params.only(&[
        "collection_method",
        "created",
        "current_period_end",
        "current_period_start",
        "customer",
        "ending_before",
        "limit",
        "price",
        "starting_after",
        "status",
        "test_clock",
    ])?;
    let (status, customer, price) = (
        params.text("status"),
        params.text("customer"),
        params.text("price"),
    );
    let mut rows = vec![];
    for subscription in books.subscriptions.iter() {
        // Without a status those that are over are left out.
        let is_wanted = match status {
            None => !subscription.status.is_over(),
            Some("all") => true,
            Some("ended") => subscription.status.is_over(),
            Some(status) => subscription.status.name() == status,
        };
        let holds = is_wanted
            && customer.is_none_or(|customer| subscription.customer == customer)
            && price
                .is_none_or(|price| subscription.items.iter().any(|item| item.price.id == price))
            && params
                .text("test_clock")
                .is_none_or(|clock| subscription.test_clock.as_deref() == Some(clock));
        if holds && within(call, subscription.created)? {
            rows.push(subscription);
        }
    }
    books.list(call, rows)
}

pub fn update(books: &mut Books, call: &Call) -> Result<Value> {
    let params = &call.params;
    params.only(PARAMS)?;
    let subscription = books.find::<Subscription>(call.id(), "id")?.clone();
    let (id, at) = (
        subscription.id.as_str(),
        books.now_of(&subscription.customer),
    );
    if subscription.status.is_over()
        && (params.has("items") || params.has("cancel_at_period_end") || params.has("trial_end"))
    {
        let message =
            "A canceled subscription can only update its cancellation_details and metadata.";
        return Err(Refusal::not_now(None, message));
    }
    let wanted = wanted(books, params, &subscription, at)?;
    let proration = params
        .word("proration_behavior", Proration::WORDS)?
        .map_or(Proration::Later, Proration::of);
    let must_be_paid = params.word("payment_behavior", BEHAVIOURS)? == Some("error_if_incomplete");
    if params.has("items") {
        let items = changed_items(books, params, &subscription, at)?;
        let prorated_at = params
            .int("proration_date")?
            .unwrap_or(at)
            .clamp(subscription.period.0, at);
        change::items(
            books,
            id,
            items,
            proration,
            must_be_paid,
            Presence::There,
            prorated_at,
        )?;
    }
    books.change::<Subscription>(id, "customer.subscription.updated", at, |kept| {
        wanted.put(kept, at);
    });
    if let Some(end) = trial_end(params, at)? {
        set_trial_end(books, id, end, at);
    }
    show(books, call, id)
}

/// What an update sets besides items and trial.
struct Update {
    leaves: Option<bool>,
    cancel_at: Option<Option<i64>>,
    pause: Option<Option<Pause>>,
    card: Option<String>,
    description: Option<Option<String>>,
    comment: Option<String>,
    feedback: Option<String>,
    discount: Option<Option<crate::stripe::state::Discount>>,
    metadata: crate::stripe::params::Metadata,
}

fn wanted(
    books: &mut Books,
    params: &Params,
    subscription: &Subscription,
    at: i64,
) -> Result<Update> {
    let pause = params.inside("pause_collection");
    let pause = match pause.word("behavior", &["keep_as_draft", "mark_uncollectible", "void"])? {
        Some(behavior) => Some(Some(Pause {
            behavior,
            resumes_at: pause.int("resumes_at")?,
        })),
        None => params.is_unset("pause_collection").then_some(None),
    };
    let cancel_at = match params.text("cancel_at") {
        Some("min_period_end" | "max_period_end") => Some(Some(subscription.period.1)),
        Some(_) => params.int("cancel_at")?.map(Some),
        None => params.is_unset("cancel_at").then_some(None),
    };
    if let Some(Some(at_time)) = cancel_at
        && at_time <= at
    {
        return Err(Refusal::invalid(
            "cancel_at",
            "The `cancel_at` timestamp must be in the future.",
        ));
    }
    let details = params.inside("cancellation_details");
    let mut metadata = subscription.metadata.clone();
    params.merge_metadata(&mut metadata);
    Ok(Update {
        leaves: params.flag("cancel_at_period_end")?,
        cancel_at,
        pause,
        card: card(books, params, &subscription.customer, at)?,
        description: params
            .has("description")
            .then(|| params.owned("description")),
        comment: details.owned("comment"),
        feedback: details.owned("feedback"),
        discount: if params.has("discounts") {
            Some(super::checkout::discount(books, params, at)?)
        } else {
            None
        },
        metadata,
    })
}

impl Update {
    fn put(self, kept: &mut Subscription, at: i64) {
        match self.leaves {
            Some(true) if !kept.cancels_at_period_end => end::leave(kept, at),
            Some(false) if kept.cancels_at_period_end => end::stay(kept),
            _ => {}
        }
        if let Some(cancel_at) = self.cancel_at {
            kept.cancel_at = cancel_at;
            kept.canceled_at = cancel_at.map(|_| at);
            kept.cancellation.reason = cancel_at.map(|_| "cancellation_requested");
        }
        if let Some(pause) = self.pause {
            kept.pause = pause;
        }
        if let Some(description) = self.description {
            kept.description = description;
        }
        if let Some(discount) = self.discount {
            kept.discount = discount;
        }
        kept.card = self.card.or(kept.card.take());
        kept.cancellation.comment = self.comment.or(kept.cancellation.comment.take());
        kept.cancellation.feedback = self.feedback.or(kept.cancellation.feedback.take());
        kept.metadata = self.metadata;
    }
}

/// The items as they are to be: those with an id are changed or deleted, others come besides.
pub fn changed_items(
    books: &Books,
    params: &Params,
    subscription: &Subscription,
    at: i64,
) -> Result<Vec<Item>> {
    let mut items = subscription.items.clone();
    for given in params.each("items") {
        let Some(id) = given.text("id") else {
            items.push(new_item(books, &given, at)?);
            continue;
        };
        let Some(place) = items.iter().position(|item| item.id == id) else {
            return Err(Refusal::no_such("subscription_item", id, &given.name("id")));
        };
        if given.flag("deleted")? == Some(true) {
            items.remove(place);
            continue;
        }
        let item = &mut items[place];
        if given.has("price") {
            item.price = new_item(books, &given, at)?.price;
        }
        item.quantity = given.int("quantity")?.unwrap_or(item.quantity);
        given.merge_metadata(&mut item.metadata);
    }
    if items.is_empty() {
        return Err(Refusal::invalid(
            "items",
            "A subscription must have at least one active item. To cancel the subscription, use the cancel endpoint.",
        ));
    }
    Ok(items)
}

fn set_trial_end(books: &mut Books, id: &str, trial_end: i64, at: i64) {
    if trial_end <= at {
        if books
            .get::<Subscription>(id)
            .is_some_and(|subscription| subscription.status == Status::Trialing)
        {
            time::renew(books, id, at, true);
        }
        return;
    }
    books.change::<Subscription>(id, "customer.subscription.updated", at, |subscription| {
        subscription.status = Status::Trialing;
        subscription.trial = Some((subscription.trial.map_or(at, |trial| trial.0), trial_end));
        subscription.period = (subscription.period.0, trial_end);
        subscription.anchor = trial_end;
        subscription.trial_end_told = false;
    });
}

pub fn cancel(books: &mut Books, call: &Call) -> Result<Value> {
    let params = &call.params;
    params.only(&["cancellation_details", "invoice_now", "prorate"])?;
    let subscription = books.find::<Subscription>(call.id(), "id")?.clone();
    if subscription.status.is_over() {
        return Err(Refusal::no_such("subscription", call.id(), "id"));
    }
    let details = params.inside("cancellation_details");
    books.edit::<Subscription>(call.id(), |subscription| {
        subscription.cancellation.comment = details
            .owned("comment")
            .or(subscription.cancellation.comment.take());
        subscription.cancellation.feedback = details
            .owned("feedback")
            .or(subscription.cancellation.feedback.take());
    });
    let at = books.now_of(&subscription.customer);
    end::now(books, call.id(), "cancellation_requested", at);
    show(books, call, call.id())
}

/// One that is paused; a pending cancellation is taken back by an update.
pub fn resume(books: &mut Books, call: &Call) -> Result<Value> {
    call.params.only(&[
        "billing_cycle_anchor",
        "proration_behavior",
        "proration_date",
    ])?;
    let subscription = books.find::<Subscription>(call.id(), "id")?.clone();
    if subscription.status != Status::Paused {
        let message = format!(
            "Subscription {} is not paused, so it cannot be resumed.",
            call.id()
        );
        return Err(Refusal::not_now(None, message));
    }
    let at = books.now_of(&subscription.customer);
    let before = subscription.clone();
    let period = subscription.period_from(at);
    books.edit::<Subscription>(call.id(), |subscription| {
        (subscription.period, subscription.anchor) = (period, at);
    });
    let lines = billing::regular_lines(&subscription, period, false);
    if let Some(invoice) = billing::draft(books, call.id(), lines, "subscription_update", at) {
        billing::finalize(books, &invoice, at);
        if billing::collect(books, &invoice, at, Presence::There) == Outcome::Paid {
            books.edit::<Subscription>(call.id(), |subscription| {
                subscription.status = Status::Active
            });
        }
    }
    if let Some(after) = books.get::<Subscription>(call.id()).cloned() {
        let resumed = after.status == Status::Active;
        books.tell_change("customer.subscription.updated", at, before, after.clone());
        if resumed {
            books.tell("customer.subscription.resumed", at, after);
        }
    }
    show(books, call, call.id())
}

/// Since endive: <https://docs.stripe.com/api/subscriptions/pause>.
pub fn pause(books: &mut Books, call: &Call) -> Result<Value> {
    let subscription = books.find::<Subscription>(call.id(), "id")?;
    if !matches!(subscription.status, Status::Active | Status::Trialing) {
        return Err(Refusal::not_now(
            None,
            format!("Subscription {} cannot be paused.", call.id()),
        ));
    }
    let at = books.now_of(&subscription.customer.clone());
    time::pause(books, call.id(), at);
    show(books, call, call.id())
}
