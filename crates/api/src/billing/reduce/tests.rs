//! Every order of a story's facts, told once or often, ends the same; and a look at how it is makes up for
//! whatever was never told.
use super::{stripe::*, *};
use db::billing::{
    Grant, Subscription,
    money::{Invoice, Payment, Reversal},
};
use proptest::prelude::*;
use uuid::Uuid;

const START: i64 = 1_795_000_000;
const DAY_S: i64 = 86_400;
const USER: Uuid = Uuid::from_u128(7);
const POLICY: Policy = Policy {
    grace: Duration::from_secs(7 * 86_400),
    revokes_refunded: true,
    suspends_disputed: true,
};

fn at(days: i64) -> Timestamp {
    Timestamp::from_unix(START + days * DAY_S)
}

/// The subscription as of a day, in the period that a month began.
fn as_of(days: i64, rank: i64, status: &str, change: impl FnOnce(&mut Subscription)) -> Fact {
    let month = days / 30;
    let mut snapshot = Subscription {
        provider: SOURCE.into(),
        mode: "test".into(),
        external_id: "sub_1".into(),
        user_id: None,
        customer: Some("cus_1".into()),
        store: SOURCE.into(),
        status: status.into(),
        plan: Some("pro".into()),
        product: None,
        quantity: 1,
        will_renew: !is_terminal(status),
        period_start: Some(at(month * 30)),
        period_end: Some(at(month * 30 + 30)),
        trial_end: None,
        cancel_at: None,
        ended_at: is_terminal(status).then(|| at(days)),
        basis_at: at(days),
        basis_rank: rank,
        basis_event: format!("evt_{days}_{rank}"),
        entitlements: None,
        kind: None,
        started_at: Some(at(0)),
        latest_invoice: Some(format!("in_{month}")),
        paused: None,
        paid_up_at: None,
        grace_until: None,
        refunded_at: None,
    };
    change(&mut snapshot);
    Fact::Snapshot {
        snapshot: Box::new(snapshot),
        previous_status: None,
    }
}

fn invoice(month: i64, change: impl FnOnce(&mut Invoice)) -> Fact {
    let mut invoice = Invoice {
        subscription: Some("sub_1".into()),
        billing_reason: Some("subscription_cycle".into()),
        amount_paid: 2_900,
        period_end: Some(at(month * 30 + 30)),
        ..unknown_invoice("test", &format!("in_{month}"))
    };
    change(&mut invoice);
    Fact::Invoice(invoice)
}

fn payment(month: i64) -> Fact {
    Fact::Payment(Payment {
        invoice: Some(format!("in_{month}")),
        amount: 2_900,
        paid_at: Some(at(month * 30)),
        ..unknown_payment("test", &format!("pi_{month}"))
    })
}

fn back(kind: &str, month: i64, status: &str, days: i64) -> Fact {
    Fact::Reversal(Reversal {
        provider: SOURCE.into(),
        mode: "test".into(),
        external_id: format!("{kind}_{month}"),
        kind: kind.into(),
        payment: format!("pi_{month}"),
        amount: 2_900,
        status: status.into(),
        basis_at: at(days),
    })
}

/// A year of one customer: what all happens to somebody who pays.
fn story() -> Vec<Fact> {
    vec![
        as_of(0, 1, "incomplete", |_| {}),
        as_of(0, 2, "active", |_| {}),
        Fact::Claimed { user: USER },
        invoice(0, |i| i.paid_at = Some(at(0))),
        payment(0),
        back("charge", 0, "refunded", 3),
        back("refund", 0, "succeeded", 3),
        back("refund", 0, "failed", 5),
        as_of(10, 2, "active", |s| s.quantity = 3),
        invoice(1, |i| i.failed_at = Some(at(30))),
        as_of(31, 2, "past_due", |_| {}),
        as_of(33, 2, "active", |_| {}),
        invoice(1, |i| i.paid_at = Some(at(33))),
        payment(1),
        back("dispute", 1, "needs_response", 40),
        back("dispute", 1, "won", 50),
        as_of(55, 2, "active", |s| s.paused = Some("void".into())),
        as_of(61, 2, "past_due", |_| {}),
        as_of(64, 2, "past_due", |s| s.quantity = 4),
        invoice(2, |i| i.failed_at = Some(at(60))),
    ]
}

