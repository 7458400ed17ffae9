//! What a user's own programs may do with a key of theirs, and how long.
use super::*;
use crate::testing::{Engine, request};
use futures_util::future::join_all;

const KEYS: &str = "/api/keys";
const COMPLETIONS: &str = "/v1/chat/completions";

fn question() -> Value {
    json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]})
}

async fn keys(test: &Test, person: &Person) -> Vec<Value> {
    let answer = test.get(&person.token, KEYS).await.json();
    answer["data"].as_array().unwrap().clone()
}

async fn remove(test: &Test, person: &Person, key: &Value) -> Answer {
    let path = format!("{KEYS}/{}", key["id"].as_str().unwrap());
    test.call(Method::DELETE, &person.token, &path, json!({}))
        .await
}

both_engines! {
    async fn a_key_asks_and_reads_in_its_users_name(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, ben) = (test.sign_up("ada@example.com").await, test.sign_up("ben@example.com").await);
        let made = test.api_key(&ada, json!({"name": " a script "})).await;
        let key = made["key"].as_str().unwrap();

        assert_eq!(test.post(key, COMPLETIONS, question()).await.status, 200);
        assert_eq!(test.post(key, "/api/chat", json!({"message": "Hello"})).await.status, 200);

        assert_eq!((made["name"].as_str(), made["hint"].as_str()), (Some("a script"), Some(&key[..8])));
        assert!(key.starts_with("pl_") && key.len() == 46, "{key}");
        let read = async |token: &str, path: &str| test.get(token, path).await.json();
        for path in ["/v1/models", "/api/models", "/api/usage", "/api/conversations", "/api/profile"] {
            assert_eq!(read(key, path).await, read(&ada.token, path).await, "{path}");
        }
        assert_eq!(read(key, "/api/usage").await["messages"]["used"], 2);
        assert_eq!(read(&ben.token, "/api/usage").await["messages"]["used"], 0);
        let listed = keys(&test, &ada).await;
        assert_eq!(listed[0]["id"], made["id"]);
        assert!(listed.len() == 1 && listed[0].get("key").is_none(), "it is shown once: {listed:?}");
        assert_eq!(keys(&test, &ben).await, Vec::<Value>::new());
    }

    async fn a_key_is_kept_as_a_hash_alone(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let made = test.api_key(&ada, json!({"name": "a script"})).await;
        let key = made["key"].as_str().unwrap();
        test.post(key, COMPLETIONS, question()).await;

        let content = db::testing::content(&test.app.db, &[]).await.unwrap().join("\n");

        assert!(content.contains("a script") && !content.contains(&key[8..]));
        test.work().await;
        let mails: Vec<_> = test.world.mailbox().to("ada@example.com").into_iter().map(|mail| mail.subject).collect();
        assert_eq!(mails, ["An API key was made for your account"]);
    }

    async fn a_key_opens_neither_the_account_nor_what_its_user_administers(engine: Engine) {
        let test = Test::new(engine).await;
        let ann = test.sign_up_admin("ann@example.com").await;
        let key = test.api_key(&ann, json!({"name": "a script"})).await["key"].as_str().unwrap().to_owned();
        let before = db::testing::content(&test.app.db, &["api_keys"]).await.unwrap();

        for (method, path, body) in [
            (Method::GET, KEYS, json!({})),
            (Method::POST, KEYS, json!({"name": "another"})),
            (Method::GET, "/api/billing", json!({})),
            (Method::GET, "/api/entitlements", json!({})),
            (Method::POST, "/api/chat/ws-ticket", json!({})),
            (Method::GET, "/api/admin/users", json!({})),
        ] {
            let answer = test.call(method, &key, path, body).await;
            assert_eq!(answer.refusal(), refused(401, "invalid_token"), "{path}");
        }
        for (method, path, body) in [
            (Method::GET, USER, json!({})),
            (Method::PUT, USER, json!({"data": {"name": "x"}})),
            (Method::DELETE, USER, json!({})),
            (Method::GET, "/auth/v1/user/export", json!({})),
            (Method::GET, "/auth/v1/sessions", json!({})),
            (Method::GET, "/auth/v1/admin/users", json!({})),
        ] {
            let answer = test.call(method, &key, path, body).await;
            assert_eq!(answer.refusal(), refused(403, "bad_jwt"), "{path}");
        }
        let cookie = request(Method::GET, "", "/v1/models").header("cookie", format!("plinth-access={key}"));
        let answer = test.send(cookie.body(Default::default()).unwrap()).await;
        assert_eq!(answer.status, 401, "a key is no cookie");
        assert_eq!(db::testing::content(&test.app.db, &["api_keys"]).await.unwrap(), before);
    }

    async fn a_key_ends_with_its_time_when_it_is_removed_and_with_its_user(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, ben) = (test.sign_up("ada@example.com").await, test.sign_up("ben@example.com").await);
        let until = (test.app.now() + Duration::from_secs(60)).to_string();
        let short = test.api_key(&ada, json!({"name": "short", "expires_at": until})).await;
        let long = test.api_key(&ada, json!({"name": "long"})).await;
        let models = async |key: &Value| test.get(key["key"].as_str().unwrap(), "/v1/models").await;
        let gone = refused(401, "invalid_api_key");
        assert_eq!(models(&short).await.status, 200);

        test.later(Duration::from_secs(60));
        assert_eq!(models(&short).await.refusal(), gone);
        assert_eq!(models(&long).await.status, 200);

        assert_eq!(remove(&test, &ben, &long).await.status, 404);
        assert_eq!(models(&long).await.status, 200, "it is not Ben's");
        assert_eq!(remove(&test, &ada, &long).await.status, 204);
        assert_eq!(models(&long).await.refusal(), gone);
        assert_eq!(remove(&test, &ada, &long).await.status, 404);

        let last = test.api_key(&ada, json!({"name": "last"})).await;
        test.ban("ada@example.com").await;
        assert_eq!(models(&last).await.refusal(), refused(403, "user_banned"));
        test.later(Duration::from_secs(3600));
        assert_eq!(models(&last).await.status, 200);
        let ada = test.sign_in_again("ada@example.com").await;
        assert!(test.call(Method::DELETE, &ada.token, USER, json!({})).await.status.is_success());
        assert_eq!(models(&last).await.refusal(), gone);
        assert_eq!(test.rows("api_keys").await, 0);
        for nonsense in ["pl_", "pl_nonsense"] {
            assert_eq!(test.get(nonsense, "/v1/models").await.refusal(), gone);
        }
    }

    /// Invariant 16, for keys.
    async fn a_stream_ends_within_five_seconds_of_its_key(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let made = test.api_key(&ada, json!({"name": "a script"})).await;
        test.world.llm().script([sim::Reply::hang()]);
        let body = json!({"message": "Hello", "stream": true});
        let asked = request(Method::POST, made["key"].as_str().unwrap(), "/api/chat").header("content-type", "application/json");
        let asked = asked.body(axum::body::Body::from(body.to_string())).unwrap();
        let answer = tokio::spawn({
            let router = test.router.clone();
            async move {
                let response = tower::ServiceExt::oneshot(router, asked).await.unwrap();
                http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes()
            }
        });
        test.world.llm().until(|calls| !calls.is_empty()).await;

        assert_eq!(remove(&test, &ada, &made).await.status, 204);

        let heard = tokio::time::timeout(Duration::from_secs(8), answer).await.expect("it ends").unwrap();
        let heard = String::from_utf8_lossy(&heard);
        assert!(!heard.contains("event: finish"), "{heard}");
        test.app.streams.stop_all();
    }

    async fn a_use_is_noted_once_a_minute(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let key = test.api_key(&ada, json!({"name": "a script"})).await["key"].as_str().unwrap().to_owned();
        let last_used = async || keys(&test, &ada).await[0]["last_used_at"].clone();
        assert_eq!(last_used().await, Value::Null);

        test.get(&key, "/v1/models").await;
        let first = test.app.now().to_string();
        assert_eq!(last_used().await, json!(first));
        test.later(Duration::from_secs(59));
        test.get(&key, "/v1/models").await;
        assert_eq!(last_used().await, json!(first));
        test.later(Duration::from_secs(1));
        test.get(&key, "/v1/models").await;
        assert_eq!(last_used().await, json!(test.app.now().to_string()));
    }

    async fn nobody_has_more_than_twenty_keys_however_fast_they_ask(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        for _ in 0..18 {
            test.api_key(&ada, json!({"name": "one of many"})).await;
        }

        let new = || test.post(&ada.token, KEYS, json!({"name": "one too many"}));
        let answers = join_all([(); 6].map(|()| new())).await;

        let made = answers.iter().filter(|answer| answer.status == 201).count();
        let refusals = answers.iter().filter(|answer| answer.refusal() == refused(422, "too_many_api_keys")).count();
        assert_eq!((made, refusals, test.rows("api_keys").await), (2, 4, 20));
    }
}

#[tokio::test]
async fn a_key_needs_a_name_and_a_time_that_is_to_come() {
    let test = Test::new(Engine::Sqlite).await;
    let ada = test.sign_up("ada@example.com").await;
    let past = test.app.now().to_string();

    for (new, fields) in [
        (json!({"name": " "}), vec!["name"]),
        (json!({"name": "x".repeat(121)}), vec!["name"]),
        (json!({"name": "x", "expires_at": past}), vec!["expires_at"]),
        (
            json!({"name": "", "expires_at": "tomorrow"}),
            vec!["name", "expires_at"],
        ),
        (json!({}), vec!["name"]),
    ] {
        let answer = test.post(&ada.token, KEYS, new).await;
        assert_eq!(answer.status, 400);
        let errors = answer.json()["errors"].as_array().unwrap().clone();
        let named: Vec<_> = errors.iter().map(|e| e["field"].clone()).collect();
        assert_eq!(named, fields);
    }
    assert_eq!(test.rows("api_keys").await, 0);
}
