use super::*;

/// What a client makes of chunks: the text, the calls, the reason and the usage; as the SDKs do.
pub fn assembled(answer: &Answer) -> Value {
    let mut all = json!({"content": "", "tool_calls": [], "finish_reason": null, "usage": null});
    for (_, chunk) in answer.events() {
        if !chunk["usage"].is_null() {
            all["usage"] = chunk["usage"].clone();
        }
        let choice = &chunk["choices"][0];
        if let Some(text) = choice["delta"]["content"].as_str() {
            all["content"] = (all["content"].as_str().unwrap().to_owned() + text).into();
        }
        for piece in choice["delta"]["tool_calls"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let at = piece["index"]
                .as_u64()
                .expect("a piece of a call has an index") as usize;
            let calls = all["tool_calls"].as_array_mut().unwrap();
            if at == calls.len() {
                calls.push(json!({"id": piece["id"], "type": piece["type"], "function": {"name": piece["function"]["name"], "arguments": ""}}));
            }
            let more = piece["function"]["arguments"].as_str().unwrap_or_default();
            let arguments = calls[at]["function"]["arguments"]
                .as_str()
                .unwrap()
                .to_owned()
                + more;
            calls[at]["function"]["arguments"] = arguments.into();
        }
        if let Some(reason) = choice["finish_reason"].as_str() {
            all["finish_reason"] = reason.into();
        }
    }
    all
}

fn weather() -> Value {
    let parameters =
        json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    json!([{"type": "function", "function": {"name": "weather", "parameters": parameters}}])
}

