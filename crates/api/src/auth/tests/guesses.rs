use super::*;
use crate::testing::request;
use axum::extract::ConnectInfo;
use std::net::SocketAddr;

/// Every limit as it is, but for those by address alone, of which tests have one.
const BY_ACCOUNT: &[(&str, &str)] = &[("RATE_LIMITS", "sign_in=100000/60,sign_up=100000/60")];
const SIGN_IN: &str = "/auth/v1/token?grant_type=password";
const WRONG: &str = "not the password";

/// Where a sign-in comes from, and what it brings.
struct From<'a> {
    peer: String,
    headers: Vec<(&'static str, &'a str)>,
}

/// Another place each time.
fn place(n: u32) -> From<'static> {
    let [.., c, d] = n.to_be_bytes();
    From {
        peer: format!("198.51.{c}.{d}"),
        headers: vec![],
    }
}

fn at(peer: &str) -> From<'static> {
    From {
        peer: peer.into(),
        headers: vec![],
    }
}

fn with<'a>(peer: &str, name: &'static str, value: &'a str) -> From<'a> {
    From {
        peer: peer.into(),
        headers: vec![(name, value)],
    }
}

async fn sign_in(test: &Test, from: From<'_>, email: &str, password: &str) -> Answer {
    let mut asked = request(Method::POST, "", SIGN_IN).header("content-type", "application/json");
    for (name, value) in from.headers {
        asked = asked.header(name, value);
    }
    let body = json!({"email": email, "password": password}).to_string();
    let mut asked = asked.body(body.into()).unwrap();
    let peer = SocketAddr::new(from.peer.parse().unwrap(), 40_000);
    asked.extensions_mut().insert(ConnectInfo(peer));
    test.send(asked).await
}

fn wait(answer: &Answer) -> u64 {
    assert_eq!(answer.refusal(), refused(429, "over_request_rate_limit"));
    answer.header("retry-after").parse().unwrap()
}

/// How many wrong guesses in a row are heard.
async fn heard(test: &Test, from: impl Fn(u32) -> From<'static>, email: &str) -> u32 {
    for n in 0..100 {
        match sign_in(test, from(n), email, WRONG).await.status.as_u16() {
            429 => return n,
            status => assert_eq!(status, 400),
        }
    }
    100
}

/// So many wrong passwords came in a row.
async fn failed_before(test: &Test, email: &str, times: i64) {
    let user = db::users::by_email(&test.app.db, email)
        .await
        .unwrap()
        .unwrap();
    let mut tx = test.app.db.begin().await.unwrap();
    for _ in 0..times {
        db::users::password_was_wrong(&mut tx, user.id, 1_000)
            .await
            .unwrap();
    }
    tx.commit().await.unwrap();
}

async fn mails(test: &Test, subject: &str) -> usize {
    test.work().await;
    let mails = test.world.mailbox().to("ada@example.com");
    mails.iter().filter(|mail| mail.subject == subject).count()
}

const OFF: &str = "Your password is switched off";

