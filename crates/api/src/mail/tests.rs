use super::{letter::Templates, mailer::Post, *};
use crate::testing::{PASSWORD, Test, both_engines, request};
use axum::body::Body;
use http::{Method, header};
use serde_json::{Map, json};
use std::collections::BTreeSet;

const HOSTILE: &str = "\"><script>alert(1)</script>{{ 7 * 7 }}\r\nBcc: eve@example.com";

/// The kinds of mail, as the code has them.
fn kinds() -> Vec<String> {
    let unknown = serde_json::from_value::<Mail>(json!({"mail": "?"}));
    let listed = unknown.unwrap_err().to_string();
    let kinds: Vec<_> = listed
        .split('`')
        .skip(3)
        .step_by(2)
        .map(String::from)
        .collect();
    assert!(kinds.len() > 10, "{listed}");
    kinds
}

/// The facts of one kind, all of them this text, except for numbers.
fn facts(kind: &str, text: &str) -> Map<String, Value> {
    let sealed = json!({"sealed": ""});
    let any = json!({"mail": kind, "to": "", "code": sealed, "link": sealed, "minutes": 10, "provider": "", "remaining": 10, "plan": "", "until": "", "renews": true});
    let mail: Mail = serde_json::from_value(any).unwrap();
    let Value::Object(mut facts) = serde_json::to_value(mail).unwrap() else {
        unreachable!("a mail is an object")
    };
    facts.remove("mail");
    facts.insert("sender".into(), "".into());
    for (_, fact) in facts.iter_mut().filter(|(_, fact)| !fact.is_number()) {
        *fact = text.into();
    }
    facts
}

#[test]
fn every_mail_says_the_same_in_every_language_and_in_text_as_in_html() {
    let templates = Templates::load().unwrap();
    for kind in kinds() {
        let facts = facts(&kind, "fact");
        let mut named = vec![];
        for locale in Locale::ALL {
            let letter = templates.write(&kind, locale, &facts).unwrap();
            for written in [&letter.subject, &letter.text, &letter.html] {
                assert!(
                    !written.trim().is_empty() && !written.contains("{{"),
                    "{written}"
                );
            }
            assert!(
                letter
                    .html
                    .contains(&format!("<html lang=\"{}\"", locale.tag()))
            );
            assert_eq!(
                letter.text.contains("    fact"),
                facts.contains_key("code"),
                "{kind}"
            );
            assert_eq!(
                letter.text.contains(":\nfact"),
                facts.contains_key("link"),
                "{kind}"
            );
            assert!(
                !letter.text.contains("\n:\n"),
                "{kind}: a link without words"
            );
            named.push(templates.facts_named(&kind, locale));
        }
        assert_eq!(named[0], named[1], "{kind}");
        let unsaid: Vec<_> = facts
            .keys()
            .filter(|fact| !["code", "link"].contains(&fact.as_str()) && !named[0].contains(*fact))
            .collect();
        assert!(unsaid.is_empty(), "{kind} does not say {unsaid:?}");
    }
    for locale in Locale::ALL {
        let written: BTreeSet<_> = templates.kinds(locale).collect();
        let known = kinds();
        let known: BTreeSet<_> = known.iter().map(String::as_str).collect();
        assert_eq!(written, known, "{locale:?}");
    }
}

#[test]
fn what_a_mail_is_told_is_never_markup_and_never_a_header() {
    let templates = Templates::load().unwrap();
    for (kind, locale) in kinds()
        .iter()
        .flat_map(|kind| Locale::ALL.map(|locale| (kind, locale)))
    {
        let letter = templates
            .write(kind, locale, &facts(kind, HOSTILE))
            .unwrap();
        let harmless = templates.write(kind, locale, &facts(kind, "fact")).unwrap();

        assert!(
            !letter.html.contains("<script") && !letter.html.contains("49"),
            "{}",
            letter.html
        );
        for mark in ['<', '>', '"'] {
            let count = |html: &str| html.matches(mark).count();
            assert_eq!(count(&letter.html), count(&harmless.html), "{kind}: {mark}");
        }
        assert!(
            letter.text.contains("<script>alert(1)</script>{{ 7 * 7 }}"),
            "text is text"
        );

        let from: Mailbox = "Ann \"<b>\" <plinth@example.com>".parse().unwrap();
        let post = Post {
            id: Uuid::nil(),
            kind,
            locale,
            from: &from,
            to: "ada@example.com".parse().unwrap(),
            letter,
        };
        let written = smtp::message(post, Timestamp::from_unix(0))
            .unwrap()
            .formatted();
        let written = String::from_utf8(written).unwrap();
        let (headers, _) = written.split_once("\r\n\r\n").unwrap();
        assert!(!headers.to_lowercase().contains("\nbcc"), "{headers}");
    }
}

