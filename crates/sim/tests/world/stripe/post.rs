//! Events on their way, and how they go astray.
use super::*;
use sim::{ApiFault, Faults};

#[tokio::test]
async fn an_event_is_signed_and_sent_again_until_it_is_taken() {
    let bank = Bank::new().await;
    bank.post("customers", &[]).await;

    let (letter, headers) = bank.world.letters().remove(0);
    let signed = headers
        .iter()
        .find(|(name, _)| *name == "stripe-signature")
        .unwrap();
    assert_eq!(
        signed.1,
        webhooks::signature::sign(letter.body.as_bytes(), "whsec_ours", START)
    );
    assert!(bank.world.letters().is_empty());
    let event = letter.event.clone();
    bank.world.answered(letter, 500);
    assert!(bank.world.letters().is_empty(), "not at once");
    assert_eq!(
        bank.get("events?delivery_success=false").await["data"][0]["id"],
        event
    );

    bank.later(Duration::from_secs(10));
    let (again, _) = bank.world.letters().remove(0);
    assert_eq!(again.event, event);
    bank.world.answered(again, 204);

    assert_eq!(
        bank.get("events?delivery_success=false").await["data"],
        json!([])
    );
    assert_eq!(
        bank.get(&format!("events/{event}")).await["pending_webhooks"],
        0
    );
}

#[tokio::test]
async fn each_fault_leads_astray_in_its_own_way() {
    let bank = Bank::new().await;
    let sent = async |faults: Faults| {
        bank.world.set_faults(faults);
        bank.post("customers", &[]).await;
        bank.post("customers", &[]).await;
        let letters = bank.world.letters();
        letters
            .iter()
            .for_each(|(letter, _)| bank.world.answered(letter.clone(), 200));
        letters
    };
    let verified = |letters: &[(sim::Letter, Vec<(&'static str, String)>)]| {
        letters.iter().all(|(letter, headers)| {
            webhooks::signature::verify(
                letter.body.as_bytes(),
                Some(&headers[0].1),
                &["whsec_ours"],
                START,
                300,
            )
            .is_ok()
        })
    };
    let ids = |letters: &[(sim::Letter, Vec<(&'static str, String)>)]| {
        letters
            .iter()
            .map(|(letter, _)| letter.event.clone())
            .collect::<Vec<_>>()
    };

    let plain = sent(Faults::default()).await;
    assert_eq!((plain.len(), verified(&plain)), (2, true));
    let twice = sent(Faults {
        duplicate: true,
        ..Faults::default()
    })
    .await;
    assert_eq!(
        (twice.len(), twice[0].0.event == twice[1].0.event),
        (4, true)
    );
    let twins = ids(&sent(Faults {
        twin: true,
        ..Faults::default()
    })
    .await);
    assert_eq!((twins.len(), twins[0] == twins[1]), (4, false));
    let wrong = sent(Faults {
        bad_signature: true,
        ..Faults::default()
    })
    .await;
    assert!(!verified(&wrong));
    let two = sent(Faults {
        two_signatures: true,
        ..Faults::default()
    })
    .await;
    assert_eq!(
        (two[0].1[0].1.matches("v1=").count(), verified(&two)),
        (2, true)
    );
    let old = sent(Faults {
        old_version: true,
        ..Faults::default()
    })
    .await;
    assert!(old[0].0.body.contains("2024-06-20"));

    let late = sent(Faults {
        delay_s: 60,
        ..Faults::default()
    })
    .await;
    bank.later(Duration::from_secs(60));
    let arrived = bank.world.letters();
    assert_eq!((late.len(), arrived.len()), (0, 2));
    arrived
        .into_iter()
        .for_each(|(letter, _)| bank.world.answered(letter, 200));

    let dropped = sent(Faults {
        drop: true,
        ..Faults::default()
    })
    .await;
    let listed = bank.get("events?delivery_success=false").await["data"]
        .as_array()
        .unwrap()
        .len();
    assert_eq!((dropped.len(), listed), (0, 2));
}

#[tokio::test]
async fn a_seed_decides_about_the_order_and_one_second_holds_everything() {
    let bank = Bank::new().await;
    let order = async |faults: Faults| {
        bank.world.set_faults(faults);
        bank.subscriber("pm_card_visa", &[]).await;
        bank.told()
    };
    let types = |told: &[Value]| {
        told.iter()
            .map(|event| words(&event["type"]).to_owned())
            .collect::<Vec<_>>()
    };

    let straight = types(&order(Faults::default()).await);
    let shuffled = types(
        &order(Faults {
            reorder: Some(7),
            ..Faults::default()
        })
        .await,
    );
    assert_ne!(straight, shuffled);
    let sorted = |mut types: Vec<String>| {
        types.sort();
        types
    };
    assert_eq!(sorted(straight), sorted(shuffled));

    order(Faults {
        same_second: true,
        ..Faults::default()
    })
    .await;
    bank.later(DAY * 31);
    let times: std::collections::HashSet<_> = bank
        .told()
        .iter()
        .map(|event| event["created"].as_i64())
        .collect();
    assert_eq!(times.len(), 1, "{times:?}");
}

#[tokio::test]
async fn the_api_fails_as_often_as_it_is_told_to() {
    let bank = Bank::new().await;
    let fault = |fault, times| Faults {
        api: Some(fault),
        api_times: Some(times),
        ..Faults::default()
    };

    bank.world.set_faults(fault(ApiFault::ServerError, 2));
    let first = [
        bank.try_get("prices", "").await.0,
        bank.try_get("prices", "").await.0,
        bank.try_get("prices", "").await.0,
    ];
    bank.world.set_faults(fault(ApiFault::RateLimited, 1));
    let second = [
        bank.try_post("customers", &[]).await.0,
        bank.try_post("customers", &[]).await.0,
    ];
    bank.world.set_faults(fault(ApiFault::Timeout, 1));
    let hung = tokio::time::timeout(Duration::from_millis(300), bank.try_get("prices", "")).await;

    assert_eq!(
        (first, second, hung.is_err()),
        ([500, 500, 200], [429, 200], true)
    );
    assert_eq!(
        bank.get("customers").await["data"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}
