use super::*;
use crate::testing::{Engine, Test, both_engines};
use db::inbox::Arrival;
use futures_util::FutureExt;
use serde_json::{Value, json};
use std::sync::{
    LazyLock, Mutex,
    atomic::{AtomicUsize, Ordering},
};
use tokio::{sync::Notify, time::timeout};
use uuid::Uuid;

/// Jobs that do as they are told, for tests alone.
pub const KIND: &str = "test";

/// What a test sees of the jobs of its mark, and tells those that wait.
#[derive(Default)]
struct Seen {
    begun: AtomicUsize,
    begins: Notify,
    go_on: Notify,
}

fn seen(mark: &str) -> Arc<Seen> {
    static ALL: LazyLock<Mutex<HashMap<String, Arc<Seen>>>> = LazyLock::new(Mutex::default);
    ALL.lock().unwrap().entry(mark.into()).or_default().clone()
}

pub async fn perform(_: &App, payload: &Value) -> anyhow::Result<()> {
    let seen = seen(payload["mark"].as_str().unwrap());
    seen.begun.fetch_add(1, Ordering::SeqCst);
    seen.begins.notify_one();
    match payload["then"].as_str().unwrap() {
        "done" => Ok(()),
        "fail" => Err(anyhow!("as it was told")),
        "panic" => panic!("as it was told"),
        _ => {
            seen.go_on.notified().await;
            Ok(())
        }
    }
}

/// Longer than anything here takes, and no longer than one waits for a test.
const SOON: Duration = Duration::from_secs(20);

struct Works {
    test: Test,
    mark: String,
}

impl std::ops::Deref for Works {
    type Target = Test;
    fn deref(&self) -> &Test {
        &self.test
    }
}

impl Works {
    async fn new(engine: Engine) -> Self {
        Self::with(engine, &[]).await
    }

    async fn with(engine: Engine, variables: &[(&str, &str)]) -> Self {
        let test = Test::with(engine, variables).await;
        let mark = Uuid::new_v4().to_string();
        Self { test, mark }
    }

