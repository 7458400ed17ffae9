//! People, and the identities by which they are known.
use crate::prelude::*;

row! {
    /// One person. `email` is lower case; it is proved to be theirs when `email_confirmed_at` is set.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct User {
        pub id: Uuid,
        pub email: Option<String>,
        pub email_confirmed_at: Option<Timestamp>,
        pub password_hash: Option<String>,
        pub role: String,
        pub app_metadata: Json<Value>,
        pub user_metadata: Json<Value>,
        pub is_anonymous: bool,
        pub banned_until: Option<Timestamp>,
        pub last_sign_in_at: Option<Timestamp>,
        pub created_at: Timestamp,
        pub updated_at: Timestamp,
        pub deleted_at: Option<Timestamp>,
        /// Where the password was handed over by others: when it stops to sign in, or did. Until they
        /// choose one of their own, they may do nothing else.
        pub password_expired_at: Option<Timestamp>,
    }
}

/// A user as they see themself. One statement: it is the one that apps ask for most.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
pub struct Own {
    /// The row.
    #[sqlx(flatten)]
    pub user: User,
    /// The address that is to take the place of theirs, once it is confirmed.
    pub new_email: Option<String>,
    /// Whether they have second factors, proved or not.
    pub has_factors: bool,
}

impl crate::statement::Columns for Own {
    const COLUMNS: &'static [&'static str] = <User as crate::statement::Columns>::COLUMNS;
}

row! {
    /// How a provider knows a user: `(issuer, subject)` is unique, and the only key.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Identity {
        pub id: Uuid,
        pub user_id: Uuid,
        pub provider: String,
        pub issuer: String,
        pub subject: String,
        pub profile: Json<Value>,
        pub last_sign_in_at: Option<Timestamp>,
        pub created_at: Timestamp,
        pub updated_at: Timestamp,
    }
}

