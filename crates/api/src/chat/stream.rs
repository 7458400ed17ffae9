//! The log of one answer. One producer appends to it; clients are readers, each at its own place,
//! who can come late, leave, and slow nobody down.
use super::{
    answer::Answer,
    llm::{Failure, Usage},
    relay::Relay,
};
use serde_json::{Map, Value};
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Bytes of one answer at most, whatever the provider sends.
const MAX_BYTES: usize = 1024 * 1024;
/// Bytes of events that are kept apart; a reader further behind gets them put together.
const RING_BYTES: usize = 256 * 1024;
/// What an event takes besides its words.
const EVENT_BYTES: usize = 320;
/// How long, and how many bytes of them, settled answers stay at hand for who comes back.
const LINGERS: Duration = Duration::from_secs(120);
const LINGERING_BYTES: usize = 16 * 1024 * 1024;

/// What happened to an answer. The last one of every log is `Finish` or `Error`.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// OpenAI's `delta`.
    Delta(Map<String, Value>),
    /// Everything up to here at once, in place of what a reader has: it came from further back than
    /// events are kept, or from another place's log.
    Snapshot(Answer),
    /// It is over, and on disk.
    Finish { reason: String, usage: Usage },
    /// It is over, without what was asked for; what came of it is on disk.
    Error(Failure),
}

impl Event {
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Finish { .. } | Self::Error(_))
    }

    /// Bytes of what the provider said.
    fn size(&self) -> usize {
        match self {
            Self::Delta(delta) => delta
                .values()
                .map(|said| {
                    said.as_str()
                        .map_or_else(|| said.to_string().len(), str::len)
                })
                .sum(),
            _ => 0,
        }
    }
}

/// One answer's events, numbered from 1.
pub struct Log {
    pub generation: Uuid,
    state: Mutex<State>,
    published: watch::Sender<()>,
    /// Held by each of those who listen for a client.
    listeners: Arc<()>,
    /// Asks the producer to stop.
    pub stop: CancellationToken,
    /// Tells the producer that another settled its answer.
    pub lost: CancellationToken,
    /// A reader elsewhere waits for what is put on disk.
    followed: AtomicBool,
}

#[derive(Default)]
struct State {
    /// All that was said.
    whole: Answer,
    /// The number of the last event that said something.
    said: u64,
    /// Events that are still apart, oldest first.
    ring: VecDeque<(u64, Arc<Event>)>,
    ring_bytes: usize,
    /// The number of the event before the ring's first.
    before: u64,
    bytes: usize,
    last: Option<(u64, Arc<Event>)>,
}

impl State {
    /// The event after this place: the next, or all that a reader missed as one.
    fn after(&self, place: u64) -> Option<(u64, Arc<Event>)> {
        let index = match self.ring.binary_search_by_key(&place, |(seq, _)| *seq) {
            Ok(index) => Some(index + 1),
            Err(_) if place == self.before => Some(0),
            Err(_) => None,
        };
        if let Some(index) = index
            && let Some((seq, event)) = self.ring.get(index)
        {
            return Some((*seq, event.clone()));
        }
        let last = self.last.as_ref().filter(|(seq, _)| place < *seq);
        let behind = index.is_none() && (place < self.said || last.is_some());
        if behind && place != self.said {
            return Some((self.said, Arc::new(Event::Snapshot(self.whole.clone()))));
        }
        last.cloned()
    }
}

impl Log {
    pub fn new(generation: Uuid) -> Arc<Self> {
        Self::from(generation, Answer::default(), 0)
    }

