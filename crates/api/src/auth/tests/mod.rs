//! What sign-in promises to those who use it, and withholds from those who abuse it.
use crate::{
    auth::user as account,
    mail,
    testing::{Answer, PASSWORD, Person, Test, both_engines},
};
use http::Method;
use serde_json::{Value, json};
use std::time::Duration;

mod access;
mod admin;
mod api_keys;
mod apple;
mod authenticator;
mod bootstrap;
mod browser;
mod canary;
mod chain;
mod codes;
mod cookies;
mod dangerous;
mod decisions;
mod deletion;
mod email_change;
mod export;
mod factors;
mod federated;
mod flows;
mod foreign;
mod guesses;
mod guest;
mod id_token;
mod identities;
mod impersonation;
mod invite;
mod issuer;
mod key_file;
mod keys;
mod leaving;
mod linking;
mod links;
mod metadata;
mod native;
mod passkeys;
mod passwords;
mod pkce;
mod protocol;
mod recovery_codes;
mod redirects;
mod refresh;
mod sessions;
mod signup;
mod user;
mod verify;
mod web;
mod web_links;
mod webauthn;
mod webauthn_factors;

/// Sign-ups have to confirm their address.
const CONFIRMING: &[(&str, &str)] = &[("AUTH_AUTOCONFIRM", "false")];
const SIGN_UP: &str = "/auth/v1/signup";
const USER: &str = "/auth/v1/user";

impl Test {
    async fn ask_to_sign_up(&self, email: &str, password: &str) -> Answer {
        let body = json!({"email": email, "password": password});
        self.post("", SIGN_UP, body).await
    }

    async fn sign_in(&self, email: &str, password: &str) -> Answer {
        let body = json!({"email": email, "password": password});
        self.post("", "/auth/v1/token?grant_type=password", body)
            .await
    }

    async fn refresh(&self, token: &str) -> Answer {
        let body = json!({"refresh_token": token});
        self.post("", "/auth/v1/token?grant_type=refresh_token", body)
            .await
    }

    /// The same, where it has to succeed.
    async fn refreshed(&self, token: &str) -> Person {
        let answer = self.refresh(token).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        Person::of(&answer.json())
    }

    async fn verify(&self, email: &str, code: &str) -> Answer {
        let body = json!({"type": "signup", "email": email, "token": code});
        self.post("", "/auth/v1/verify", body).await
    }

    /// The code of the newest mail to this address.
    async fn mailed_code(&self, email: &str) -> String {
        self.work().await;
        let mails = self.world.mailbox().to(email);
        let subject = &mails.last().expect("a mail").subject;
        subject.split(' ').next().unwrap_or_default().to_owned()
    }

    async fn rows(&self, table: &str) -> i64 {
        db::testing::rows(&self.app.db, table).await.unwrap()
    }

    async fn mails_waiting(&self) -> usize {
        let waiting = db::jobs::unfinished(&self.app.db, mail::SEND).await;
        waiting.unwrap().len()
    }

    async fn ban(&self, email: &str) {
        let db = &self.app.db;
        let user = db::users::by_email(db, email).await.unwrap().unwrap();
        let (now, mut tx) = (self.app.now(), db.begin().await.unwrap());
        let until = Some(now + Duration::from_secs(3600));
        db::users::set_banned_until(&mut tx, user.id, until, now)
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }
}

/// Any code but this one.
fn not(code: &str) -> &'static str {
    if code == "000000" { "000001" } else { "000000" }
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// Lets the test's clock run until this is dropped: what is to be one instant has to be taken once.
fn ticking(test: &Test) -> tokio::task::JoinSet<()> {
    let clock = test.app.clock.clone();
    let mut ticking = tokio::task::JoinSet::new();
    ticking.spawn(async move {
        loop {
            clock.turn(Duration::from_micros(1));
            tokio::task::yield_now().await;
        }
    });
    ticking
}

