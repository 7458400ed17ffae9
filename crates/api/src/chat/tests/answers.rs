use super::*;

both_engines! {
    async fn a_plain_answer_has_exactly_its_members(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        test.llm().script([Reply::text("Hello, Ada.")]);
        let answer = test.ask(&ada, "Hello").await;

        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/json"));
        let body = answer.json();
        assert_eq!(keys(&body), ["conversationId", "finishReason", "messageId", "response", "usage"]);
        assert_eq!(keys(&body["usage"]), ["completion_tokens", "prompt_tokens", "total_tokens"]);
        assert_eq!((&body["response"], &body["finishReason"]), (&json!("Hello, Ada."), &json!("stop")));
        let tokens = |name: &str| body["usage"][name].as_i64().unwrap();
        assert!(tokens("prompt_tokens") > 0 && tokens("completion_tokens") > 0);
        assert_eq!(tokens("total_tokens"), tokens("prompt_tokens") + tokens("completion_tokens"));
    }

    async fn the_question_and_its_answer_are_kept_with_their_tokens(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        let body = test.ask(&ada, "  How do I\n sleep better?  ").await.json();

        let messages = test.messages(&ada, &body["conversationId"]).await;
        let [question, answer] = messages.as_slice() else { panic!("{messages:?}") };
        assert_eq!((&question["role"], &question["content"]), (&json!("user"), &json!("How do I\n sleep better?")));
        assert_eq!((&question["status"], &question["parent_id"]), (&json!("complete"), &Value::Null));
        assert_eq!((&answer["id"], &answer["parent_id"]), (&body["messageId"], &question["id"]));
        assert_eq!((&answer["role"], &answer["content"]), (&json!("assistant"), &body["response"]));
        assert_eq!((&answer["status"], &answer["model"]), (&json!("complete"), &json!("gpt-4o-mini")));
        assert_eq!(answer["input_tokens"], body["usage"]["prompt_tokens"]);
        assert_eq!(answer["output_tokens"], body["usage"]["completion_tokens"]);
        assert_eq!(test.conversations(&ada).await[0]["title"], "How do I sleep better?");
    }

    async fn a_streamed_answer_starts_goes_on_and_ends_once(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        test.llm().script([Reply::text("One two three four.")]);
        let answer = test.ask_streamed(&ada, "Count").await;

        assert!(answer.text().starts_with(": open\n\n"));
        assert_eq!(names(&answer), ["start", "delta", "finish"]);
        let ends = answer.events().iter().filter(|(name, _)| ["finish", "error"].contains(&name.as_str())).count();
        assert_eq!(ends, 1);
        let start = answer.events()[0].1.clone();
        let generation = start["generation_id"].as_str().unwrap().to_owned();
        let ids: Vec<_> = answer.text().lines().filter_map(|line| line.strip_prefix("id: ").map(ToOwned::to_owned)).collect();
        let expected: Vec<_> = (0..ids.len()).map(|seq| format!("{generation}.{seq}")).collect();
        assert_eq!(ids, expected);
        let messages = test.messages(&ada, &start["conversation_id"]).await;
        assert_eq!((text(&answer), &messages[1]["content"]), ("One two three four.".into(), &json!("One two three four.")));
        assert_eq!((&last(&answer)["reason"], &last(&answer)["message_id"]), (&json!("stop"), &messages[1]["id"]));
    }

    async fn no_proxy_may_hold_back_or_change_a_stream(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        for (path, body) in [(CHAT, json!({"message": "Hello", "stream": true})), (COMPLETIONS, question_with(json!({"stream": true})))] {
            let request = request(Method::POST, &ada.token, path)
                .header(header::CONTENT_TYPE, "application/json")
                .header(header::ACCEPT_ENCODING, "gzip, br");
            let answer = test.send(request.body(Body::from(body.to_string())).unwrap()).await;

            assert_eq!(answer.header("content-type"), "text/event-stream; charset=utf-8");
            assert_eq!(answer.header("cache-control"), "no-cache, no-transform");
            assert_eq!(answer.header("x-accel-buffering"), "no");
            assert_eq!(answer.header("content-encoding"), "");
            assert!(answer.text().starts_with(": open\n\n"), "{}", answer.text());
        }
    }

    async fn a_stream_opens_before_the_provider_says_anything(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        test.llm().script([Reply::hang()]);
        let mut response = soon(test.open(&ada, CHAT, json!({"message": "Hello", "stream": true}))).await;

        assert_eq!(response.status(), 200);
        assert!(read_to(response.body_mut(), "event: start").await.starts_with(": open\n\n"));
        test.app.streams.stop_all();
        test.settled().await;
    }

    async fn what_is_said_to_be_over_is_on_disk(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        let mut response = test.open(&ada, CHAT, json!({"message": "Hello", "stream": true})).await;
        let start = read_to(response.body_mut(), "event: finish").await;

        assert_eq!(test.under_way().await, 0);
        let [_, reserved, _, tokens_reserved] = test.counted(&ada).await;
        assert_eq!((reserved, tokens_reserved), (0, 0));
        let conversation = test.conversations(&ada).await[0]["id"].clone();
        assert!(start.contains(conversation.as_str().unwrap()));
        assert_eq!(test.messages(&ada, &conversation).await[1]["status"], "complete");
    }

    async fn a_providers_odd_words_are_read_right(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        let stream = ": hello\r\n\r\nevent: chunk\r\nid: 7\r\ndata: {\"choices\":[{\"delta\":{\"role\":\"oracle\",\"content\":\"Grüße \"},\"x\":1}],\"extra\":{}}\r\n\r\n\
            data:{\"choices\":[{\"delta\":{\"content\":\"🦀\"}}]}\r\n\r\ndata: {\"choices\":[]}\r\n\r\n\
            data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"because\"}]}\r\n\r\n";
        test.llm().script([Reply::Stream(stream.bytes().map(|byte| Step::send(vec![byte])).collect())]);
        let body = test.ask(&ada, "Hello").await.json();

        assert_eq!((&body["response"], &body["finishReason"]), (&json!("Grüße 🦀"), &json!("because")));
        assert_eq!(test.llm().count(), 1);
    }

    async fn thoughts_are_neither_words_nor_tool_calls(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        let thought = said(&json!({"choices": [{"delta": {"reasoning_content": "Hm."}}]}));
        let word = said(&json!({"choices": [{"delta": {"content": "Yes."}}]}));
        test.llm().script([Reply::Stream(vec![thought, word, finish("stop"), done()])]);
        let answer = test.ask_streamed(&ada, "Really?").await;

        assert_eq!(names(&answer), ["start", "reasoning", "delta", "finish"]);
        let conversation = answer.events()[0].1["conversation_id"].clone();
        assert_eq!(test.messages(&ada, &conversation).await[1]["content"], "Yes.");
    }

    async fn a_provider_that_says_nul_is_settled_all_the_same(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        test.llm().script([Reply::text("be\0fore")]);
        let answer = soon(test.ask(&ada, "Hello")).await;

        assert_eq!(answer.json()["response"], "before");
    }

    async fn tokens_a_provider_does_not_tell_are_estimated_alike_for_everyone(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        test.llm().script([words(["Some ", "words."], [finish("stop"), done()])]);
        let body = test.ask(&ada, "Hello").await.json();

        let (input, output) = (body["usage"]["prompt_tokens"].as_i64().unwrap(), body["usage"]["completion_tokens"].as_i64().unwrap());
        assert!(input > 0 && output > 0, "{body}");
        let (counted_in, counted_out, cost) = test.ledger(&ada).await;
        assert_eq!((counted_in, counted_out), (input, output));
        assert!(cost > 0);
        assert_eq!(test.counted(&ada).await, [1, 0, input + output, 0]);
    }
}
