//! What a client hears of a provider that takes its time, and how soon.
use super::*;
use crate::http::{Listening, serve};
use std::{net::SocketAddr, time::Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const UI_MESSAGES: &str = r#"[{"role": "user", "parts": [{"type": "text", "text": "Hello"}]}]"#;

/// A request for a stream in each dialect.
fn streams() -> [(&'static str, Value); 3] {
    let messages: Value = serde_json::from_str(UI_MESSAGES).unwrap();
    [
        (CHAT, json!({"message": "Hello", "stream": true})),
        (CHAT, json!({"id": "a chat", "messages": messages})),
        (COMPLETIONS, question_with(json!({"stream": true}))),
    ]
}

/// An address where this instance is served.
async fn served(test: &Test) -> SocketAddr {
    let listening = Listening::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listening.address;
    tokio::spawn(serve(test.app.clone(), listening, test.router.clone()));
    address
}

/// From the first word of a stream to the last, on a connection that is kept.
async fn burst(connection: &mut TcpStream, person: &Person) -> Duration {
    let body = question_with(json!({"stream": true})).to_string();
    let head = format!(
        "POST {COMPLETIONS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        person.token,
        body.len()
    );
    connection
        .write_all((head + &body).as_bytes())
        .await
        .unwrap();
    let (mut heard, mut first, mut last) = (String::new(), None, None);
    while !heard.ends_with("\r\n0\r\n\r\n") {
        let mut bytes = [0; 64 * 1024];
        let read = soon(connection.read(&mut bytes)).await.unwrap();
        heard += std::str::from_utf8(&bytes[..read]).unwrap();
        if heard.contains("word-1 ") {
            first.get_or_insert_with(Instant::now);
        }
        if heard.contains("word-22 ") {
            last.get_or_insert_with(Instant::now);
        }
    }
    last.unwrap() - first.unwrap()
}

both_engines! {
    async fn inv_31_a_stream_begins_at_once_however_long_the_provider_takes(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        for (path, mut body) in streams() {
            let mut quickest = Duration::MAX;
            for attempt in 0..5 {
                test.llm().script([Reply::hang()]);
                if body.get("id").is_some() {
                    body["id"] = json!(format!("chat {attempt}"));
                }
                let since = Instant::now();
                let mut response = soon(test.open(&ada, path, body.clone())).await;
                let first = soon(response.body_mut().frame()).await.unwrap().unwrap().into_data().unwrap();
                quickest = quickest.min(since.elapsed());

                assert_eq!((response.status().as_u16(), &first[..]), (200, &b": open\n\n"[..]), "{path}");
                test.app.streams.stop_all();
                test.settled().await;
            }
            assert!(quickest <= Duration::from_millis(50), "{path}: {quickest:?}");
        }
    }

    async fn inv_31_what_is_refused_has_its_status_though_a_stream_was_asked_for(engine: Engine) {
        let test = Test::with(engine, &[("MODERATION", "openai")]).await;
        let (ada, bob) = (test.sign_up(ADA).await, test.sign_up(BOB).await);
        test.use_up(&bob, "messages", 1_000).await;
        let nobody = Person { token: "none".into(), ..ada.clone() };
        let with = |(path, mut body): (&'static str, Value), member: &str, value: Value| {
            body[member] = value;
            (path, body)
        };
        let [plain, ui, openai] = streams();
        let say = |text: &str| json!([{"role": "user", "content": text, "parts": [{"type": "text", "text": text}]}]);

        for (who, (path, body), status) in [
            (&nobody, plain.clone(), 401),
            (&nobody, ui.clone(), 401),
            (&nobody, openai.clone(), 401),
            (&ada, with(plain.clone(), "message", json!(" ")), 400),
            (&ada, with(ui.clone(), "messages", say(" ")), 400),
            (&ada, with(openai.clone(), "messages", json!([])), 400),
            (&ada, with(ui.clone(), "model", json!("none")), 404),
            (&ada, with(openai.clone(), "model", json!("none")), 404),
            (&ada, with(openai.clone(), "messages", say("How would I murder the king?")), 400),
            (&bob, plain, 402),
            (&bob, ui, 402),
            (&bob, openai, 429),
        ] {
            let answer = test.post(&who.token, path, body.clone()).await;
            assert_eq!(answer.status, status, "{path} {body}: {}", answer.text());
            assert!(answer.header("content-type").ends_with("json"), "{path} {body}");
        }
        test.is_untouched(&ada, [0; 4]).await;
    }

    async fn inv_32_no_word_waits_for_the_next(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        let mut connection = TcpStream::connect(served(&test).await).await.unwrap();
        connection.set_nodelay(true).unwrap();

        let mut quickest = Duration::MAX;
        for _ in 0..5 {
            let words: Vec<_> = (1..=22).map(|n| said(&json!({"choices": [{"delta": {"content": format!("word-{n} ")}}]}))).collect();
            test.llm().script([Reply::Stream(words.into_iter().chain([finish("stop"), done()]).collect())]);
            quickest = quickest.min(burst(&mut connection, &ada).await);
        }

        assert!(quickest < Duration::from_millis(10), "{quickest:?}");
    }
}
