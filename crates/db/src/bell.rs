//! Rings when a job was committed: for the workers of this process, and for those of other instances.
use crate::postgres::{SHORTLY, Session};
use sqlx::PgPool;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;

/// Commits that follow each other within this are heard of elsewhere as one.
const GATHER: Duration = Duration::from_millis(5);

/// Other instances hear of a commit by `NOTIFY`, after it: within the transaction it would take a lock
/// of the whole database that is held until the commit is on disk, so that no two could share one
/// write of the log. What a crash in between leaves unsaid is found by polling.
#[derive(Debug)]
pub(crate) struct Bell {
    here: Notify,
    elsewhere: Option<PgPool>,
    /// A notification is about to be sent.
    pending: AtomicBool,
}

impl Bell {
    pub fn new(elsewhere: Option<PgPool>) -> Arc<Self> {
        Arc::new(Self {
            here: Notify::new(),
            elsewhere,
            pending: AtomicBool::new(false),
        })
    }

    /// A job was committed here.
    pub fn ring(self: &Arc<Self>) {
        self.ring_here();
        if self.elsewhere.is_some() && !self.pending.swap(true, Ordering::AcqRel) {
            tokio::spawn(self.clone().ring_elsewhere());
        }
    }

    /// This process alone should look.
    pub fn ring_here(&self) {
        self.here.notify_one();
    }

    /// Returns when it rang since the last call.
    pub async fn rung(&self) {
        self.here.notified().await;
    }

    async fn ring_elsewhere(self: Arc<Self>) {
        tokio::time::sleep(GATHER).await;
        // Whoever commits from here on rings anew.
        self.pending.store(false, Ordering::Release);
        let Some(pool) = &self.elsewhere else {
            return;
        };
        let told = async {
            let mut session = Session::open(pool, SHORTLY).await?;
            session.say("select pg_notify('plinth_jobs', '')").await
        };
        if let Err(error) = told.await {
            tracing::debug!(%error, "other instances could not be told of a job; they find it by polling");
        }
    }
}