both_engines! {
    async fn a_completion_has_openais_members_and_keeps_nothing(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        test.llm().script([Reply::text("Hello, Ada.")]);
        let answer = test.complete(&ada, question("Hello")).await;

        let body = answer.json();
        assert_eq!(answer.status, 200);
        assert_eq!(keys(&body), ["choices", "created", "id", "model", "object", "usage"]);
        assert!(body["id"].as_str().unwrap().starts_with("chatcmpl-"));
        assert_eq!((&body["object"], &body["model"]), (&json!("chat.completion"), &json!("gpt-4o-mini")));
        assert_eq!(body["created"], crate::testing::START.unix());
        assert_eq!(body["choices"], json!([{"index": 0, "finish_reason": "stop", "logprobs": null, "message": {"role": "assistant", "content": "Hello, Ada.", "refusal": null}}]));
        assert!(body["usage"]["total_tokens"].as_i64().unwrap() > 0);
        assert_eq!(test.conversations(&ada).await, Vec::<Value>::new());
        assert_eq!(test.counted(&ada).await, [1, 0, body["usage"]["total_tokens"].as_i64().unwrap(), 0]);
    }

    async fn chunks_end_with_a_reason_and_done(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        test.llm().script([Reply::text("One two three."), Reply::text("One two three.")]);
        let bare = test.complete(&ada, question_with(json!({"stream": true}))).await;
        let whole = test.complete(&ada, question("Count")).await.json();

        let mut events = bare.events();
        assert_eq!(events.pop(), Some((String::new(), json!("[DONE]"))));
        assert_eq!(events[0].1["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
        for (name, chunk) in &events {
            assert_eq!((name.as_str(), keys(chunk)), ("", vec!["choices", "created", "id", "model", "object"]));
            assert_eq!((&chunk["object"], &chunk["id"]), (&json!("chat.completion.chunk"), &events[0].1["id"]));
            assert_eq!(keys(&chunk["choices"][0]), ["delta", "finish_reason", "index", "logprobs"]);
        }
        let reasons: Vec<_> = events.iter().map(|(_, chunk)| chunk["choices"][0]["finish_reason"].clone()).filter(|reason| !reason.is_null()).collect();
        assert_eq!(reasons, ["stop"]);
        assert_eq!(assembled(&bare)["content"], whole["choices"][0]["message"]["content"]);
        assert!(!bare.text().contains("usage"));
    }

    async fn usage_comes_in_a_chunk_of_its_own_where_it_is_asked_for(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        let answer = test.complete(&ada, question_with(json!({"stream": true, "stream_options": {"include_usage": true}}))).await;

        let mut events = answer.events();
        assert_eq!(events.pop().unwrap().1, "[DONE]");
        let usage = events.pop().unwrap().1;
        assert_eq!(usage["choices"], json!([]));
        let total = usage["usage"]["total_tokens"].as_i64().unwrap();
        assert!(events.iter().all(|(_, chunk)| keys(chunk).contains(&"usage") && chunk["usage"].is_null()));
        assert_eq!(test.counted(&ada).await[2], total);
    }

    async fn tools_are_passed_on_and_their_calls_streamed_back(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        let tools = json!({"tools": weather(), "tool_choice": {"type": "function", "function": {"name": "weather"}}, "parallel_tool_calls": false});

        let whole = test.complete(&ada, question_with(tools.clone())).await.json();
        let mut streaming = tools.clone();
        streaming["stream"] = true.into();
        let streamed = assembled(&test.complete(&ada, question_with(streaming)).await);

        for call in test.llm().calls() {
            assert_eq!((&call.body["tools"], &call.body["tool_choice"], &call.body["parallel_tool_calls"]), (&tools["tools"], &tools["tool_choice"], &json!(false)));
        }
        let choice = &whole["choices"][0];
        assert_eq!((&choice["finish_reason"], &choice["message"]["content"]), (&json!("tool_calls"), &Value::Null));
        let call = &choice["message"]["tool_calls"][0];
        assert_eq!((keys(call), &call["function"]["name"]), (vec!["function", "id", "type"], &json!("weather")));
        let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
        assert!(arguments["city"].is_string());
        assert_eq!(streamed["tool_calls"][0]["function"], call["function"]);
        assert_eq!(streamed["finish_reason"], "tool_calls");
    }

    async fn the_answer_of_a_tool_leads_on(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        let messages = json!([
            {"role": "user", "content": "weather in Paris?"},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Paris\"}"}}]},
            {"role": "tool", "tool_call_id": "call_1", "content": "18 degrees"},
        ]);

        let answer = test.complete(&ada, question_with(json!({"messages": messages, "tools": weather()}))).await.json();

        assert_eq!(test.llm().calls()[0].body["messages"], messages);
        assert!(answer["choices"][0]["message"]["content"].as_str().unwrap().contains("18 degrees"));
    }

    async fn calls_without_an_index_or_all_with_the_same_are_told_apart(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        let calls = |index: Value| {
            let call = |id: &str, city: &str| {
                let mut call = json!({"id": id, "type": "function", "function": {"name": "weather", "arguments": format!("{{\"city\":\"{city}\"}}")}});
                if !index.is_null() {
                    call["index"] = index.clone();
                }
                said(&json!({"choices": [{"delta": {"tool_calls": [call]}}]}))
            };
            Reply::Stream(vec![call("call_1", "Paris"), call("call_2", "Rome"), finish("stop"), done()])
        };

        test.llm().script([calls(Value::Null), calls(json!(0))]);
        for _ in 0..2 {
            let answer = test.complete(&ada, question_with(json!({"tools": weather()}))).await.json();
            let calls = &answer["choices"][0]["message"]["tool_calls"];
            let arguments: Vec<_> = calls.as_array().unwrap().iter().map(|call| call["function"]["arguments"].as_str().unwrap()).collect();
            assert_eq!(arguments, ["{\"city\":\"Paris\"}", "{\"city\":\"Rome\"}"]);
        }
    }

    async fn a_schema_is_passed_on_and_kept_to(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        let schema = json!({"type": "object", "properties": {"mood": {"type": "string", "enum": ["good", "bad"]}}, "required": ["mood"], "additionalProperties": false});
        let format = json!({"type": "json_schema", "json_schema": {"name": "mood", "strict": true, "schema": schema}});

        let answer = test.complete(&ada, question_with(json!({"response_format": format}))).await.json();

        assert_eq!(test.llm().calls()[0].body["response_format"], format);
        let content: Value = serde_json::from_str(answer["choices"][0]["message"]["content"].as_str().unwrap()).unwrap();
        assert!(["good", "bad"].contains(&content["mood"].as_str().unwrap()));
    }

    async fn members_nobody_knows_are_neither_refused_nor_passed_on(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        let answer = test.complete(&ada, question_with(json!({"frobnicate": 1, "store": true, "user": "someone", "temperature": 0.2, "seed": null, "n": 1}))).await;

        assert_eq!(answer.status, 200);
        let asked = &test.llm().calls()[0].body;
        assert_eq!(keys(asked), ["max_tokens", "messages", "model", "stream", "stream_options", "temperature"]);
    }

    async fn an_answer_is_as_long_as_asked_for_and_allowed(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        for (members, allowed) in [(json!({}), 1_024), (json!({"max_tokens": 5}), 5), (json!({"max_completion_tokens": 7, "max_tokens": 5}), 7), (json!({"max_tokens": 1_000_000}), 1_024)] {
            assert_eq!(test.complete(&ada, question_with(members)).await.status, 200);
            assert_eq!(test.llm().calls().last().unwrap().body["max_tokens"], allowed);
        }
        for wrong in [json!(0), json!(-1), json!("many"), json!(1.5)] {
            let answer = test.complete(&ada, question_with(json!({"max_tokens": wrong}))).await;
            assert_eq!((answer.status.as_u16(), &answer.json()["error"]["param"]), (400, &json!("max_tokens")));
        }
    }

    async fn what_cannot_be_asked_is_refused_in_openais_shape(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        let message = json!([{"role": "user", "content": "Hello"}]);
        for (body, param) in [
            (json!({"model": "gpt-4o-mini"}), "messages"),
            (json!({"model": "gpt-4o-mini", "messages": []}), "messages"),
            (json!({"model": "gpt-4o-mini", "messages": "Hello"}), "messages"),
            (json!({"model": "gpt-4o-mini", "messages": [{"content": "Hello"}]}), "messages"),
            (json!({"messages": message}), "model"),
            (json!({"model": "gpt-4o-mini", "messages": message, "n": 2}), "n"),
            (json!({"model": "gpt-4o-mini", "messages": message, "stream": "yes"}), "stream"),
        ] {
            let answer = test.complete(&ada, body).await;
            let error = answer.json()["error"].clone();
            assert_eq!((answer.status.as_u16(), keys(&error)), (400, vec!["code", "message", "param", "type"]));
            assert_eq!((&error["type"], &error["param"]), (&json!("invalid_request_error"), &json!(param)));
            assert_eq!(answer.header("x-should-retry"), "false");
        }
        let not_json = request(Method::POST, &ada.token, COMPLETIONS).header(header::CONTENT_TYPE, "application/json");
        let not_json = test.send(not_json.body(Body::from("{\"model\":")).unwrap()).await;
        assert_eq!(not_json.refusal(), (400, "malformed_json".into()));

        test.is_untouched(&ada, [0; 4]).await;
    }

    async fn a_model_beyond_the_plan_is_refused_before_it_is_asked(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        let beyond = test.complete(&ada, question_with(json!({"model": "gpt-4o"}))).await;
        let unknown = test.complete(&ada, question_with(json!({"model": "GPT-4o-mini", "stream": true}))).await;

        assert_eq!((beyond.refusal(), beyond.json()["error"]["type"].as_str()), ((403, "model_not_in_plan".into()), Some("permission_error")));
        assert_eq!((unknown.refusal(), unknown.json()["error"]["param"].as_str()), ((404, "model_not_found".into()), Some("model")));
        assert_eq!((beyond.header("x-should-retry"), unknown.header("x-should-retry")), ("false", "false"));
        test.is_untouched(&ada, [0; 4]).await;
    }

    async fn only_the_plans_models_are_listed(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        let (openai, native) = (test.get(&ada.token, "/v1/models").await.json(), test.get(&ada.token, "/api/models").await.json());

        assert_eq!(openai, json!({"object": "list", "data": [{"id": "gpt-4o-mini", "object": "model", "created": 0, "owned_by": "plinth"},
            {"id": "text-embedding-3-small", "object": "model", "created": 0, "owned_by": "plinth"}]}));
        assert_eq!(native, json!({"data": [{"id": "gpt-4o-mini", "default": true}]}));
        assert_eq!(test.get("", "/v1/models").await.refusal(), (401, "invalid_api_key".into()));
    }
}
