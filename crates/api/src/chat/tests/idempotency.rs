use super::*;

both_engines! {
    async fn the_second_request_with_a_key_gets_the_first_ones_answer(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        for (n, (path, body)) in [(CHAT, json!({"message": "Hello"})), (COMPLETIONS, question("Hello"))].into_iter().enumerate() {
            let first = test.keyed(&ada, "k", path, body.clone()).await;
            let second = test.keyed(&ada, "k", path, body).await;

            assert_eq!((first.status.as_u16(), first.header("idempotency-replayed")), (200, ""));
            assert_eq!((second.status.as_u16(), second.header("idempotency-replayed")), (200, "true"));
            assert_eq!(second.header("content-type"), "application/json");
            assert_eq!(first.json(), second.json());
            assert_eq!(test.llm().count(), n as u64 + 1, "a key counts for one route");
        }

        assert_eq!(test.conversations(&ada).await.len(), 1);
        assert_eq!(test.counted(&ada).await[..2], [2, 0]);
    }

    async fn of_many_at_once_with_a_key_one_is_answered_by_the_provider(engine: Engine) {
        let here = Test::new(engine).await;
        let there = here.beside(&[]).await;
        let ada = here.sign_up(ADA).await;

        let answers = join_all((0..8).map(|n| [&here, &there][n % 2].keyed(&ada, "k", CHAT, json!({"message": "Hello"})))).await;

        assert_eq!(here.llm().count() + there.llm().count(), 1);
        let (done, waiting): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
        assert!(!done.is_empty() && done.iter().all(|answer| answer.json() == done[0].json()));
        assert!(waiting.iter().all(|answer| answer.refusal() == (409, "idempotency_in_flight".into())));
        assert_eq!((here.conversations(&ada).await.len(), here.counted(&ada).await[..2].to_vec()), (1, vec![1, 0]));
    }

    async fn a_key_is_for_one_body(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        test.keyed(&ada, "k", CHAT, json!({"message": "Hello"})).await;
        let other = test.keyed(&ada, "k", CHAT, json!({"message": "Goodbye"})).await;

        assert_eq!(other.refusal(), (422, "idempotency_mismatch".into()));
        assert_eq!((test.llm().count(), test.conversations(&ada).await.len()), (1, 1));
        assert_eq!(test.counted(&ada).await[..2], [1, 0]);
    }

    async fn inv_6_a_key_means_one_request_also_while_it_is_under_way(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        test.llm().script([Reply::hang()]);
        tokio::select! {
            _ = test.keyed(&ada, "k", COMPLETIONS, question("Hello")) => panic!("the provider hangs"),
            _ = test.llm().until(|calls| !calls.is_empty()) => {}
        }
        let other = test.keyed(&ada, "k", COMPLETIONS, question("Goodbye")).await;

        assert_eq!(other.refusal(), (422, "idempotency_mismatch".into()));
        assert_eq!((test.llm().count(), test.counted(&ada).await[1]), (1, 1));
        test.app.streams.stop_all();
        test.settled().await;
    }

    async fn a_key_is_its_users_alone(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, bob) = (test.sign_up(ADA).await, test.sign_up(BOB).await);

        let adas = test.keyed(&ada, "k", CHAT, json!({"message": "Hello"})).await;
        let bobs = test.keyed(&bob, "k", CHAT, json!({"message": "Hello"})).await;

        assert_eq!((bobs.status.as_u16(), bobs.header("idempotency-replayed")), (200, ""));
        assert_ne!(adas.json()["conversationId"], bobs.json()["conversationId"]);
        assert_eq!(test.llm().count(), 2);
    }

    async fn a_failure_frees_the_key(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        for (path, body) in [(CHAT, json!({"message": "Hello"})), (COMPLETIONS, question("Hello"))] {
            test.llm().script([refusal(400, "invalid", &[]), Reply::text("Now it works.")]);
            let (first, second) = (test.keyed(&ada, "k", path, body.clone()).await, test.keyed(&ada, "k", path, body).await);

            assert_eq!(first.refusal(), (400, "llm_refused".into()));
            assert_eq!((second.status.as_u16(), second.header("idempotency-replayed")), (200, ""));
            assert!(second.text().contains("Now it works."));
        }
    }

    async fn a_completion_that_was_cut_off_is_not_replayed_as_an_answer(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        test.llm().script([Reply::cut(5), Reply::text("Whole.")]);
        let first = test.keyed(&ada, "k", COMPLETIONS, question("Hello")).await;
        let second = test.keyed(&ada, "k", COMPLETIONS, question("Hello")).await;

        assert_eq!(first.refusal(), (503, "llm_unavailable".into()));
        assert_eq!(second.json()["choices"][0]["message"]["content"], "Whole.");
        assert_eq!((second.header("idempotency-replayed"), test.llm().count()), ("", 2));
    }

    async fn a_refused_request_does_not_take_its_key(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        let empty = test.keyed(&ada, "k", CHAT, json!({"message": ""})).await;
        let unknown = test.keyed(&ada, "k", CHAT, json!({"message": "Hello", "conversationId": "01890000-0000-7000-8000-000000000000"})).await;
        let good = test.keyed(&ada, "k", CHAT, json!({"message": "Hello"})).await;

        assert_eq!((empty.status.as_u16(), unknown.status.as_u16(), good.status.as_u16()), (400, 404, 200));
        assert_eq!(test.llm().count(), 1);
    }

    async fn a_key_that_is_none_is_refused(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        for key in ["", &"k".repeat(256)] {
            let answer = test.keyed(&ada, key, CHAT, json!({"message": "Hello"})).await;
            assert_eq!(answer.json()["errors"][0]["field"], "Idempotency-Key");
        }

        test.is_untouched(&ada, [0; 4]).await;
    }

    async fn a_streamed_answer_is_replayed_as_a_stream(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        let body = json!({"message": "Hello", "stream": true});

        let first = test.keyed(&ada, "k", CHAT, body.clone()).await;
        let second = test.keyed(&ada, "k", CHAT, body).await;

        assert_eq!((second.header("idempotency-replayed"), second.header("content-type")), ("true", "text/event-stream; charset=utf-8"));
        assert_eq!((names(&second), text(&second)), (vec!["start".into(), "delta".into(), "finish".into()], text(&first)));
        assert_eq!(last(&second), last(&first));
        assert_eq!(second.events()[0].1["message_id"], first.events()[0].1["message_id"]);
        assert_eq!((test.llm().count(), test.counted(&ada).await[0]), (1, 1));
    }

    async fn a_streamed_completion_is_replayed_with_its_tools_and_usage(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        let tool = json!({"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}});
        let body = question_with(json!({"stream": true, "stream_options": {"include_usage": true}, "tools": [tool], "tool_choice": "required"}));

        let first = test.keyed(&ada, "k", COMPLETIONS, body.clone()).await;
        let second = test.keyed(&ada, "k", COMPLETIONS, body).await;

        assert_eq!((second.header("idempotency-replayed"), test.llm().count()), ("true", 1));
        let (once, again) = (completions::assembled(&first), completions::assembled(&second));
        assert_eq!(once, again);
        assert_eq!(again["finish_reason"], "tool_calls");
        assert_eq!(again["tool_calls"][0]["function"]["name"], "weather");
        assert!(second.text().ends_with("data: [DONE]\n\n"));
    }

    async fn a_key_is_forgotten_after_a_day(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        test.keyed(&ada, "k", CHAT, json!({"message": "Hello"})).await;
        test.later(Duration::from_secs(24 * 3_600 - 1));
        let ada = test.sign_in_again(&ada.email).await;
        let within = test.keyed(&ada, "k", CHAT, json!({"message": "Hello"})).await;
        test.later(Duration::from_secs(1));
        let after = test.keyed(&ada, "k", CHAT, json!({"message": "Hello"})).await;

        assert_eq!((within.header("idempotency-replayed"), after.header("idempotency-replayed")), ("true", ""));
        assert_eq!((after.status.as_u16(), test.llm().count()), (200, 2));
    }
}