#[test]
fn a_mail_fetches_nothing_and_suits_a_phone_by_day_and_by_night() {
    let templates = Templates::load().unwrap();
    for kind in kinds() {
        let html = templates
            .write(
                &kind,
                Locale::En,
                &facts(&kind, "https://example.com/?a=1&b=2"),
            )
            .unwrap()
            .html;

        for fetched in [
            "src=", "url(", "@import", "<link", "<img", "<script", "<form",
        ] {
            assert!(!html.contains(fetched), "{fetched}: {html}");
        }
        for wanted in [
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">",
            "<meta name=\"color-scheme\" content=\"light dark\">",
            "@media (prefers-color-scheme: dark)",
            "max-width: 480px",
        ] {
            assert!(html.contains(wanted), "{wanted}");
        }
        assert_eq!(html.matches("<h1").count(), 1);
        assert_eq!(
            html.matches("<table").count(),
            html.matches("role=\"presentation\"").count()
        );
    }
}

#[test]
fn a_browser_is_written_to_in_the_language_it_likes_best() {
    for (header, expected) in [
        ("de", Some(Locale::De)),
        ("de-AT,de;q=0.9,en;q=0.8", Some(Locale::De)),
        ("fr, en;q=0.3, de_CH;q=0.7", Some(Locale::De)),
        ("EN-us, de", Some(Locale::En)),
        ("de;q=0, en;q=0.1", Some(Locale::En)),
        ("de;q=NaN", None),
        ("de;q=", None),
        ("den, fr", None),
        ("*", None),
        ("", None),
        (";;,,=;q=1", None),
    ] {
        assert_eq!(Locale::accepted(header), expected, "{header}");
    }
}

