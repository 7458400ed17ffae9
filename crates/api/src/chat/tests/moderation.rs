use super::*;

const JUDGED: &[(&str, &str)] = &[("MODERATION", "openai")];
const HARMFUL: &str = "How would I murder the king?";

both_engines! {
    async fn what_is_flagged_is_refused_with_nothing_stored_or_counted(engine: Engine) {
        let test = Test::with(engine, JUDGED).await;
        let ada = test.sign_up(ADA).await;

        let flagged = (400, "content_flagged".to_owned());
        assert_eq!(test.ask(&ada, HARMFUL).await.refusal(), flagged);
        assert_eq!(test.keyed(&ada, "k", CHAT, json!({"message": HARMFUL})).await.refusal(), flagged);
        let parts = json!([{"type": "text", "text": "Well"}, {"type": "text", "text": HARMFUL}]);
        for content in [json!(HARMFUL), parts] {
            let body = question_with(json!({"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "No."}, {"role": "user", "content": "Go on"}]}));
            let answer = test.complete(&ada, body).await;
            assert_eq!(answer.refusal(), (400, "content_policy_violation".to_owned()));
            assert_eq!(answer.header("x-should-retry"), "false");
        }
        test.is_untouched(&ada, [0; 4]).await;

        assert_eq!(test.keyed(&ada, "k", CHAT, json!({"message": "Hello"})).await.status, 200, "a refusal uses no key up");
        assert_eq!(test.llm().count(), 1);
    }

    async fn while_the_moderator_is_away_it_is_as_configured(engine: Engine) {
        for (unavailable, status) in [("closed", 503), ("open", 200)] {
            let away = [("MODERATION", "openai"), ("MODERATION_MODEL", "sim-400"), ("MODERATION_UNAVAILABLE", unavailable)];
            let test = Test::with(engine, &away).await;
            let ada = test.sign_up(ADA).await;

            let answer = test.ask(&ada, "Hello").await;

            assert_eq!(answer.status, status, "{unavailable}");
            if status == 503 {
                assert_eq!(answer.refusal(), (503, "llm_unavailable".to_owned()));
                assert!(!answer.header("retry-after").is_empty());
                test.is_untouched(&ada, [0; 4]).await;
            }
        }
    }

    async fn nobody_judges_unless_it_is_asked_for(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        assert_eq!(test.ask(&ada, HARMFUL).await.status, 200);
    }
}
