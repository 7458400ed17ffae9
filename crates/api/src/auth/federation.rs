//! Who comes with a provider's word for who they are, and what becomes of it here. What is decided is
//! in `linking`; this finds the facts, carries the decision out, and tells whom it concerns.
use super::{
    adopt, audit, id_token,
    id_token::Claims,
    identities,
    linking::{self, Caller, Coming, Decision, Facts, Refusal, Word},
    session::Client,
    signup, user,
};
use crate::{
    App, Error, Result,
    mail::{self, Mail},
};
use db::{
    Json, Timestamp, Tx,
    users::{self, Identity, User},
};
use serde_json::{Value, json};
use uuid::Uuid;

/// What seals of what revokes an identity at its provider are bound to.
pub const REFRESH_TOKEN: &[u8] = b"provider refresh token";
/// How often facts may change between being read and being acted on: others come in the same moment.
const TRIES: usize = 3;

/// What comes beside the claims.
#[derive(Debug, Clone, Copy, Default)]
pub struct Beside<'a> {
    /// How somebody is called in the words of their device, which nobody signed: text for people alone.
    pub name: Option<&'a str>,
    /// The provider's refresh token, kept to be revoked when they leave.
    pub refresh_token: Option<&'a str>,
}

/// Who came.
#[derive(Debug, Clone)]
pub struct Arrived {
    pub user: User,
    /// Made, or taken over, just now.
    pub is_new: bool,
}

/// Finds or makes the user whom these claims name. A refusal is inside, and is in the audit log:
/// commit, then answer it. Opens no session.
pub async fn sign_in(
    app: &App,
    tx: &mut Tx,
    claims: &Claims,
    beside: Beside<'_>,
    client: &Client,
    now: Timestamp,
) -> Result<Result<Arrived>> {
    come(app, tx, Coming::SignIn, claims, beside, client, now).await
}

/// The same for a token that its issuer made for every request.
pub async fn bear(
    app: &App,
    tx: &mut Tx,
    claims: &Claims,
    client: &Client,
    now: Timestamp,
) -> Result<Result<Arrived>> {
    let beside = Beside::default();
    come(app, tx, Coming::Bearer, claims, beside, client, now).await
}

/// Adds the identity to the account of `caller`, who is signed in; whether freshly so is for the
/// endpoint to ask. A refusal is inside, as with `sign_in`. What is linked already stays so.
pub async fn link(
    app: &App,
    tx: &mut Tx,
    caller: Uuid,
    claims: &Claims,
    beside: Beside<'_>,
    client: &Client,
    now: Timestamp,
) -> Result<Result<User>> {
    let caller = users::locked(tx, caller).await?;
    let caller = caller.ok_or(Error::SessionEnded)?;
    let caller = Caller {
        id: caller.id,
        is_anonymous: caller.is_anonymous,
        has_address: caller.email.is_some(),
    };
    let coming = Coming::Link(caller);
    let done = come(app, tx, coming, claims, beside, client, now).await?;
    Ok(done.map(|arrived| arrived.user))
}

async fn come(
    app: &App,
    tx: &mut Tx,
    coming: Coming,
    claims: &Claims,
    beside: Beside<'_>,
    client: &Client,
    now: Timestamp,
) -> Result<Result<Arrived>> {
    let visit = Visit {
        app,
        claims,
        beside,
        client,
        now,
    };
    visit.of(tx, coming).await
}

/// `None`: the facts are others now.
type Done = Option<Result<Arrived>>;

struct Visit<'a> {
    app: &'a App,
    claims: &'a Claims,
    beside: Beside<'a>,
    client: &'a Client,
    now: Timestamp,
}