    /// A job of a subject that does as told.
    async fn order(&self, subject: &str, then: &str) {
        let now = self.app.now();
        let job = db::jobs::NewJob {
            kind: KIND,
            subject: Some(subject),
            payload: json!({"mark": self.mark, "then": then}),
            dedupe_key: None,
            due_at: now,
        };
        let mut tx = self.app.db.begin().await.unwrap();
        db::jobs::enqueue(&mut tx, job, now).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn claim(&self) -> Vec<Job> {
        let now = self.app.now();
        let until = now + LEASE;
        let claimed = db::jobs::claim(&self.app.db, &self.app.instance, now, until, 8);
        claimed.await.unwrap()
    }

    fn seen(&self) -> Arc<Seen> {
        seen(&self.mark)
    }

    fn begun(&self) -> usize {
        self.seen().begun.load(Ordering::SeqCst)
    }

    async fn unfinished(&self, kind: &str) -> usize {
        let jobs = db::jobs::unfinished(&self.app.db, kind).await;
        jobs.unwrap().len()
    }

    async fn dead(&self) -> i64 {
        db::jobs::count_dead(&self.app.db).await.unwrap().0
    }

    /// An event that is kept and can never be applied.
    async fn poison(&self, id: &str, subject: &str) {
        let arrival = Arrival {
            provider: "stripe",
            mode: "test",
            external_id: id,
            kind: "customer.subscription.updated",
            api_version: None,
            subject,
            occurred_at: self.app.now(),
            source: "hook",
            key_id: None,
            body: b"{}",
        };
        let now = self.app.now();
        assert!(db::inbox::ingest(&self.app.db, arrival, now).await.unwrap());
    }

    async fn event(&self, id: &str) -> db::inbox::Event {
        let event = db::inbox::by_external_id(&self.app.db, "stripe", "test", id).await;
        event.unwrap().unwrap()
    }
}

both_engines! {
    async fn a_job_that_keeps_failing_is_tried_at_growing_intervals_and_then_is_dead(engine: Engine) {
        let works = Works::new(engine).await;
        works.order("ann", "fail").await;

        for (attempt, pause) in BACK_OFF.into_iter().enumerate() {
            works.work().await;
            assert_eq!(works.begun(), attempt + 1);
            let due = db::jobs::next_due_at(&works.app.db, works.app.now()).await.unwrap().unwrap().since(works.app.now());
            assert!(pause.mul_f64(0.8) <= due && due <= pause.mul_f64(1.2), "{attempt}: {due:?}");
            works.later(due - Duration::from_micros(1));
            works.work().await;
            assert_eq!(works.begun(), attempt + 1, "not before it is due");
            works.later(Duration::from_micros(1));
        }
        assert_eq!(works.dead().await, 0);
        works.work().await;

        assert_eq!((works.begun(), works.dead().await, works.unfinished(KIND).await), (BACK_OFF.len() + 1, 1, 0));
        works.later(Duration::from_secs(30 * 86_400));
        works.work().await;
        assert_eq!(works.begun(), BACK_OFF.len() + 1, "the dead stay dead");
    }

    async fn what_fails_together_is_not_tried_again_together(engine: Engine) {
        let works = Works::new(engine).await;
        for i in 0..8 {
            works.order(&format!("subject {i}"), "fail").await;
        }
        works.work().await;

        works.later(BACK_OFF[0].mul_f64(0.8));
        let mut at_a_time = vec![];
        for _ in 0..400 {
            works.later(Duration::from_millis(10));
            at_a_time.push(works.claim().await.len());
        }

        assert_eq!(at_a_time.iter().sum::<usize>(), 8, "all within 20 % of the pause");
        assert!(at_a_time.iter().all(|n| *n < 8), "spread out");
    }

    async fn inv_14_an_event_that_cannot_be_applied_is_dead_and_holds_up_nobody(engine: Engine) {
        let works = Works::new(engine).await;
        let ann = works.sign_up("ann@example.com").await;
        works.poison("evt_poison", "stripe:cus_ann").await;
        let bought = sim::stripe::event(&sim::stripe::Stripe { user_id: Some(ann.id.clone()), customer: Some("cus_ann".into()), ..Default::default() }, works.app.now().unix());
        works.stripe(&bought).await;

        works.work().await;
        assert_eq!(works.event("evt_poison").await.status, "received", "it is tried again");
        assert_eq!(works.event(bought["id"].as_str().unwrap()).await.status, "processed", "the others of its subject go on");
        for _ in 0..BACK_OFF.len() {
            works.later(Duration::from_secs(2 * 86_400));
            works.work().await;
        }

        let dead = works.event("evt_poison").await;
        assert_eq!((dead.status.as_str(), works.dead().await), ("dead", 1));
        assert!(dead.reason.unwrap().starts_with("the body is not an event that can be read"));
    }

    async fn dead_events_get_all_their_attempts_back_at_once(engine: Engine) {
        let works = Works::new(engine).await;
        for id in ["evt_1", "evt_2"] {
            works.poison(id, id).await;
        }
        works.order("another kind", "fail").await;
        for _ in 0..=BACK_OFF.len() {
            works.work().await;
            works.later(Duration::from_secs(2 * 86_400));
        }
        assert_eq!(works.dead().await, 3);

        assert_eq!(db::inbox::retry_dead(&works.app.db, works.app.now()).await.unwrap(), 2);

        assert_eq!((works.event("evt_1").await.status.as_str(), works.event("evt_2").await.reason, works.dead().await), ("received", None, 1));
        assert_eq!(works.claim().await.iter().map(|job| job.attempts).collect::<Vec<_>>(), [1, 1]);
        assert_eq!(db::inbox::retry_dead(&works.app.db, works.app.now()).await.unwrap(), 0);
    }

    async fn an_event_is_replayed_with_a_job_of_its_own(engine: Engine) {
        let works = Works::new(engine).await;
        let ann = works.sign_up("ann@example.com").await;
        let bought = sim::stripe::event(&sim::stripe::Stripe { user_id: Some(ann.id.clone()), ..Default::default() }, works.app.now().unix());
        works.stripe(&bought).await;
        works.work().await;
        let grants = db::billing::grants(&works.app.db, ann.id.parse().unwrap()).await.unwrap();
        let event = works.event(bought["id"].as_str().unwrap()).await;

        let mut tx = works.app.db.begin().await.unwrap();
        assert!(db::inbox::replay(&mut tx, event.id, works.app.now()).await.unwrap());
        assert!(!db::inbox::replay(&mut tx, Uuid::nil(), works.app.now()).await.unwrap());
        tx.commit().await.unwrap();

        assert_eq!((works.event(&event.external_id).await.status.as_str(), works.unfinished(db::inbox::APPLY).await), ("received", 1));
        works.work().await;
        assert_eq!(works.event(&event.external_id).await, event);
        assert_eq!(db::billing::grants(&works.app.db, ann.id.parse().unwrap()).await.unwrap(), grants);
    }

    async fn what_an_instance_leaves_behind_another_does_when_the_lease_ends(engine: Engine) {
        let works = Works::new(engine).await;
        let other = works.beside(&[]).await;
        works.order("ann", "done").await;
        let left = works.claim().await;
        assert_eq!(left.len(), 1);

        other.work().await;
        assert_eq!(works.begun(), 0, "the lease holds");
        other.later(LEASE);
        other.work().await;
        assert_eq!(works.begun(), 1);

        let mut tx = works.app.db.begin().await.unwrap();
        let late = db::jobs::finish(&mut tx, left[0].id, &works.app.instance, works.app.now()).await.unwrap();
        assert!(!late, "who lost the lease has no say");
        assert_eq!(works.unfinished(KIND).await, 0);
    }

    async fn a_panic_is_a_failure_and_the_worker_lives(engine: Engine) {
        let works = Works::new(engine).await;
        works.order("ann", "panic").await;
        works.order("bob", "done").await;

        works.work().await;
        assert_eq!((works.begun(), works.unfinished(KIND).await), (2, 1));

        works.later(Duration::from_secs(12));
        works.work().await;
        assert_eq!((works.begun(), works.dead().await), (3, 0));
    }

    async fn recurring_work_is_planned_once_however_many_instances_there_are(engine: Engine) {
        let works = Works::new(engine).await;
        let others = [works.beside(&[]).await, works.beside(&[]).await];
        let every = RECURRING.iter().find(|(kind, _)| *kind == PURGE).unwrap().1;
        let (mut mine, mut theirs) = (Ticks::default(), [Ticks::default(), Ticks::default()]);

        tick(&works.app, &mut mine).await.unwrap();
        let [one, two] = &mut theirs;
        let (first, second) = tokio::join!(tick(&others[0].app, one), tick(&others[1].app, two));
        first.and(second).unwrap();
        tick(&works.app, &mut mine).await.unwrap();
        assert_eq!((works.unfinished(PURGE).await, works.unfinished(chat::sweep::KIND).await), (1, 1));

        works.work().await;
        tick(&others[0].app, &mut Ticks::default()).await.unwrap();
        assert_eq!(works.unfinished(PURGE).await, 0, "not again in its time, though it is done");
        for instance in [&works.app, &others[0].app] {
            instance.clock.turn(every);
            tick(instance, &mut mine).await.unwrap();
        }
        assert_eq!(works.unfinished(PURGE).await, 1);
    }

    async fn a_worker_begins_as_soon_as_a_job_is_committed(engine: Engine) {
        let works = Works::new(engine).await;
        let worker = tokio::spawn(work(works.app.clone()));
        works.order("first", "done").await;
        timeout(SOON, works.seen().begins.notified()).await.unwrap();

        // Now it waits: what comes next has to wake it, sooner than it would look by itself.
        for _ in 0..3 {
            works.order("next", "done").await;
            timeout(POLL / 2, works.seen().begins.notified()).await.expect("it was not woken");
        }

        works.app.draining.cancel();
        timeout(SOON, worker).await.unwrap().unwrap();
        assert_eq!(works.begun(), 4);
    }

    async fn a_commit_wakes_who_waits_and_what_is_taken_back_does_not(engine: Engine) {
        let works = Works::new(engine).await;
        let order_for_later = async |commit: bool| {
            let (now, payload) = (works.app.now(), json!({"mark": works.mark, "then": "done"}));
            let job = db::jobs::NewJob { kind: KIND, subject: None, payload, dedupe_key: None, due_at: now + Duration::from_secs(3600) };
            let mut tx = works.app.db.begin().await.unwrap();
            db::jobs::enqueue(&mut tx, job, now).await.unwrap();
            if commit { tx.commit().await.unwrap() }
        };

        order_for_later(false).await;
        assert!(db::jobs::rung(&works.app.db).now_or_never().is_none());
        order_for_later(true).await;
        timeout(POLL / 2, wait(&works.app)).await.expect("it was not woken");

        assert_eq!((works.begun(), works.unfinished(KIND).await), (0, 1));
    }

    async fn a_committed_job_is_heard_where_several_instances_can_be(engine: Engine) {
        let works = Works::new(engine).await;
        let listener = db::jobs::Listener::open(&works.app.db, works.app.config.core.direct_url()).await.unwrap();
        assert_eq!(listener.is_some(), engine == Engine::Postgres);

        if let Some(mut listener) = listener {
            works.order("ann", "done").await;
            timeout(SOON, listener.heard()).await.unwrap().unwrap();
        }
    }

    async fn a_worker_that_drains_finishes_what_it_began_and_begins_nothing(engine: Engine) {
        let works = Works::new(engine).await;
        let worker = tokio::spawn(work(works.app.clone()));
        works.order("ann", "wait").await;
        timeout(SOON, works.seen().begins.notified()).await.unwrap();

        works.app.draining.cancel();
        works.order("bob", "done").await;
        works.seen().go_on.notify_one();
        timeout(SOON, worker).await.unwrap().unwrap();

        assert_eq!((works.begun(), works.unfinished(KIND).await), (1, 1));
    }

    async fn a_worker_gives_back_what_it_cannot_finish_in_time(engine: Engine) {
        let works = Works::with(engine, &[("SHUTDOWN_TIMEOUT", "0")]).await;
        let worker = tokio::spawn(work(works.app.clone()));
        works.order("ann", "wait").await;
        timeout(SOON, works.seen().begins.notified()).await.unwrap();

        works.app.draining.cancel();
        timeout(SOON, worker).await.unwrap().unwrap();

        let other = works.beside(&[]).await;
        let now = other.app.now();
        let taken = db::jobs::claim(&other.app.db, &other.app.instance, now, now + LEASE, 8).await.unwrap();
        let taken: Vec<_> = taken.iter().filter(|job| job.kind == KIND).map(|job| job.attempts).collect();
        assert_eq!(taken, [1], "at once, and the cut does not count as an attempt");
    }
}
