use super::*;
use crate::chat::{sweep, watch};
use std::task::Poll;

const LEASE: Duration = Duration::from_secs(31);

/// Someone's answer that is being made, silent after half of it; its conversation and its message.
async fn half_an_answer(test: &Test, person: &Person) -> (Response<Body>, Value, Value) {
    test.llm().script([words(["Half an"], [Step::Hang])]);
    let mut response = test
        .open(person, CHAT, json!({"message": "Hello", "stream": true}))
        .await;
    read_to(response.body_mut(), "event: delta").await;
    let conversation = test.conversations(person).await[0]["id"].clone();
    let message = test.messages(person, &conversation).await[1]["id"].clone();
    (response, conversation, message)
}

/// Polls it so often at most, then drops it.
async fn polled<T>(times: usize, future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut left) = (std::pin::pin!(future), times);
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

async fn checkpoint(test: &Test, message: &Value, text: &str) {
    let mut tx = test.app.db.begin().await.unwrap();
    db::conversations::checkpoint(&mut tx, message.as_str().unwrap().parse().unwrap(), text, 1)
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

both_engines! {
    async fn an_answer_is_made_to_its_end_though_nobody_listens(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        test.llm().script([Reply::model("sim-gap-5-tokens-40")]);
        let mut response = test.open(&ada, CHAT, json!({"message": "Hello", "stream": true})).await;
        read_to(response.body_mut(), "event: delta").await;
        drop(response);
        test.settled().await;

        let conversation = test.conversations(&ada).await[0]["id"].clone();
        let message = test.messages(&ada, &conversation).await[1].clone();
        assert_eq!((&message["status"], &message["output_tokens"]), (&json!("complete"), &json!(40)));
        let calls = test.llm().calls();
        assert!(calls.len() == 1 && calls[0].finished && !calls[0].closed_early);
        assert_eq!(test.counted(&ada).await[..2], [1, 0]);
    }

    async fn who_waits_for_the_whole_answer_and_leaves_finds_it_later(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        test.llm().script([Reply::model("sim-slow-100")]);
        tokio::select! {
            _ = test.ask(&ada, "Hello") => panic!("it takes a while"),
            _ = test.llm().until(|calls| !calls.is_empty()) => {}
        }
        test.settled().await;

        let conversation = test.conversations(&ada).await[0]["id"].clone();
        assert_eq!(test.messages(&ada, &conversation).await[1]["status"], "complete");
    }

    async fn an_answer_nobody_can_come_back_to_is_stopped_within_a_second(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        test.llm().script([words(["Half an"], [Step::Hang])]);
        let mut response = test.open(&ada, COMPLETIONS, question_with(json!({"stream": true}))).await;
        read_to(response.body_mut(), "Half an").await;
        drop(response);
        let closed = test.llm().until(|calls| calls[0].closed_early);

        assert!(tokio::time::timeout(Duration::from_secs(1), closed).await.is_ok());
        test.settled().await;
        let [used, reserved, tokens, tokens_reserved] = test.counted(&ada).await;
        assert_eq!((used, reserved, tokens_reserved), (1, 0, 0));
        assert!(tokens > 0, "what was said is charged");
        assert_eq!(test.conversations(&ada).await, Vec::<Value>::new());
    }

    async fn a_client_that_leaves_before_the_first_word_stops_the_provider_too(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        test.llm().script([Reply::hang()]);
        tokio::select! {
            _ = test.complete(&ada, question("Hello")) => panic!("nothing was said"),
            _ = test.llm().until(|calls| !calls.is_empty()) => {}
        }

        soon(test.llm().until(|calls| calls[0].closed_early)).await;
        test.settled().await;
        assert_eq!(test.counted(&ada).await, [0; 4]);
    }

    async fn wherever_a_client_leaves_nothing_stays_under_way(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        for path in [CHAT, COMPLETIONS] {
            let body = if path == CHAT { json!({"message": "Hello"}) } else { question("Hello") };
            for polls in 0..40 {
                let left = polled(polls, test.keyed(&ada, &format!("{path}{polls}"), path, body.clone())).await;
                test.settled().await;
                assert_eq!(test.under_way().await, 0, "left {path} after {polls} polls");
                if left.is_some() {
                    break;
                }
            }
        }
        let counted = test.counted(&ada).await;
        assert_eq!((counted[1], counted[3]), (0, 0));
    }

    async fn a_keyed_completion_is_made_to_its_end(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        test.llm().script([Reply::model("sim-slow-100")]);
        tokio::select! {
            _ = test.keyed(&ada, "k", COMPLETIONS, question("Hello")) => panic!("it takes a while"),
            _ = test.llm().until(|calls| !calls.is_empty()) => {}
        }
        test.settled().await;
        let answer = test.keyed(&ada, "k", COMPLETIONS, question("Hello")).await;

        assert_eq!((answer.status.as_u16(), answer.header("idempotency-replayed")), (200, "true"));
        assert_eq!(test.llm().count(), 1);
    }

    async fn an_abandoned_answer_is_settled_once_and_what_was_kept_of_it_stays(engine: Engine) {
        let test = Test::new(engine).await;
        let there = test.beside(&[]).await;
        let ada = test.sign_up(ADA).await;
        let (mut response, conversation, message) = half_an_answer(&test, &ada).await;
        checkpoint(&test, &message, "Half").await;

        sweep::run(&test.app).await.unwrap();
        assert_eq!(test.under_way().await, 1, "its lease stands");
        for instance in [&test, &there] {
            instance.later(LEASE);
        }
        let (one, other) = tokio::join!(sweep::run(&test.app), sweep::run(&there.app));
        assert!(one.is_ok() && other.is_ok());

        let swept = test.messages(&ada, &conversation).await[1].clone();
        assert_eq!((&swept["status"], &swept["content"]), (&json!("truncated"), &json!("Half")));
        let (counted, ledger) = (test.counted(&ada).await, test.ledger(&ada).await);
        assert_eq!((counted[..2].to_vec(), counted[3]), (vec![1, 0], 0));
        assert!(ledger.2 > 0 && ledger.0 + ledger.1 == counted[2]);

        // The producer was not dead after all.
        test.app.streams.stop_all();
        let rest = read_to(response.body_mut(), "event: error").await;
        test.settled().await;
        assert!(rest.contains("\"interrupted\"") && !rest.contains("event: finish"), "{rest}");
        assert_eq!(test.messages(&ada, &conversation).await[1], swept);
        assert_eq!((test.counted(&ada).await, test.ledger(&ada).await), (counted, ledger));
    }

    async fn an_abandoned_answer_of_which_nothing_is_known_costs_nothing(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        let (response, conversation, _) = half_an_answer(&test, &ada).await;

        test.later(LEASE);
        sweep::run(&test.app).await.unwrap();
        sweep::run(&test.app).await.unwrap();

        assert_eq!(test.messages(&ada, &conversation).await[1]["status"], "failed");
        assert_eq!((test.counted(&ada).await, test.ledger(&ada).await), ([0; 4], (0, 0, 0)));
        drop(response);
        test.app.streams.stop_all();
        test.settled().await;
        assert_eq!(test.counted(&ada).await, [0; 4]);
    }

    async fn a_lease_that_is_kept_is_not_swept(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        let (response, conversation, message) = half_an_answer(&test, &ada).await;

        test.later(LEASE);
        watch::renew(&test.beside(&[]).await.app).await.unwrap();
        watch::renew(&test.app).await.unwrap();
        sweep::run(&test.app).await.unwrap();

        assert_eq!(test.under_way().await, 1);
        assert_eq!(test.messages(&ada, &conversation).await[1]["id"], message);
        drop(response);
        test.app.streams.stop_all();
        test.settled().await;
    }

    async fn an_instance_that_ends_says_so_and_keeps_what_came(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        let (mut response, conversation, _) = half_an_answer(&test, &ada).await;

        test.app.draining.cancel();
        test.app.streams.stop_all();
        let rest = read_to(response.body_mut(), "event: error").await;

        assert!(rest.contains("server_draining") && rest.contains("\"retryable\":true"), "{rest}");
        let message = test.messages(&ada, &conversation).await[1].clone();
        assert_eq!((&message["status"], &message["content"]), (&json!("truncated"), &json!("Half an")));
        assert_eq!((test.under_way().await, test.counted(&ada).await[1]), (0, 0));
    }

    async fn a_conversation_that_is_deleted_under_its_answer_is_settled(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        let (mut response, conversation, _) = half_an_answer(&test, &ada).await;

        let path = format!("/api/conversations/{}", conversation.as_str().unwrap());
        let deleted = test.call(Method::DELETE, &ada.token, &path, Value::Null).await;
        assert_eq!(deleted.status, 204);
        read_to(response.body_mut(), "event: finish").await;

        assert_eq!((test.get(&ada.token, &path).await.status.as_u16(), test.under_way().await), (404, 0));
        let [used, reserved, tokens, tokens_reserved] = test.counted(&ada).await;
        assert_eq!((used, reserved, tokens_reserved), (1, 0, 0));
        assert!(tokens > 0 && test.ledger(&ada).await.2 > 0);
    }
}
