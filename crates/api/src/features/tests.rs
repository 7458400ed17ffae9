use super::*;
use crate::testing::{Test, both_engines};
use http::Method;
use serde_json::{Value, json};

const TRIED: Feature = Feature {
    name: "tried",
    about: "",
    percentage: 0,
};

#[test]
fn a_percentage_of_users_has_it_and_who_has_it_keeps_it_while_it_grows() {
    let users: Vec<_> = (0..20_000).map(|_| Uuid::now_v7()).collect();
    let mut before = 0;
    for percentage in [0, 1, 10, 50, 99, 100] {
        let have = |user: &&Uuid| decision(&TRIED, **user, percentage, &[]);
        let count = users.iter().filter(have).count();
        let expected = 200 * percentage;
        assert!(
            (count as i64 - expected).abs() <= 400,
            "{percentage} %: {count}"
        );
        let earlier = users
            .iter()
            .filter(|user| decision(&TRIED, **user, before, &[]));
        assert!(
            earlier
                .into_iter()
                .all(|user| decision(&TRIED, *user, percentage, &[]))
        );
        before = percentage;
    }
}

#[test]
fn nobody_is_always_the_first() {
    let users: Vec<_> = (0..2_000).map(|_| Uuid::now_v7()).collect();
    let both = users
        .iter()
        .filter(|user| place(&TRIED, **user) < 1_000 && place(&MODEL_TITLES, **user) < 1_000);
    assert!((5..60).contains(&both.count()), "a tenth of a tenth");
}

async fn features(test: &Test, token: &str) -> Value {
    test.get(token, "/api/features").await.json()["features"].clone()
}

both_engines! {
    async fn an_admin_rolls_a_feature_out_and_decides_it_for_single_users(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, ben) = (test.sign_up("ada@example.com").await, test.sign_up("ben@example.com").await);
        let eve = test.sign_up_admin("eve@example.com").await;
        let path = "/api/admin/features/model_titles";
        assert_eq!(features(&test, &ada.token).await, json!({"model_titles": true}));

        let rolled = test.call(Method::PUT, &eve.token, path, json!({"percentage": 0})).await;
        assert_eq!((rolled.status.as_u16(), &rolled.json()["percentage"]), (200, &json!(0)));
        let given = test.call(Method::PUT, &eve.token, &format!("{path}/users/{}", ada.id), json!({"enabled": true})).await;
        assert_eq!(given.status, 204);
        assert_eq!(features(&test, &ada.token).await, json!({"model_titles": true}));
        assert_eq!(features(&test, &ben.token).await, json!({"model_titles": false}));
        let list = test.get(&eve.token, "/api/admin/features").await.json();
        assert_eq!(list["data"][0]["overrides"], json!([{"user_id": ada.id, "enabled": true}]));

        let left = test.call(Method::DELETE, &eve.token, &format!("{path}/users/{}", ada.id), Value::Null).await;
        assert_eq!(left.status, 204);
        assert_eq!(features(&test, &ada.token).await, json!({"model_titles": false}));

        for percentage in [json!(-1), json!(101), json!("50"), Value::Null] {
            let refused = test.call(Method::PUT, &eve.token, path, json!({"percentage": percentage})).await;
            assert_eq!(refused.status.as_u16() / 100, 4, "{percentage}");
        }
        for (path, body) in [
            ("/api/admin/features/unheard_of".to_owned(), json!({"percentage": 5})),
            (format!("/api/admin/features/unheard_of/users/{}", ada.id), json!({"enabled": true})),
            (format!("{path}/users/0190a8c0-0000-7000-8000-000000000000"), json!({"enabled": true})),
        ] {
            assert_eq!(test.call(Method::PUT, &eve.token, &path, body).await.status, 404, "{path}");
        }
        let actions: Vec<_> = db::audit::page(&test.app.db, None, 5).await.unwrap().into_iter().map(|entry| entry.action).collect();
        assert_eq!(actions[..3], ["feature_decided", "feature_decided", "feature_rolled_out"]);
    }

    async fn who_has_no_titles_by_the_model_keeps_the_first_words(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let eve = test.sign_up_admin("eve@example.com").await;
        test.call(Method::PUT, &eve.token, "/api/admin/features/model_titles", json!({"percentage": 0})).await;

        test.post(&ada.token, "/api/chat", json!({"message": "How do tides work?"})).await;
        test.work().await;

        let list = test.get(&ada.token, "/api/conversations").await.json();
        assert_eq!(list["data"][0]["title"], "How do tides work?");
        assert_eq!(test.world.llm().count(), 1, "no title was asked for");
    }
}
