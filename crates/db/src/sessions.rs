//! Where a user is signed in. A refresh token is derived from its session's counter and secret, so
//! that none is stored, and the same child can be given twice.
use crate::prelude::*;

row! {
    /// One sign-in, on one device.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Session {
        pub id: Uuid,
        pub user_id: Uuid,
        pub refresh_secret: Vec<u8>,
        pub refresh_counter: i64,
        pub acked_counter: i64,
        pub rotated_at: Timestamp,
        pub aal: String,
        pub amr: Json<Value>,
        pub ip: Option<String>,
        pub user_agent: Option<String>,
        pub last_seen_at: Timestamp,
        pub idle_expires_at: Timestamp,
        pub absolute_expires_at: Timestamp,
        pub revoked_at: Option<Timestamp>,
        pub revoke_reason: Option<String>,
        pub created_at: Timestamp,
        pub authenticated_at: Timestamp,
    }
}

row! {
    /// What a request needs to know of the session its access token names.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Standing {
        pub user_id: Uuid,
        pub acked_counter: i64,
        pub authenticated_at: Timestamp,
        pub absolute_expires_at: Timestamp,
        pub revoked_at: Option<Timestamp>,
        pub banned_until: Option<Timestamp>,
        pub aal: String,
        /// Whether the user has a factor that counts.
        pub second_factor: bool,
        /// Whether the user has to choose a password of their own.
        pub password_expired: bool,
        /// The session of the admin who looks through this one, if one does.
        pub actor_session_id: Option<Uuid>,
    }
}

row! {
    /// What a request needs to know of the session that another issuer's token is of.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct ForeignStanding {
        pub user_id: Uuid,
        pub last_seen_at: Timestamp,
        pub revoked_at: Option<Timestamp>,
        pub banned_until: Option<Timestamp>,
        /// Whether the user has a factor that counts.
        pub second_factor: bool,
    }
}

