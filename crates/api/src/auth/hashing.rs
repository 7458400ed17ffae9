//! The threads that hash passwords. Few, so that memory stays bounded; and behind all others where a
//! core is short, so that a flood of sign-ins leaves the rest of the server as quick as it was.
use crate::{Error, Result};
use anyhow::Context;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
};
use tokio::sync::{Semaphore, oneshot};

/// Hashes that may wait for a thread; more is an attack or an outage, and is told to come back.
pub const MAX_WAITING: usize = 256;
/// As setpriority(2) has it: whoever answers requests goes first.
const NICE: i32 = 10;

type Work = Box<dyn FnOnce() + Send>;

pub struct Threads {
    queue: mpsc::Sender<Work>,
    free: Arc<Semaphore>,
    waiting: Semaphore,
    load: Arc<Load>,
    pub count: usize,
}

/// Hashes that are being made.
#[derive(Default)]
struct Load {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Threads {
    /// One a core. They end with this.
    pub fn start() -> anyhow::Result<Self> {
        let count = thread::available_parallelism().map_or(2, usize::from);
        let (queue, work) = mpsc::channel();
        let work = Arc::new(Mutex::new(work));
        for _ in 0..count {
            let work = work.clone();
            let named = thread::Builder::new().name("hashing".into());
            named
                .spawn(move || hash(&work))
                .context("cannot start a thread")?;
        }
        Ok(Self {
            queue,
            free: Arc::new(Semaphore::new(count)),
            waiting: Semaphore::new(MAX_WAITING),
            load: Arc::default(),
            count,
        })
    }

    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> Result<T> {
        let _waiting = self.waiting.try_acquire().map_err(|_| Error::Busy)?;
        let place = self.free.clone().acquire_owned().await;
        let place = place.context("hashing has ended")?;
        let (tell, told) = oneshot::channel();
        let load = self.load.clone();
        let work = move || {
            let now = load.now.fetch_add(1, SeqCst) + 1;
            load.most.fetch_max(now, SeqCst);
            let done = work();
            load.now.fetch_sub(1, SeqCst);
            // Freed with the work, not with the caller: who goes away does not let another in early.
            drop(place);
            let _ = tell.send(done);
        };
        let queued = self.queue.send(Box::new(work));
        queued.map_err(|_| anyhow::anyhow!("hashing has ended"))?;
        Ok(told.await.context("hashing panicked")??)
    }
}

/// Takes work in turn, until nobody can bring any.
fn hash(queue: &Mutex<mpsc::Receiver<Work>>) {
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "hashing goes on at the priority of the rest");
    }
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(work) = next else {
            return;
        };
        // The caller hears of it: nobody tells them how it went.
        let _ = catch_unwind(AssertUnwindSafe(work));
    }
}

#[cfg(test)]
impl Threads {
    /// Lets nobody hash until this is dropped.
    pub async fn hold(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.free.acquire_many(self.count as u32).await.unwrap()
    }

    pub fn waiting(&self) -> usize {
        MAX_WAITING - self.waiting.available_permits()
    }

    /// At once, so far.
    pub fn most(&self) -> usize {
        self.load.most.load(SeqCst)
    }
}
