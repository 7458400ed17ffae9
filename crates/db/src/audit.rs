//! What was decided about accounts, by whom, and where from. Rows are added and never changed; the
//! database itself refuses everything else.
use crate::prelude::*;

row! {
    /// One decision.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Event {
        pub id: Uuid,
        pub subject_id: Option<Uuid>,
        pub actor_id: Option<Uuid>,
        pub actor_kind: String,
        pub action: String,
        pub outcome: String,
        pub request_id: Option<String>,
        pub detail: Json<Value>,
        pub created_at: Timestamp,
    }
}

row! {
    /// One decision, with where it came from.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Entry {
        pub id: Uuid,
        pub subject_id: Option<Uuid>,
        pub actor_id: Option<Uuid>,
        pub actor_kind: String,
        pub action: String,
        pub outcome: String,
        pub request_id: Option<String>,
        pub detail: Json<Value>,
        pub created_at: Timestamp,
        pub ip: Option<String>,
        pub user_agent: Option<String>,
    }
}

row! {
    /// A decision's place in the order, and its hash with everything before it.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Seal {
        pub seq: i64,
        pub event_id: Uuid,
        pub hash: Vec<u8>,
    }
}

sql! {
    fn insert(
        tx: &mut Tx, id: Uuid, subject: Option<Uuid>, actor: Option<Uuid>, actor_kind: &str, action: &str,
        outcome: &str, request_id: Option<&str>, detail: &Json<Value>, now: Timestamp,
    ) {
        "insert into audit_events (id, subject_id, actor_id, actor_kind, action, outcome, request_id, detail, created_at)
         values ($id, $subject, $actor, $actor_kind, $action, $outcome, $request_id, $detail, $now)"
    }

    fn insert_origin(tx: &mut Tx, event: Uuid, subject: Option<Uuid>, ip: Option<&str>, user_agent: Option<&str>) {
        "insert into audit_origins (event_id, subject_id, ip, user_agent)
         values ($event, (select id from users where id = $subject), $ip, $user_agent)"
    }

    /// What was decided about a user and where from, newest first, older than `before` when given.
    pub fn page_of_subject(db: &Db, subject: Uuid, before: Option<Uuid>, limit: i64) -> Vec<Entry> {
        "select e.id, e.subject_id, e.actor_id, e.actor_kind, e.action, e.outcome, e.request_id, e.detail, e.created_at,
                o.ip, o.user_agent
         from audit_events e left join audit_origins o on o.event_id = e.id
         where e.subject_id = $subject and ($before is null or e.id < $before)
         order by e.id desc limit $limit"
    }

    /// The same of everyone.
    pub fn page(db: &Db, before: Option<Uuid>, limit: i64) -> Vec<Entry> {
        "select e.id, e.subject_id, e.actor_id, e.actor_kind, e.action, e.outcome, e.request_id, e.detail, e.created_at,
                o.ip, o.user_agent
         from audit_events e left join audit_origins o on o.event_id = e.id
         where $before is null or e.id < $before
         order by e.id desc limit $limit"
    }

    /// The same, by number.
    pub fn numbered(db: &Db, limit: i64, offset: i64) -> Vec<Entry> {
        "select e.id, e.subject_id, e.actor_id, e.actor_kind, e.action, e.outcome, e.request_id, e.detail, e.created_at,
                o.ip, o.user_agent
         from audit_events e left join audit_origins o on o.event_id = e.id
         order by e.id desc limit $limit offset $offset"
    }

    /// Where the order ends so far.
    pub fn last_seal(tx: &mut Tx) -> Option<Seal> {
        "select {columns} from audit_seals order by seq desc limit 1"
    }

    /// Decisions that have no place in the order, oldest first, younger than `since`.
    pub fn unsealed(tx: &mut Tx, since: Uuid, limit: i64) -> Vec<Event> {
        "select {columns} from audit_events
         where id > $since and not exists (select 1 from audit_seals where event_id = audit_events.id)
         order by id limit $limit"
    }

    /// Gives a decision its place. `false` when the place is taken, or it has one.
    pub fn seal(tx: &mut Tx, seq: i64, event: Uuid, hash: &[u8]) -> bool {
        "insert into audit_seals (seq, event_id, hash) values ($seq, $event, $hash) on conflict do nothing"
    }

    /// One page of the order.
    pub fn seals(db: &Db, after: i64, limit: i64) -> Vec<Seal> {
        "select {columns} from audit_seals where seq > $after order by seq limit $limit"
    }

    /// What was decided in one page of the order. One that is missing is not in it.
    pub fn sealed(db: &Db, after: i64, limit: i64) -> Vec<Event> {
        "select id, subject_id, actor_id, actor_kind, action, outcome, request_id, detail, created_at
         from audit_events where id in (
             select event_id from audit_seals where seq > $after order by seq limit $limit)"
    }

    /// How many decisions have no place in the order yet.
    pub fn count_unsealed(db: &Db) -> One<(i64,)> {
        "select count(*) from audit_events
         where not exists (select 1 from audit_seals where event_id = audit_events.id)"
    }

    /// The oldest decision that has no place in the order, although it is older than `before`.
    pub fn stray(db: &Db, before: Uuid) -> Option<Event> {
        "select {columns} from audit_events
         where id < $before and not exists (select 1 from audit_seals where event_id = audit_events.id)
         order by id limit 1"
    }

    /// How many decisions there are.
    pub fn count(db: &Db) -> One<(i64,)> {
        "select count(*) from audit_events"
    }

    /// What was decided about a user, newest first, at most `limit`, older than `before` when given.
    pub fn of_subject(db: &Db, subject: Uuid, before: Option<Uuid>, limit: i64) -> Vec<Event> {
        "select {columns} from audit_events
         where subject_id = $subject and ($before is null or id < $before)
         order by id desc limit $limit"
    }
}

/// A decision to keep.
#[derive(Debug, Clone)]
pub struct NewEvent<'a> {
    /// Whose account; `None` when nobody's is known.
    pub subject: Option<Uuid>,
    /// Who did it; `None` for who is not known, and for the system itself.
    pub actor: Option<Uuid>,
    /// `user`, `admin` or `system`.
    pub actor_kind: &'a str,
    /// What was to be done, in GoTrue's words where it has one.
    pub action: &'a str,
    /// Whether it was.
    pub succeeded: bool,
    /// The request that brought it.
    pub request_id: Option<&'a str>,
    /// Further facts, never a secret or an address.
    pub detail: Value,
    /// Where from.
    pub ip: Option<&'a str>,
    /// With what.
    pub user_agent: Option<&'a str>,
}

/// Keeps a decision, in the transaction that carries it out.
pub async fn record(tx: &mut Tx, new: NewEvent<'_>, now: Timestamp) -> Result<()> {
    let id = Uuid::now_v7();
    let outcome = if new.succeeded {
        "succeeded"
    } else {
        "refused"
    };
    insert(
        tx,
        id,
        new.subject,
        new.actor,
        new.actor_kind,
        new.action,
        outcome,
        new.request_id,
        &Json(new.detail),
        now,
    )
    .await?;
    if new.ip.is_some() || new.user_agent.is_some() {
        // It is the actor's; it goes with them.
        let whose = new.actor.or(new.subject);
        insert_origin(tx, id, whose, new.ip, new.user_agent).await?;
    }
    Ok(())
}