sql! {
    /// The same of another issuer's tokens, as long as the identity is its user's.
    pub fn foreign_standing(db: &Db, id: Uuid, issuer: &str, subject: &str) -> Option<ForeignStanding> {
        "select s.user_id, s.last_seen_at, s.revoked_at, u.banned_until,
                exists (select 1 from mfa_factors f where f.user_id = s.user_id and f.status = 'verified') as second_factor
         from sessions s join users u on u.id = s.user_id
              join identities i on i.user_id = s.user_id and i.issuer = $issuer and i.subject = $subject
         where s.id = $id"
    }

    fn insert_foreign(
        tx: &mut Tx, id: Uuid, user: Uuid, issuer: &str, refresh_secret: &[u8], amr: &Json<Value>, ip: Option<&str>,
        user_agent: Option<&str>, authenticated_at: Timestamp, idle_expires_at: Timestamp, absolute_expires_at: Timestamp,
        now: Timestamp,
    ) -> bool {
        "insert into sessions (id, user_id, issuer, refresh_secret, refresh_counter, acked_counter, rotated_at, aal, amr, ip,
                               user_agent, last_seen_at, idle_expires_at, absolute_expires_at, created_at, authenticated_at)
         values ($id, $user, $issuer, $refresh_secret, 1, 0, $now, 'aal1', $amr, $ip,
                 $user_agent, $now, $idle_expires_at, $absolute_expires_at, $now, $authenticated_at)
         on conflict (id) do update
         set revoked_at = null, revoke_reason = null, last_seen_at = $now, idle_expires_at = $idle_expires_at,
             absolute_expires_at = $absolute_expires_at, authenticated_at = $authenticated_at
         where sessions.user_id = $user and sessions.revoked_at < $authenticated_at"
    }

    /// Remembers until then, among what is not taken again, which sign-ins at other issuers were a user's.
    pub fn remember_foreign(tx: &mut Tx, user: Uuid, until: Timestamp) {
        "insert into seen_tokens (hash, expires_at)
         select {postgres: uuid_send(id)}{sqlite: id}, $until from sessions where user_id = $user and issuer is not null
         on conflict (hash) do nothing"
    }

    /// It is in use.
    pub fn seen(tx: &mut Tx, id: Uuid, idle_expires_at: Timestamp, absolute_expires_at: Timestamp, now: Timestamp) {
        "update sessions set last_seen_at = $now, idle_expires_at = $idle_expires_at, absolute_expires_at = $absolute_expires_at
         where id = $id"
    }

    /// Whether a session still stands, with its user's standing. Read on every authenticated request,
    /// so that a revocation counts at once on every instance.
    pub fn standing(db: &Db, id: Uuid) -> Option<Standing> {
        "select s.user_id, s.acked_counter, s.authenticated_at, s.absolute_expires_at, s.revoked_at, u.banned_until,
                s.aal, exists (select 1 from mfa_factors f where f.user_id = s.user_id and f.status = 'verified') as second_factor,
                u.password_expired_at is not null as password_expired, s.actor_session_id
         from sessions s join users u on u.id = s.user_id where s.id = $id"
    }

    /// The session, held against others until the transaction ends.
    pub fn locked(tx: &mut Tx, id: Uuid) -> Option<Session> {
        "select {columns} from sessions where id = $id {postgres: for update}"
    }

    fn insert(
        tx: &mut Tx, id: Uuid, user: Uuid, refresh_secret: &[u8], amr: &Json<Value>, ip: Option<&str>,
        user_agent: Option<&str>, idle_expires_at: Timestamp, absolute_expires_at: Timestamp, now: Timestamp,
    ) -> Session {
        "insert into sessions (id, user_id, refresh_secret, refresh_counter, acked_counter, rotated_at, aal, amr, ip,
                               user_agent, last_seen_at, idle_expires_at, absolute_expires_at, created_at, authenticated_at)
         values ($id, $user, $refresh_secret, 1, 0, $now, 'aal1', $amr, $ip,
                 $user_agent, $now, $idle_expires_at, $absolute_expires_at, $now, $now)
         returning {columns}"
    }

    /// A session in which an admin looks at what is a user's. No proof of the user's is in it.
    pub fn impersonate(
        tx: &mut Tx, id: Uuid, user: Uuid, actor_session: Uuid, refresh_secret: &[u8], amr: &Json<Value>,
        expires_at: Timestamp, never: Timestamp, now: Timestamp,
    ) -> Session {
        "insert into sessions (id, user_id, actor_session_id, refresh_secret, refresh_counter, acked_counter, rotated_at,
                               aal, amr, last_seen_at, idle_expires_at, absolute_expires_at, created_at, authenticated_at)
         values ($id, $user, $actor_session, $refresh_secret, 1, 1, $now,
                 'aal1', $amr, $now, $expires_at, $expires_at, $now, $never)
         returning {columns}"
    }

    /// Moves on from counter `from`. `false` when another request already did.
    pub fn rotate(tx: &mut Tx, id: Uuid, from: i64, idle_expires_at: Timestamp, now: Timestamp) -> bool {
        "update sessions set refresh_counter = $from + 1, acked_counter = $from, rotated_at = $now,
                             last_seen_at = $now, idle_expires_at = $idle_expires_at
         where id = $id and refresh_counter = $from and revoked_at is null"
    }

    /// The client proved that it holds the tokens of this counter.
    pub fn acknowledge(tx: &mut Tx, id: Uuid, counter: i64, now: Timestamp) {
        "update sessions set acked_counter = $counter, last_seen_at = $now where id = $id and acked_counter < $counter"
    }

    /// The user of this session proved anew who they are.
    pub fn authenticated(tx: &mut Tx, id: Uuid, now: Timestamp) {
        "update sessions set authenticated_at = $now where id = $id"
    }

    /// A session after a second factor was proved in another one: as long as that one would have lasted,
    /// but with an id and tokens that nobody can have known before.
    pub fn stepped_up(
        tx: &mut Tx, from: Uuid, id: Uuid, refresh_secret: &[u8], amr: &Json<Value>, ip: Option<&str>,
        user_agent: Option<&str>, idle_expires_at: Timestamp, now: Timestamp,
    ) -> Session {
        "insert into sessions (id, user_id, refresh_secret, refresh_counter, acked_counter, rotated_at, aal, amr, ip,
                               user_agent, last_seen_at, idle_expires_at, absolute_expires_at, created_at, authenticated_at)
         select $id, user_id, $refresh_secret, 1, 0, $now, 'aal2', $amr, $ip,
                $user_agent, $now, $idle_expires_at, absolute_expires_at, $now, $now
         from sessions where id = $from
         returning {columns}"
    }

    /// Its second factor does not count any more; `amr` is what is left.
    pub fn step_down(tx: &mut Tx, id: Uuid, amr: &Json<Value>) {
        "update sessions set aal = 'aal1', amr = $amr where id = $id"
    }

    /// Ends a user's sessions that did not see a second factor.
    pub fn revoke_at_aal1(tx: &mut Tx, user: Uuid, reason: &str, now: Timestamp) -> u64 {
        "update sessions set revoked_at = $now, revoke_reason = $reason
         where user_id = $user and revoked_at is null and aal = 'aal1'"
    }

    /// Ends a user's sessions that saw a recovery code, all but `keep`.
    pub fn revoke_by_recovery_code(tx: &mut Tx, user: Uuid, keep: Uuid, reason: &str, now: Timestamp) -> u64 {
        "update sessions set revoked_at = $now, revoke_reason = $reason
         where user_id = $user and revoked_at is null and id <> $keep
           and cast(amr as text) like '%mfa/recovery_code%'"
    }

    /// Ends one session. `false` when it had ended.
    pub fn revoke(tx: &mut Tx, id: Uuid, reason: &str, now: Timestamp) -> bool {
        "update sessions set revoked_at = $now, revoke_reason = $reason where id = $id and revoked_at is null"
    }

    /// Ends a user's sessions, all but `keep`.
    pub fn revoke_of_user(tx: &mut Tx, user: Uuid, keep: Option<Uuid>, reason: &str, now: Timestamp) -> u64 {
        "update sessions set revoked_at = $now, revoke_reason = $reason
         where user_id = $user and revoked_at is null and ($keep is null or id <> $keep)"
    }

    /// Ends a user's sessions that a provider's word opened.
    pub fn revoke_of_providers(tx: &mut Tx, user: Uuid, reason: &str, now: Timestamp) -> u64 {
        "update sessions set revoked_at = $now, revoke_reason = $reason
         where user_id = $user and revoked_at is null and {postgres: amr::text}{sqlite: amr} like '%\"oauth\"%'"
    }

    /// Forgets a user's sessions, where from and with what too.
    pub fn delete_of_user(tx: &mut Tx, user: Uuid) -> u64 {
        "delete from sessions where user_id = $user"
    }

    /// Ends one of this user's sessions. `false` when it is another's, or had ended.
    pub fn revoke_own(tx: &mut Tx, user: Uuid, id: Uuid, reason: &str, now: Timestamp) -> bool {
        "update sessions set revoked_at = $now, revoke_reason = $reason
         where id = $id and user_id = $user and revoked_at is null
               and idle_expires_at > $now and absolute_expires_at > $now"
    }

    /// A user's sessions that stand, newest first, at most `limit`, older than `before` when given.
    pub fn of_user(db: &Db, user: Uuid, before: Option<Uuid>, limit: i64, now: Timestamp) -> Vec<Session> {
        "select {columns} from sessions
         where user_id = $user and revoked_at is null and idle_expires_at > $now and absolute_expires_at > $now
               and ($before is null or id < $before)
         order by id desc limit $limit"
    }

    /// Every session of a user, ended ones too, oldest first; start with `Uuid::nil()`, go on with the last id.
    pub fn all_of_user(db: &Db, user: Uuid, after: Uuid, limit: i64) -> Vec<Session> {
        "select {columns} from sessions where user_id = $user and id > $after order by id limit $limit"
    }

    /// Forgets sessions that expired before `before`; not that one was ended whose issuer may go on.
    pub fn delete_expired(tx: &mut Tx, before: Timestamp) -> u64 {
        "delete from sessions where idle_expires_at < $before and (issuer is null or revoked_at is null)"
    }
}