sql! {
    /// The user of this id.
    pub fn by_id(db: &Db, id: Uuid) -> Option<User> {
        "select {columns} from users where id = $id"
    }

    /// The user of this id with what they asked for: the address that the newest code of purpose `kind`
    /// was mailed to, while its link is good. One that was used waits for the address of now.
    pub fn own(db: &Db, id: Uuid, kind: &str, now: Timestamp) -> Option<Own> {
        "select {columns},
                (select t.email from one_time_tokens t
                 where t.user_id = users.id and t.kind = $kind and t.link_expires_at > $now
                   and t.email is distinct from users.email
                 order by t.id desc limit 1) as new_email,
                exists (select 1 from mfa_factors f where f.user_id = users.id) as has_factors
         from users where id = $id"
    }

    /// The user of this id as a transaction sees them, without holding them.
    pub fn within(tx: &mut Tx, id: Uuid) -> Option<User> {
        "select {columns} from users where id = $id"
    }

    /// The user of this id, held against others until the transaction ends.
    pub fn locked(tx: &mut Tx, id: Uuid) -> Option<User> {
        "select {columns} from users where id = $id {postgres: for update}"
    }

    /// Who holds this address: who confirmed it, else the newest who claims it.
    pub fn by_email(db: &Db, email: &str) -> Option<User> {
        "select {columns} from users where email = $email
         order by case when email_confirmed_at is null then 1 else 0 end, created_at desc limit 1"
    }

    /// Who asked last to be mailed a code for this address, without a password, and never used it.
    pub fn claimant(db: &Db, email: &str) -> Option<User> {
        "select {columns} from users
         where email = $email and email_confirmed_at is null and last_sign_in_at is null and password_hash is null
         order by created_at desc limit 1"
    }

    /// Who proved to own this address.
    pub fn owner(tx: &mut Tx, email: &str) -> Option<(Uuid,)> {
        "select id from users where email = $email and email_confirmed_at is not null"
    }

    /// Who claims this address last, proved nothing, and was never let in. Whoever has a role to lose
    /// proves it by mail.
    pub fn unproved(tx: &mut Tx, email: &str) -> Option<(Uuid,)> {
        "select id from users
         where email = $email and email_confirmed_at is null and last_sign_in_at is null and role = 'authenticated'
         order by created_at desc, id desc limit 1"
    }

    /// Makes a user without an identity; `None` when the address is confirmed to be someone else's, or the id taken.
    pub fn insert(
        tx: &mut Tx, id: Uuid, email: Option<&str>, confirmed_at: Option<Timestamp>, password_hash: Option<&str>,
        role: &str, app_metadata: &Json<Value>, user_metadata: &Json<Value>, is_anonymous: bool, now: Timestamp,
    ) -> Option<User> {
        "insert into users (id, email, email_confirmed_at, password_hash, role, app_metadata, user_metadata,
                            is_anonymous, created_at, updated_at)
         select $id, $email, $confirmed_at, $password_hash, $role, $app_metadata, $user_metadata,
                $is_anonymous, $now, $now
         where not exists (select 1 from users where email = $email and email_confirmed_at is not null)
         on conflict do nothing
         returning {columns}"
    }

    fn confirm(tx: &mut Tx, id: Uuid, now: Timestamp) -> bool {
        "update users set email_confirmed_at = $now, updated_at = $now
         where id = $id and email_confirmed_at is null and not exists (
             select 1 from users other where other.email = users.email and other.email_confirmed_at is not null)"
    }

    /// By how many providers a user is known besides their address.
    pub fn count_foreign_identities(tx: &mut Tx, user: Uuid) -> One<(i64,)> {
        "select count(*) from identities where user_id = $user and issuer <> 'email'"
    }

    /// Notes a sign-in.
    pub fn signed_in(tx: &mut Tx, id: Uuid, language: Option<&str>, now: Timestamp) {
        "update users set last_sign_in_at = $now, language = coalesce($language, language) where id = $id"
    }

    /// Notes the language that somebody asked in who has not signed in yet.
    pub fn spoke(tx: &mut Tx, id: Uuid, language: Option<&str>) {
        "update users set language = coalesce($language, language) where id = $id"
    }

    /// What tells the language of a user: what they say of themself, and what they asked in last.
    pub fn languages(tx: &mut Tx, id: Uuid) -> Option<(Json<Value>, Option<String>)> {
        "select user_metadata, language from users where id = $id"
    }

    /// Replaces the password's hash; without one, nobody signs in by password.
    pub fn set_password_hash(tx: &mut Tx, id: Uuid, hash: Option<&str>, now: Timestamp) {
        "update users set password_hash = $hash, password_expired_at = null, password_failures = 0, updated_at = $now
         where id = $id"
    }

    /// Notes a wrong password; gives how many there were in a row. `None` when more are not counted.
    pub fn password_was_wrong(tx: &mut Tx, id: Uuid, at_most: i64) -> Option<(i64,)> {
        "update users set password_failures = password_failures + 1 where id = $id and password_failures < $at_most
         returning password_failures"
    }

    /// Notes a right one. `false` when there were so many wrong ones in a row before it.
    pub fn password_was_right(tx: &mut Tx, id: Uuid, at_most: i64) -> bool {
        "update users set password_failures = 0 where id = $id and password_failures < $at_most"
    }

    /// Is known from now on by more than a session.
    pub fn settle(tx: &mut Tx, id: Uuid, now: Timestamp) {
        "update users set is_anonymous = false, updated_at = $now where id = $id"
    }

    /// A password that others know: good for one sign-in until then.
    pub fn hand_over_password(tx: &mut Tx, id: Uuid, hash: &str, until: Timestamp, now: Timestamp) {
        "update users set password_hash = $hash, password_expired_at = $until, updated_at = $now where id = $id"
    }

    /// The one sign-in that a password of others' making is good for. `false` when it was, or is too old.
    pub fn use_up_password(tx: &mut Tx, id: Uuid, hash: &str, now: Timestamp) -> bool {
        "update users set password_expired_at = $now
         where id = $id and password_hash = $hash and password_expired_at > $now"
    }

    fn set_email(tx: &mut Tx, id: Uuid, email: &str, confirmed_at: Option<Timestamp>, now: Timestamp) -> bool {
        "update users set email = $email, email_confirmed_at = $confirmed_at, is_anonymous = false, updated_at = $now
         where id = $id and not exists (
             select 1 from users other
             where other.email = $email and other.id <> $id and other.email_confirmed_at is not null)"
    }

    /// Keeps the same password by another hash. `false` when the password was changed meanwhile.
    pub fn renew_password_hash(tx: &mut Tx, id: Uuid, from: &str, to: &str) -> bool {
        "update users set password_hash = $to where id = $id and password_hash = $from"
    }

    /// Keeps a user out until then, or lets them in again.
    pub fn set_banned_until(tx: &mut Tx, id: Uuid, until: Option<Timestamp>, now: Timestamp) {
        "update users set banned_until = $until, updated_at = $now where id = $id"
    }

    /// Replaces what the user keeps about themself.
    pub fn set_user_metadata(tx: &mut Tx, id: Uuid, metadata: &Json<Value>, now: Timestamp) {
        "update users set user_metadata = $metadata, updated_at = $now where id = $id"
    }

    /// Gives a user another role. `false` when it is theirs.
    pub fn set_role(tx: &mut Tx, id: Uuid, role: &str, now: Timestamp) -> bool {
        "update users set role = $role, updated_at = $now where id = $id and role <> $role"
    }

    /// Replaces what is said of a user and they cannot change.
    pub fn set_app_metadata(tx: &mut Tx, id: Uuid, metadata: &Json<Value>, now: Timestamp) {
        "update users set app_metadata = $metadata, updated_at = $now where id = $id"
    }

    /// How many users there are, or have this in their address.
    pub fn count(db: &Db, part: Option<&str>) -> One<(i64,)> {
        "select count(*) from users where $part is null or {postgres: strpos(email, $part)}{sqlite: instr(email, $part)} > 0"
    }

    /// Some of them, newest first.
    pub fn numbered(db: &Db, part: Option<&str>, limit: i64, offset: i64) -> Vec<User> {
        "select {columns} from users
         where $part is null or {postgres: strpos(email, $part)}{sqlite: instr(email, $part)} > 0
         order by created_at desc, id desc limit $limit offset $offset"
    }

    /// The identities of the same users, oldest first.
    pub fn identities_of_numbered(db: &Db, part: Option<&str>, limit: i64, offset: i64) -> Vec<Identity> {
        "select {columns} from identities where user_id in (
             select id from users
             where $part is null or {postgres: strpos(email, $part)}{sqlite: instr(email, $part)} > 0
             order by created_at desc, id desc limit $limit offset $offset)
         order by created_at, id"
    }

    /// Some of them by id, newest first, older than `before` when given.
    pub fn page(db: &Db, part: Option<&str>, before: Option<Uuid>, limit: i64) -> Vec<User> {
        "select {columns} from users
         where ($part is null or {postgres: strpos(email, $part)}{sqlite: instr(email, $part)} > 0)
           and ($before is null or id < $before)
         order by id desc limit $limit"
    }

    /// A user's identities, oldest first.
    pub fn identities(db: &Db, user: Uuid) -> Vec<Identity> {
        "select {columns} from identities where user_id = $user order by created_at, id"
    }

    /// The same, held against others until the transaction ends.
    pub fn identities_locked(tx: &mut Tx, user: Uuid) -> Vec<Identity> {
        "select {columns} from identities where user_id = $user order by created_at, id {postgres: for update}"
    }

    /// Removes one identity of a user.
    pub fn delete_identity(tx: &mut Tx, user: Uuid, id: Uuid) -> bool {
        "delete from identities where id = $id and user_id = $user"
    }

    /// Makes an identity. `false` when this subject of this issuer is known already.
    pub fn add_identity(
        tx: &mut Tx, id: Uuid, user: Uuid, provider: &str, issuer: &str, subject: &str,
        profile: &Json<Value>, now: Timestamp,
    ) -> bool {
        "insert into identities (id, user_id, provider, issuer, subject, profile, last_sign_in_at, created_at, updated_at)
         values ($id, $user, $provider, $issuer, $subject, $profile, $now, $now, $now)
         on conflict (issuer, subject) do nothing"
    }

    /// The identity of this subject.
    pub fn identity(tx: &mut Tx, issuer: &str, subject: &str) -> Option<Identity> {
        "select {columns} from identities where issuer = $issuer and subject = $subject"
    }

    /// A user proved an identity to this client of ours. What revokes it there stays with the client
    /// that it was given to. `false` when it is not this user's any more.
    pub fn identity_proved(
        tx: &mut Tx, user: Uuid, issuer: &str, subject: &str, client_id: &str, refresh_token: Option<&[u8]>,
        profile: &Json<Value>, now: Timestamp,
    ) -> bool {
        "update identities
         set client_id = case when $refresh_token is null and refresh_token is not null then client_id else $client_id end,
             refresh_token = coalesce($refresh_token, refresh_token), profile = $profile, last_sign_in_at = $now,
             updated_at = $now
         where user_id = $user and issuer = $issuer and subject = $subject"
    }

    /// Removes every identity but the one that the address is.
    pub fn delete_foreign_identities(tx: &mut Tx, user: Uuid) -> u64 {
        "delete from identities where user_id = $user and issuer <> 'email'"
    }

    /// Removes those of them that were linked since.
    pub fn delete_foreign_identities_since(tx: &mut Tx, user: Uuid, since: Timestamp) -> u64 {
        "delete from identities where user_id = $user and issuer <> 'email' and created_at >= $since"
    }

    fn set_profile(tx: &mut Tx, user: Uuid, issuer: &str, profile: &Json<Value>, now: Timestamp) -> bool {
        "update identities set profile = $profile, updated_at = $now where user_id = $user and issuer = $issuer"
    }

    fn delete_identities(tx: &mut Tx, user: Uuid) {
        "delete from identities where user_id = $user"
    }

    fn bury(tx: &mut Tx, id: Uuid, nothing: &Json<Value>, now: Timestamp) -> bool {
        "update users set email = null, email_confirmed_at = null, password_hash = null, password_expired_at = null, role = 'authenticated',
                          app_metadata = $nothing, user_metadata = $nothing, is_anonymous = false, banned_until = null,
                          language = null, last_sign_in_at = null, updated_at = $now, deleted_at = $now
         where id = $id and deleted_at is null"
    }

    /// Removes a user with everything that hangs on them.
    pub fn delete(tx: &mut Tx, id: Uuid) -> bool {
        "delete from users where id = $id"
    }

    /// Removes one sign-up that nobody confirmed.
    pub fn delete_pending(tx: &mut Tx, id: Uuid) -> bool {
        "delete from users where id = $id and email_confirmed_at is null and last_sign_in_at is null"
    }

    /// Removes every other sign-up that claims this address and can no longer be confirmed.
    pub fn delete_rivals(tx: &mut Tx, email: &str, keep: Uuid) -> u64 {
        "delete from users where email = $email and id <> $keep and email_confirmed_at is null and last_sign_in_at is null"
    }

    /// Removes anonymous users who were made, and last seen, before `before`.
    pub fn delete_anonymous(tx: &mut Tx, before: Timestamp) -> u64 {
        "delete from users where id in (
             select id from users where is_anonymous and created_at < $before and not exists (
                 select 1 from sessions where sessions.user_id = users.id and sessions.last_seen_at >= $before))"
    }

    /// Removes unconfirmed sign-ups older than `before`.
    pub fn delete_unconfirmed(tx: &mut Tx, before: Timestamp) -> u64 {
        "delete from users where id in (
             select id from users where email_confirmed_at is null and email is not null and last_sign_in_at is null
                                    and created_at < $before)"
    }
}