/// An answer as far as it can tell one user from another: what is made anew for each is named
/// instead, times are numbered as they come, and the request's own id is left out.
fn comparable(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let body = answer.json();
    let mut text = answer.text();
    for pointer in ["/id", "/identities/0/identity_id", "/request_id"] {
        if let Some(id) = body.pointer(pointer).and_then(Value::as_str) {
            text = text.replace(id, pointer);
        }
    }
    let is_time = |part: &&str| part.starts_with("20") && part.ends_with('Z');
    let mut times: Vec<_> = text.split('"').filter(is_time).map(String::from).collect();
    times.dedup();
    for (n, time) in times.iter().enumerate() {
        text = text.replace(time, &format!("time {n}"));
    }
    let headers = answer.headers.iter();
    let headers = headers.filter(|(name, _)| *name != "x-request-id");
    let shown = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut headers: Vec<_> = headers
        .map(|(name, value)| (name.to_string(), shown(value)))
        .collect();
    headers.sort();
    (answer.status.as_u16(), headers, text)
}

both_engines! {
    /// Invariant 1.
    async fn an_unknown_mail_and_a_wrong_password_look_alike(engine: Engine) {
        let test = Test::new(engine).await;
        test.sign_up("ada@example.com").await;

        let wrong = test.sign_in("ada@example.com", "another password").await;
        let unknown = test.sign_in("nobody@example.com", PASSWORD).await;
        let no_address = test.sign_in("nobody", PASSWORD).await;

        assert_eq!(wrong.refusal(), refused(400, "invalid_credentials"));
        assert_eq!(comparable(&wrong), comparable(&unknown));
        assert_eq!(comparable(&wrong), comparable(&no_address));
        assert_eq!(test.rows("sessions").await, 1, "that of the sign-up");
    }

    async fn a_right_password_signs_in_however_the_address_is_written(engine: Engine) {
        let test = Test::new(engine).await;
        let signed_up = test.sign_up("ada@example.com").await;

        let signed_in = test.sign_in(" Ada@EXAMPLE.com ", PASSWORD).await;

        let session = signed_in.json();
        assert_eq!(signed_in.status, 200);
        assert_eq!(session["user"]["id"], json!(signed_up.id));
        assert_eq!(session["user"]["last_sign_in_at"], json!(test.app.now().to_string()));
        assert_eq!(session["token_type"], "bearer");
        assert_eq!(session["expires_in"], 3600);
        assert_eq!(session["expires_at"], json!(test.app.now().unix() + 3600));
        assert_eq!(test.rows("users").await, 1);
    }

    async fn an_unknown_grant_is_refused_in_words_a_client_can_act_on(engine: Engine) {
        let test = Test::new(engine).await;

        for path in ["/auth/v1/token", "/auth/v1/token?grant_type=", "/auth/v1/token?grant_type=implicit"] {
            let answer = test.post("", path, json!({})).await;
            assert_eq!(answer.refusal(), refused(400, "validation_failed"), "{path}");
        }
        assert_eq!(test.rows("sessions").await, 0);
    }

    /// Invariant 36.
    async fn a_banned_user_gets_no_further(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let ben = test.sign_up("ben@example.com").await;
        let sessions = test.rows("sessions").await;

        test.ban("ada@example.com").await;

        let banned = refused(403, "user_banned");
        assert_eq!(test.get(&ada.token, USER).await.refusal(), banned);
        assert_eq!(test.refresh(&ada.refresh_token).await.refusal(), banned);
        assert_eq!(test.sign_in("ada@example.com", PASSWORD).await.refusal(), banned);
        let guess = test.sign_in("ada@example.com", "not the password").await;
        assert_eq!(guess.refusal(), refused(400, "invalid_credentials"), "who does not know the password hears nothing");
        assert_eq!(test.rows("sessions").await, sessions);
        assert_eq!(test.get(&ben.token, USER).await.status, 200);
    }

    async fn a_ban_that_ends_leaves_the_session_as_it_was(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        test.ban("ada@example.com").await;
        assert_eq!(test.refresh(&ada.refresh_token).await.status, 403);

        test.later(Duration::from_secs(3600));

        let refreshed = test.refreshed(&ada.refresh_token).await;
        assert_eq!(test.get(&refreshed.token, USER).await.status, 200);
    }
}
