//! Giving up an identity.
use super::*;

impl Test {
    /// Links an identity, as a sign-in with its provider would; gives its id.
    async fn linked(&self, person: &Person, provider: &str) -> String {
        let (id, now) = (uuid::Uuid::now_v7(), self.app.now());
        let profile = db::Json(json!({"email": person.email, "sub": "1"}));
        let (user, issuer) = (
            person.id.parse().unwrap(),
            format!("https://{provider}.example"),
        );
        let mut tx = self.app.db.begin().await.unwrap();
        let added = db::users::add_identity(
            &mut tx, id, user, provider, &issuer, &person.id, &profile, now,
        )
        .await;
        assert!(added.unwrap());
        tx.commit().await.unwrap();
        id.to_string()
    }

    pub async fn identities(&self, person: &Person) -> Vec<(String, String)> {
        let user = self.get(&person.token, USER).await.json();
        let one = |identity: &Value| {
            let text = |name: &str| identity[name].as_str().unwrap().to_owned();
            (text("provider"), text("identity_id"))
        };
        user["identities"]
            .as_array()
            .unwrap()
            .iter()
            .map(one)
            .collect()
    }

    async fn unlink(&self, token: &str, identity: &str) -> Answer {
        self.call(
            Method::DELETE,
            token,
            &format!("/auth/v1/user/identities/{identity}"),
            json!({}),
        )
        .await
    }
}

both_engines! {
    async fn an_identity_is_unlinked_where_another_stays(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let google = test.linked(&ada, "google").await;
        let github = test.linked(&ada, "github").await;

        let answer = test.unlink(&ada.token, &google).await;

        assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({})));
        let user = test.get(&ada.token, USER).await.json();
        assert_eq!(user["app_metadata"]["providers"], json!(["email", "github"]));
        let left = test.identities(&ada).await;
        assert_eq!(left.last().unwrap(), &("github".to_owned(), github));
        assert_eq!(left.len(), 2);
        assert_eq!(test.sign_in("ada@example.com", PASSWORD).await.status, 200);
        assert_eq!(test.unlink(&ada.token, &google).await.refusal(), refused(422, "identity_not_found"));
    }

    /// Invariant 55.
    async fn the_last_identity_cannot_be_unlinked(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let email = test.identities(&ada).await.remove(0).1;

        assert_eq!(test.unlink(&ada.token, &email).await.refusal(), refused(422, "single_identity_not_deletable"));

        let google = test.linked(&ada, "google").await;
        assert_eq!(test.unlink(&ada.token, &email).await.status, 200);
        assert_eq!(test.unlink(&ada.token, &google).await.refusal(), refused(422, "single_identity_not_deletable"));
        assert_eq!(test.identities(&ada).await, [("google".to_owned(), google)]);
    }

    /// Invariant 55: an address that was never proved lets nobody in.
    async fn an_identity_that_lets_nobody_in_does_not_count(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let google = test.linked(&ada, "google").await;
        let mut tx = test.app.db.begin().await.unwrap();
        db::users::set_password_hash(&mut tx, ada.id.parse().unwrap(), None, test.app.now()).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(test.unlink(&ada.token, &google).await.status, 200, "a confirmed address gets codes");

        let google = test.linked(&ada, "google").await;
        db::testing::execute(&test.app.db, "update users set email_confirmed_at = null").await.unwrap();

        assert_eq!(test.unlink(&ada.token, &google).await.refusal(), refused(422, "single_identity_not_deletable"));
    }

    async fn without_the_identity_of_the_address_its_password_is_dead(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let email = test.identities(&ada).await.remove(0).1;
        test.linked(&ada, "google").await;

        assert_eq!(test.unlink(&ada.token, &email).await.status, 200);

        assert_eq!(test.sign_in("ada@example.com", PASSWORD).await.refusal(), refused(400, "invalid_credentials"));
        let user = test.get(&ada.token, USER).await.json();
        assert_eq!(user["app_metadata"], json!({"provider": "google", "providers": ["google"]}));
    }

    async fn nobody_unlinks_what_is_anothers(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, ben) = (test.sign_up("ada@example.com").await, test.sign_up("ben@example.com").await);
        let hers = test.linked(&ada, "google").await;
        test.linked(&ben, "google").await;

        assert_eq!(test.unlink(&ben.token, &hers).await.refusal(), refused(422, "identity_not_found"));

        assert_eq!(test.identities(&ada).await.len(), 2);
    }

    /// Invariant 54.
    async fn unlinking_asks_for_a_fresh_sign_in(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up("ada@example.com").await;
        let google = test.linked(&ada, "google").await;
        test.later(Duration::from_secs(301));

        assert_eq!(test.unlink(&ada.token, &google).await.refusal(), refused(403, "reauthentication_needed"));
        assert_eq!(test.identities(&ada).await.len(), 2);

        let again = test.sign_in_again("ada@example.com").await;
        assert_eq!(test.unlink(&again.token, &google).await.status, 200);
    }

    async fn linking_by_hand_can_be_turned_off(engine: Engine) {
        let test = Test::with(engine, &[("AUTH_MANUAL_LINKING", "false")]).await;
        let ada = test.sign_up("ada@example.com").await;
        let google = test.linked(&ada, "google").await;

        assert_eq!(test.unlink(&ada.token, &google).await.refusal(), refused(404, "manual_linking_disabled"));

        assert_eq!(test.identities(&ada).await.len(), 2);
    }
}
