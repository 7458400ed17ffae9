use super::*;

impl Test {
    async fn titles(&self, person: &Person) -> Vec<String> {
        let rows = self.conversations(person).await;
        let title = |row: &Value| row["title"].as_str().unwrap().to_owned();
        rows.iter().map(title).collect()
    }
}

const FIRST_WORDS: &str = "What may I hope for?";

both_engines! {
    /// Invariant 46.
    async fn a_conversation_is_given_a_title_that_nobody_pays_for(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        let asked = test.ask(&ada, FIRST_WORDS).await.json();
        assert_eq!((test.titles(&ada).await, test.llm().count()), (vec![FIRST_WORDS.to_owned()], 1));
        let (counted, ledger) = (test.counted(&ada).await, test.ledger(&ada).await);

        test.llm().script([Reply::text("\"Reasons for hope.\"")]);
        test.work().await;

        assert_eq!(test.titles(&ada).await, ["Reasons for hope"]);
        assert_eq!((test.counted(&ada).await, test.ledger(&ada).await), (counted, ledger));
        assert_eq!(db::testing::rows(&test.app.db, "usage_ledger").await.unwrap(), 2, "what it cost is written all the same");
        let call = test.llm().calls().pop().unwrap().body;
        assert_eq!((&call["max_tokens"], &call["model"]), (&json!(24), &json!("gpt-4o-mini")));

        test.post(&ada.token, CHAT, json!({"message": "And then?", "conversationId": asked["conversationId"]})).await;
        test.work().await;
        assert_eq!((test.titles(&ada).await, test.llm().count()), (vec!["Reasons for hope".to_owned()], 3), "one title is enough");
    }

    /// Invariant 46.
    async fn a_title_that_cannot_be_had_is_tried_three_times_and_does_no_harm(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        assert_eq!(test.ask(&ada, FIRST_WORDS).await.status, 200);
        let counted = test.counted(&ada).await;

        for attempt in 1..=5 {
            test.llm().script([refusal(400, "nonsense", &[])]);
            test.work().await;
            assert_eq!(test.llm().count() as i32, 1 + attempt.min(3));
            test.later(Duration::from_secs(120));
        }

        assert_eq!((test.titles(&ada).await, test.counted(&ada).await), (vec![FIRST_WORDS.to_owned()], counted));
        assert_eq!(db::jobs::count_dead(&test.app.db).await.unwrap().0, 0);
        assert_eq!(db::testing::rows(&test.app.db, "usage_ledger").await.unwrap(), 1);
    }

    async fn a_title_that_somebody_chose_stays(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        let asked = test.ask(&ada, FIRST_WORDS).await.json();
        let path = format!("/api/conversations/{}", asked["conversationId"].as_str().unwrap());
        let patched = test.call(Method::PATCH, &ada.token, &path, json!({"title": "Mine"})).await;
        assert_eq!(patched.status, 200);

        test.work().await;

        assert_eq!((test.titles(&ada).await, test.llm().count()), (vec!["Mine".to_owned()], 1));

        test.ask(&ada, "Another").await;
        let path = format!("/api/conversations/{}", test.conversations(&ada).await[0]["id"].as_str().unwrap());
        test.call(Method::DELETE, &ada.token, &path, Value::Null).await;
        test.work().await;
        assert_eq!(test.llm().count(), 2, "one that is gone needs none");
    }

    async fn what_was_cut_off_or_switched_off_is_given_none(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        test.llm().script([words(["Half an"], [])]);
        test.ask(&ada, FIRST_WORDS).await;
        assert_eq!(test.ask(&ada, FIRST_WORDS).await.status, 200);
        test.complete(&ada, question("Hello")).await;
        let asked = test.llm().count();
        let planned = db::jobs::unfinished(&test.app.db, crate::chat::titles::KIND).await.unwrap();
        assert_eq!(planned.len(), 1, "of the whole answer alone");
        test.work().await;
        assert_eq!(test.llm().count(), asked + 1);

        let off = test.beside(&[("CHAT_TITLES", "false")]).await;
        off.post(&ada.token, CHAT, json!({"message": "Hello"})).await;
        off.work().await;
        assert_eq!(off.llm().count(), 1);
    }
}
