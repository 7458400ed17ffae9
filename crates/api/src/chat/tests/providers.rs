use super::*;
use crate::chat::llm::{Failure, Llm, Provider, Said};
use futures_util::StreamExt;
use serde_json::Map;
use uuid::Uuid;

const CLAUDE: [(&str, &str); 2] = [
    ("LLM_PROVIDER", "anthropic"),
    ("LLM_MODEL", "claude-haiku-4-5"),
];
const BOTH: [(&str, &str); 2] = [
    ("LLM_PROVIDER", "openai,anthropic"),
    ("LLM_FALLBACK_MODELS", "gpt-4o-mini=claude-haiku-4-5"),
];

/// An error of Anthropic's.
fn anthropic_refusal(status: u16, kind: &str, message: &str) -> Reply {
    let error = json!({"type": "error", "error": {"type": kind, "message": message}});
    Reply::status(status, error.to_string())
}

/// The models that were asked, in order.
fn models(test: &Test) -> Vec<String> {
    let calls = test.llm().calls();
    calls.into_iter().map(|call| call.model).collect()
}

fn keys_used(test: &Test) -> Vec<String> {
    let calls = test.llm().calls();
    calls.into_iter().filter_map(|call| call.key).collect()
}

fn asked(model: &str) -> Map<String, Value> {
    let request = json!({"model": model, "messages": [{"role": "user", "content": "Hello"}]});
    request.as_object().unwrap().clone()
}

const WEATHER: &str = r#"[{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "required": ["city"], "properties": {"city": {"type": "string"}}}}}]"#;

