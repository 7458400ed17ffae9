//! People and providers who use a server while something breaks, and try again as they do.
use super::{
    case::Case,
    plinth::{Plinth, heard},
    scene::{Scene, Seen},
    sender::{self, Sender},
    story::{self, Event},
};
use crate::{answer::Answer, events, person::User};
use anyhow::Result;
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

const READERS: usize = 4;
const SENDERS: usize = 4;
/// Between two requests of one of them.
const PAUSE: Duration = Duration::from_millis(10);
/// Between an attempt that failed and the next.
const AGAIN: Duration = Duration::from_millis(100);
pub const LONG: Duration = Duration::from_secs(5);
const SETTLED_WITHIN: Duration = Duration::from_secs(150);

pub struct Traffic {
    tally: Arc<Mutex<Tally>>,
    stop: Arc<AtomicBool>,
    told: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<()>>,
    user: User,
    key: String,
    may_be_away: bool,
}

#[derive(Default)]
struct Tally {
    statuses: BTreeMap<String, usize>,
    /// Answers that are neither success nor a 503 that says when to come again.
    wrong: Vec<String>,
    slowest: Duration,
    /// Answers that took longer than [`LONG`].
    long: usize,
    /// When an answer was last a failure, and when one was first a success after it.
    failed_at: Option<Instant>,
    healed_at: Option<Instant>,
}

impl Tally {
    fn add(&mut self, what: &str, answer: &Answer, may_be_away: bool) {
        let code = answer.text_at("/code");
        let status = match answer.status {
            0 => "no answer".to_owned(),
            status if code.is_empty() => status.to_string(),
            status => format!("{status} {code}"),
        };
        *self.statuses.entry(status).or_default() += 1;
        self.slowest = self.slowest.max(answer.took);
        self.long += usize::from(answer.took > LONG);
        let success = (200..300).contains(&answer.status);
        let later = answer.status == 503 && answer.headers.contains_key("retry-after");
        let nobody_there = may_be_away && answer.status == 0;
        if !(success || later || nobody_there) {
            self.wrong.push(format!("{what}: {}", answer.brief()));
        }
        if !success {
            (self.failed_at, self.healed_at) = (Some(Instant::now()), None);
        } else if self.healed_at.is_none() {
            self.healed_at = Some(Instant::now());
        }
    }
}

impl Traffic {
    /// Starts it against these servers: who meets none goes to the next. `may_be_away`: that nobody
    /// answers is part of the fault.
    pub async fn begin(scene: &Scene<'_>, servers: &[&Plinth], may_be_away: bool) -> Result<Self> {
        let first = servers
            .first()
            .ok_or_else(|| anyhow::anyhow!("no server"))?;
        let (user, key) = (first.sign_up().await?, first.admin_key().await?);
        let tally = Arc::new(Mutex::new(Tally::default()));
        let (stop, told) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let bases: Vec<_> = servers.iter().map(|server| server.url("")).collect();
        let mut tasks = vec![];
        for n in 0..READERS {
            let reader = Reader {
                client: scene.client.clone(),
                bases: bases.clone(),
                token: user.token.clone(),
                seen: scene.seen.clone(),
            };
            let (tally, stop) = (tally.clone(), stop.clone());
            tasks.push(tokio::spawn(async move {
                let mut turn = n;
                while !stop.load(Ordering::Relaxed) {
                    let (what, answer) = reader.read(turn).await;
                    note(&tally, what, &answer, may_be_away);
                    turn += 1;
                    tokio::time::sleep(PAUSE).await;
                }
            }));
        }
        for _ in 0..SENDERS {
            let (tally, stop, told, user) =
                (tally.clone(), stop.clone(), told.clone(), user.clone());
            let (seen, bases) = (scene.seen.clone(), bases.clone());
            let mut sender = Sender::new(scene, &bases[0]);
            tasks.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let k = told.fetch_add(1, Ordering::Relaxed);
                    let event = story::currency(0, k, &user, events::now(), 1);
                    // What was begun is delivered, also when everything is over.
                    for attempt in 0.. {
                        sender.base.clone_from(&bases[(k + attempt) % bases.len()]);
                        let answer = heard(&seen, sender.delivery(&event)).await;
                        note(&tally, "a webhook", &answer, may_be_away);
                        if sender::is_acknowledged(&answer) {
                            break;
                        }
                        tokio::time::sleep(AGAIN).await;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }));
        }
        Ok(Self {
            tally,
            stop,
            told,
            tasks,
            user,
            key,
            may_be_away,
        })
    }

    /// Ends it once every delivery is acknowledged, and says whether all of it held. Gives how long after
    /// `over` the last failure was.
    pub async fn end(self, case: &mut Case, server: &Plinth, over: Instant) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            let ended = tokio::time::timeout(Duration::from_secs(90), task).await;
            if ended.is_err() {
                case.check(
                    "deliveries come to an end",
                    false,
                    "one is refused for ever",
                );
            }
        }
        let told = self.told.load(Ordering::Relaxed);
        let settled = sender::settled(server, &self.key, SETTLED_WITHIN).await;
        case.check(
            "every acknowledged event is applied",
            settled.is_ok(),
            settled.err().unwrap_or("all are".into()),
        );
        let billing = server.get("/api/billing", &self.user.token).await;
        let coins = billing.body["credits"][0]["amount"].as_i64().unwrap_or(0);
        let right = usize::try_from(coins) == Ok(told);
        case.check(
            "nothing lost, nothing counted twice",
            right,
            format!("{coins} of {told}"),
        );
        if let Ok(tally) = self.tally.lock() {
            case.none("success, or 503 with a code and Retry-After", &tally.wrong);
            let statuses: Vec<_> = tally
                .statuses
                .iter()
                .map(|(status, count)| format!("{count} × {status}"))
                .collect();
            case.note(format!(
                "{}; the slowest answer took {} ms",
                statuses.join(", "),
                tally.slowest.as_millis()
            ));
            let healed = tally.healed_at.filter(|_| tally.failed_at.is_some());
            if let Some(healed) = healed.filter(|_| !self.may_be_away) {
                case.recovered(healed.saturating_duration_since(over));
            }
        }
        Ok(())
    }

    /// How many waited long so far.
    pub fn long(&self) -> usize {
        self.tally
            .lock()
            .map(|tally| tally.long)
            .unwrap_or_default()
    }

    /// How long the slowest answer took so far.
    pub fn slowest(&self) -> Duration {
        self.tally
            .lock()
            .map(|tally| tally.slowest)
            .unwrap_or_default()
    }
}

