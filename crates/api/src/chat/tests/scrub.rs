use super::*;

const SCRUBBING: &[(&str, &str)] = &[("PII_SCRUB", "on")];
const SECRET: &str = "ada.lovelace@mail.example";

both_engines! {
    async fn the_provider_is_not_shown_who_somebody_is_and_the_answer_names_them_all_the_same(engine: Engine) {
        let test = Test::with(engine, SCRUBBING).await;
        let ada = test.sign_up(ADA).await;
        test.llm().script([words(["I write to [EM", "AIL", "_1]", " at once, not to [EMAIL_2]"], [finish("stop"), done()])]);

        let asked = test.ask(&ada, &format!("Write to {SECRET}.")).await.json();

        let answer = format!("I write to {SECRET} at once, not to [EMAIL_2]");
        assert_eq!(asked["response"], json!(answer));
        let conversation = &asked["conversationId"];
        let kept = test.messages(&ada, conversation).await;
        assert_eq!((&kept[0]["content"], &kept[1]["content"]), (&json!(format!("Write to {SECRET}.")), &json!(answer)));
        test.llm().script([words(["Yes: [EMAIL_"], [finish("stop"), done()])]);
        let body = json!({"message": "Did you?", "conversationId": conversation});
        let second = test.post(&ada.token, CHAT, body).await.json();
        assert_eq!(second["response"], "Yes: [EMAIL_", "what is held is said in the end");
        test.work().await;
        let calls = test.llm().calls();
        assert_eq!(calls.len(), 3, "two answers and a title");
        for call in calls {
            let shown = call.body.to_string();
            assert!(shown.contains("[EMAIL_1]") && !shown.contains(SECRET), "{shown}");
        }
    }

    async fn a_stream_puts_back_what_is_split_over_its_pieces(engine: Engine) {
        let test = Test::with(engine, SCRUBBING).await;
        let ada = test.sign_up(ADA).await;
        test.llm().script([words(["[", "EMAIL_1", "] it is, [not"], [finish("stop"), done()])]);

        let answer = test.ask_streamed(&ada, &format!("Is it {SECRET}?")).await;

        assert_eq!(text(&answer), format!("{SECRET} it is, [not"));
        assert_eq!(last(&answer)["reason"], "stop");
    }

    async fn an_answer_that_breaks_off_keeps_what_was_held(engine: Engine) {
        let test = Test::with(engine, SCRUBBING).await;
        let ada = test.sign_up(ADA).await;
        test.llm().script([words(["Half [EMA"], [])]);

        let asked = test.ask(&ada, &format!("Is it {SECRET}?")).await;

        let conversation = test.conversations(&ada).await[0]["id"].clone();
        let kept = test.messages(&ada, &conversation).await[1].clone();
        assert_eq!((&kept["content"], &kept["status"]), (&json!("Half [EMA"), &json!("truncated")), "{}", asked.text());
    }

    async fn nothing_is_hidden_unless_it_is_asked_for(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        test.ask(&ada, &format!("Write to {SECRET}.")).await;

        assert!(test.llm().calls()[0].body.to_string().contains(SECRET));
    }
}
