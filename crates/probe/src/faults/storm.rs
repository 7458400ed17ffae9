//! A storm of events, in which the server is killed again and again.
use super::{
    case::Case,
    dice::Dice,
    plinth::Plinth,
    scene::Scene,
    sender::{Sender, is_acknowledged, settled},
    story::{EVENTS, Event, Story},
};
use crate::{events, person::User};
use anyhow::{Context, Result};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// Of all deliveries.
const REPEATED: f64 = 0.3;
const SENDERS: usize = 16;
/// While events arrive; and then, while the rest is applied.
const KILLS: usize = 10;
const LATE_KILLS: usize = 2;
/// Providers wait minutes and hours.
const PAUSE: Duration = Duration::from_millis(100);
/// What a process that was killed had begun is begun anew when its lease is over.
const SETTLED_WITHIN: Duration = Duration::from_secs(900);

pub async fn run(scene: &Scene<'_>, case: &mut Case) -> Result<()> {
    let mut server = scene.serve(&[]).await?;
    let key = server.admin_key().await?;
    let distinct = (scene.setup.events as f64 * (1.0 - REPEATED)) as usize;
    let mut stories = vec![];
    for n in 0..distinct.div_ceil(EVENTS) {
        stories.push(Story::new(n, server.sign_up().await?, events::now()));
    }
    let told: Vec<Event> = stories
        .iter()
        .flat_map(|story| story.events.clone())
        .collect();
    let seed = uuid::Uuid::new_v4().as_u64_pair().0;
    let mut dice = Dice::new(seed);
    let mut deliveries = told.clone();
    let repeats = (told.len() as f64 * REPEATED / (1.0 - REPEATED)) as usize;
    deliveries.extend((0..repeats).map(|_| told[dice.below(told.len())].clone()));
    dice.shuffle(&mut deliveries);

    let began = Instant::now();
    let storm = Storm::begin(scene, &server, deliveries);
    for n in 1..=KILLS {
        let at = n * storm.len / (KILLS + 1) + dice.below(storm.len / (4 * KILLS));
        storm.acknowledged(at).await;
        server.kill().await?;
        case.recovered(server.start().await?);
    }
    storm.acknowledged(storm.len).await;
    let sent = began.elapsed();
    let tally = storm.end().await?;
    for _ in 0..LATE_KILLS {
        tokio::time::sleep(Duration::from_millis(200 + dice.below(500) as u64)).await;
        server.kill().await?;
        case.recovered(server.start().await?);
    }
    let settled = settled(&server, &key, SETTLED_WITHIN).await;
    let all = began.elapsed();

    let rate = tally.acknowledged as f64 / sent.as_secs_f64();
    case.note(format!(
        "{} deliveries of {} events of {} users, {SENDERS} senders, killed {} times, seed {seed}: acknowledged in {:.1} s ({rate:.0}/s, {} attempts failed and were repeated), all applied after {:.1} s",
        tally.acknowledged, told.len(), stories.len(), KILLS + LATE_KILLS, sent.as_secs_f64(), tally.failed, all.as_secs_f64(),
    ));
    case.none(
        "every delivery is acknowledged or refused for a reason",
        &tally.refused,
    );
    case.check(
        "every event is applied",
        settled.is_ok(),
        settled.err().unwrap_or("all are".into()),
    );
    inbox(case, &server, &key, &told).await?;
    entitlements(case, &server, &stories).await;
    receipts(case, &server, &key, &stories).await;
    mails(case, scene, &stories).await;
    Ok(())
}

/// Deliveries under way.
struct Storm {
    len: usize,
    acknowledged: Arc<AtomicUsize>,
    senders: Vec<tokio::task::JoinHandle<Tally>>,
}

#[derive(Default)]
struct Tally {
    acknowledged: usize,
    /// Attempts that met nobody, or were answered 5xx.
    failed: usize,
    /// What no provider would repeat for long.
    refused: Vec<String>,
}