fn note(tally: &Mutex<Tally>, what: &str, answer: &Answer, may_be_away: bool) {
    if let Ok(mut tally) = tally.lock() {
        tally.add(what, answer, may_be_away);
    }
}

struct Reader {
    client: reqwest::Client,
    bases: Vec<String>,
    token: String,
    seen: Seen,
}

impl Reader {
    /// One thing that an app does.
    async fn read(&self, turn: usize) -> (&'static str, Answer) {
        let base = &self.bases[turn % self.bases.len()];
        let (what, request) = match turn % 4 {
            0 => ("GET user", self.client.get(format!("{base}/auth/v1/user"))),
            1 => (
                "GET entitlements",
                self.client.get(format!("{base}/api/entitlements")),
            ),
            2 => (
                "GET conversations",
                self.client.get(format!("{base}/api/conversations")),
            ),
            _ => {
                let request = self.client.post(format!("{base}/api/conversations"));
                (
                    "POST conversations",
                    request.json(&json!({"title": "Of the sea"})),
                )
            }
        };
        (
            what,
            heard(&self.seen, request.bearer_auth(&self.token)).await,
        )
    }
}

/// Deliveries that are timed: the time of each answer that acknowledged one, sorted.
pub async fn timed(
    scene: &Scene<'_>,
    server: &Plinth,
    deliveries: Vec<Event>,
    at_once: usize,
) -> Vec<Duration> {
    let queue = Arc::new(Mutex::new(deliveries.into_iter()));
    let tasks = (0..at_once).map(|_| {
        let (queue, seen) = (queue.clone(), scene.seen.clone());
        let sender = Sender::new(scene, &server.url(""));
        tokio::spawn(async move {
            let mut times = vec![];
            loop {
                let next = queue.lock().ok().and_then(|mut queue| queue.next());
                let Some(event) = next else { return times };
                let answer = heard(&seen, sender.delivery(&event)).await;
                if sender::is_acknowledged(&answer) {
                    times.push(answer.took);
                }
            }
        })
    });
    let mut all = vec![];
    for task in tasks.collect::<Vec<_>>() {
        all.extend(task.await.unwrap_or_default());
    }
    all.sort_unstable();
    all
}

/// Of sorted times.
pub fn percentile(times: &[Duration], share: f64) -> Duration {
    let at = (times.len() as f64 * share) as usize;
    times
        .get(at.min(times.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}