impl User {
    /// Whether they are kept out just now.
    pub fn is_banned(&self, now: Timestamp) -> bool {
        self.banned_until.is_some_and(|until| until > now)
    }
}

/// What a sign-up brings.
#[derive(Debug, Clone)]
pub struct NewUser<'a> {
    /// Their id.
    pub id: Uuid,
    /// That of the identity which their address is.
    pub identity: Uuid,
    /// Lower case; `None` for an anonymous user.
    pub email: Option<&'a str>,
    /// When the address counts as proved from the start.
    pub confirmed_at: Option<Timestamp>,
    /// A PHC string.
    pub password_hash: Option<&'a str>,
    /// `authenticated` or `admin`.
    pub role: &'a str,
    /// What the user says of themself.
    pub user_metadata: Value,
}

/// Makes a user who signs in by e-mail, or an anonymous one, with the identity that GoTrue's clients
/// expect to see; `None` when the address is confirmed to be someone else's, or the id taken.
pub async fn create(tx: &mut Tx, new: NewUser<'_>, now: Timestamp) -> Result<Option<User>> {
    let app_metadata = match new.email {
        Some(_) => serde_json::json!({"provider": "email", "providers": ["email"]}),
        None => serde_json::json!({}),
    };
    let (app_metadata, user_metadata) = (Json(app_metadata), Json(new.user_metadata));
    let anonymous = new.email.is_none();
    let created = insert(
        tx,
        new.id,
        new.email,
        new.confirmed_at,
        new.password_hash,
        new.role,
        &app_metadata,
        &user_metadata,
        anonymous,
        now,
    );
    let user = created.await?;
    if let (Some(user), Some(email)) = (&user, new.email) {
        let profile = email_profile(user.id, email, new.confirmed_at.is_some());
        add_identity(
            tx,
            new.identity,
            user.id,
            "email",
            "email",
            &user.id.to_string(),
            &profile,
            now,
        )
        .await?;
    }
    Ok(user)
}