/// What a sign-in brings.
#[derive(Debug, Clone)]
pub struct NewSession<'a> {
    /// Who signed in.
    pub user: Uuid,
    /// Random; refresh tokens are derived with it.
    pub refresh_secret: &'a [u8],
    /// `password`, `otp`, …: RFC 8176 words as GoTrue writes them.
    pub method: &'a str,
    /// Where from.
    pub ip: Option<&'a str>,
    /// With what.
    pub user_agent: Option<&'a str>,
    /// Ends when not refreshed until then.
    pub idle_expires_at: Timestamp,
    /// Ends then at the latest.
    pub absolute_expires_at: Timestamp,
}

/// Makes a session, counter 1.
pub async fn create(tx: &mut Tx, new: NewSession<'_>, now: Timestamp) -> Result<Session> {
    let amr = Json(serde_json::json!([{"method": new.method, "timestamp": now.unix()}]));
    insert(
        tx,
        Uuid::now_v7(),
        new.user,
        new.refresh_secret,
        &amr,
        new.ip,
        new.user_agent,
        new.idle_expires_at,
        new.absolute_expires_at,
        now,
    )
    .await
}

/// What a sign-in at another issuer brings.
#[derive(Debug, Clone)]
pub struct NewForeign<'a> {
    /// The same for the same sign-in.
    pub id: Uuid,
    /// Who signed in.
    pub user: Uuid,
    /// Where.
    pub issuer: &'a str,
    /// Random: nobody is given a refresh token.
    pub refresh_secret: &'a [u8],
    /// Where from.
    pub ip: Option<&'a str>,
    /// With what.
    pub user_agent: Option<&'a str>,
    /// When they proved there who they are.
    pub authenticated_at: Timestamp,
    /// Ends when not used until then.
    pub idle_expires_at: Timestamp,
    /// What grows out of it ends then at the latest.
    pub absolute_expires_at: Timestamp,
}

/// Makes a session of a sign-in at another issuer, or lets one that was ended stand again, where they
/// proved who they are since. `false` when it stands, or is another user's.
pub async fn begin_foreign(tx: &mut Tx, new: NewForeign<'_>, now: Timestamp) -> Result<bool> {
    let proof = serde_json::json!({"method": "oauth", "timestamp": new.authenticated_at.unix()});
    insert_foreign(
        tx,
        new.id,
        new.user,
        new.issuer,
        new.refresh_secret,
        &Json(serde_json::json!([proof])),
        new.ip,
        new.user_agent,
        new.authenticated_at,
        new.idle_expires_at,
        new.absolute_expires_at,
        now,
    )
    .await
}
