use super::*;

/// Everyone's, of `plans.toml`.
const MESSAGES: i64 = 100;
const TOKENS: i64 = 100_000;
/// What so many tokens of the default model cost, in micro-dollars.
fn cost(input: i64, output: i64) -> i64 {
    (input * 150_000 + output * 600_000 + 999_999) / 1_000_000
}

both_engines! {
    async fn as_many_are_admitted_at_once_as_are_left(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        test.use_up(&ada, "messages", MESSAGES - 5).await;

        let answers = join_all((0..12).map(|_| test.ask(&ada, "Hello"))).await;

        let admitted = answers.iter().filter(|answer| answer.status == 200).count();
        assert_eq!(admitted, 5);
        assert!(answers.iter().all(|answer| answer.status == 200 || answer.refusal() == (402, "quota_exceeded".into())));
        assert_eq!((test.llm().count(), test.conversations(&ada).await.len()), (5, 5));
        let [used, reserved, _, tokens_reserved] = test.counted(&ada).await;
        assert_eq!((used, reserved, tokens_reserved), (MESSAGES, 0, 0));
    }

    async fn instances_admit_together_what_one_would(engine: Engine) {
        let here = Test::new(engine).await;
        let there = here.beside(&[]).await;
        let ada = here.sign_up(ADA).await;
        here.use_up(&ada, "messages", MESSAGES - 3).await;

        let answers = join_all((0..10).map(|n| [&here, &there][n % 2].ask(&ada, "Hello"))).await;

        assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 3);
        assert_eq!(here.llm().count() + there.llm().count(), 3);
        assert_eq!(here.counted(&ada).await[..2], [MESSAGES, 0]);
    }

    async fn tokens_are_never_promised_twice(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        // Room for one answer at full length, not for two.
        test.use_up(&ada, "tokens", TOKENS - 1_500).await;

        test.llm().script((0..6).map(|_| Reply::hang()));
        let asked = join_all((0..6).map(|_| test.open(&ada, COMPLETIONS, question_with(json!({"stream": true}))))).await;

        let [_, messages, used, reserved] = test.counted(&ada).await;
        assert!(used + reserved <= TOKENS, "{used} + {reserved}");
        let admitted = asked.iter().filter(|response| response.status() == 200).count();
        assert_eq!((admitted as i64, test.under_way().await), (messages, admitted));
        assert!((1..=2).contains(&admitted), "{admitted}");
        drop(asked);
        test.settled().await;
        assert_eq!(test.counted(&ada).await, [0, 0, TOKENS - 1_500, 0]);
    }

    async fn a_refused_send_leaves_nothing_behind(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        test.use_up(&ada, "messages", MESSAGES).await;

        let native = test.ask_streamed(&ada, "Hello").await;
        let openai = test.complete(&ada, question_with(json!({"stream": true}))).await;
        let keyed = test.keyed(&ada, "k", CHAT, json!({"message": "Hello"})).await;

        let body = native.json();
        assert_eq!((native.refusal(), native.header("content-type")), ((402, "quota_exceeded".into()), "application/problem+json"));
        assert_eq!((&body["quota"], &body["resets_at"]), (&json!("messages"), &json!("2026-12-01T00:00:00.000000Z")));
        assert_eq!(openai.refusal(), (429, "insufficient_quota".into()));
        assert_eq!(keys(&openai.json()["error"]), ["code", "message", "param", "type"]);
        assert_eq!((openai.json()["error"]["type"].as_str(), openai.header("x-should-retry")), (Some("insufficient_quota"), "false"));
        assert_eq!(openai.header("retry-after"), "");
        assert_eq!(keyed.refusal(), (402, "quota_exceeded".into()));
        test.is_untouched(&ada, [MESSAGES, 0, 0, 0]).await;
    }

    async fn tokens_that_are_used_up_refuse_as_well(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        test.use_up(&ada, "tokens", TOKENS - 50).await;

        let refused = test.ask(&ada, "Hello").await;

        assert_eq!((refused.refusal(), &refused.json()["quota"]), ((402, "quota_exceeded".into()), &json!("tokens")));
        test.is_untouched(&ada, [0, 0, TOKENS - 50, 0]).await;
    }

    async fn an_answer_is_cut_shorter_rather_than_refused(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        test.use_up(&ada, "tokens", TOKENS - 300).await;

        let answer = test.ask(&ada, "Hello").await;

        assert_eq!(answer.status, 200);
        let allowed = test.llm().calls()[0].body["max_tokens"].as_i64().unwrap();
        assert!((64..300).contains(&allowed), "{allowed}");
    }

    async fn what_was_set_aside_becomes_what_was_used(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        let usage = test.ask(&ada, "Hello").await.json()["usage"].clone();

        assert_eq!(test.counted(&ada).await, [1, 0, usage["total_tokens"].as_i64().unwrap(), 0]);
    }

    async fn while_an_answer_is_made_its_most_is_set_aside(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        test.llm().script([Reply::hang()]);
        let response = test.open(&ada, CHAT, json!({"message": "Hello", "stream": true})).await;

        let [used, reserved, tokens, tokens_reserved] = test.counted(&ada).await;
        assert_eq!((used, reserved, tokens), (0, 1, 0));
        assert!(tokens_reserved > 1_024, "{tokens_reserved}");
        drop(response);
        test.app.streams.stop_all();
        test.settled().await;
        assert_eq!(test.counted(&ada).await, [0; 4]);
    }

    async fn an_answer_that_came_to_nothing_costs_nothing(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        for failure in [refusal(401, "invalid_api_key", &[]), refusal(400, "invalid", &[]), refusal(429, "insufficient_quota", &[])] {
            test.llm().script([failure]);
            assert!(test.ask(&ada, "Hello").await.status.as_u16() >= 400);
            assert_eq!(test.counted(&ada).await, [0; 4]);
        }

        assert_eq!(test.ledger(&ada).await, (0, 0, 0));
        let conversation = test.conversations(&ada).await[0]["id"].clone();
        assert_eq!(test.messages(&ada, &conversation).await[1]["status"], "failed");
    }

    async fn a_month_ends_when_the_clock_says_so(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        test.use_up(&ada, "messages", MESSAGES).await;
        assert_eq!(test.ask(&ada, "Hello").await.status, 402);

        // To the last second of November, and to the first of December.
        test.later(Duration::from_secs(10 * 86_400 + 14 * 3_600 + 30 * 60 - 1));
        let ada = test.sign_in_again(&ada.email).await;
        assert_eq!(test.ask(&ada, "Hello").await.status, 402);
        test.later(Duration::from_secs(1));
        assert_eq!(test.ask(&ada, "Hello").await.status, 200);

        let usage = test.get(&ada.token, "/api/usage").await.json();
        assert_eq!((&usage["period_start"], &usage["period_end"]), (&json!("2026-12-01T00:00:00.000000Z"), &json!("2027-01-01T00:00:00.000000Z")));
        assert_eq!(test.counted(&ada).await[..2], [1, 0]);
    }

    async fn an_answer_is_settled_in_the_month_it_was_asked_in(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        let november = Period::of(test.app.now()).start;

        test.llm().script([words(["One"], [Step::Hang])]);
        let mut response = test.open(&ada, CHAT, json!({"message": "Hello", "stream": true})).await;
        read_to(response.body_mut(), "event: delta").await;
        test.later(Duration::from_secs(11 * 86_400));
        test.app.streams.stop_all();
        read_to(response.body_mut(), "event: finish").await;

        let windows = db::usage::windows(&test.app.db, &format!("user:{}", ada.id), november).await.unwrap();
        assert!(windows.iter().all(|window| window.messages_used == 1 && window.tokens_used > 0 && window.cost_used > 0 && [window.messages_reserved, window.tokens_reserved, window.cost_reserved] == [0; 3]), "{windows:?}");
        let ada = test.sign_in_again(&ada.email).await;
        assert_eq!(test.counted(&ada).await, [0; 4]);
    }

    async fn a_generation_is_charged_once_and_in_integers(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        let mut expected = (0, 0, 0);
        for message in ["Hello", "How do I sleep better?"] {
            let usage = test.ask(&ada, message).await.json()["usage"].clone();
            let (input, output) = (usage["prompt_tokens"].as_i64().unwrap(), usage["completion_tokens"].as_i64().unwrap());
            expected = (expected.0 + input, expected.1 + output, expected.2 + cost(input, output));
        }

        assert_eq!(test.ledger(&ada).await, expected);
        assert_eq!(test.get(&ada.token, "/api/usage").await.json()["cost_microusd"], expected.2);
    }

    async fn one_persons_use_is_not_anothers(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, bob) = (test.sign_up(ADA).await, test.sign_up(BOB).await);
        test.use_up(&ada, "messages", MESSAGES).await;

        assert_eq!((test.ask(&ada, "Hello").await.status.as_u16(), test.ask(&bob, "Hello").await.status.as_u16()), (402, 200));

        assert_eq!(test.counted(&ada).await, [MESSAGES, 0, 0, 0]);
    }

    async fn usage_says_what_is_left(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        let used = test.ask(&ada, "Hello").await.json()["usage"]["total_tokens"].as_i64().unwrap();
        let usage = test.get(&ada.token, "/api/usage").await.json();

        assert_eq!(keys(&usage), ["cost", "cost_microusd", "messages", "models", "period_end", "period_start", "plan", "tokens"]);
        assert_eq!(usage["plan"], "free");
        assert_eq!(usage["messages"], json!({"used": 1, "reserved": 0, "limit": MESSAGES, "remaining": MESSAGES - 1}));
        assert_eq!(usage["tokens"], json!({"used": used, "reserved": 0, "limit": TOKENS, "remaining": TOKENS - used}));
    }
}