/// The address is proved to be theirs. `false` when it meanwhile became someone else's.
pub async fn confirm_email(tx: &mut Tx, id: Uuid, email: &str, now: Timestamp) -> Result<bool> {
    let confirmed = match confirm(tx, id, now).await {
        // In the same moment.
        Err(e) if e.is_unique_violation() => false,
        confirmed => confirmed?,
    };
    if confirmed {
        set_profile(tx, id, "email", &email_profile(id, email, true), now).await?;
    }
    Ok(confirmed)
}

/// Gives a user who has no address this one, which a provider vouches for. `false` when it is
/// confirmed to be someone else's.
pub async fn take_email(tx: &mut Tx, id: Uuid, email: &str, now: Timestamp) -> Result<bool> {
    move_to(tx, id, email, Some(now), now).await
}

/// Gives a user another address, proved to be theirs or not. `false` when it is confirmed to be someone else's.
pub async fn change_email(
    tx: &mut Tx,
    id: Uuid,
    email: &str,
    confirmed_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<bool> {
    if !move_to(tx, id, email, confirmed_at, now).await? {
        return Ok(false);
    }
    let profile = email_profile(id, email, confirmed_at.is_some());
    if !set_profile(tx, id, "email", &profile, now).await? {
        let subject = id.to_string();
        add_identity(
            tx,
            Uuid::now_v7(),
            id,
            "email",
            "email",
            &subject,
            &profile,
            now,
        )
        .await?;
    }
    Ok(true)
}

async fn move_to(
    tx: &mut Tx,
    id: Uuid,
    email: &str,
    confirmed_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<bool> {
    match set_email(tx, id, email, confirmed_at, now).await {
        // Another took it in the same moment.
        Err(e) if e.is_unique_violation() => Ok(false),
        moved => moved,
    }
}

/// Leaves of a user the id, and what others have under it: no name, no way in. `false` when it is so.
/// Sessions and codes are the caller's to end.
pub async fn pseudonymise(tx: &mut Tx, id: Uuid, now: Timestamp) -> Result<bool> {
    delete_identities(tx, id).await?;
    let nothing = Json(serde_json::json!({}));
    bury(tx, id, &nothing, now).await
}

/// What GoTrue's clients read of the identity that an address is.
fn email_profile(user: Uuid, email: &str, verified: bool) -> Json<Value> {
    Json(serde_json::json!({"sub": user, "email": email, "email_verified": verified}))
}
