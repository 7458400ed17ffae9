use super::*;

/// The answer that was kept of the only conversation.
async fn kept(test: &Test, person: &Person) -> Value {
    let conversation = test.conversations(person).await[0]["id"].clone();
    test.messages(person, &conversation).await[1].clone()
}

/// A stream of OpenAI's that failed: an error, and no end that could be taken for one.
fn assert_failed(answer: &Answer, code: &str) {
    assert_eq!(answer.status, 200);
    let error = last(answer)["error"].clone();
    assert_eq!(
        (keys(&error), error["code"].as_str()),
        (vec!["code", "message", "param", "type"], Some(code))
    );
    assert!(!answer.text().contains("[DONE]"), "{}", answer.text());
    assert!(answer.events().iter().all(|(_, chunk)| {
        chunk
            .pointer("/choices/0/finish_reason")
            .is_none_or(Value::is_null)
    }));
}

both_engines! {
    async fn a_rate_limit_before_the_first_word_is_waited_out_unseen(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        let since = std::time::Instant::now();
        test.llm().script([refusal(429, "rate_limit_exceeded", &[("retry-after", "1")]), Reply::text("Here I am.")]);
        let answer = test.ask_streamed(&ada, "Hello").await;

        assert!(since.elapsed() >= Duration::from_secs(1), "the provider's pause was not kept");
        assert_eq!(names(&answer), ["start", "delta", "finish"]);
        assert_eq!((text(&answer), test.llm().count()), ("Here I am.".into(), 2));
        assert_eq!(test.counted(&ada).await[..2], [1, 0]);
    }

    async fn a_pause_nobody_would_wait_for_is_handed_on(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        test.llm().script([refusal(429, "rate_limit_exceeded", &[("retry-after", "3600")])]);
        let answer = soon(test.ask(&ada, "Hello")).await;

        assert_eq!((answer.refusal(), answer.header("retry-after")), ((503, "llm_unavailable".into()), "3600"));
        assert_eq!(test.llm().count(), 1);
    }

    async fn a_provider_that_fails_three_times_is_unavailable(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        test.llm().script([Reply::model("sim-500"), Reply::model("sim-html-502"), Reply::model("sim-503")]);
        let answer = test.ask(&ada, "Hello").await;

        assert_eq!((answer.refusal(), answer.header("retry-after")), ((503, "llm_unavailable".into()), "1"));
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert!(!answer.text().contains("overloaded") && !answer.text().contains("nginx"), "{}", answer.text());
        assert_eq!(test.llm().count(), 3);
        assert_eq!((kept(&test, &ada).await["status"].as_str(), test.counted(&ada).await), (Some("failed"), [0; 4]));
    }

    async fn our_keys_trouble_is_never_the_users(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        // Four that count against the provider: a fifth would have it left alone.
        let cases = [(401, CHAT), (401, COMPLETIONS), (402, COMPLETIONS), (403, CHAT), (404, CHAT), (404, COMPLETIONS)];
        for (status, path) in cases {
            test.llm().script([refusal(status, "invalid_api_key", &[])]);
            let body = question_with(json!({"message": "Hello"}));
            let answer = test.post(&ada.token, path, body).await;

            assert_eq!(answer.refusal(), (503, "llm_unavailable".into()), "{status} {path}");
            assert_eq!((answer.header("www-authenticate"), answer.text().contains("No.")), ("", false));
        }

        assert_eq!(test.llm().count(), 6, "one call each");
    }

    async fn a_request_the_provider_will_not_have_is_asked_once(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        for status in [400, 413, 422] {
            test.llm().script([refusal(status, "context_length_exceeded", &[])]);
            let answer = test.complete(&ada, question("Hello")).await;

            assert_eq!(answer.refusal(), (400, "llm_refused".into()));
            assert!(answer.text().contains("refused this request: No."), "{}", answer.text());
            assert_eq!(answer.header("x-should-retry"), "false");
        }

        assert_eq!(test.llm().count(), 3);
        assert_eq!(test.counted(&ada).await, [0; 4]);
    }

    async fn a_provider_out_of_money_is_asked_once(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        test.llm().script([Reply::model("sim-quota")]);
        let answer = test.complete(&ada, question("Hello")).await;

        // Ours, not theirs: theirs would be insufficient_quota.
        assert_eq!(answer.refusal(), (503, "llm_unavailable".into()));
        assert_eq!(test.llm().count(), 1);
    }

    async fn an_answer_that_was_cut_off_is_never_passed_off_as_finished(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        for fault in ["sim-cut-5", "sim-eof-5", "sim-garbage"] {
            test.llm().script([Reply::model(fault), Reply::model(fault), Reply::model(fault), Reply::model(fault)]);
            let streamed = test.ask_streamed(&ada, "Hello").await;
            let whole = test.ask(&ada, "Hello").await;
            let openai_streamed = test.complete(&ada, question_with(json!({"stream": true}))).await;
            let openai_whole = test.complete(&ada, question("Hello")).await;

            assert_eq!((names(&streamed), last(&streamed)["reason"].as_str()), (vec!["start".into(), "delta".into(), "finish".into()], Some("truncated")), "{fault}");
            let message = kept(&test, &ada).await;
            assert_eq!((whole.status.as_u16(), &whole.json()["finishReason"]), (200, &json!("truncated")));
            assert_eq!((&message["status"], &message["content"]), (&json!("truncated"), &whole.json()["response"]));
            assert_eq!(text(&streamed), whole.json()["response"].as_str().unwrap());
            assert!(last(&streamed)["usage"]["total_tokens"].as_i64().unwrap() > 0, "what is charged is said");
            assert_failed(&openai_streamed, "llm_truncated");
            assert_eq!((openai_whole.refusal(), openai_whole.header("retry-after")), ((503, "llm_unavailable".into()), "1"));
        }

        assert_eq!(test.llm().count(), 12, "after the first word nothing is asked again");
        assert_eq!(test.counted(&ada).await[1], 0);
    }

    async fn nothing_before_the_first_word_is_no_answer_and_asked_again(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        let garbage = Reply::Stream(vec![Step::send("data: {\"choices\n\n")]);
        test.llm().script([Reply::model("sim-eof-1"), garbage, Reply::text("At last.")]);
        let answer = test.ask_streamed(&ada, "Hello").await;

        assert_eq!((text(&answer), last(&answer)["reason"].as_str()), ("At last.".into(), Some("stop")));
        assert_eq!(test.llm().count(), 3);
    }

    async fn done_alone_is_no_end_and_an_end_without_done_is_one(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        test.llm().script([words(["Half"], [done()]), words(["Whole"], [finish("stop")]), words(["Whole"], [finish("stop"), Step::Cut])]);
        let mut reasons = vec![];
        for _ in 0..3 {
            reasons.push(test.ask(&ada, "Hello").await.json()["finishReason"].clone());
        }

        assert_eq!(reasons, ["truncated", "stop", "stop"]);
    }

    async fn an_error_in_mid_stream_ends_it_once_and_keeps_what_came(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        test.llm().script([Reply::model("sim-error"), Reply::model("sim-error"), Reply::model("sim-error")]);
        let streamed = test.ask_streamed(&ada, "Hello").await;
        let message = kept(&test, &ada).await;
        let (openai_streamed, openai_whole) = (test.complete(&ada, question_with(json!({"stream": true}))).await, test.complete(&ada, question("Hello")).await);

        assert_eq!(names(&streamed), ["start", "delta", "error"]);
        assert_eq!((&last(&streamed)["code"], &last(&streamed)["retryable"]), (&json!("llm_unavailable"), &json!(true)));
        assert_eq!((&message["status"], &message["content"]), (&json!("truncated"), &json!(text(&streamed))));
        assert_failed(&openai_streamed, "llm_unavailable");
        assert_eq!(openai_whole.refusal(), (503, "llm_unavailable".into()));
        assert_eq!(test.llm().count(), 3);
    }

    async fn a_provider_that_never_answers_times_out(engine: Engine) {
        let test = impatient(engine).await;
        let ada = test.sign_up(ADA).await;

        test.llm().script([Reply::hang(), Reply::hang()]);
        let (native, openai) = tokio::join!(test.ask(&ada, "Hello"), test.complete(&ada, question("Hello")));

        assert_eq!(native.refusal(), (504, "llm_timeout".into()));
        assert_eq!(openai.refusal(), (504, "llm_timeout".into()));
        let calls = soon(test.llm().until(|calls| calls.iter().all(|call| call.closed_early))).await;
        assert_eq!(calls.len(), 2, "a silence is not asked again");
        assert_eq!(test.counted(&ada).await, [0; 4]);
    }

    async fn a_provider_that_falls_silent_times_out_and_what_came_is_kept(engine: Engine) {
        let test = impatient(engine).await;
        let ada = test.sign_up(ADA).await;

        test.llm().script([words(["Half ", "an"], [Step::Hang]), words(["Half ", "an"], [Step::Hang])]);
        let (native, openai) = tokio::join!(test.ask_streamed(&ada, "Hello"), test.complete(&ada, question_with(json!({"stream": true}))));

        assert_eq!((names(&native), &last(&native)["code"]), (vec!["start".into(), "delta".into(), "error".into()], &json!("llm_timeout")));
        assert_failed(&openai, "llm_timeout");
        let message = kept(&test, &ada).await;
        assert_eq!((&message["status"], &message["content"]), (&json!("truncated"), &json!("Half an")));
        soon(test.llm().until(|calls| calls.iter().all(|call| call.closed_early))).await;
        let [used, reserved, _, tokens_reserved] = test.counted(&ada).await;
        assert_eq!((used, reserved, tokens_reserved), (2, 0, 0));
    }

    /// Invariant 28.

    async fn a_provider_that_fails_five_times_is_left_alone_for_ten_seconds(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, bob) = (test.sign_up(ADA).await, test.sign_up(BOB).await);

        test.llm().script((0..5).map(|_| Reply::model("sim-500")));
        for person in [&ada, &bob] {
            assert_eq!(test.ask(person, "Hello").await.refusal(), (503, "llm_unavailable".into()));
        }
        assert_eq!(test.llm().count(), 5, "the fifth failure ends the attempts of its own request");

        let left_alone = test.ask(&bob, "Hello").await;
        test.later(Duration::from_millis(9_999));
        let still = test.ask(&bob, "Hello").await;
        assert_eq!((left_alone.refusal(), left_alone.header("retry-after")), ((503, "llm_unavailable".into()), "10"));
        assert_eq!((still.status.as_u16(), test.llm().count()), (503, 5));

        test.later(Duration::from_millis(1));
        assert_eq!((test.ask(&bob, "Hello").await.status.as_u16(), test.llm().count()), (200, 6));
        assert_eq!(test.counted(&bob).await[..2], [1, 0]);
    }

    /// Invariant 27.

    async fn what_one_user_alone_meets_costs_nobody_the_last_provider(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, bob) = (test.sign_up(ADA).await, test.sign_up(BOB).await);

        test.llm().script((0..9).map(|_| Reply::model("sim-quota")));
        for _ in 0..9 {
            assert_eq!(test.ask(&ada, "Hello").await.status, 503);
        }

        assert_eq!(test.ask(&bob, "Hello").await.status, 200);
        assert_eq!(test.ask(&ada, "Hello").await.status, 200);
        assert_eq!(test.llm().count(), 11);
    }

    async fn one_users_odd_requests_do_not_cost_others_the_provider(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, bob) = (test.sign_up(ADA).await, test.sign_up(BOB).await);

        for status in [400, 404, 413, 422].repeat(5) {
            test.llm().script([refusal(status, "invalid", &[])]);
            test.ask(&ada, "Hello").await;
        }

        assert_eq!((test.ask(&bob, "Hello").await.status.as_u16(), test.llm().count()), (200, 21));
    }
}