both_engines! {
    /// Invariant 65.
    async fn guesses_are_limited_by_place_by_account_and_by_both(engine: Engine) {
        for (limits, by_place, by_account, by_both) in [
            ("sign_in=10/60,sign_in_account=1000/60,sign_in_pair=1000/60", 10, 100, 10),
            ("sign_in=1000/60,sign_in_account=5/900,sign_in_pair=1000/60", 100, 5, 5),
            ("sign_in=1000/60,sign_in_account=1000/60,sign_in_pair=5/60", 100, 100, 5),
        ] {
            let test = Test::with(engine, &[("RATE_LIMITS", limits)]).await;
            let mut at_many = 0;
            for n in 0..20 {
                let email = format!("user{n}@example.com");
                at_many += u32::from(sign_in(&test, at("192.0.2.1"), &email, WRONG).await.status == 400);
            }
            assert_eq!(at_many, by_place.min(20), "many accounts from one place: {limits}");
            assert_eq!(heard(&test, place, "ada@example.com").await, by_account, "one account from everywhere: {limits}");
            assert_eq!(heard(&test, |_| at("192.0.2.2"), "ben@example.com").await, by_both, "one account from one place: {limits}");
        }
    }

    /// Invariant 65.
    async fn what_a_client_says_of_its_address_changes_nothing(engine: Engine) {
        let limits = ("RATE_LIMITS", "sign_in=3/60,sign_in_account=1000/60");
        let test = Test::with(engine, &[limits]).await;
        let behind_fly = Test::with(engine, &[limits, ("TRUSTED_PROXY", "fly")]).await;
        let networks = ["2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:2::77", "2001:db8:1:2:8000::"];

        for (n, network) in networks.into_iter().enumerate() {
            let status = if n < 3 { 400 } else { 429 };
            let email = format!("user{n}@example.com");
            let spoofed = format!("203.0.113.{n}");
            for (m, header) in ["x-forwarded-for", "x-real-ip", "cf-connecting-ip", "fly-client-ip", "forwarded"].into_iter().enumerate() {
                // One peer a header, so that each has a count of its own.
                let peer = format!("192.0.2.{m}");
                assert_eq!(sign_in(&test, with(&peer, header, &spoofed), &email, WRONG).await.status, status, "{header}");
            }
            assert_eq!(sign_in(&test, at(network), &email, WRONG).await.status, status, "one IPv6 network is one client");
            assert_eq!(sign_in(&behind_fly, with("10.0.0.1", "x-forwarded-for", &spoofed), &email, WRONG).await.status, status, "a header that is missing switches nothing off");
        }
        assert_eq!(sign_in(&behind_fly, with("10.0.0.1", "fly-client-ip", "203.0.113.9"), "ada@example.com", WRONG).await.status, 400);
    }

    async fn every_further_guess_waits_twice_as_long_and_a_quarter_of_an_hour_at_most(engine: Engine) {
        let test = Test::with(engine, BY_ACCOUNT).await;
        test.sign_up("ada@example.com").await;
        assert_eq!(heard(&test, place, "ada@example.com").await, 5);

        for (n, expected) in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900].into_iter().enumerate() {
            let n = 1_000 + 10 * n as u32;
            let refusal = sign_in(&test, place(n), "ada@example.com", PASSWORD).await;
            assert_eq!(wait(&refusal), expected);
            test.later(Duration::from_secs(expected) - Duration::from_micros(1));
            assert_eq!(sign_in(&test, place(n + 1), "ada@example.com", PASSWORD).await.status, 429, "not a moment earlier");
            test.later(Duration::from_micros(1));
            assert_eq!(sign_in(&test, place(n + 2), "ada@example.com", WRONG).await.status, 400);
        }

        test.later(Duration::from_secs(900));
        assert_eq!(sign_in(&test, place(400), "ada@example.com", PASSWORD).await.status, 200, "never for good");
        test.later(Duration::from_secs(60));
        assert_eq!(heard(&test, place, "ada@example.com").await, 5, "and it starts anew");
        test.later(Duration::from_secs(4 * 900));
        assert_eq!(heard(&test, |n| place(500 + n), "ada@example.com").await, 5, "as it does when nobody tries for long");
    }

    /// Invariant 2, of sign-ins: whether an account is there is not told by what is limited.
    async fn an_account_that_is_not_there_is_limited_as_one_that_is(engine: Engine) {
        let test = Test::with(engine, BY_ACCOUNT).await;
        test.sign_up("ada@example.com").await;

        for n in 0..12 {
            let known = sign_in(&test, place(n), "ada@example.com", WRONG).await;
            let unknown = sign_in(&test, place(1_000 + n), "nobody@example.com", WRONG).await;
            assert_eq!(comparable(&known), comparable(&unknown), "guess {n}");
            test.later(Duration::from_millis(900));
        }
    }

    /// Invariant 67.
    async fn strangers_do_not_lock_a_user_out_of_a_device_they_know(engine: Engine) {
        let test = Test::with(engine, BY_ACCOUNT).await;
        let signed_up = test.ask_to_sign_up("ada@example.com", PASSWORD).await;
        let device = signed_up.header("x-device-token").to_owned();
        assert!(!device.is_empty() && !signed_up.text().contains(&device));

        assert_eq!(heard(&test, place, "ada@example.com").await, 5);

        assert_eq!(sign_in(&test, at("192.0.2.1"), "ada@example.com", PASSWORD).await.status, 429, "a device nobody knows waits");
        let known = sign_in(&test, with("192.0.2.1", "x-device-token", &device), "ada@example.com", PASSWORD).await;
        assert_eq!(known.status, 200, "{}", known.text());
        assert_eq!(sign_in(&test, at("192.0.2.3"), "ada@example.com", PASSWORD).await.status, 429, "which gives strangers nothing");
        for _ in 0..5 {
            test.later(Duration::from_secs(1));
            sign_in(&test, place(90), "ada@example.com", WRONG).await;
        }
        test.later(Duration::from_secs(60));
        let known = sign_in(&test, with("192.0.2.1", "x-device-token", known.header("x-device-token")), "ada@example.com", PASSWORD).await;
        assert_eq!(known.status, 200);
    }

    /// Invariant 67: a known device is no place to guess from either.
    async fn a_known_device_has_a_count_of_its_own(engine: Engine) {
        let limits = [("RATE_LIMITS", "sign_in=100000/60,sign_in_pair=100000/60")];
        let test = Test::with(engine, &limits).await;
        let device = test.ask_to_sign_up("ada@example.com", PASSWORD).await.header("x-device-token").to_owned();
        let with_device = || with("192.0.2.1", "x-device-token", &device);

        for n in 0..6 {
            let status = sign_in(&test, with_device(), "ada@example.com", WRONG).await.status;
            assert_eq!(status, if n < 5 { 400 } else { 429 });
        }

        assert_eq!(sign_in(&test, place(1), "ada@example.com", PASSWORD).await.status, 200);
        test.later(Duration::from_secs(1));
        assert_eq!(sign_in(&test, with_device(), "ada@example.com", PASSWORD).await.status, 200);
    }

    async fn a_device_is_known_to_the_account_that_was_signed_in_on_it_alone(engine: Engine) {
        let test = Test::with(engine, BY_ACCOUNT).await;
        let of_ada = test.ask_to_sign_up("ada@example.com", PASSWORD).await.header("x-device-token").to_owned();
        let of_ben = test.ask_to_sign_up("ben@example.com", PASSWORD).await.header("x-device-token").to_owned();
        let stranger = Test::with(engine, &[("JWT_SECRET", "another secret and long enough for anyone")]).await;
        let of_another_house = stranger.ask_to_sign_up("ada@example.com", PASSWORD).await.header("x-device-token").to_owned();
        let flipped = of_ada.replace(&of_ada[10..11], if &of_ada[10..11] == "A" { "B" } else { "A" });
        assert_eq!(heard(&test, place, "ada@example.com").await, 5);

        for no_token in [&of_ben, &of_another_house, &flipped, "", "kd1.", "kd1.AAAA", &of_ada[4..], &"A".repeat(5_000)] {
            let answer = sign_in(&test, with("192.0.2.1", "x-device-token", no_token), "ada@example.com", PASSWORD).await;
            assert_eq!(answer.status, 429, "{no_token}");
        }
        assert_eq!(sign_in(&test, with("192.0.2.9", "x-device-token", &of_ada), " Ada@Example.com", PASSWORD).await.status, 200);

        test.later(Duration::from_secs(400 * 86_400));
        assert_eq!(heard(&test, place, "ada@example.com").await, 5);
        assert_eq!(sign_in(&test, with("192.0.2.1", "x-device-token", &of_ada), "ada@example.com", PASSWORD).await.status, 429, "it is no longer known");
    }

    /// NIST SP 800-63B-4, section 3.2.2.
    async fn after_a_hundred_wrong_passwords_in_a_row_the_right_one_is_off_until_there_is_a_new_one(engine: Engine) {
        let test = Test::new(engine).await;
        let device = test.ask_to_sign_up("ada@example.com", PASSWORD).await.header("x-device-token").to_owned();
        failed_before(&test, "ada@example.com", 99).await;
        assert_eq!(test.sign_in("ada@example.com", PASSWORD).await.status, 200, "99 are borne");
        failed_before(&test, "ada@example.com", 99).await;
        assert_eq!(mails(&test, OFF).await, 0);

        let last = test.sign_in("ada@example.com", WRONG).await;
        let sessions = test.rows("sessions").await;
        let right = test.sign_in("ada@example.com", PASSWORD).await;

        assert_eq!(right.refusal(), refused(400, "invalid_credentials"));
        assert_eq!(comparable(&right), comparable(&last), "it does not say so to who asks");
        assert_eq!(test.rows("sessions").await, sessions);
        test.sign_in("ada@example.com", WRONG).await;
        assert_eq!(mails(&test, OFF).await, 1, "but to who owns it, once");
        let known = sign_in(&test, with("192.0.2.1", "x-device-token", &device), "ada@example.com", PASSWORD).await;
        assert_eq!(known.status, 200, "on a known device it counts: {}", known.text());

        failed_before(&test, "ada@example.com", 100).await;
        let ada = Person::of(&known.json());
        let changed = test.call(Method::PUT, &ada.token, USER, json!({"password": "another horse battery"})).await;
        assert_eq!(changed.status, 200, "{}", changed.text());
        assert_eq!(test.sign_in("ada@example.com", "another horse battery").await.status, 200);
    }

    async fn a_known_device_uses_up_no_more_than_another_hundred(engine: Engine) {
        let test = Test::new(engine).await;
        let device = test.ask_to_sign_up("ada@example.com", PASSWORD).await.header("x-device-token").to_owned();
        let known = async || sign_in(&test, with("192.0.2.1", "x-device-token", &device), "ada@example.com", PASSWORD).await.status;

        failed_before(&test, "ada@example.com", 199).await;
        assert_eq!(known().await, 200);
        failed_before(&test, "ada@example.com", 200).await;
        assert_eq!(known().await, 400);
    }

    /// NIST SP 800-63B-4, section 3.2.2.
    async fn a_wrong_password_from_within_a_session_is_counted_with_those_from_without(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let change = async |current: &str| {
            let body = json!({"password": "another horse battery", "current_password": current});
            test.call(Method::PUT, &ada.token, USER, body).await.refusal()
        };
        failed_before(&test, "ada@example.com", 99).await;
        let rows = test.rows("audit_events").await;

        assert_eq!(change(WRONG).await, refused(400, "invalid_credentials"));

        assert_eq!(test.rows("audit_events").await, rows + 1);
        assert_eq!(mails(&test, OFF).await, 1);
        assert_eq!(test.sign_in("ada@example.com", PASSWORD).await.status, 400, "it was the hundredth");
        failed_before(&test, "ada@example.com", 100).await;
        assert_eq!(change(PASSWORD).await, refused(400, "invalid_credentials"), "as many as on a known device");
        assert_eq!(test.sign_in("ada@example.com", "another horse battery").await.status, 400);
    }

    async fn strangers_do_not_keep_who_is_signed_in_from_a_new_password(engine: Engine) {
        let test = Test::with(engine, BY_ACCOUNT).await;
        let ada = test.sign_up("ada@example.com").await;
        failed_before(&test, "ada@example.com", 150).await;
        assert_eq!(heard(&test, place, "ada@example.com").await, 5);

        let body = json!({"password": "another horse battery", "current_password": PASSWORD});
        let changed = test.call(Method::PUT, &ada.token, USER, body).await;

        assert_eq!(changed.status, 200, "{}", changed.text());
        let user = db::users::by_email(&test.app.db, "ada@example.com").await.unwrap().unwrap();
        let mut tx = test.app.db.begin().await.unwrap();
        assert!(db::users::password_was_right(&mut tx, user.id, 1).await.unwrap(), "what was counted is over");
    }

    async fn wrong_codes_from_within_a_session_are_slowed_down_with_wrong_passwords(engine: Engine) {
        let test = Test::with(engine, &[("RATE_LIMITS", "sign_in_account=3/1m")]).await;
        let ada = test.sign_up("ada@example.com").await;
        let ask = async |proof: &str| {
            let mut body = json!({"password": "another horse battery"});
            body[proof] = json!("00000");
            test.call(Method::PUT, &ada.token, USER, body).await.status.as_u16()
        };

        let answers = [ask("nonce").await, ask("current_password").await, ask("nonce").await, ask("nonce").await, ask("current_password").await];

        assert_eq!(answers, [422, 400, 422, 429, 429]);
    }

    /// Invariant 66.
    async fn nobody_is_told_to_come_back_before_there_is_something_to_be_had(engine: Engine) {
        let seconds = |answer: &Answer| {
            let said = answer.header("ratelimit").rsplit("t=").next().unwrap_or_default();
            said.parse().unwrap_or(0_u64)
        };
        for limits in ["sign_in=2/60", "sign_in=100/6000,sign_in_account=2/900", "sign_in=100/6000,sign_in_pair=2/60"] {
            let test = Test::with(engine, &[("RATE_LIMITS", limits)]).await;
            heard(&test, |_| at("192.0.2.1"), "ada@example.com").await;

            let refusal = sign_in(&test, at("192.0.2.1"), "ada@example.com", WRONG).await;

            let wait = wait(&refusal);
            assert!(wait >= 1 && wait >= seconds(&refusal), "{limits}: {:?}", refusal.headers);
            test.later(Duration::from_secs(wait));
            assert_eq!(sign_in(&test, at("192.0.2.1"), "ada@example.com", WRONG).await.status, 400, "{limits}");
        }
    }
}