fn tools(model: &str, stream: bool) -> Value {
    let tools: Value = serde_json::from_str(WEATHER).unwrap();
    json!({"model": model, "stream": stream, "tools": tools, "tool_choice": "required", "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "How is the weather in Bonn?"}]})
}

both_engines! {
    async fn a_claude_is_asked_in_its_words_and_answers_in_ours(engine: Engine) {
        let (test, other) = (Test::with(engine, &CLAUDE).await, Test::new(engine).await);
        let (ada, bob) = (test.sign_up(ADA).await, other.sign_up(BOB).await);

        let (theirs, openais) = (test.ask(&ada, "Shall I sail?").await, other.ask(&bob, "Shall I sail?").await);
        let streamed = test.ask_streamed(&ada, "Shall I sail?").await;
        let called = test.complete(&ada, tools("claude-haiku-4-5", false)).await.json();
        let pieces = test.complete(&ada, tools("claude-haiku-4-5", true)).await;

        assert_eq!(theirs.json()["response"], openais.json()["response"]);
        assert_eq!((text(&streamed), last(&streamed)["reason"].as_str()), (theirs.json()["response"].as_str().unwrap().into(), Some("stop")));
        let call = &called["choices"][0];
        assert_eq!((&call["finish_reason"], &call["message"]["tool_calls"][0]["function"]["name"]), (&json!("tool_calls"), &json!("weather")));
        assert!(called["usage"]["prompt_tokens"].as_i64().unwrap() > 0 && called["usage"]["completion_tokens"].as_i64().unwrap() > 0);
        let told = pieces.events().iter().filter_map(|(_, chunk)| chunk.pointer("/choices/0/delta/tool_calls/0/function/arguments")?.as_str().map(str::to_owned)).collect::<String>();
        assert_eq!(json!(told), call["message"]["tool_calls"][0]["function"]["arguments"]);
        let upstream = test.llm().calls().pop().unwrap().body;
        assert_eq!((&upstream["system"], &upstream["tools"][0]["name"], &upstream["tool_choice"]["type"]), (&json!("Be kind."), &json!("weather"), &json!("any")));
        assert!(test.ledger(&ada).await.1 > 0);
    }

    async fn a_claude_that_is_cut_off_or_refuses_is_understood_like_anyone(engine: Engine) {
        let test = Test::with(engine, &CLAUDE).await;
        let ada = test.sign_up(ADA).await;

        for fault in ["sim-cut-6", "sim-eof-6", "sim-garbage", "sim-nofinish"] {
            test.llm().script([Reply::model(fault)]);
            assert_eq!(test.ask(&ada, "Hello").await.json()["finishReason"], "truncated", "{fault}");
        }
        test.llm().script([Reply::model("sim-error")]);
        let broken = test.ask_streamed(&ada, "Hello").await;
        assert_eq!((names(&broken), &last(&broken)["code"]), (vec!["start".into(), "delta".into(), "error".into()], &json!("llm_unavailable")));
        assert_eq!(test.llm().count(), 5, "after the first word nothing is asked again");

        test.llm().script([Reply::model("sim-529"), Reply::model("sim-eof-3"), Reply::text("At last.")]);
        assert_eq!(test.ask(&ada, "Hello").await.json()["response"], "At last.");
        for (reply, code) in [
            (anthropic_refusal(400, "invalid_request_error", "prompt is too long"), (400, "llm_refused")),
            (anthropic_refusal(400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API."), (503, "llm_unavailable")),
            (Reply::model("sim-401"), (503, "llm_unavailable")),
            (Reply::model("sim-402"), (503, "llm_unavailable")),
            (Reply::model("sim-403"), (503, "llm_unavailable")),
            (Reply::model("sim-413"), (400, "llm_refused")),
        ] {
            let before = test.llm().count();
            test.llm().script([reply]);
            let answer = test.ask(&ada, "Hello").await;
            assert_eq!(answer.refusal(), (code.0, code.1.into()));
            assert!(!answer.text().contains("credit"), "{}", answer.text());
            assert_eq!(test.llm().count(), before + 1, "asked once");
        }
    }

    /// Invariant 22.

    async fn noise_line_ends_and_segments_change_nothing(engine: Engine) {
        let test = Test::with(engine, &[("LLM_PROVIDER", "openai,anthropic"), ("LLM_MODEL", "claude-haiku-4-5")]).await;
        let ada = test.sign_up(ADA).await;

        let question = |model: &str| json!({"model": model, "messages": [{"role": "user", "content": "Grüße 🌊, is it deep?"}]});
        let mut answers = vec![];
        for model in ["gpt-4o-mini", "claude-haiku-4-5"] {
            for disguise in ["sim", "sim-noise", "sim-crlf", "sim-split-tokens-40", "sim-split-noise-crlf-tokens-40", "sim-nodone"] {
                test.llm().script([Reply::model(disguise)]);
                let answer = test.complete(&ada, question(model)).await.json();
                assert_eq!(answer["choices"][0]["finish_reason"], "stop", "{model} {disguise}");
                answers.push((disguise.contains("tokens"), answer["choices"][0]["message"]["content"].clone()));
            }
        }

        let (first, long) = (answers[0].1.clone(), answers[3].1.clone());
        assert!(first.as_str().unwrap().contains('“'), "{first}");
        assert!(answers.iter().all(|(is_long, answer)| *answer == if *is_long { long.clone() } else { first.clone() }), "{answers:?}");
        assert_eq!(test.llm().count(), 12);
    }

    async fn calls_without_index_or_id_reach_clients_with_both(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        test.llm().script([Reply::model("sim-noindex"), Reply::model("sim-noindex")]);
        let streamed = test.complete(&ada, tools("gpt-4o-mini", true)).await;
        let whole = test.complete(&ada, tools("gpt-4o-mini", false)).await.json();

        let calls: Vec<_> = streamed.events().iter().filter_map(|(_, chunk)| chunk.pointer("/choices/0/delta/tool_calls/0").cloned()).collect();
        assert_eq!((calls.len(), &calls[0]["index"], calls[0]["id"].is_string()), (1, &json!(0), true));
        assert_eq!(whole["choices"][0]["finish_reason"], "tool_calls");
        assert!(whole["choices"][0]["message"]["tool_calls"][0]["id"].is_string());
    }

    /// Invariant 23.

    async fn before_the_first_word_another_answers_and_only_it_is_seen(engine: Engine) {
        let test = Test::with(engine, &BOTH).await;
        let ada = test.sign_up(ADA).await;

        for reply in [Reply::model("sim-401"), Reply::model("sim-404"), Reply::model("sim-quota"), Reply::model("sim-retry-30")] {
            let before = models(&test).len();
            test.llm().script([reply, Reply::text("Here I am.")]);
            let answer = soon(test.ask_streamed(&ada, "Hello")).await;
            assert_eq!((text(&answer), names(&answer)), ("Here I am.".into(), vec!["start".into(), "delta".into(), "finish".into()]));
            assert_eq!(models(&test)[before..], ["gpt-4o-mini", "claude-haiku-4-5"]);
        }
        assert_eq!(test.counted(&ada).await[..2], [4, 0], "one message each");

        let before = test.llm().count();
        test.llm().script([words(["Half"], [Step::Cut]), refusal(400, "invalid", &[]), Reply::model("sim-error")]);
        assert_eq!(test.ask(&ada, "Hello").await.json()["finishReason"], "truncated");
        assert_eq!(test.ask(&ada, "Hello").await.refusal(), (400, "llm_refused".into()));
        assert_eq!(last(&test.ask_streamed(&ada, "Hello").await)["code"], "llm_unavailable");
        assert_eq!(test.llm().count(), before + 3, "after a word, and for what nobody would answer, nobody else is asked");
    }

    async fn a_silent_provider_leaves_time_for_the_next(engine: Engine) {
        let test = Test::with(engine, &[BOTH[0], BOTH[1], ("LLM_FIRST_TOKEN_TIMEOUT", "1")]).await;
        let ada = test.sign_up(ADA).await;

        test.llm().script([Reply::hang(), Reply::text("I am awake.")]);
        assert_eq!(soon(test.ask(&ada, "Hello")).await.json()["response"], "I am awake.");

        let calls = soon(test.llm().until(|calls| calls[0].closed_early)).await;
        assert_eq!(calls.len(), 2);
    }

    async fn a_key_that_is_refused_gives_way_to_the_next_and_stays_behind(engine: Engine) {
        let test = Test::with(engine, &[("OPENAI_API_KEY", "sk-one, sk-two")]).await;
        let ada = test.sign_up(ADA).await;

        for (reply, keys) in [
            (Reply::model("sim-401"), ["sk-one", "sk-two"]),
            (Reply::model("sim-429"), ["sk-two", "sk-one"]),
            (Reply::model("sim-quota"), ["sk-one", "sk-two"]),
        ] {
            let before = keys_used(&test).len();
            test.llm().script([reply]);
            assert_eq!(test.ask(&ada, "Hello").await.status, 200);
            assert_eq!(keys_used(&test)[before..], keys);
        }
        test.ask(&ada, "Hello").await;
        assert_eq!(keys_used(&test).last().unwrap(), "sk-two", "the last that was taken");

        let before = keys_used(&test).len();
        test.llm().script([Reply::model("sim-403"), Reply::model("sim-402")]);
        let answer = test.complete(&ada, question("Hello")).await;
        assert_eq!(answer.refusal(), (503, "llm_unavailable".into()));
        assert_eq!(keys_used(&test).len(), before + 2, "each once");
    }

    async fn who_answered_stands_in_the_ledger(engine: Engine) {
        let models = ("LLM_FALLBACK_MODELS", "gpt-4o-mini=openai:gpt-4o");
        let test = Test::with(engine, &[("OPENAI_API_KEY", "sk-one"), models]).await;
        let ada = test.sign_up(ADA).await;

        test.llm().script([Reply::model("sim-404"), Reply::text("Here I am.")]);
        test.ask(&ada, "Hello").await;

        let user = ada.id.parse().unwrap();
        let charges = db::usage::charges_of_user(&test.app.db, user, Timestamp::from_unix(0), Uuid::nil(), 9).await.unwrap();
        let charged: Vec<_> = charges.iter().map(|charge| charge.model.as_str()).collect();
        assert_eq!(charged, ["gpt-4o"]);
        let prices = db::prices::of_model(&test.app.db, "gpt-4o").await.unwrap();
        let price = prices.last().unwrap();
        assert_eq!(charges[0].price_id, Some(price.id), "at the price of who answered");
        let millionths = charges[0].input_tokens * price.input_microusd + charges[0].output_tokens * price.output_microusd;
        assert_eq!(charges[0].cost_microusd, (millionths + 999_999) / 1_000_000);
    }

    /// Invariant 29.

    async fn an_answer_may_not_take_longer_than_it_may(engine: Engine) {
        let test = Test::with(engine, &[("LLM_TOTAL_TIMEOUT", "1")]).await;
        let ada = test.sign_up(ADA).await;

        test.llm().script([Reply::model("sim-gap-50-tokens-500")]);
        let since = std::time::Instant::now();
        let answer = soon(test.ask_streamed(&ada, "Hello")).await;

        assert!(since.elapsed() < Duration::from_secs(5));
        assert_eq!((names(&answer), &last(&answer)["code"]), (vec!["start".into(), "delta".into(), "error".into()], &json!("llm_timeout")));
        soon(test.llm().until(|calls| calls[0].closed_early)).await;
    }

    async fn no_more_answers_are_made_at_once_than_may_be(engine: Engine) {
        let test = Test::with(engine, &[("LLM_MAX_IN_FLIGHT", "1"), ("LLM_FIRST_TOKEN_TIMEOUT", "1")]).await;
        let ada = test.sign_up(ADA).await;

        test.llm().script([words(["Half"], [Step::Hang])]);
        let mut held = test.open(&ada, COMPLETIONS, question_with(json!({"stream": true}))).await.into_body();
        read_to(&mut held, "Half").await;
        let refused = soon(test.ask(&ada, "Hello")).await;
        assert_eq!((refused.refusal(), test.llm().count()), ((503, "llm_unavailable".into()), 1));

        drop(held);
        soon(test.llm().until(|calls| calls[0].closed_early)).await;
        test.settled().await;
        assert_eq!(test.ask(&ada, "Hello").await.status, 200);
    }

    async fn embeddings_and_moderations_are_asked_like_answers(engine: Engine) {
        let test = Test::with(engine, &[("OPENAI_API_KEY", "sk-one,sk-two")]).await;
        let llm = &test.app.llm;
        let request = |value: Value| value.as_object().unwrap().clone();

        let embedded = llm.embed(&request(json!({"model": "text-embedding-3-small", "input": ["a", "b"], "dimensions": 8})), Uuid::nil()).await.unwrap();
        let judged = llm.moderate(&request(json!({"model": "omni-moderation-latest", "input": "You idiot."})), Uuid::nil()).await.unwrap();
        let refused = llm.embed(&request(json!({"model": "sim-401", "input": "a"})), Uuid::nil()).await;
        let odd = llm.embed(&request(json!({"model": "text-embedding-3-small", "input": []})), Uuid::nil()).await;
        let page = llm.moderate(&request(json!({"model": "sim-html-502", "input": "a"})), Uuid::nil()).await;

        assert_eq!((embedded["data"].as_array().unwrap().len(), embedded["data"][1]["embedding"].as_array().unwrap().len()), (2, 8));
        assert!(embedded["usage"]["total_tokens"].as_i64().unwrap() > 0);
        assert_eq!((&judged["results"][0]["flagged"], &judged["results"][0]["categories"]["harassment"]), (&json!(true), &json!(true)));
        let unavailable = Failure::Unavailable { retry_after: Duration::from_secs(1) };
        assert_eq!((refused, page), (Err(unavailable.clone()), Err(unavailable)));
        assert!(matches!(odd, Err(Failure::Refused(why)) if why.contains("input")));
    }
}

/// Asks without an instance around it.
fn llm(test: &Test, variables: &[(&str, &str)], client: reqwest::Client) -> Llm {
    let env = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let config = crate::Config::from_env(&env.collect()).unwrap().config;
    Llm::new(
        &config.chat.providers,
        config.chat.llm_timeout,
        client.into(),
        test.app.clock.clone(),
    )
}

/// Invariant 29.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_not_taken_is_given_up_and_tells_who_answered() {
    let test = Test::new(Engine::Sqlite).await;
    // A server whose queue is full takes no connection and refuses none.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let deaf = socket.listen(1).unwrap();
    let address = deaf.local_addr().unwrap();
    let mut queue = vec![];
    for _ in 0..4 {
        let connected = tokio::net::TcpStream::connect(address);
        queue.push(tokio::time::timeout(Duration::from_millis(50), connected).await);
    }
    let client = reqwest::Client::builder()
        .connect_timeout(Duration::from_millis(50))
        .build()
        .unwrap();
    let (deaf, anthropic) = (format!("http://{address}/v1"), test.world.anthropic_url());
    let llm = llm(
        &test,
        &[
            BOTH[0],
            BOTH[1],
            ("OPENAI_BASE_URL", &deaf),
            ("ANTHROPIC_BASE_URL", &anthropic),
        ],
        client,
    );

    let mut answer = llm.ask(asked("gpt-4o-mini"), Uuid::nil()).await.unwrap();

    assert_eq!(
        (answer.by.provider, &*answer.by.model),
        (Provider::Anthropic, "claude-haiku-4-5")
    );
    let attempts: Vec<_> = answer
        .attempts
        .iter()
        .map(|attempt| (attempt.by.provider, attempt.outcome))
        .collect();
    let (openai, timed_out) = (Provider::OpenAi, "connect_timeout");
    assert_eq!(
        attempts,
        [
            (openai, timed_out),
            (openai, timed_out),
            (openai, timed_out),
            (Provider::Anthropic, "answered")
        ]
    );
    let mut heard = vec![];
    while let Some(said) = answer.next().await {
        heard.push(said.unwrap());
    }
    let ends: Vec<_> = heard
        .iter()
        .filter(|said| !matches!(said, Said::Delta(_)))
        .collect();
    assert!(
        matches!(ends[..], [Said::Finish(reason), Said::Usage(usage)] if reason == "stop" && usage.output > 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_closes_ends_soon_after_it_finished() {
    let test = Test::new(Engine::Sqlite).await;
    test.llm()
        .script([words(["Whole"], [finish("stop"), Step::Hang])]);

    let mut answer = test
        .app
        .llm
        .ask(asked("gpt-4o-mini"), Uuid::nil())
        .await
        .unwrap();
    let since = std::time::Instant::now();
    let mut heard = 0;
    while let Some(said) = answer.next().await {
        assert!(said.is_ok());
        heard += 1;
    }

    assert_eq!(heard, 2);
    assert!(since.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_within_one_event_is_cut_off() {
    let test = Test::new(Engine::Sqlite).await;
    let flood = (0..40).map(|_| Step::send(vec![b'x'; 64 * 1024]));
    test.llm().script([words(
        ["Half"],
        [Step::send("data: ")].into_iter().chain(flood),
    )]);

    let mut answer = test
        .app
        .llm
        .ask(asked("gpt-4o-mini"), Uuid::nil())
        .await
        .unwrap();

    assert!(matches!(answer.next().await, Some(Ok(Said::Delta(_)))));
    assert_eq!(answer.next().await, Some(Err(Failure::Truncated)));
    assert_eq!(answer.next().await, None);
    assert_eq!(answer.attempts.last().unwrap().outcome, "too_large");
}
