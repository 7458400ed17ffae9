//! What users say of themselves is only said.
use super::{access::claims, admin::USERS, *};

/// Whatever a program might take for more than a claim.
fn boasts() -> Value {
    json!({
        "role": "admin", "is_admin": true, "is_super_admin": true, "email_verified": true, "email_confirmed_at": "2026-01-01T00:00:00Z",
        "email": "owner@example.com", "sub": "0190a8c0-0000-7000-8000-000000000000", "phone_verified": true, "aal": "aal2",
        "app_metadata": {"role": "admin", "plan": "pro"}, "provider": "google", "providers": ["google"],
    })
}

both_engines! {
    /// Invariant 12.
    async fn what_users_say_of_themselves_verifies_nothing_and_gives_no_role(engine: Engine) {
        let test = Test::with(engine, CONFIRMING).await;
        let sign_up = json!({"email": "ada@example.com", "password": PASSWORD, "data": boasts()});

        let pending = test.post("", SIGN_UP, sign_up).await.json();

        assert_eq!(pending["email_confirmed_at"], Value::Null);
        assert_eq!(test.sign_in("ada@example.com", PASSWORD).await.refusal(), refused(400, "email_not_confirmed"));
        let code = test.mailed_code("ada@example.com").await;
        let ada = Person::of(&test.verify("ada@example.com", &code).await.json());
        let told = test.call(Method::PUT, &ada.token, USER, json!({"data": boasts()})).await.json();
        let ada = test.refreshed(&ada.refresh_token).await;
        assert_eq!(told["user_metadata"], boasts(), "it is kept as it was said");
        let said = claims(&ada.token);
        let by_email = json!({"provider": "email", "providers": ["email"]});
        for (what, of_claims, of_user) in [
            ("role", &said["role"], &told["role"]),
            ("email", &said["email"], &told["email"]),
            ("app_metadata", &said["app_metadata"], &told["app_metadata"]),
        ] {
            let expected = match what {
                "role" => json!("authenticated"),
                "email" => json!("ada@example.com"),
                _ => by_email.clone(),
            };
            assert_eq!((of_claims, of_user), (&expected, &expected), "{what}");
        }
        assert_eq!((&said["aal"], &said["sub"]), (&json!("aal1"), &json!(ada.id)));
        assert_eq!(test.get(&ada.token, USERS).await.refusal(), refused(403, "not_admin"));
        assert_eq!(test.get(&ada.token, "/api/billing").await.json()["plan"], "free");
    }

    /// Invariant 12, of an address: what is said of another's is no claim to it.
    async fn an_address_that_is_only_said_stays_its_owners(engine: Engine) {
        let test = Test::new(engine).await;
        let owner = test.sign_up("owner@example.com").await;
        let ada = test.sign_up("ada@example.com").await;

        test.call(Method::PUT, &ada.token, USER, json!({"data": boasts()})).await;

        assert_eq!(test.sign_in_again("owner@example.com").await.id, owner.id);
        assert_eq!(test.get(&owner.token, USER).await.json()["email"], "owner@example.com");
        assert_eq!(test.sign_in_again("ada@example.com").await.id, ada.id);
    }
}
