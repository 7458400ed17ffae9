//! The log of one answer. One producer appends to it; clients are readers, each at its own place,
//! who can come late, leave, and slow nobody down.
use super::llm::{Failure, Usage};
use serde_json::{Map, Value};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Bytes of one answer at most, whatever the provider sends.
const MAX_BYTES: usize = 1024 * 1024;

/// What happened to an answer. The last one of every log is `Finish` or `Error`.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// OpenAI's `delta`.
    Delta(Map<String, Value>),
    /// It is over, and on disk.
    Finish { reason: String, usage: Usage },
    /// It is over, without what was asked for; what came of it is on disk.
    Error(Failure),
}

impl Event {
    pub fn is_last(&self) -> bool {
        !matches!(self, Self::Delta(_))
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

/// One answer's events.
pub struct Log {
    pub generation: Uuid,
    events: Mutex<Vec<Arc<Event>>>,
    bytes: AtomicUsize,
    published: watch::Sender<usize>,
    /// Asks the producer to stop.
    pub stop: CancellationToken,
}

impl Log {
    fn new(generation: Uuid) -> Arc<Self> {
        Arc::new(Self {
            generation,
            events: Mutex::default(),
            bytes: AtomicUsize::new(0),
            published: watch::Sender::new(0),
            stop: CancellationToken::new(),
        })
    }

    fn events(&self) -> MutexGuard<'_, Vec<Arc<Event>>> {
        // A panic while it was held left a whole event or none.
        self.events
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Adds an event. `false` when the answer is longer than any answer may be.
    pub fn push(&self, event: Event) -> bool {
        let size = event.size();
        let mut events = self.events();
        events.push(Arc::new(event));
        self.published.send_replace(events.len());
        self.bytes.fetch_add(size, Ordering::Relaxed) + size <= MAX_BYTES
    }

    /// A reader from the beginning.
    pub fn read(self: &Arc<Self>) -> Reader {
        Reader {
            published: self.published.subscribe(),
            log: self.clone(),
            next: 0,
        }
    }
}

/// A place in a log.
pub struct Reader {
    log: Arc<Log>,
    published: watch::Receiver<usize>,
    next: usize,
}

impl Reader {
    /// The next event with its number, from 1; `None` after the last one.
    pub async fn next(&mut self) -> Option<(usize, Arc<Event>)> {
        loop {
            let (event, over) = {
                let events = self.log.events();
                (
                    events.get(self.next).cloned(),
                    events.last().is_some_and(|last| last.is_last()),
                )
            };
            if let Some(event) = event {
                self.next += 1;
                return Some((self.next, event));
            }
            if over {
                return None;
            }
            self.published.changed().await.ok()?;
        }
    }
}

/// Stops the producer when dropped: for an answer that nobody can come back to.
pub struct StopOnDrop(pub Arc<Log>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop.cancel();
    }
}

/// The answers being made by this instance.
#[derive(Clone, Default)]
pub struct Streams(Arc<Mutex<HashMap<Uuid, Arc<Log>>>>);

impl Streams {
    fn logs(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<Log>>> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Opens the log of a generation.
    pub fn open(&self, generation: Uuid) -> Arc<Log> {
        let log = Log::new(generation);
        self.logs().insert(generation, log.clone());
        log
    }

    /// Its readers keep it for as long as they read.
    pub fn close(&self, generation: Uuid) {
        self.logs().remove(&generation);
    }

    pub fn count(&self) -> usize {
        self.logs().len()
    }

    /// Asks every producer to stop: the process ends.
    pub fn stop_all(&self) {
        for log in self.logs().values() {
            log.stop.cancel();
        }
    }
}