impl Visit<'_> {
    async fn of(&self, tx: &mut Tx, coming: Coming) -> Result<Result<Arrived>> {
        for _ in 0..TRIES {
            let facts = self.facts(tx, coming).await?;
            let done = match linking::decide(&facts) {
                Decision::Enter(user) => self.enter(tx, user).await?,
                Decision::Add { user, address } => self.add(tx, user, address).await?,
                Decision::AddUnasked(user) => self.add_unasked(tx, user).await?,
                Decision::Adopt(user) => self.adopt(tx, user).await?,
                Decision::Create { address } => self.create(tx, address).await?,
                Decision::Refuse(refusal) => Some(Err(self.refusal(refusal))),
            };
            match done {
                Some(Ok(arrived)) => return Ok(Ok(arrived)),
                Some(Err(refusal)) => {
                    self.refuse(tx, &facts, &refusal).await?;
                    return Ok(Err(refusal));
                }
                None => {}
            }
        }
        Err(Error::Busy)
    }

    async fn facts(&self, tx: &mut Tx, coming: Coming) -> Result<Facts> {
        let claims = self.claims;
        let known = users::identity(tx, &claims.issuer, &claims.subject).await?;
        let (owner, claimant) = match &claims.email {
            Some(email) => (
                users::owner(tx, email).await?,
                users::unproved(tx, email).await?,
            ),
            None => (None, None),
        };
        Ok(Facts {
            coming,
            word: match claims {
                Claims { email: None, .. } => Word::Nothing,
                claims if !claims.email_verified => Word::Unverified,
                claims if !claims.authoritative => Word::Verified,
                _ => Word::Authoritative,
            },
            known: known.map(|identity| identity.user_id),
            owner: owner.map(|(id,)| id),
            claimant: claimant.map(|(id,)| id),
        })
    }

    async fn enter(&self, tx: &mut Tx, user: Uuid) -> Result<Done> {
        let Some(user) = users::locked(tx, user).await? else {
            return Ok(None);
        };
        if user.is_banned(self.now) {
            return Ok(Some(Err(Error::UserBanned)));
        }
        self.recognise(tx, user, false).await
    }

    async fn add(&self, tx: &mut Tx, user: Uuid, address: bool) -> Result<Done> {
        let Some(user) = users::locked(tx, user).await? else {
            return Ok(Some(Err(Error::SessionEnded)));
        };
        if user.is_banned(self.now) {
            return Ok(Some(Err(Error::UserBanned)));
        }
        if !self.add_identity(tx, &user).await? {
            return Ok(None);
        }
        let email = self.claims.email.as_deref().filter(|_| address);
        if let Some(email) = email {
            if !users::take_email(tx, user.id, email, self.now).await? {
                return Err(Error::Busy);
            }
            users::delete_rivals(tx, email, user.id).await?;
        }
        self.tell(tx, &user, json!({})).await?;
        self.recognise(tx, user, false).await
    }

    async fn add_unasked(&self, tx: &mut Tx, user: Uuid) -> Result<Done> {
        let user = users::locked(tx, user).await?;
        let holds = |user: &User| user.email_confirmed_at.and(user.email.as_ref()).cloned();
        let Some(user) = user.filter(|user| holds(user) == self.claims.email) else {
            return Ok(None);
        };
        if user.is_banned(self.now) {
            return Ok(Some(Err(Error::UserBanned)));
        }
        if !self.add_identity(tx, &user).await? {
            return Ok(None);
        }
        self.tell(tx, &user, json!({"asked": false})).await?;
        self.recognise(tx, user, false).await
    }

    async fn adopt(&self, tx: &mut Tx, user: Uuid) -> Result<Done> {
        let user = users::locked(tx, user).await?;
        let unproved = |user: &User| user.email_confirmed_at.or(user.last_sign_in_at).is_none();
        let (Some(user), Some(email)) = (user.filter(unproved), &self.claims.email) else {
            return Ok(None);
        };
        if user.is_banned(self.now) {
            return Ok(Some(Err(Error::UserBanned)));
        }
        adopt::wipe(tx, user.id, self.now).await?;
        if !users::confirm_email(tx, user.id, email, self.now).await? {
            return Err(Error::Busy);
        }
        users::delete_rivals(tx, email, user.id).await?;
        if !self.add_identity(tx, &user).await? {
            return Err(Error::Busy);
        }
        let mut detail = self.detail();
        detail["adopted"] = json!(true);
        audit::succeeded(tx, self.client, "user_signedup", user.id, detail, self.now).await?;
        self.recognise(tx, user, true).await
    }

    async fn create(&self, tx: &mut Tx, address: bool) -> Result<Done> {
        let (claims, config) = (self.claims, &self.app.config.auth);
        if !config.auth_signup {
            return Ok(Some(Err(Error::SignupDisabled)));
        }
        if claims.is_anonymous && !config.auth_anonymous {
            return Ok(Some(Err(Error::AnonymousDisabled)));
        }
        let email = claims.email.as_deref().filter(|_| address);
        let nothing = Json(json!({}));
        let made = users::insert(
            tx,
            Uuid::now_v7(),
            email,
            email.map(|_| self.now),
            None,
            "authenticated",
            &nothing,
            &nothing,
            claims.is_anonymous,
            self.now,
        );
        let Some(user) = made.await? else {
            return Ok(None);
        };
        if !self.add_identity(tx, &user).await? {
            users::delete(tx, user.id).await?;
            return Ok(None);
        }
        let (client, detail) = (self.client, self.detail());
        audit::succeeded(tx, client, "user_signedup", user.id, detail, self.now).await?;
        self.recognise(tx, user, true).await
    }

    /// `false` when somebody has it, from this very moment.
    async fn add_identity(&self, tx: &mut Tx, user: &User) -> Result<bool> {
        let Claims {
            provider,
            issuer,
            subject,
            ..
        } = self.claims;
        let (id, profile) = (Uuid::now_v7(), Json(json!({})));
        Ok(users::add_identity(
            tx, id, user.id, provider, issuer, subject, &profile, self.now,
        )
        .await?)
    }

    /// Keeps what the provider says of a user who has this identity.
    async fn recognise(&self, tx: &mut Tx, user: User, is_new: bool) -> Result<Done> {
        let (claims, now) = (self.claims, self.now);
        let identity = users::identity(tx, &claims.issuer, &claims.subject).await?;
        let Some(identity) = identity.filter(|identity| identity.user_id == user.id) else {
            return Ok(None);
        };
        let seal = |token: &str| self.app.keys.seal(REFRESH_TOKEN, token.as_bytes());
        let refresh_token = self.beside.refresh_token.map(seal).transpose()?;
        let profile = Json(self.profile(identity));
        let proved = users::identity_proved(
            tx,
            user.id,
            &claims.issuer,
            &claims.subject,
            &claims.audience,
            refresh_token.as_deref(),
            &profile,
            now,
        );
        if !proved.await? {
            return Ok(None);
        }
        if user.is_anonymous && !claims.is_anonymous {
            users::settle(tx, user.id, now).await?;
        }
        let user = self.describe(tx, user.id).await?;
        Ok(user.map(|user| Ok(Arrived { user, is_new })))
    }

    /// What the provider says of them, in `app_metadata`, and in `user_metadata` where they have not
    /// said it themselves. Gives the user as the row reads then.
    async fn describe(&self, tx: &mut Tx, id: Uuid) -> Result<Option<User>> {
        let identities = users::identities_locked(tx, id).await?;
        let Some(mut user) = users::locked(tx, id).await? else {
            return Ok(None);
        };
        let known = identities::providers(&identities);
        let known = user::merged(user.app_metadata.0.clone(), known);
        if known != user.app_metadata.0 {
            user.app_metadata = Json(known);
            users::set_app_metadata(tx, id, &user.app_metadata, self.now).await?;
        }
        let said = user::merged(self.person(), user.user_metadata.0.clone());
        if said != user.user_metadata.0
            && let Ok(said) = signup::within_limit(said)
        {
            user.user_metadata = Json(said);
            users::set_user_metadata(tx, id, &user.user_metadata, self.now).await?;
        }
        Ok(Some(user))
    }

    /// How `identity_data` reads: what a later sign-in leaves out stays, and what nobody signed takes
    /// no place that is taken.
    fn profile(&self, known: Identity) -> Value {
        let claims = self.claims;
        let mut said = self.person();
        if claims.name.is_none() && known.profile.get("name").is_some() {
            said = without_name(said);
        }
        said["iss"] = json!(claims.issuer);
        said["sub"] = json!(claims.subject);
        said["provider_id"] = json!(claims.subject);
        if let Some(email) = &claims.email {
            said["email"] = json!(email);
            said["email_verified"] = json!(claims.email_verified);
        }
        user::merged(known.profile.0, said)
    }

    /// How they are called and look, in GoTrue's words, as far as it is known.
    fn person(&self) -> Value {
        let untrusted = || self.beside.name.and_then(id_token::display);
        let mut person = json!({});
        if let Some(name) = self.claims.name.clone().or_else(untrusted) {
            person["name"] = json!(name);
            person["full_name"] = json!(name);
        }
        if let Some(picture) = &self.claims.picture {
            person["picture"] = json!(picture);
            person["avatar_url"] = json!(picture);
        }
        person
    }

    /// Whoever can be signed in as from now on hears of it.
    async fn tell(&self, tx: &mut Tx, user: &User, mut detail: Value) -> Result<()> {
        let provider = label(self.claims.provider).to_owned();
        let linked = |to| Mail::IdentityLinked { to, provider };
        mail::tell(tx, user, linked, self.now).await?;
        detail["provider"] = json!(self.claims.provider);
        let action = "identity_linked";
        Ok(audit::succeeded(tx, self.client, action, user.id, detail, self.now).await?)
    }

    fn refusal(&self, refusal: Refusal) -> Error {
        match refusal {
            Refusal::Anothers => Error::IdentityAlreadyExists,
            Refusal::ProveAccount => Error::AccountLinkRequired {
                provider: self.claims.provider.into(),
                email: self.claims.email.clone().unwrap_or_default(),
            },
        }
    }

    async fn refuse(&self, tx: &mut Tx, facts: &Facts, refusal: &Error) -> Result<()> {
        let (action, user) = match facts.coming {
            Coming::Link(caller) => ("identity_linked", Some(caller.id)),
            Coming::SignIn | Coming::Bearer => ("login", facts.known.or(facts.owner)),
        };
        let mut detail = self.detail();
        detail["reason"] = json!(refusal.code(crate::error::Dialect::GoTrue));
        Ok(audit::refused(tx, self.client, action, user, detail, self.now).await?)
    }

    fn detail(&self) -> Value {
        json!({"method": "oauth", "provider": self.claims.provider})
    }
}

fn without_name(mut person: Value) -> Value {
    if let Some(members) = person.as_object_mut() {
        members.remove("name");
        members.remove("full_name");
    }
    person
}

/// How people call it, where a sentence begins.
fn label(provider: &str) -> &str {
    match provider {
        "google" => "Google",
        "apple" => "Apple",
        "github" => "GitHub",
        "firebase" => "Firebase",
        "supabase" => "Supabase",
        _ => "An identity provider",
    }
}
