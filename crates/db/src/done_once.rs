//! What is done once in the life of an installation.
use crate::prelude::*;

sql! {
    /// Whether it was done.
    pub fn is_done(db: &Db, what: &str) -> Option<(Timestamp,)> {
        "select done_at from done_once where what = $what"
    }

    /// Takes it on: of those who try at once, one hears `true`, and the others wait for how that comes out.
    pub fn begin(tx: &mut Tx, what: &str, now: Timestamp) -> bool {
        "insert into done_once (what, done_at) values ($what, $now) on conflict (what) do nothing"
    }
}