/// What facts leave, whatever came first of what is equal.
fn left_by<'a>(facts: impl IntoIterator<Item = &'a Fact>) -> (State, Vec<Grant>) {
    let mut state = State::default();
    for fact in facts {
        state = apply(state, fact, at(100), &POLICY).0;
    }
    state
        .invoices
        .sort_by(|a, b| a.external_id.cmp(&b.external_id));
    state
        .payments
        .sort_by(|a, b| a.external_id.cmp(&b.external_id));
    state
        .reversals
        .sort_by(|a, b| a.external_id.cmp(&b.external_id));
    let grants = state.grants(&POLICY);
    (state, grants)
}

/// Nobody can be told whose it is before it is there.
fn claimed_at_the_end(mut facts: Vec<Fact>) -> Vec<Fact> {
    facts.push(Fact::Claimed { user: USER });
    facts
}

fn shuffled() -> impl Strategy<Value = Vec<Fact>> {
    let often = [story(), story()].concat();
    Just(often).prop_shuffle().prop_map(claimed_at_the_end)
}

#[test]
fn the_story_ends_in_grace_that_began_with_the_failure_of_its_last_invoice() {
    let (_, grants) = left_by(&story());

    assert_eq!(grants.len(), 1);
    assert_eq!(
        (grants[0].ends_at, grants[0].in_grace),
        (Some(at(67)), true)
    );
    assert_eq!(grants[0].revoked_at, None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn inv_19_every_order_and_every_repetition_ends_the_same(facts in shuffled()) {
        prop_assert_eq!(left_by(&facts), left_by(&claimed_at_the_end(story())));
    }

    #[test]
    fn inv_20_and_21_nothing_older_revives_what_is_over(facts in shuffled(), told in 0_usize..40) {
        let ended = as_of(70, 3, "canceled", |s| s.will_renew = false);
        let mut facts = facts;
        facts.insert(told, ended);

        let (state, grants) = left_by(&facts);

        prop_assert_eq!(state.subscription.unwrap().status, "canceled");
        prop_assert!(grants.iter().all(|grant| grant.ends_at == Some(at(70))));
    }

    #[test]
    fn inv_19_a_look_makes_up_for_snapshots_that_were_never_told(
        facts in shuffled(),
        kept in prop::collection::vec(any::<bool>(), 41),
    ) {
        let is_snapshot = |fact: &Fact| matches!(fact, Fact::Snapshot { .. });
        let told = facts.iter().zip(&kept).filter(|(fact, kept)| **kept || !is_snapshot(fact));
        let look = [as_of(80, READ, "active", |_| {}), Fact::Claimed { user: USER }];

        let (some, grants_of_some) = left_by(told.map(|(fact, _)| fact).chain(&look));
        let (all, grants_of_all) = left_by(facts.iter().chain(&look));

        prop_assert_eq!(grants_of_some, grants_of_all);
        prop_assert_eq!(some.subscription, all.subscription);
    }

    #[test]
    fn each_notice_has_a_key_of_its_own_in_every_order(facts in shuffled()) {
        let mut state = State::default();
        let mut keys = std::collections::BTreeMap::new();
        for fact in &facts {
            let (next, step) = apply(state, fact, at(62), &POLICY);
            state = next;
            for Notice { key, news } in step.notices {
                let kind = std::mem::discriminant(&news);
                prop_assert_eq!(*keys.entry(key).or_insert(kind), kind);
            }
        }
    }
}