    /// One of which no more is known than what was said up to an event.
    pub fn from(generation: Uuid, whole: Answer, said: u64) -> Arc<Self> {
        Arc::new(Self {
            generation,
            state: Mutex::new(State {
                whole,
                said,
                before: said,
                ..State::default()
            }),
            published: watch::Sender::new(()),
            listeners: Arc::default(),
            stop: CancellationToken::new(),
            lost: CancellationToken::new(),
            followed: AtomicBool::new(false),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while it was held left a whole event or none.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event. `false` when the answer is longer than any answer may be.
    pub fn push(&self, event: Event) -> bool {
        self.push_at(self.seq() + 1, event)
    }

    /// Adds an event with a number that another log gave it.
    pub fn push_at(&self, seq: u64, event: Event) -> bool {
        let mut state = self.state();
        if state.last.is_some() {
            return false;
        }
        let size = event.size();
        if let Event::Delta(delta) = &event {
            state.whole.take(delta);
        }
        if event.is_last() {
            state.last = Some((seq, Arc::new(event)));
        } else {
            state.said = seq;
            state.ring.push_back((seq, Arc::new(event)));
            state.ring_bytes += size + EVENT_BYTES;
            while state.ring_bytes > RING_BYTES
                && let Some((seq, oldest)) = state.ring.pop_front()
            {
                state.ring_bytes -= oldest.size() + EVENT_BYTES;
                state.before = seq;
            }
        }
        state.bytes += size;
        let fits = state.bytes <= MAX_BYTES;
        drop(state);
        self.published.send_replace(());
        fits
    }

    /// The number of the last event.
    pub fn seq(&self) -> u64 {
        let state = self.state();
        state.last.as_ref().map_or(state.said, |(seq, _)| *seq)
    }

    pub fn is_over(&self) -> bool {
        self.state().last.is_some()
    }

    /// All that was said, and the number of the event that it reaches to.
    pub fn whole(&self) -> (Answer, u64) {
        let state = self.state();
        (state.whole.clone(), state.said)
    }

    /// Looks at what was said.
    pub fn look<T>(&self, at: impl FnOnce(&Answer, u64) -> T) -> T {
        let state = self.state();
        at(&state.whole, state.said)
    }

    /// Says whether a reader elsewhere waits for what is put on disk.
    pub fn set_followed(&self, followed: bool) {
        self.followed.store(followed, Ordering::Relaxed);
    }

    pub fn is_followed(&self) -> bool {
        self.followed.load(Ordering::Relaxed)
    }

    /// Knows more than it did: what is new becomes an event, where it only goes on.
    pub fn catch_up(&self, whole: Answer, said: u64) {
        let mut state = self.state();
        if said <= state.said || state.last.is_some() {
            return;
        }
        if state.said == 0 {
            (state.before, state.said, state.whole) = (said, said, whole);
            drop(state);
            self.published.send_replace(());
        } else if whole.text == state.whole.text {
            state.said = said;
        } else if let Some(more) = whole.text.strip_prefix(&state.whole.text) {
            let delta = Map::from_iter([("content".to_owned(), more.into())]);
            drop(state);
            self.push_at(said, Event::Delta(delta));
        }
    }

    /// How many clients listen.
    pub fn listeners(&self) -> usize {
        Arc::strong_count(&self.listeners) - 1
    }

    /// A client's reader, from after this event; 0 is the beginning.
    pub fn read(self: &Arc<Self>, after: u64) -> Reader {
        Reader {
            _listener: Some(self.listeners.clone()),
            ..self.read_along()
        }
        .from(after)
    }

    /// A reader from the beginning that is nobody's.
    pub fn read_along(self: &Arc<Self>) -> Reader {
        Reader {
            published: self.published.subscribe(),
            log: self.clone(),
            place: 0,
            _listener: None,
        }
    }
}

/// A place in a log.
pub struct Reader {
    log: Arc<Log>,
    published: watch::Receiver<()>,
    place: u64,
    _listener: Option<Arc<()>>,
}

impl Reader {
    fn from(self, place: u64) -> Self {
        Self { place, ..self }
    }

    /// The next event with its number; `None` after the last one.
    pub async fn next(&mut self) -> Option<(u64, Arc<Event>)> {
        loop {
            self.published.borrow_and_update();
            let (next, over) = {
                let state = self.log.state();
                (state.after(self.place), state.last.is_some())
            };
            if let Some(next) = next {
                self.place = next.0;
                return Some(next);
            }
            if over {
                return None;
            }
            self.published.changed().await.ok()?;
        }
    }

    /// The next event, if it is there.
    pub fn here(&mut self) -> Option<(u64, Arc<Event>)> {
        let next = self.log.state().after(self.place)?;
        self.place = next.0;
        Some(next)
    }

    /// Whether there is nothing more to come.
    pub fn is_at_end(&self) -> bool {
        let state = self.log.state();
        state.last.is_some() && state.after(self.place).is_none()
    }

    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }
}

/// The answers that this instance makes, made just now, or follows for readers.
#[derive(Clone)]
pub struct Streams {
    logs: Arc<Mutex<Logs>>,
    pub relay: Option<Relay>,
}

#[derive(Default)]
struct Logs {
    made: HashMap<Uuid, Arc<Log>>,
    followed: HashMap<Uuid, Arc<Log>>,
    lingering: VecDeque<(Instant, Uuid, usize)>,
    lingering_bytes: usize,
}

impl Streams {
    pub fn new(relay: Option<Relay>) -> Self {
        Self {
            logs: Arc::default(),
            relay,
        }
    }

    fn logs(&self) -> MutexGuard<'_, Logs> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the log of a generation.
    pub fn open(&self, generation: Uuid) -> Arc<Log> {
        let log = Log::new(generation);
        self.logs().made.insert(generation, log.clone());
        log
    }

    /// It is settled; it stays at hand for a while.
    pub fn close(&self, log: &Log) {
        let bytes = {
            let state = log.state();
            state.bytes + state.ring_bytes
        };
        let mut logs = self.logs();
        logs.lingering_bytes += bytes;
        logs.lingering
            .push_back((Instant::now(), log.generation, bytes));
        logs.let_go();
    }

    /// Lets go of what lingered long enough.
    pub fn tidy(&self) {
        self.logs().let_go();
    }

    /// The log of a generation that is made here, or was just now.
    pub fn made_here(&self, generation: Uuid) -> Option<Arc<Log>> {
        self.logs().made.get(&generation).cloned()
    }

    /// Those that are being made here.
    pub fn open_logs(&self) -> Vec<Arc<Log>> {
        let made = self.logs().made.values().cloned().collect::<Vec<_>>();
        made.into_iter().filter(|log| !log.is_over()).collect()
    }

    /// Reads a generation made elsewhere from after this event; whether nobody did yet, so that the log
    /// has to be fed.
    pub fn follow(&self, generation: Uuid, after: u64) -> (Reader, bool) {
        let mut logs = self.logs();
        if let Some(log) = logs.followed.get(&generation) {
            return (log.read(after), false);
        }
        let log = Log::new(generation);
        let reader = log.read(after);
        logs.followed.insert(generation, log);
        (reader, true)
    }

    /// Stops following where it ended, or nobody reads any more. `true` when it did.
    pub fn unfollow(&self, log: &Log) -> bool {
        let mut logs = self.logs();
        // Whoever comes reads it before it is found unread, or finds none and begins anew.
        let unread = log.is_over() || log.listeners() == 0;
        if unread {
            logs.followed.remove(&log.generation);
        }
        unread
    }

    pub fn count(&self) -> usize {
        self.open_logs().len()
    }

    /// Asks every producer to stop: the process ends.
    pub fn stop_all(&self) {
        for log in self.open_logs() {
            log.stop.cancel();
        }
    }
}

impl Logs {
    fn let_go(&mut self) {
        while let Some((since, generation, bytes)) = self.lingering.front().copied()
            && (since.elapsed() > LINGERS || self.lingering_bytes > LINGERING_BYTES)
        {
            self.lingering.pop_front();
            self.lingering_bytes -= bytes;
            self.made.remove(&generation);
        }
    }
}

/// How long a client that vanished may take to ask again before its answer is stopped: OpenAI's SDKs
/// do so within half a second.
const GRACE: Duration = Duration::from_millis(800);

/// Stops the producer when dropped, unless another reads by then: for an answer that nobody can come
/// back to.
pub struct StopOnDrop(pub Arc<Log>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        let log = self.0.clone();
        if log.is_over() {
            return;
        }
        tokio::spawn(async move {
            tokio::time::sleep(GRACE).await;
            if log.listeners() == 0 {
                log.stop.cancel();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn delta(text: &str) -> Event {
        let delta = json!({"content": text});
        Event::Delta(delta.as_object().unwrap().clone())
    }

    fn finish() -> Event {
        Event::Finish {
            reason: "stop".into(),
            usage: Usage::default(),
        }
    }

    /// What a client has after it heard these on top of what it had.
    fn heard(mut had: String, reader: &mut Reader) -> (String, usize) {
        let mut lasts = 0;
        while let Some((_, event)) = reader.here() {
            match &*event {
                Event::Delta(delta) => had += delta["content"].as_str().unwrap(),
                Event::Snapshot(answer) => had = answer.text.clone(),
                _ => lasts += 1,
            }
        }
        (had, lasts)
    }

    proptest! {
        /// Invariants 11, 19 and 36.
        #[test]
        fn whoever_resumes_anywhere_ends_with_the_whole_text_and_one_last_event(
            words in prop::collection::vec("[a-zä]{1,9}", 1..40), heavy in prop::bool::ANY, at in any::<prop::sample::Index>(), base in 0..3usize,
        ) {
            // Some words are so heavy that the ring forgets the first.
            let words: Vec<_> = words.iter().map(|word| if heavy { word.repeat(RING_BYTES / 40) } else { word.clone() }).collect();
            let base = base.min(words.len());
            let answer = Answer { text: words[..base].concat(), ..Answer::default() };
            let log = Log::from(Uuid::nil(), answer, base as u64);
            for word in &words[base..] {
                log.push(delta(word));
            }
            log.push(finish());
            let k = at.index(words.len() + 1);

            let mut reader = log.read(k as u64);
            prop_assert_eq!(heard(words[..k].concat(), &mut reader), (words.concat(), 1));
            prop_assert!(reader.is_at_end());
        }
    }

    #[test]
    fn who_has_heard_more_than_a_log_knows_waits_until_it_knows_better() {
        let log = Log::from(Uuid::nil(), Answer::default(), 0);
        let mut reader = log.read(5);
        log.push_at(3, delta("Half"));
        assert_eq!(reader.here(), None);
        log.push_at(7, delta(" an answer"));
        assert_eq!(heard("Half an".into(), &mut reader).0, "Half an answer");

        let mut ahead = log.read(9);
        assert_eq!(ahead.here(), None);
        log.push_at(1_000, Event::Error(Failure::Interrupted));
        assert_eq!(
            heard("Half an answer and".into(), &mut ahead),
            ("Half an answer".into(), 1)
        );
    }

    #[test]
    fn nothing_follows_the_last_event() {
        let log = Log::new(Uuid::nil());
        log.push(finish());
        assert!(!log.push(delta("more")));
        assert_eq!((log.seq(), log.read(1).here()), (1, None));
    }

    /// Invariant 35.
    #[test]
    fn a_reader_that_never_reads_costs_no_more_than_the_ring() {
        let log = Log::new(Uuid::nil());
        let _slow = log.read(0);
        for _ in 0..1_000 {
            log.push(delta(&"x".repeat(1_000)));
        }
        let state = log.state();
        assert!(state.ring_bytes <= RING_BYTES && state.ring.len() <= RING_BYTES / 1_320);
    }
}
