//! What time it is for the providers of payments: the base clock's, and as much as it was turned on.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

type Base = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Clones tell the same time, in Unix seconds.
#[derive(Clone)]
pub struct Clock(Arc<Inner>);

struct Inner {
    base: Mutex<Base>,
    turned_s: AtomicI64,
}

impl Clock {
    pub fn system() -> Self {
        Self(Arc::new(Inner {
            base: Mutex::new(Arc::new(crate::now)),
            turned_s: AtomicI64::new(0),
        }))
    }

    /// Follows this clock from now on.
    pub fn follow(&self, base: impl Fn() -> i64 + Send + Sync + 'static) {
        *self.0.base.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(base);
    }

    /// What everyone else's clock says: a signature is made by it.
    pub fn base(&self) -> i64 {
        let base = self
            .0
            .base
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        base()
    }

    pub fn now(&self) -> i64 {
        self.base().saturating_add(self.turned_s())
    }

    pub fn turned_s(&self) -> i64 {
        self.0.turned_s.load(Ordering::SeqCst)
    }

    /// Only ever forward: what has happened has.
    pub fn turn(&self, by_s: i64) {
        self.0.turned_s.fetch_add(by_s.max(0), Ordering::SeqCst);
    }
}
