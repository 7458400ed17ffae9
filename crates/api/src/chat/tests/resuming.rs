//! Invariants 11 to 19, 33, 34 and 44: whoever comes back goes on from where it was.
use super::*;
use crate::chat::watch;

impl Test {
    async fn events_after(&self, person: &Person, generation: &Value, after: u64) -> Answer {
        let id = generation.as_str().unwrap();
        let path = format!("/api/generations/{id}/events?after={after}");
        self.get(&person.token, &path).await
    }

    async fn last_generation(&self, person: &Person) -> Value {
        let list = self.get(&person.token, "/api/generations").await.json();
        list["data"][0].clone()
    }
}

/// What a client has after it heard these events on top of these words.
fn told(mut had: String, answer: &Answer) -> (String, Vec<String>) {
    let mut lasts = vec![];
    for (name, data) in answer.events() {
        match name.as_str() {
            "delta" => had += data["text"].as_str().unwrap(),
            "snapshot" => had = data["text"].as_str().unwrap().into(),
            "start" | "reasoning" => {}
            _ => lasts.push(name),
        }
    }
    (had, lasts)
}

both_engines! {
    async fn inv_11_whoever_resumes_anywhere_has_the_whole_answer_here_and_elsewhere(engine: Engine) {
        let test = Test::new(engine).await;
        let there = test.beside(&[]).await;
        let ada = test.sign_up(ADA).await;
        test.llm().script([Reply::model("sim-tokens-12")]);
        let whole = test.ask_streamed(&ada, "Hello").await;
        test.settled().await;
        let generation = whole.events()[0].1["generation_id"].clone();
        let full = text(&whole);
        let words: Vec<_> = whole.events().into_iter().filter(|(name, _)| name == "delta").map(|(_, data)| data["text"].as_str().unwrap().to_owned()).collect();

        for k in 0..=words.len() {
            for instance in [&test, &there] {
                let rest = instance.events_after(&ada, &generation, k as u64).await;
                assert_eq!(told(words[..k].concat(), &rest), (full.clone(), vec!["finish".to_owned()]), "{k}");
            }
        }
        for instance in [&test, &there] {
            let nothing = instance.events_after(&ada, &generation, words.len() as u64 + 1).await;
            assert_eq!((nothing.status.as_u16(), nothing.bytes.len()), (204, 0));
        }
        assert_eq!((test.llm().count(), there.llm().count()), (1, 0), "to listen starts nothing");
    }

    async fn a_reader_here_goes_on_from_the_event_it_names_without_a_word_twice(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        test.llm().script([words(["One", " two", " three"], [finish("stop"), done()])]);
        let whole = test.ask_streamed(&ada, "Hello").await;
        let generation = whole.events()[0].1["generation_id"].clone();

        let path = format!("/api/generations/{}/events", generation.as_str().unwrap());
        let resume = request(Method::GET, &ada.token, &path).header("last-event-id", format!("{}.2", generation.as_str().unwrap()));
        let rest = test.send(resume.body(Body::empty()).unwrap()).await;

        assert_eq!(names(&rest), ["delta", "finish"]);
        assert_eq!(text(&rest), " three");
        let foreign = request(Method::GET, &ada.token, &path).header("last-event-id", format!("{}.2", uuid::Uuid::nil()));
        assert_eq!(test.send(foreign.body(Body::empty()).unwrap()).await.status, 400);
    }

    async fn inv_15_anothers_generation_is_as_absent_as_none(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, bob) = (test.sign_up(ADA).await, test.sign_up(BOB).await);
        test.ask(&ada, "Hello").await;
        let id = test.last_generation(&ada).await["id"].as_str().unwrap().to_owned();

        for path in ["", "/events"] {
            let foreign = test.get(&bob.token, &format!("/api/generations/{id}{path}")).await;
            let none = test.get(&bob.token, &format!("/api/generations/{}{path}", uuid::Uuid::nil())).await;
            assert_eq!((foreign.status, foreign.refusal()), (none.status, none.refusal()));
            assert_eq!(foreign.status, 404);
        }
        let stop = test.post(&bob.token, &format!("/api/generations/{id}/stop"), json!({})).await;
        assert_eq!(stop.status, 404);
        assert_eq!(test.get(&bob.token, "/api/generations").await.json()["data"], json!([]));
    }

    async fn inv_12_a_reader_on_another_instance_hears_the_same_words_while_they_are_made(engine: Engine) {
        let test = Test::new(engine).await;
        let there = test.beside(&[]).await;
        let ada = test.sign_up(ADA).await;
        test.llm().script([words(["Half", " an"], [Step::Wait(Duration::from_millis(1_200)), said(&json!({"choices": [{"index": 0, "delta": {"content": " answer"}}]})), finish("stop"), done()])]);
        let mut response = test.open(&ada, CHAT, json!({"message": "Hello", "stream": true})).await;
        read_to(response.body_mut(), " an").await;
        drop(response);
        let generation = test.last_generation(&ada).await;
        assert_eq!(generation["state"], "running");
        assert_eq!(there.get(&ada.token, "/api/generations?active=1").await.json()["data"][0]["id"], generation["id"]);

        let elsewhere = soon(there.events_after(&ada, &generation["id"], 0)).await;

        assert_eq!(told(String::new(), &elsewhere), ("Half an answer".into(), vec!["finish".into()]));
        assert_eq!(there.llm().count(), 0);
    }

    async fn inv_34_a_stop_from_another_instance_reaches_the_provider(engine: Engine) {
        let test = Test::new(engine).await;
        let there = test.beside(&[]).await;
        let ada = test.sign_up(ADA).await;
        test.llm().script([words(["Half an"], [Step::Hang])]);
        let mut response = test.open(&ada, CHAT, json!({"message": "Hello", "stream": true})).await;
        read_to(response.body_mut(), "Half an").await;
        let generation = test.last_generation(&ada).await;
        let path = format!("/api/generations/{}/stop", generation["id"].as_str().unwrap());

        let stop = there.post(&ada.token, &path, json!({})).await;
        assert_eq!((stop.status.as_u16(), &stop.json()["state"]), (202, &json!("running")));
        watch::listen(&test.app).await.unwrap();
        let rest = read_to(response.body_mut(), "event: finish").await;

        assert!(rest.contains("\"stopped\""), "{rest}");
        soon(test.llm().until(|calls| calls[0].closed_early)).await;
        test.settled().await;
        let again = there.post(&ada.token, &path, json!({})).await;
        assert_eq!((again.status.as_u16(), &again.json()["state"]), (200, &json!("stopped")));
        assert_eq!(test.counted(&ada).await[..2], [1, 0]);
        let conversation = test.conversations(&ada).await[0]["id"].clone();
        let message = test.messages(&ada, &conversation).await[1].clone();
        assert_eq!((&message["status"], &message["content"]), (&json!("stopped"), &json!("Half an")));
    }

    async fn inv_44_a_reader_elsewhere_hears_that_the_producer_died_and_keeps_what_it_said(engine: Engine) {
        let test = Test::new(engine).await;
        let there = test.beside(&[]).await;
        let ada = test.sign_up(ADA).await;
        test.llm().script([words(["Half", " an"], [Step::Hang])]);
        let mut response = test.open(&ada, CHAT, json!({"message": "Hello", "stream": true})).await;
        read_to(response.body_mut(), " an").await;
        let generation = test.last_generation(&ada).await;
        let message = generation["message_id"].as_str().unwrap().parse().unwrap();
        let mut tx = test.app.db.begin().await.unwrap();
        db::conversations::checkpoint(&mut tx, message, "Half", 1).await.unwrap();
        tx.commit().await.unwrap();
        there.later(Duration::from_secs(31));

        let elsewhere = soon(there.events_after(&ada, &generation["id"], 2)).await;

        assert_eq!(told("Half an".into(), &elsewhere), ("Half".into(), vec!["error".into()]));
        assert_eq!(last(&elsewhere)["code"], "interrupted");
        watch::renew(&test.app).await.unwrap();
        let rest = read_to(response.body_mut(), "event: error").await;
        assert!(rest.contains("interrupted"), "the one given up for dead finds out: {rest}");
        test.settled().await;
        assert_eq!(test.counted(&ada).await[..2], [1, 0]);
    }

    async fn inv_16_who_is_signed_out_hears_no_more_within_five_seconds(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        test.llm().script([words(["Half an"], [Step::Hang])]);
        let mut response = test.open(&ada, CHAT, json!({"message": "Hello", "stream": true})).await;
        read_to(response.body_mut(), "Half an").await;
        let since = std::time::Instant::now();

        test.post(&ada.token, "/auth/v1/logout?scope=global", json!({})).await;
        let rest = read_to(response.body_mut(), "event: error").await;

        assert!(rest.contains("session_ended") && since.elapsed() < Duration::from_secs(7), "{rest}");
        test.app.streams.stop_all();
        test.settled().await;
    }

    async fn who_listens_for_14_minutes_is_sent_away_politely_and_goes_on_where_it_was(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        let half = || words(["Half an"], [Step::Hang]);
        test.llm().script([half(), half(), half()]);
        let messages = json!([{"role": "user", "parts": [{"type": "text", "text": "Hello"}]}]);
        let mut open = vec![];
        for (path, body) in [
            (CHAT, json!({"message": "Hello", "stream": true})),
            (COMPLETIONS, question_with(json!({"stream": true}))),
            (CHAT, json!({"id": "a chat", "messages": messages})),
        ] {
            let mut response = test.open(&ada, path, body).await;
            read_to(response.body_mut(), "Half an").await;
            open.push(response);
        }
        let generation = test.get(&ada.token, "/api/generations").await.json()["data"][2]["id"].clone();

        test.later(Duration::from_secs(14 * 60));
        let rests = open.into_iter().map(async |response| {
            let rest = soon(response.into_body().collect()).await.unwrap().to_bytes();
            String::from_utf8(rest.to_vec()).unwrap()
        });
        let rests = join_all(rests).await;

        assert_eq!(rests[0], "event: reconnect\nretry: 250\ndata: {}\n\n", "without an id: the last word's is where to go on");
        assert!(rests[1].contains("server_draining") && !rests[1].contains("[DONE]"), "{}", rests[1]);
        assert_eq!(rests[2], "", "a last part would be the answer's end");
        test.app.streams.stop_all();
        test.settled().await;
        let rest = test.events_after(&ada, &generation, 1).await;
        assert_eq!((names(&rest), &last(&rest)["reason"]), (vec!["finish".to_owned()], &json!("stopped")));
    }

    async fn inv_8_a_retry_of_an_openai_sdk_joins_what_it_retries(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        test.llm().script([Reply::model("sim-slow-100")]);
        let again = || request(Method::POST, &ada.token, COMPLETIONS)
            .header(header::CONTENT_TYPE, "application/json")
            .header("x-stainless-retry-count", "1")
            .body(Body::from(question("Hello").to_string()))
            .unwrap();
        tokio::select! {
            _ = test.complete(&ada, question("Hello")) => panic!("it takes a while"),
            _ = test.llm().until(|calls| !calls.is_empty()) => {}
        }

        let answer = test.send(again()).await;

        assert_eq!(answer.status, 200, "{}", answer.text());
        test.settled().await;
        assert_eq!((test.llm().count(), test.counted(&ada).await[0]), (1, 1));
        // Heard once, the same words are a new question.
        test.complete(&ada, question("Hello")).await;
        test.settled().await;
        assert_eq!((test.llm().count(), test.counted(&ada).await[0]), (2, 2));
    }

    async fn inv_8_a_counted_retry_gets_the_answer_that_was_lost_on_its_way(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        let first = test.complete(&ada, question("Hello")).await.json();
        test.settled().await;

        let again = request(Method::POST, &ada.token, COMPLETIONS)
            .header(header::CONTENT_TYPE, "application/json")
            .header("x-stainless-retry-count", "1")
            .body(Body::from(question("Hello").to_string()))
            .unwrap();
        let second = test.send(again).await.json();
        test.settled().await;

        assert_eq!((&second["id"], &second["choices"]), (&first["id"], &first["choices"]));
        assert_eq!((test.llm().count(), test.counted(&ada).await[0]), (1, 1));
    }

    async fn inv_9_a_client_that_repeats_itself_when_no_answer_came_gets_one_and_pays_once(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        test.llm().script([Reply::model("sim-slow-100")]);
        tokio::select! {
            _ = test.ask(&ada, "Hello") => panic!("it takes a while"),
            _ = test.llm().until(|calls| !calls.is_empty()) => {}
        }

        let second = test.ask(&ada, "Hello").await.json();
        test.settled().await;

        assert_eq!((test.llm().count(), test.conversations(&ada).await.len(), test.counted(&ada).await[0]), (1, 1, 1));
        let third = test.ask(&ada, "Hello").await.json();
        assert_ne!(second["conversationId"], third["conversationId"], "it was heard: this is another question");
    }

    async fn inv_5_a_second_request_with_the_key_of_one_under_way_joins_it(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        test.llm().script([Reply::model("sim-slow-100")]);
        let body = || json!({"message": "Hello"});

        let (one, other) = tokio::join!(test.keyed(&ada, "k", CHAT, body()), test.keyed(&ada, "k", CHAT, body()));

        assert_eq!((one.status.as_u16(), one.json()), (200, other.json()));
        test.settled().await;
        assert_eq!((test.llm().count(), test.counted(&ada).await[0]), (1, 1));
    }

    async fn a_long_poll_says_where_to_go_on(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        test.llm().script([words(["One", " two"], [finish("stop"), done()])]);
        test.ask(&ada, "Hello").await;
        let id = test.last_generation(&ada).await["id"].as_str().unwrap().to_owned();

        let polled = test.get(&ada.token, &format!("/api/generations/{id}/events?after=1&wait=5")).await.json();

        assert_eq!((&polled["next"], &polled["done"]), (&json!(3), &json!(true)));
        assert_eq!(polled["data"][0], json!({"seq": 2, "event": "delta", "data": {"text": " two"}}));
        assert_eq!(polled["data"][1]["event"], "finish");
    }
}
