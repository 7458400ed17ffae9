//! A new user comes, confirms, signs in, forgets the password, and leaves.
use super::{codes::Codes, walk::Walk};
use crate::answer::{Answer, send};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

const PASSWORD_GRANT: &str = "/auth/v1/token?grant_type=password";
/// A server that asks to wait longer before the next mail is not waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(70);

pub struct Account {
    pub email: String,
    pub password: String,
}

pub struct Session {
    pub access: String,
    refresh: String,
    pub user: String,
}

impl Session {
    fn of(answer: &Answer) -> Option<Self> {
        let text = |pointer| answer.text_at(pointer).to_owned();
        answer.is_session().then(|| Self {
            access: text("/access_token"),
            refresh: text("/refresh_token"),
            user: text("/user/id"),
        })
    }
}

impl Walk {
    /// A session, or at least an account that is signed in to after its address is confirmed.
    pub async fn join(&mut self, account: &Account, codes: &Codes) -> Option<Session> {
        let body = json!({"email": account.email, "password": account.password});
        let answer = self.post("/auth/v1/signup", "", &body).await;
        let session = Session::of(&answer);
        let right = session.is_some() || answer.status == 200 && answer.has_text(&["/id"]);
        let expected = "200, a session or a mail";
        self.note("POST signup", expected, &answer, right);

        let (step, expected) = ("confirm the address", "by the link of a mail");
        if session.is_some() {
            self.skip(step, expected, "confirmed at once (AUTH_AUTOCONFIRM)");
            return session;
        }
        match codes {
            Codes::ServiceRole(key) => {
                let user = format!("/auth/v1/admin/users/{}", answer.text_at("/id"));
                let confirm = self.request(Method::PUT, &user).bearer_auth(key);
                let answer = send(confirm.json(&json!({"email_confirm": true}))).await;
                let right = answer.status == 200 && answer.has_text(&["/email_confirmed_at"]);
                self.note(step, "200, by an admin", &answer, right);
            }
            _ => match codes.link(self, account).await {
                Ok(link) => self.confirm(&link, &body).await,
                Err(why) => {
                    self.skip(step, expected, &why);
                    return None;
                }
            },
        }
        Session::of(&self.post(PASSWORD_GRANT, "", &body).await)
    }

    /// Looks at the link's page, as scanners of mails do, then presses its button.
    async fn confirm(&mut self, link: &str, password: &Value) {
        let page = self.get(link, "").await;
        let early = self.post(PASSWORD_GRANT, "", password).await;
        let right = page.status == 200
            && page.text.contains("<form")
            && early.is_refused(400, "email_not_confirmed");
        let expected = "200, a page; confirms nothing";
        self.note("GET the link", expected, &page, right);

        // The button's form sends on what stands in the link.
        let (_, members) = link.split_once('?').unwrap_or_default();
        let pressed = self
            .request(Method::POST, "/auth/v1/verify")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(members.to_owned());
        let pressed = send(pressed).await;
        let right = (200..400).contains(&pressed.status);
        self.note("confirm the address", "the page's button", &pressed, right);
    }

    /// Gives the session to go on with.
    pub async fn sign_in(&mut self, account: &Account, first: Session) -> Session {
        let body = json!({"email": account.email, "password": account.password});
        let answer = self.post(PASSWORD_GRANT, "", &body).await;
        let session = Session::of(&answer);
        let expected = "200 with a session";
        self.note("POST token, password", expected, &answer, session.is_some());
        let session = session.unwrap_or(first);

        let answer = self.get("/auth/v1/user", &session.access).await;
        let right = answer.status == 200
            && answer.text_at("/id") == session.user
            && answer.text_at("/email") == account.email;
        self.note("GET user", "200 with the same user", &answer, right);

        let body = json!({"refresh_token": session.refresh});
        let refresh = "/auth/v1/token?grant_type=refresh_token";
        let answer = self.post(refresh, "", &body).await;
        let refreshed = Session::of(&answer).filter(|new| new.access != session.access);
        let expected = "200 with a new session";
        self.note(
            "POST token, refresh",
            expected,
            &answer,
            refreshed.is_some(),
        );

        let body = json!({"email": account.email, "password": "not this one"});
        let answer = self.post(PASSWORD_GRANT, "", &body).await;
        let right = answer.is_refused(400, "invalid_credentials");
        let expected = "400 invalid_credentials";
        self.note("POST token, wrong password", expected, &answer, right);

        let body = json!({"id_token": "forged.by.nobody"});
        let answer = self.post("/auth/google", "", &body).await;
        let right = matches!(answer.status, 400 | 401) && answer.has_text(&["/code"]);
        let expected = "400 or 401";
        self.note("POST /auth/google, forged", expected, &answer, right);
        refreshed.unwrap_or(session)
    }

