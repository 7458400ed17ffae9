//! A connection to PostgreSQL in use.
//!
//! One that falls silent in the middle of something (a firewall forgot it, its machine is gone) is thrown
//! away after a while. sqlx alone would ask it, on its way back to the pool, whether it lives, wait for that
//! answer without end, and with it keep a place in the pool.
use sqlx::{PgConnection, PgPool, Postgres, pool::PoolConnection, raw_sql};
use std::time::Duration;

/// For what does not wait for rows of others: a rollback, a bell.
pub(crate) const SHORTLY: Duration = Duration::from_secs(5);

pub(crate) struct Session {
    /// `None` when it is on its way back.
    conn: Option<PoolConnection<Postgres>>,
    patience: Duration,
    /// Something was said that is not answered yet.
    busy: bool,
    in_transaction: bool,
}

impl Session {
    /// A connection of the pool. What is said on it is answered within `patience`, or it is done with.
    pub async fn open(pool: &PgPool, patience: Duration) -> sqlx::Result<Self> {
        Ok(Self {
            conn: Some(pool.acquire().await?),
            patience,
            busy: false,
            in_transaction: false,
        })
    }

    pub async fn begin(pool: &PgPool, patience: Duration) -> sqlx::Result<Self> {
        let mut session = Self::open(pool, patience).await?;
        session.say("begin").await?;
        session.in_transaction = true;
        Ok(session)
    }

    pub async fn commit(mut self) -> sqlx::Result<()> {
        self.say("commit").await?;
        self.in_transaction = false;
        Ok(())
    }

    /// Says it, for what it does.
    pub async fn say(&mut self, sql: &'static str) -> sqlx::Result<()> {
        let talk = self.talk()?;
        let (patience, conn) = (talk.patience, talk.conn);
        let said = within(patience, raw_sql(sql).execute(conn)).await;
        self.heard(said).map(drop)
    }

    /// To say one thing; what came of it goes to [`Self::heard`]. Dropped in between, it is done with.
    pub fn talk(&mut self) -> sqlx::Result<Talk<'_>> {
        let conn = self.conn.as_mut().ok_or(sqlx::Error::WorkerCrashed)?;
        self.busy = true;
        Ok(Talk {
            patience: self.patience,
            conn,
        })
    }

    /// Whatever was answered was an answer; silence is none.
    pub fn heard<T>(&mut self, answer: Option<sqlx::Result<T>>) -> sqlx::Result<T> {
        self.busy = answer.is_none();
        answer.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }
}

pub(crate) struct Talk<'s> {
    pub patience: Duration,
    pub conn: &'s mut PgConnection,
}

/// `None` when it takes longer.
pub(crate) async fn within<T>(patience: Duration, answer: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(patience, answer).await.ok()
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(mut conn) = self.conn.take() else {
            return;
        };
        if self.busy {
            // The server rolls back when it sees that nobody is there.
            conn.close_on_drop();
            return;
        }
        if let (true, Ok(runtime)) = (self.in_transaction, tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                let undone = within(SHORTLY, raw_sql("rollback").execute(&mut *conn)).await;
                if !matches!(undone, Some(Ok(_))) {
                    conn.close_on_drop();
                }
            });
        } else if self.in_transaction {
            conn.close_on_drop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{engine::Engine, testing};

    #[tokio::test(flavor = "multi_thread")]
    async fn connections_that_fall_silent_give_their_places_back() {
        let Some(db) = testing::postgres().await.unwrap() else {
            return;
        };
        let Engine::Postgres { pool, .. } = &db.engine else {
            panic!("another engine")
        };

        for _ in 0..=pool.options().get_max_connections() {
            let mut session = Session::open(pool, Duration::from_millis(50))
                .await
                .unwrap();
            let silence = session.say("select pg_sleep(60)").await;
            assert!(
                matches!(silence, Err(sqlx::Error::PoolTimedOut)),
                "{silence:?}"
            );
            // Whoever is no longer waited for is not waited for either.
            let mut session = Session::open(pool, Duration::from_secs(60)).await.unwrap();
            let left = session.say("select pg_sleep(60)");
            assert!(within(Duration::from_millis(50), left).await.is_none());
        }

        db.ping().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_transaction_that_is_dropped_is_undone_on_a_connection_that_goes_on() {
        let Some(db) = testing::postgres().await.unwrap() else {
            return;
        };
        let Engine::Postgres { pool, .. } = &db.engine else {
            panic!("another engine")
        };

        for _ in 0..=pool.options().get_max_connections() {
            let mut session = Session::begin(pool, SHORTLY).await.unwrap();
            session
                .say("create table dropped (id bigint)")
                .await
                .unwrap();
        }

        let mut session = Session::begin(pool, SHORTLY).await.unwrap();
        session
            .say("create table dropped (id bigint)")
            .await
            .unwrap();
        session.commit().await.unwrap();
        let mut session = Session::open(pool, SHORTLY).await.unwrap();
        session.say("drop table dropped").await.unwrap();
    }
}
