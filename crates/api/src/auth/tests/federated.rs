//! People whom others sign in: an instance that Google, Apple and one more issuer are known to, and
//! the tokens that these make.
use super::{
    issuer::{Issuer, sign},
    *,
};
use crate::testing::Engine;
use std::ops::Deref;

pub const GOOGLE: &str = "https://accounts.google.com";
pub const APPLE: &str = "https://appleid.apple.com";
pub const ID_TOKEN: &str = "/auth/v1/token?grant_type=id_token";

pub struct Federated {
    pub test: Test,
    pub issuer: Issuer,
}

impl Deref for Federated {
    type Target = Test;
    fn deref(&self) -> &Test {
        &self.test
    }
}

impl Federated {
    pub async fn new(engine: Engine) -> Self {
        Self::with(engine, &[]).await
    }

    pub async fn with(engine: Engine, more: &[(&str, &str)]) -> Self {
        let issuer = Issuer::start().await;
        let keys = format!("{}/keys", issuer.url);
        let providers = [
            ("GOOGLE_CLIENT_ID", "web,ios"),
            ("GOOGLE_JWKS_URL", &keys),
            ("APPLE_CLIENT_ID", "services,app"),
            ("APPLE_JWKS_URL", &keys),
            ("ISSUER_URL", &issuer.url),
            ("REPL_ID", "program"),
            ("FIREBASE_PROJECT_ID", "plinth"),
            ("FIREBASE_JWKS_URL", &keys),
            ("SUPABASE_URL", &issuer.url),
        ];
        let variables = [&providers[..], more].concat();
        Self {
            test: Test::with(engine, &variables).await,
            issuer,
        }
    }

    /// A token that was made this second, and none before it.
    pub fn token(&self, provider: &str, claims: Value) -> String {
        self.later(Duration::from_secs(1));
        let now = self.app.now().unix();
        let (issuer, audience) = match provider {
            "google" => (GOOGLE, "ios"),
            "apple" => (APPLE, "app"),
            "firebase" => ("https://securetoken.google.com/plinth", "plinth"),
            _ => (&*self.issuer.url, "program"),
        };
        let mut whole = json!({"iss": issuer, "aud": audience, "iat": now, "exp": now + 3600});
        for (name, value) in claims.as_object().unwrap() {
            whole[name] = value.clone();
        }
        sign(0, &whole)
    }

    /// Google's, of somebody whose mailbox it runs.
    pub fn google(&self, subject: &str, email: &str) -> String {
        let claims = json!({"sub": subject, "email": email, "email_verified": true, "hd": email.split('@').nth(1)});
        self.token("google", claims)
    }

    pub async fn come(&self, provider: &str, token: &str) -> Answer {
        let body = json!({"provider": provider, "id_token": token});
        self.post("", ID_TOKEN, body).await
    }

    /// The same, where it has to succeed.
    pub async fn let_in(&self, provider: &str, claims: Value) -> Value {
        let answer = self.come(provider, &self.token(provider, claims)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    pub async fn link(&self, bearer: &str, provider: &str, token: &str) -> Answer {
        let body = json!({"provider": provider, "id_token": token, "link_identity": true});
        self.post(bearer, ID_TOKEN, body).await
    }

    pub async fn anonymous(&self) -> Person {
        let answer = self.post("", SIGN_UP, json!({})).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        Person::of(&answer.json())
    }

    pub async fn by_email(&self, email: &str) -> db::users::User {
        let user = db::users::by_email(&self.app.db, email).await;
        user.unwrap().expect("a user")
    }

    /// Provider and subject of every identity of a user, oldest first.
    pub async fn identities_of(&self, user: uuid::Uuid) -> Vec<(String, String)> {
        let identities = db::users::identities(&self.app.db, user).await.unwrap();
        let one = |identity: db::users::Identity| (identity.provider, identity.subject);
        identities.into_iter().map(one).collect()
    }

    /// The newest decision: what it was about, and why not.
    pub async fn decided(&self) -> (String, Option<String>) {
        let newest = db::audit::page(&self.app.db, None, 1)
            .await
            .unwrap()
            .remove(0);
        let reason = newest.detail["reason"].as_str();
        (newest.action, reason.map(ToOwned::to_owned))
    }
}
