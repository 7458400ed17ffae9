use super::*;

const EMBEDDINGS: &str = "/v1/embeddings";
const MODEL: &str = "text-embedding-3-small";

impl Test {
    async fn embed(&self, person: &Person, members: Value) -> Answer {
        let mut body = json!({"model": MODEL, "input": "Hello"});
        let members = members.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(members);
        self.post(&person.token, EMBEDDINGS, body).await
    }
}

both_engines! {
    async fn texts_become_vectors_and_count_as_a_message_and_their_tokens(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        let answer = test.embed(&ada, json!({"input": ["Hello", "world"], "dimensions": 8})).await;

        assert_eq!(answer.status, 200, "{}", answer.text());
        let body = answer.json();
        let vectors = body["data"].as_array().unwrap();
        let length = |n: usize| vectors[n]["embedding"].as_array().unwrap().len();
        assert_eq!((vectors.len(), length(0), length(1), &vectors[1]["index"]), (2, 8, 8, &json!(1)));
        let tokens = body["usage"]["prompt_tokens"].as_i64().unwrap();
        assert!(tokens > 0);
        assert_eq!(test.counted(&ada).await, [1, 0, tokens, 0]);
        assert_eq!(test.ledger(&ada).await, (tokens, 0, 1), "a micro-dollar at least");
        assert_eq!((test.under_way().await, test.conversations(&ada).await), (0, vec![]));

        let base64 = test.embed(&ada, json!({"encoding_format": "base64", "dimensions": 8})).await.json();
        let text = base64["data"][0]["embedding"].as_str().unwrap();
        assert_eq!(text.len(), 44, "eight times four bytes");
    }

    async fn what_cannot_be_embedded_is_refused_with_nothing_counted(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        for (members, status, code) in [
            (json!({"model": null}), 400, "validation_failed"),
            (json!({"model": "gpt-4o-mini"}), 404, "model_not_found"),
            (json!({"model": "text-embedding-9"}), 404, "model_not_found"),
            (json!({"input": null}), 400, "validation_failed"),
            (json!({"input": ""}), 400, "validation_failed"),
            (json!({"input": []}), 400, "validation_failed"),
            (json!({"input": ["a", ""]}), 400, "validation_failed"),
            (json!({"input": [1, 2]}), 400, "validation_failed"),
            (json!({"input": vec!["a"; 2049]}), 400, "validation_failed"),
            (json!({"dimensions": 0}), 400, "validation_failed"),
            (json!({"dimensions": "8"}), 400, "validation_failed"),
            (json!({"encoding_format": "hex"}), 400, "validation_failed"),
        ] {
            let answer = test.embed(&ada, members.clone()).await;
            assert_eq!(answer.refusal(), (status, code.to_owned()), "{members}");
        }
        assert_eq!(test.complete(&ada, question_with(json!({"model": MODEL}))).await.refusal(), (404, "model_not_found".to_owned()));
        test.is_untouched(&ada, [0; 4]).await;

        test.use_up(&ada, "tokens", 100_000).await;
        let refusal = test.embed(&ada, json!({})).await;
        assert_eq!(refusal.refusal(), (429, "insufficient_quota".to_owned()));
        test.is_untouched(&ada, [0, 0, 100_000, 0]).await;
    }

    async fn what_the_provider_refuses_is_given_back(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        let answer = test.embed(&ada, json!({"model": "sim-400"})).await;

        assert_eq!(answer.refusal(), (400, "llm_refused".to_owned()));
        test.is_untouched(&ada, [0; 4]).await;
    }

    async fn a_client_that_leaves_leaves_nothing_set_aside(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        let begun = async {
            while test.under_way().await == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = test.embed(&ada, json!({"model": "sim-slow-1000"})) => panic!("it takes a while"),
            () = begun => {}
        }
        test.settled().await;

        let [used, reserved, tokens, tokens_reserved] = test.counted(&ada).await;
        assert_eq!((used, reserved, tokens_reserved, test.under_way().await), (1, 0, 0, 0));
        assert!(tokens > 0);
    }

    async fn a_retry_with_the_same_key_gets_the_same_vectors_and_pays_nothing(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, bob) = (test.sign_up(ADA).await, test.sign_up(BOB).await);
        let body = |input: &str| json!({"model": MODEL, "input": input, "dimensions": 8});

        let first = test.keyed(&ada, "k", EMBEDDINGS, body("Hello")).await;
        let (counted, ledger) = (test.counted(&ada).await, test.ledger(&ada).await);
        let again = test.keyed(&ada, "k", EMBEDDINGS, body("Hello")).await;

        assert_eq!((first.status.as_u16(), first.header("idempotency-replayed")), (200, ""));
        assert_eq!((again.status.as_u16(), again.header("idempotency-replayed")), (200, "true"));
        assert_eq!(first.json(), again.json());
        assert_eq!((test.counted(&ada).await, test.ledger(&ada).await), (counted, ledger));
        let other = test.keyed(&ada, "k", EMBEDDINGS, body("Goodbye")).await;
        assert_eq!(other.refusal(), (422, "idempotency_mismatch".to_owned()));
        let anothers = test.keyed(&bob, "k", EMBEDDINGS, body("Hello")).await;
        assert_eq!((anothers.status.as_u16(), anothers.header("idempotency-replayed")), (200, ""));
    }

    async fn while_vectors_are_made_their_key_waits_and_a_failure_frees_it(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        let slow = json!({"model": "sim-slow-1000", "input": "Hello"});

        let begun = async {
            while test.under_way().await == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = test.keyed(&ada, "k", EMBEDDINGS, slow.clone()) => panic!("it takes a while"),
            () = begun => {}
        }
        let meanwhile = test.keyed(&ada, "k", EMBEDDINGS, slow.clone()).await;
        assert_eq!(meanwhile.refusal(), (409, "idempotency_in_flight".to_owned()));
        test.settled().await;
        let later = test.keyed(&ada, "k", EMBEDDINGS, slow).await;
        assert_eq!((later.status.as_u16(), later.header("idempotency-replayed")), (200, "true"));
        assert_eq!(test.counted(&ada).await[..2], [1, 0]);

        for _ in 0..2 {
            let refused = test.keyed(&ada, "another", EMBEDDINGS, json!({"model": "sim-400", "input": "Hello"})).await;
            assert_eq!(refused.refusal(), (400, "llm_refused".to_owned()));
        }
    }

    async fn who_somebody_is_is_kept_from_vectors_too(engine: Engine) {
        let test = Test::with(engine, &[("PII_SCRUB", "on")]).await;
        let ada = test.sign_up(ADA).await;

        let vector = async |text: &str| test.embed(&ada, json!({"input": text, "dimensions": 8})).await.json()["data"].clone();

        assert_eq!(vector("Write to ada@mail.example").await, vector("Write to [EMAIL_1]").await);
        assert_ne!(vector("Write to ada@mail.example").await, vector("Write to nobody").await);
    }
}