impl Storm {
    fn begin(scene: &Scene<'_>, server: &Plinth, deliveries: Vec<Event>) -> Self {
        let len = deliveries.len();
        let queue = Arc::new(Mutex::new(deliveries.into_iter()));
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let senders = (0..SENDERS).map(|_| {
            let sender = Sender::new(scene, &server.url(""));
            let (queue, acknowledged, seen) =
                (queue.clone(), acknowledged.clone(), scene.seen.clone());
            tokio::spawn(async move {
                let mut tally = Tally::default();
                loop {
                    let next = queue.lock().map(|mut queue| queue.next()).ok().flatten();
                    let Some(event) = next else { return tally };
                    loop {
                        let answer = super::plinth::heard(&seen, sender.delivery(&event)).await;
                        if is_acknowledged(&answer) {
                            tally.acknowledged += 1;
                            break;
                        }
                        if (400..500).contains(&answer.status) {
                            tally
                                .refused
                                .push(format!("{}: {}", event.id, answer.brief()));
                            break;
                        }
                        tally.failed += 1;
                        tokio::time::sleep(PAUSE).await;
                    }
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        Self {
            len,
            senders: senders.collect(),
            acknowledged,
        }
    }

    /// Returns when so many are done with.
    async fn acknowledged(&self, count: usize) {
        while self.acknowledged.load(Ordering::Relaxed) < count {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn end(self) -> Result<Tally> {
        let mut all = Tally::default();
        for sender in self.senders {
            let tally = sender.await?;
            all.acknowledged += tally.acknowledged;
            all.failed += tally.failed;
            all.refused.extend(tally.refused);
        }
        Ok(all)
    }
}

/// Every event that was acknowledged is there once, and counted or had nothing new to say.
async fn inbox(case: &mut Case, server: &Plinth, key: &str, told: &[Event]) -> Result<()> {
    let mut rows: HashMap<String, usize> = HashMap::new();
    let mut statuses: BTreeMap<String, usize> = BTreeMap::new();
    let mut stuck = vec![];
    let mut cursor = String::new();
    loop {
        let page = server
            .get(&format!("/api/admin/webhooks?limit=100{cursor}"), key)
            .await;
        let data = page.body["data"].as_array().with_context(|| page.brief())?;
        for row in data {
            let text = |member: &str| row[member].as_str().unwrap_or_default().to_owned();
            *rows.entry(text("external_id")).or_default() += 1;
            *statuses.entry(text("status")).or_default() += 1;
            if !["processed", "ignored"].contains(&&*text("status")) {
                stuck.push(format!(
                    "{} is {}: {}",
                    text("external_id"),
                    text("status"),
                    text("reason")
                ));
            }
        }
        match page.body["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let lost: Vec<_> = told
        .iter()
        .filter(|event| !rows.contains_key(&event.id))
        .map(|event| event.id.clone())
        .collect();
    let twice: Vec<_> = rows
        .iter()
        .filter(|(_, count)| **count > 1)
        .map(|(id, _)| id.clone())
        .collect();
    case.none("no acknowledged event lost", &lost);
    case.none("no event in the inbox twice", &twice);
    case.none("no event stuck", &stuck);
    let statuses: Vec<_> = statuses
        .iter()
        .map(|(status, count)| format!("{count} {status}"))
        .collect();
    case.check(
        "the inbox has these and no others",
        rows.len() == told.len(),
        format!("{} events: {}", rows.len(), statuses.join(", ")),
    );
    Ok(())
}

async fn entitlements(case: &mut Case, server: &Plinth, stories: &[Story]) {
    let mut wrong = vec![];
    for story in stories {
        let has = server.get("/api/entitlements", &story.user.token).await;
        let billing = server.get("/api/billing", &story.user.token).await;
        if let Some(why) = story.end.differs(&has.body, &billing.body) {
            wrong.push(why);
        }
    }
    case.none(
        format!(
            "entitlements and balances of {} users are what was told",
            stories.len()
        ),
        &wrong,
    );
}

/// No event changed one object twice.
async fn receipts(case: &mut Case, server: &Plinth, key: &str, stories: &[Story]) {
    let (mut count, mut twice) = (0, vec![]);
    for story in stories {
        let mut seen = HashSet::new();
        let mut cursor = String::new();
        loop {
            let path = format!(
                "/api/admin/billing/users/{}?limit=100{cursor}",
                story.user.id
            );
            let page = server.get(&path, key).await;
            let timeline = &page.body["timeline"];
            for receipt in timeline["data"].as_array().into_iter().flatten() {
                count += 1;
                let name = format!("{} on {}", receipt["event"], receipt["object"]);
                if !seen.insert(name.clone()) {
                    twice.push(name);
                }
            }
            match timeline["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
    }
    case.check("receipts are kept", count > 0, count);
    case.none("no event has two receipts", &twice);
}

/// Each mail once. A mail server may be told twice what it did not acknowledge: under the same Message-ID.
async fn mails(case: &mut Case, scene: &Scene<'_>, stories: &[Story]) {
    let due: usize = stories
        .iter()
        .map(|story| usize::from(story.end.opened) + usize::from(story.end.ended))
        .sum();
    let started = Instant::now();
    while scene.mailbox.mails().len() < due && started.elapsed() < Duration::from_secs(90) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mails = scene.mailbox.mails();
    let to = |user: &User| {
        mails
            .iter()
            .filter(|mail| mail.to == user.email)
            .collect::<Vec<_>>()
    };
    let (mut missing, mut twice) = (vec![], vec![]);
    let mut again = 0;
    for story in stories {
        let all = to(&story.user);
        let ids: HashSet<_> = all.iter().map(|mail| &*mail.id).collect();
        again += all.len() - ids.len();
        let mut subjects: BTreeMap<&str, HashSet<&str>> = BTreeMap::new();
        for mail in &all {
            subjects.entry(&mail.subject).or_default().insert(&mail.id);
        }
        let least = usize::from(story.end.opened) + usize::from(story.end.ended);
        if ids.len() < least {
            missing.push(format!(
                "{} of {least} mails: {:?}",
                ids.len(),
                subjects.keys()
            ));
        }
        // Two subscriptions may end, the web's and the phone's.
        let most = |subject: &str| {
            if subject.contains("ended") {
                usize::from(story.end.ended)
            } else {
                1
            }
        };
        for (subject, ids) in &subjects {
            if ids.len() > most(subject).max(1) {
                twice.push(format!("{} × {subject}", ids.len()));
            }
        }
    }
    case.none("every mail that is due was sent", &missing);
    case.none("no mail was written twice", &twice);
    case.note(format!(
        "{} mails, {again} of them handed over once more under their Message-ID",
        mails.len()
    ));
}