    /// The mail's code signs in, and the password is another one.
    pub async fn forgotten_password(&mut self, account: &mut Account, codes: &Codes) {
        let body = json!({"email": account.email});
        let mut answer = self.post("/auth/v1/recover", "", &body).await;
        if let Some(wait) = asked_to_wait(&answer) {
            eprintln!("probe: waits {wait:?}, as the server asks before another mail");
            tokio::time::sleep(wait).await;
            answer = self.post("/auth/v1/recover", "", &body).await;
        }
        let expected = "200, whoever asks";
        self.note("POST recover", expected, &answer, answer.status == 200);

        let (step, expected) = ("a new password", "200, and it signs in");
        let code = match codes.code(self, account).await {
            Ok(code) => code,
            Err(why) => return self.skip(step, expected, &why),
        };
        let body = json!({"type": "recovery", "email": account.email, "token": code});
        let answer = self.post("/auth/v1/verify", "", &body).await;
        let session = Session::of(&answer);
        let by_code = "200 with a session";
        self.note("POST verify, recovery", by_code, &answer, session.is_some());
        let Some(session) = session else { return };

        let password = format!("{} anew", account.password);
        let change = self
            .request(Method::PUT, "/auth/v1/user")
            .bearer_auth(&session.access)
            .json(&json!({"password": password}));
        let changed = send(change).await;
        let old = json!({"email": account.email, "password": account.password});
        let old = self.post(PASSWORD_GRANT, "", &old).await;
        account.password = password;
        let new = json!({"email": account.email, "password": account.password});
        let new = self.post(PASSWORD_GRANT, "", &new).await;
        let right = changed.status == 200 && old.status == 400 && Session::of(&new).is_some();
        let shown = if changed.status == 200 {
            &new
        } else {
            &changed
        };
        self.note(step, expected, shown, right);
    }

    pub async fn sign_out(&mut self, token: &str) {
        let answer = self.post("/auth/v1/logout", token, &json!({})).await;
        self.note("POST logout", "204", &answer, answer.status == 204);
        let answer = self.get("/auth/v1/user", token).await;
        let right = matches!(answer.status, 401 | 403);
        self.note("GET user, signed out", "401 or 403", &answer, right);
    }

    /// Takes along what the walk left behind.
    pub async fn leave(&mut self, account: &Account) {
        let body = json!({"email": account.email, "password": account.password});
        let token = Session::of(&self.post(PASSWORD_GRANT, "", &body).await);
        let token = token.map(|session| session.access).unwrap_or_default();
        let answer = self.delete("/auth/v1/user", &token).await;
        let gone = self.post(PASSWORD_GRANT, "", &body).await;
        let right = answer.status == 204 && gone.is_refused(400, "invalid_credentials");
        let expected = "204, and nobody to sign in";
        self.note("DELETE user", expected, &answer, right);
    }
}

fn asked_to_wait(answer: &Answer) -> Option<Duration> {
    if answer.status != 429 {
        return None;
    }
    let seconds = answer.headers.get("retry-after")?.to_str().ok()?;
    let wait = Duration::from_secs(seconds.parse().ok()?);
    (wait <= LONGEST_WAIT).then_some(wait)
}
