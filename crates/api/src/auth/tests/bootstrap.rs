//! The first admin, and passwords that others know.
use super::{
    admin::{USERS, decisions},
    *,
};
use crate::{auth::admin::bootstrap, commands::admin as command, testing::Engine};

const FIRST: &str = "a first word of nobody's";
const ADMIN: &[(&str, &str)] = &[
    ("ADMIN_EMAIL", "Root@Example.com"),
    ("ADMIN_PASSWORD", FIRST),
];
const ROOT: &str = "root@example.com";

async fn started(engine: Engine) -> Test {
    let test = Test::with(engine, ADMIN).await;
    bootstrap::run(&test.app).await.unwrap();
    test
}

impl Test {
    async fn choose_password(&self, token: &str, password: &str) -> Answer {
        let body = json!({"password": password});
        self.call(Method::PUT, token, USER, body).await
    }
}

both_engines! {
    /// Invariant 74.
    async fn a_bootstrapped_admins_password_works_once_and_opens_nothing_but_the_choice_of_another(engine: Engine) {
        let test = started(engine).await;

        let first = test.sign_in(ROOT, FIRST).await;
        let second = test.sign_in(ROOT, FIRST).await;

        assert_eq!(first.status, 200, "{}", first.text());
        assert_eq!(second.refusal(), refused(400, "invalid_credentials"));
        assert_eq!(test.rows("sessions").await, 1);
        let root = Person::of(&first.json());
        let waiting = refused(403, "password_expired");
        for path in [USERS, "/api/conversations", "/auth/v1/sessions", "/auth/v1/audit"] {
            assert_eq!(test.get(&root.token, path).await.refusal(), waiting, "{path}");
        }
        let rename = json!({"data": {"name": "Root"}});
        assert_eq!(test.call(Method::PUT, &root.token, USER, rename).await.refusal(), waiting);
        assert_eq!(test.call(Method::DELETE, &root.token, USER, json!({})).await.refusal(), waiting);
        assert_eq!(test.get(&root.token, USER).await.json()["role"], "admin", "who they are, they may read");
        let root = test.refreshed(&root.refresh_token).await;
        assert_eq!(test.get(&root.token, USERS).await.refusal(), waiting, "a new token opens no more");

        assert_eq!(test.choose_password(&root.token, FIRST).await.refusal(), refused(422, "same_password"));
        assert_eq!(test.choose_password(&root.token, PASSWORD).await.status, 200);
        assert_eq!(test.get(&root.token, USERS).await.status, 200);
        for _ in 0..2 {
            assert_eq!(test.sign_in(ROOT, PASSWORD).await.status, 200, "one's own is good for ever");
        }
        assert_eq!(test.sign_in(ROOT, FIRST).await.refusal(), refused(400, "invalid_credentials"));
    }

    async fn of_those_who_sign_in_at_once_with_such_a_password_one_does(engine: Engine) {
        let test = started(engine).await;

        let mut answers = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let (router, body) = (test.router.clone(), json!({"email": ROOT, "password": FIRST}).to_string());
            answers.spawn(async move {
                let request = crate::testing::request(Method::POST, "", "/auth/v1/token?grant_type=password");
                let request = request.header("content-type", "application/json").body(axum::body::Body::from(body)).unwrap();
                tower::ServiceExt::oneshot(router, request).await.unwrap().status().as_u16()
            });
        }

        let mut statuses = answers.join_all().await;
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 400, 400, 400]);
        assert_eq!(test.rows("sessions").await, 1);
    }

    async fn a_password_that_was_handed_over_is_too_old_after_a_week(engine: Engine) {
        let test = started(engine).await;

        test.later(bootstrap::HANDED_OVER_TTL);

        assert_eq!(test.sign_in(ROOT, FIRST).await.refusal(), refused(400, "invalid_credentials"));
        assert_eq!(test.rows("sessions").await, 0);
    }

    /// Invariant 74.
    async fn instances_that_start_together_make_one_admin_and_a_restart_resets_nobody(engine: Engine) {
        let test = Test::with(engine, ADMIN).await;
        let beside = test.beside(ADMIN).await;

        let (one, other) = tokio::join!(bootstrap::run(&test.app), bootstrap::run(&beside.app));

        one.unwrap();
        other.unwrap();
        assert_eq!((test.rows("users").await, test.rows("audit_events").await), (1, 1));
        let root = Person::of(&test.sign_in(ROOT, FIRST).await.json());
        test.choose_password(&root.token, PASSWORD).await;
        bootstrap::run(&test.app).await.unwrap();
        assert_eq!(test.sign_in(ROOT, FIRST).await.refusal(), refused(400, "invalid_credentials"));
        assert_eq!(test.sign_in(ROOT, PASSWORD).await.status, 200);
        let again = test.beside(&[("ADMIN_EMAIL", "another@example.com"), ("ADMIN_PASSWORD", FIRST)]).await;
        bootstrap::run(&again.app).await.unwrap();
        assert_eq!(test.rows("users").await, 1, "once in the life of a database");
        test.call(Method::DELETE, &test.service_key(), &format!("{USERS}/{}", root.id), json!({})).await;
        bootstrap::run(&test.app).await.unwrap();
        assert_eq!(test.rows("users").await, 0, "who was deleted does not come back");
    }

    async fn who_has_the_address_of_the_admin_to_be_is_not_made_one(engine: Engine) {
        let test = Test::with(engine, ADMIN).await;
        let squatter = test.sign_up(ROOT).await;

        bootstrap::run(&test.app).await.unwrap();

        assert_eq!(test.get(&squatter.token, USERS).await.refusal(), refused(403, "not_admin"));
        assert_eq!(test.sign_in(ROOT, FIRST).await.refusal(), refused(400, "invalid_credentials"));
        test.call(Method::DELETE, &squatter.token, USER, json!({})).await;
        bootstrap::run(&test.app).await.unwrap();
        assert_eq!(test.sign_in(ROOT, FIRST).await.status, 200, "it was not done, so it still can be");
    }

    async fn who_claims_the_address_without_proof_is_in_nobodys_way(engine: Engine) {
        let test = Test::with(engine, &[ADMIN, CONFIRMING].concat()).await;
        test.ask_to_sign_up(ROOT, PASSWORD).await;

        bootstrap::run(&test.app).await.unwrap();

        assert_eq!(test.sign_in(ROOT, PASSWORD).await.refusal(), refused(400, "invalid_credentials"));
        assert_eq!(test.sign_in(ROOT, FIRST).await.status, 200);
        assert_eq!(test.rows("users").await, 1);
    }

    async fn the_command_line_makes_an_admin_who_signs_in_once_with_what_it_prints(engine: Engine) {
        let test = Test::new(engine).await;

        let made = command::create(&test.app, " Ada@example.com", false).await.unwrap().document();

        assert_eq!((&made["email"], &made["created"]), (&json!("ada@example.com"), &json!(true)));
        let password = made["password"].as_str().unwrap();
        assert!(password.len() == 23, "{password}");
        let ada = Person::of(&test.sign_in("ada@example.com", password).await.json());
        assert_eq!(test.sign_in("ada@example.com", password).await.refusal(), refused(400, "invalid_credentials"));
        assert_eq!(test.get(&ada.token, USERS).await.refusal(), refused(403, "password_expired"));
        test.choose_password(&ada.token, PASSWORD).await;
        assert_eq!(test.get(&ada.token, USERS).await.status, 200);
        let events = decisions(&test, &json!({"id": ada.id})).await;
        let first = events.last().unwrap();
        assert_eq!((first.action.as_str(), first.actor_kind.as_str()), ("user_signedup", "system"));
        assert!(!format!("{events:?}").contains(password));
        assert!(command::create(&test.app, "ada", false).await.is_err());
    }

    async fn the_command_line_promotes_who_is_there_and_leaves_their_password_unless_told(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;

        let made = command::create(&test.app, "ada@example.com", false).await.unwrap().document();

        assert_eq!((&made["id"], &made["created"], &made["password"]), (&json!(ada.id), &json!(false), &Value::Null));
        assert_eq!(test.get(&ada.token, USER).await.refusal(), refused(403, "session_not_found"), "another role, another session");
        let ada = test.sign_in_again("ada@example.com").await;
        assert_eq!(test.get(&ada.token, USERS).await.status, 200);
        command::create(&test.app, "ada@example.com", false).await.unwrap();
        assert_eq!(test.get(&ada.token, USERS).await.status, 200, "it was theirs already");

        let made = command::create(&test.app, "ada@example.com", true).await.unwrap().document();
        assert_eq!(test.get(&ada.token, USER).await.refusal(), refused(403, "session_not_found"));
        assert_eq!(test.sign_in("ada@example.com", PASSWORD).await.refusal(), refused(400, "invalid_credentials"));
        assert_eq!(test.sign_in("ada@example.com", made["password"].as_str().unwrap()).await.status, 200);
        assert_eq!(test.rows("users").await, 1);
    }
}
