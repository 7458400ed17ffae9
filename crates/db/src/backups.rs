//! What was backed up. The row is written when the backup stands where it belongs, so no backup holds its own.
use crate::prelude::*;

row! {
    /// A backup that was finished.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Backup {
        pub name: String,
        pub size_bytes: i64,
        pub finished_at: Timestamp,
    }
}

sql! {
    /// Notes one. The same name twice is the same second at another place.
    pub fn record(tx: &mut Tx, name: &str, size_bytes: i64, now: Timestamp) {
        "insert into backups (name, size_bytes, finished_at) values ($name, $size_bytes, $now)
         on conflict (name) do update set size_bytes = $size_bytes, finished_at = $now"
    }

    /// The last one.
    pub fn newest(db: &Db) -> Option<Backup> {
        "select {columns} from backups order by finished_at desc limit 1"
    }

    /// Forgets those from before, whatever became of their files.
    pub fn delete_before(tx: &mut Tx, before: Timestamp) -> u64 {
        "delete from backups where finished_at < $before"
    }
}