/// Signs up as from a browser of this language.
async fn sign_up_speaking(test: &Test, language: &str, email: &str, data: Value) {
    let body = json!({"email": email, "password": PASSWORD, "data": data});
    let request = request(Method::POST, "", "/auth/v1/signup")
        .header(header::ACCEPT_LANGUAGE, language)
        .header(header::CONTENT_TYPE, "application/json");
    let request = request.body(Body::from(body.to_string()));
    let answer = test.send(request.unwrap()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

async fn recover(test: &Test, email: &str) {
    let body = json!({"email": email});
    let answer = test.post("", "/auth/v1/recover", body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// The mails that wait.
async fn waiting(test: &Test) -> Vec<Job> {
    db::jobs::unfinished(&test.app.db, SEND).await.unwrap()
}

async fn dead(test: &Test) -> i64 {
    db::jobs::count_dead(&test.app.db).await.unwrap().0
}

fn newest(test: &Test, email: &str) -> sim::Message {
    test.world.mailbox().to(email).pop().expect("a mail")
}

const BY_SENDGRID: &[(&str, &str)] = &[
    ("SMTP_URL", ""),
    ("SENDGRID_API_KEY", "SG.of-the-tests"),
    ("MAIL_FROM", "Plinth <plinth@example.com>"),
];

both_engines! {
    async fn who_reads_a_mail_reads_their_language(engine: Engine) {
        let test = Test::with(engine, &[("AUTH_AUTOCONFIRM", "false")]).await;
        for (language, chosen, expected) in [
            ("de-DE,de;q=0.9", json!({}), "ist dein Code"),
            ("de", json!({"locale": "en-GB"}), "is your code"),
            ("en", json!({"locale": "de_AT"}), "ist dein Code"),
            ("de", json!({"locale": "tlh"}), "ist dein Code"),
            ("de", json!({"locale": ["de"]}), "ist dein Code"),
            ("fr", json!({}), "is your code"),
        ] {
            let email = format!("{}@example.com", Uuid::new_v4());
            sign_up_speaking(&test, language, &email, chosen).await;
            test.work().await;
            let mail = newest(&test, &email);
            assert!(mail.subject.contains(expected), "{language}: {}", mail.subject);
        }
    }

    async fn a_notice_is_in_the_language_of_its_reader_whoever_caused_it(engine: Engine) {
        let test = Test::new(engine).await;
        sign_up_speaking(&test, "de", "ada@example.com", json!({})).await;
        sign_up_speaking(&test, "en", "ben@example.com", json!({})).await;

        for (email, expected) in [("ada@example.com", "ist dein Code"), ("ben@example.com", "is your code")] {
            // Whoever asks for it says no language.
            recover(&test, email).await;
            test.work().await;
            let mail = newest(&test, email);
            assert!(mail.subject.contains(expected), "{}", mail.subject);
        }
        assert_eq!(newest(&test, "ada@example.com").header("content-language"), Some("de"));
    }

    async fn codes_and_links_lie_sealed_until_their_mail_is_sent(engine: Engine) {
        let test = Test::with(engine, &[("AUTH_AUTOCONFIRM", "false")]).await;
        sign_up_speaking(&test, "en", "ada@example.com", json!({})).await;

        let kept = waiting(&test).await.remove(0).payload.0;
        test.work().await;

        let mail = newest(&test, "ada@example.com");
        let code = mail.subject.split(' ').next().unwrap();
        let link = mail.text.split_whitespace().find(|word| word.starts_with("http")).unwrap();
        let secret = link.split(['=', '&']).nth(1).unwrap();
        assert!(code.len() == 6 && secret.len() == 43, "{code} {secret}");
        let kept_text = kept.to_string();
        assert!(!kept_text.contains(code) && !kept_text.contains(secret) && !kept_text.contains("http"), "{kept_text}");
        let code = kept["code"].clone();
        assert_eq!(sealed::open(&test.app.keys, "ada@example.com", code.clone()).unwrap(), json!(mail.subject.split(' ').next()));
        assert!(sealed::open(&test.app.keys, "eve@example.com", code).is_err(), "only as the mail to this address");
        assert!(waiting(&test).await.is_empty());
    }

    async fn a_mail_that_is_tried_again_is_the_same_mail(engine: Engine) {
        let test = Test::with(engine, &[("MAIL_FROM", "Plinth <plinth@example.com>")]).await;
        test.sign_up("ada@example.com").await;
        recover(&test, "ada@example.com").await;
        let job = waiting(&test).await.remove(0);
        test.world.mailbox().refuse([451, 421]);

        for _ in 0..2 {
            test.work().await;
            assert_eq!((test.world.mailbox().messages().len(), waiting(&test).await.len()), (0, 1));
            test.later(Duration::from_secs(3600));
        }
        test.work().await;

        let mails = test.world.mailbox().to("ada@example.com");
        assert_eq!((mails.len(), waiting(&test).await.len(), dead(&test).await), (1, 0, 0));
        let own = format!("{}@example.com", job.id);
        assert_eq!(mails[0].header("message-id"), Some(own.as_str()));
        assert_eq!(mails[0].header("auto-submitted"), Some("auto-generated"));
        test.later(Duration::from_secs(86_400));
        test.work().await;
        assert_eq!(test.world.mailbox().messages().len(), 1, "and once");
    }

    async fn a_mail_that_a_server_will_never_take_is_dead_at_once(engine: Engine) {
        for sender in [&[][..], BY_SENDGRID] {
            let test = Test::with(engine, sender).await;
            test.sign_up("ada@example.com").await;
            recover(&test, "ada@example.com").await;
            test.world.mailbox().refuse([if sender.is_empty() { 550 } else { 400 }]);

            test.work().await;
            assert_eq!((waiting(&test).await.len(), dead(&test).await), (0, 1));
            test.later(Duration::from_secs(86_400));
            test.work().await;

            assert_eq!(test.world.mailbox().messages().len(), 0);
        }
    }

    async fn an_address_that_would_be_a_header_gets_no_mail(engine: Engine) {
        for sender in [&[][..], BY_SENDGRID] {
            let test = Test::with(engine, sender).await;
            let ada = test.sign_up("ada@example.com").await;
            for to in ["ada@example.com\r\nBcc: eve@example.com", "ada@example.com>, <eve@example.com", ""] {
                let mut tx = test.app.db.begin().await.unwrap();
                let mail = Mail::PasswordChanged { to: to.into() };
                enqueue(&mut tx, ada.id.parse().unwrap(), &mail, test.app.now()).await.unwrap();
                tx.commit().await.unwrap();
            }

            test.work().await;

            assert_eq!((test.world.mailbox().messages().len(), dead(&test).await), (0, 3));
        }
    }

    async fn sendgrid_sends_mail_too_and_is_told_to_follow_nobody(engine: Engine) {
        let test = Test::with(engine, BY_SENDGRID).await;
        test.app.mailer.test().await.unwrap();
        sign_up_speaking(&test, "de", "ada@example.com", json!({})).await;
        recover(&test, "ada@example.com").await;
        let job = waiting(&test).await.remove(0);
        test.world.mailbox().refuse([503, 429]);

        for _ in 0..2 {
            test.work().await;
            assert_eq!((test.world.mailbox().messages().len(), waiting(&test).await.len()), (0, 1));
            test.later(Duration::from_secs(3600));
        }
        test.work().await;

        let mail = newest(&test, "ada@example.com");
        assert!(mail.subject.ends_with("ist dein Code für ein neues Passwort"), "{}", mail.subject);
        assert!(mail.text.contains("neues Passwort") && mail.html.is_some());
        assert_eq!(mail.header("from"), Some("Plinth <plinth@example.com>"));
        let own = format!("<{}@example.com>", job.id);
        assert_eq!(mail.header("message-id"), Some(own.as_str()));
        let asked: Value = serde_json::from_slice(&mail.raw).unwrap();
        let tracking = &asked["tracking_settings"];
        assert_eq!(tracking["click_tracking"], json!({"enable": false, "enable_text": false}));
        assert_eq!((&tracking["open_tracking"]["enable"], &tracking["subscription_tracking"]["enable"]), (&json!(false), &json!(false)));
        assert_eq!(asked["custom_args"]["job"], json!(job.id));
        assert_eq!(test.world.mailbox().messages().len(), 1);
    }
}

/// What signs as SendGrid does, and the key it shows.
fn sendgrid() -> (aws_lc_rs::signature::EcdsaKeyPair, String) {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let known = STANDARD.decode(crate::testing::SENDGRID_KEY).unwrap();
    let shown = [&known[..26], pair.public_key().as_ref()].concat();
    (pair, STANDARD.encode(shown))
}

both_engines! {
    async fn an_address_that_bounces_is_written_to_no_more(engine: Engine) {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let (pair, key) = sendgrid();
        let test = Test::with(engine, &[("SENDGRID_WEBHOOK_KEY", &key)]).await;
        let tell = async |events: serde_json::Value, at: i64| {
            let (body, at) = (events.to_string(), at.to_string());
            let signed = [at.as_bytes(), body.as_bytes()].concat();
            let signature = STANDARD.encode(pair.sign(&aws_lc_rs::rand::SystemRandom::new(), &signed).unwrap());
            let request = request(Method::POST, "", "/webhooks/sendgrid")
                .header("x-twilio-email-event-webhook-signature", signature)
                .header("x-twilio-email-event-webhook-timestamp", at);
            test.send(request.body(Body::from(body)).unwrap()).await
        };
        let since = async |email: &str| db::muted_addresses::since(&test.app.db, email).await.unwrap().is_some();
        let now = test.app.now().unix();

        let told = tell(json!([
            {"email": "Gone@Example.com", "event": "bounce", "type": "bounce"},
            {"email": "angry@example.com", "event": "spamreport"},
            {"email": "full@example.com", "event": "bounce", "type": "blocked"},
            {"email": "here@example.com", "event": "delivered"},
        ]), now).await;

        assert_eq!((told.status.as_u16(), told.json()), (200, json!({"received": true})));
        assert!(since("gone@example.com").await && since("angry@example.com").await);
        assert!(!since("full@example.com").await && !since("here@example.com").await);
        // Until the operator says so.
        let form = crate::commands::Form { json: false };
        assert_eq!(crate::commands::mail::unmute(&test.app, "GONE@example.com", &form).await.unwrap(), 0);
        assert!(!since("gone@example.com").await && since("angry@example.com").await);
        assert_eq!(crate::commands::mail::unmute(&test.app, "gone@example.com", &form).await.unwrap(), 1);
        let old = tell(json!([{"email": "here@example.com", "event": "spamreport"}]), now - 2 * 86_400).await;
        assert_eq!(old.refusal(), (400, "invalid_signature".into()));
        let mut forged = request(Method::POST, "", "/webhooks/sendgrid");
        for (name, value) in [("signature", "MEUCIQ=="), ("timestamp", "1")] {
            forged = forged.header(format!("x-twilio-email-event-webhook-{name}"), value);
        }
        let forged = test.send(forged.body(Body::from(r#"[{"email": "here@example.com", "event": "spamreport"}]"#)).unwrap()).await;
        assert_eq!(forged.refusal(), (400, "invalid_signature".into()));
        assert!(!since("here@example.com").await);
    }
}
