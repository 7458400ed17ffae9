use crate::testing::{Engine, PASSWORD, Test, both_engines};
use serde_json::json;

both_engines! {
    async fn an_unknown_mail_and_a_wrong_password_look_alike(engine: Engine) {
        let test = Test::new(engine).await;
        test.sign_up("ada@example.com").await;

        let sign_in = async |email: &str, password: &str| test.post("", "/auth/v1/token?grant_type=password", json!({"email": email, "password": password})).await;
        let (wrong, unknown) = (sign_in("ada@example.com", "another password").await, sign_in("nobody@example.com", PASSWORD).await);

        assert_eq!(wrong.refusal(), (400, "invalid_credentials".into()));
        let blank = |answer: &crate::testing::Answer| { let mut body = answer.json(); body["request_id"] = json!(null); body };
        assert_eq!(blank(&wrong), blank(&unknown));
    }
}
