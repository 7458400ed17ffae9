use serde_json::{Value, json};
use sim::World;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::{http, soon, world};

struct Client(BufReader<TcpStream>);

impl Client {
    async fn new(world: &World) -> Self {
        let address = world.smtp_url().strip_prefix("smtp://").unwrap().to_owned();
        let mut client = Self(BufReader::new(TcpStream::connect(address).await.unwrap()));
        assert!(client.reply().await.starts_with("220 "));
        client
    }

    async fn greeted(world: &World) -> Self {
        let mut client = Self::new(world).await;
        assert!(client.say("EHLO me\r\n").await.starts_with("250"));
        client
    }

    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// All lines of one reply; empty when the server has left.
    async fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let start = reply.len();
            if soon(self.0.read_line(&mut reply)).await.unwrap_or(0) == 0
                || reply.as_bytes().get(start + 3) != Some(&b'-')
            {
                return reply;
            }
        }
    }

    async fn say(&mut self, text: &str) -> String {
        self.send(text).await;
        self.reply().await
    }

    /// The codes of the replies to a whole conversation.
    async fn codes(&mut self, lines: &[&str]) -> Vec<String> {
        let mut codes = Vec::new();
        for line in lines {
            let reply = self.say(&format!("{line}\r\n")).await;
            codes.push(reply.chars().take(3).collect());
        }
        codes
    }

    async fn mail(&mut self, to: &str, source: &str) -> String {
        let codes = self
            .codes(&[
                "MAIL FROM:<plinth@example.com>",
                &format!("RCPT TO:<{to}>"),
                "DATA",
            ])
            .await;
        assert_eq!(codes, ["250", "250", "354"]);
        self.say(&format!("{source}\r\n.\r\n")).await
    }
}

#[tokio::test]
async fn a_mail_arrives_as_it_was_written() {
    let world = world().await;
    let source = "From: Plinth <plinth@example.com>\r\nTo: ann@example.com\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nX-Long: one\r\n two\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nClick https://example.com/verify?token=3Dabc\r\n..and that is all=\r\n.";

    let mut client = Client::greeted(&world).await;
    let reply = client.mail("ann@example.com", source).await;

    assert_eq!(reply, "250 2.0.0 Ok: message 1\r\n");
    let mail = world.mailbox().to("ANN@example.com").pop().unwrap();
    assert_eq!(
        (mail.from.as_str(), mail.subject.as_str()),
        ("plinth@example.com", "Grüße")
    );
    assert_eq!(
        mail.text.trim_end(),
        "Click https://example.com/verify?token=abc\r\n.and that is all"
    );
    assert_eq!(mail.html, None);
    assert_eq!(
        (mail.header("from"), mail.header("x-long")),
        (Some("Plinth <plinth@example.com>"), Some("one two"))
    );
    assert!(mail.raw.starts_with(b"From: Plinth") && mail.raw.ends_with(b"all=\r\n"));
}

#[tokio::test]
async fn both_bodies_and_the_names_of_attachments_are_found() {
    let world = world().await;
    let source = "Subject: Both\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\nContent-Type: multipart/alternative; boundary=a\r\n\r\n--a\r\nContent-Type: text/plain\r\n\r\nplain\r\n--a\r\nContent-Type: text/html\r\n\r\n<p>rich</p>\r\n--a--\r\n--m\r\nContent-Type: text/csv\r\nContent-Disposition: attachment; filename=export.csv\r\n\r\na,b\r\n--m--";

    Client::greeted(&world)
        .await
        .mail("ann@example.com", source)
        .await;

    let mail = &soon(world.mailbox().until("ann@example.com", 1)).await[0];
    assert_eq!(
        (mail.text.as_str(), mail.html.as_deref()),
        ("plain", Some("<p>rich</p>"))
    );
    assert_eq!(mail.attachments, ["export.csv"]);
}

#[tokio::test]
async fn html_alone_is_made_into_text_too() {
    let world = world().await;

    let source = "Subject: Rich\r\nContent-Type: text/html\r\n\r\n<h1>Hello</h1><p>you</p>";
    Client::greeted(&world)
        .await
        .mail("ann@example.com", source)
        .await;

    let mail = &world.mailbox().messages()[0];
    assert!(mail.text.contains("Hello") && !mail.text.contains('<'));
    assert!(mail.html.as_deref().unwrap().starts_with("<h1>"));
}

#[tokio::test]
async fn commands_may_come_all_at_once() {
    let world = world().await;
    let mut client = Client::greeted(&world).await;

    client.send("MAIL FROM:<> SIZE=100 BODY=8BITMIME\r\nRCPT TO:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n").await;
    let codes = [
        client.reply().await,
        client.reply().await,
        client.reply().await,
        client.reply().await,
    ];
    client.send("\r\n.\r\nNOOP\r\nQUIT\r\n").await;
    let rest = [
        client.reply().await,
        client.reply().await,
        client.reply().await,
        client.reply().await,
    ];

    assert_eq!(
        codes.map(|reply| reply[..3].to_owned()),
        ["250", "250", "250", "354"]
    );
    assert_eq!(
        rest.map(|reply| reply.chars().take(3).collect::<String>()),
        ["250", "250", "221", ""]
    );
    let mail = &world.mailbox().messages()[0];
    assert_eq!(
        (mail.from.as_str(), mail.to.len(), mail.raw.as_slice()),
        ("", 2, &b"\r\n"[..])
    );
}

#[tokio::test]
async fn a_mail_without_a_line_ends_at_the_first_dot() {
    let world = world().await;
    let mut client = Client::greeted(&world).await;
    client
        .codes(&[
            "MAIL FROM:<a@example.com>",
            "RCPT TO:<b@example.com>",
            "DATA",
        ])
        .await;

    let reply = client.say(".\r\n").await;

    assert!(reply.starts_with("250"), "{reply}");
    assert!(world.mailbox().messages()[0].raw.is_empty());
}

#[tokio::test]
async fn a_bare_line_feed_before_the_dot_ends_nothing() {
    let world = world().await;

    let smuggled =
        "Subject: one\r\n\r\nbody\n.\r\nMAIL FROM:<evil@example.com>\r\n\n.\nstill the first";
    let reply = Client::greeted(&world)
        .await
        .mail("ann@example.com", smuggled)
        .await;

    assert!(reply.starts_with("250"), "{reply}");
    assert_eq!(world.mailbox().messages().len(), 1);
    assert!(
        world.mailbox().messages()[0]
            .text
            .contains("still the first")
    );
}

#[tokio::test]
async fn any_name_and_password_will_do() {
    let world = world().await;
    let mut client = Client::greeted(&world).await;

    let codes = client
        .codes(&[
            "AUTH PLAIN AHUAcA==",
            "AUTH PLAIN",
            "AHUAcA==",
            "AUTH LOGIN",
            "dQ==",
            "cA==",
            "AUTH LOGIN dQ==",
            "cA==",
            "AUTH PLAIN",
            "*",
            "AUTH GSSAPI",
        ])
        .await;

    assert_eq!(
        codes,
        [
            "235", "334", "235", "334", "334", "235", "334", "235", "334", "501", "504"
        ]
    );
}

#[tokio::test]
async fn commands_out_of_order_are_refused() {
    let world = world().await;
    let mut client = Client::new(&world).await;

    let early = client
        .codes(&[
            "MAIL FROM:<a@example.com>",
            "HELO me",
            "RCPT TO:<b@example.com>",
            "DATA",
        ])
        .await;
    let middle = client
        .codes(&[
            "MAIL FROM:<a@example.com>",
            "DATA",
            "MAIL FROM:<c@example.com>",
            "RSET",
            "RCPT TO:<b@example.com>",
        ])
        .await;
    let odd = client
        .codes(&[
            "MAIL FROM:a@example.com",
            "MAIL FROM:<a@example.com> SIZE=99999999",
            "MAIL FROM:<a@example.com> SHOUT=1",
            "STARTTLS",
            "VRFY ann",
            "HELP",
            "NONSENSE",
        ])
        .await;

    assert_eq!(early, ["503", "250", "503", "503"]);
    assert_eq!(middle, ["250", "503", "503", "250", "503"]);
    assert_eq!(odd, ["501", "552", "555", "502", "252", "214", "500"]);
}

#[tokio::test]
async fn what_is_too_much_is_refused() {
    let world = world().await;
    let mut client = Client::greeted(&world).await;

    let large = format!(
        "Subject: large\r\n\r\n{}",
        "0123456789\r\n".repeat(1024 * 1024)
    );
    let large = client.mail("ann@example.com", &large).await;
    let many = client.codes(&["MAIL FROM:<a@example.com>"]).await;
    let mut recipient = Vec::new();
    for n in 0..101 {
        recipient = client.codes(&[&format!("RCPT TO:<{n}@example.com>")]).await;
    }
    let long = client.say(&format!("NOOP {}\r\n", "x".repeat(5000))).await;
    let after = client.reply().await;

    assert!(large.starts_with("552"), "{large}");
    assert_eq!(
        (many, recipient),
        (vec!["250".to_owned()], vec!["452".to_owned()])
    );
    assert!(long.starts_with("500") && after.is_empty());
    assert!(world.mailbox().messages().is_empty());
}

#[tokio::test]
async fn who_only_makes_errors_is_shown_the_door() {
    let world = world().await;
    let mut client = Client::greeted(&world).await;

    let codes = client.codes(&["GET / HTTP/1.1"; 20]).await;

    assert!(codes.iter().all(|code| code == "500"));
    assert!(client.reply().await.starts_with("421") && client.reply().await.is_empty());
}

#[tokio::test]
async fn the_page_s_json_lists_the_newest_first_and_forgets_on_request() {
    let world = world().await;
    let mut client = Client::greeted(&world).await;
    for (to, subject) in [
        ("ann@example.com", "first"),
        ("bob@example.com", "second"),
        ("ann@example.com", "third"),
    ] {
        client
            .mail(to, &format!("Subject: {subject}\r\n\r\n<script>"))
            .await;
    }
    let get = async |path: &str| {
        http()
            .get(format!("{}{path}", world.mailbox_url()))
            .send()
            .await
            .unwrap()
    };

    let all: Value = get("/messages").await.json().await.unwrap();
    let hers: Value = get("/messages?to=Ann%40example.com")
        .await
        .json()
        .await
        .unwrap();
    let one: Value = get("/messages/2").await.json().await.unwrap();
    let missing = get("/messages/9").await;
    let cleared = http()
        .delete(format!("{}/messages", world.mailbox_url()))
        .send()
        .await
        .unwrap();

    let subjects = |body: &Value| -> Vec<String> {
        body["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|mail| mail["subject"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(subjects(&all), ["third", "second", "first"]);
    assert_eq!(subjects(&hers), ["third", "first"]);
    assert_eq!(
        (one["raw"].as_str(), missing.status().as_u16()),
        (Some("Subject: second\r\n\r\n<script>\r\n"), 404)
    );
    assert_eq!(
        (cleared.status().as_u16(), world.mailbox().messages().len()),
        (204, 0)
    );
}

#[tokio::test]
async fn only_the_newest_thousand_are_kept() {
    let world = world().await;
    let mut client = Client::greeted(&world).await;

    for _ in 0..1_003 {
        client.mail("ann@example.com", "Subject: x\r\n\r\nx").await;
    }

    let kept = world.mailbox().messages();
    assert_eq!((kept.len(), kept[0].id, kept[999].id), (1_000, 4, 1_003));
}

fn sent_by_http() -> Value {
    json!({
        "personalizations": [{"to": [{"email": "ann@example.com"}]}],
        "from": {"email": "plinth@example.com", "name": "Plinth"},
        "subject": "Hello",
        "content": [{"type": "text/plain", "value": "plain"}, {"type": "text/html", "value": "<p>rich</p>"}],
        "headers": {"Message-ID": "<1@example.com>"},
    })
}

async fn send_by_http(world: &World, key: &str, mail: &Value) -> (u16, Value) {
    let url = format!("{}/v3/mail/send", world.sendgrid_url());
    let answer = http().post(url).bearer_auth(key).json(mail).send().await;
    let answer = answer.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap_or_default())
}

#[tokio::test]
async fn mail_comes_in_as_sendgrid_takes_it_too() {
    let world = world().await;

    let (status, _) = send_by_http(&world, "SG.any", &sent_by_http()).await;

    assert_eq!(status, 202);
    let mail = world.mailbox().to("ann@example.com").pop().unwrap();
    assert_eq!(
        (
            mail.subject.as_str(),
            mail.text.as_str(),
            mail.html.as_deref()
        ),
        ("Hello", "plain", Some("<p>rich</p>"))
    );
    assert_eq!(
        (mail.header("from"), mail.header("message-id")),
        (Some("Plinth <plinth@example.com>"), Some("<1@example.com>"))
    );
}

#[tokio::test]
async fn what_sendgrid_refuses_is_refused() {
    let world = world().await;
    let but = |member: &str, value: Value| {
        let mut mail = sent_by_http();
        mail[member] = value;
        mail
    };

    for mail in [
        json!({}),
        but("personalizations", json!([])),
        but("personalizations", json!([{"to": [{"email": "nobody"}]}])),
        but("content", json!([])),
        but(
            "content",
            json!([{"type": "text/html", "value": "<p>"}, {"type": "text/plain", "value": "x"}]),
        ),
        but("headers", json!({"Bcc": "eve@example.com"})),
    ] {
        let (status, body) = send_by_http(&world, "SG.any", &mail).await;
        assert_eq!(
            (status, body["errors"][0]["message"].is_string()),
            (400, true),
            "{mail}"
        );
    }
    assert_eq!(send_by_http(&world, "", &sent_by_http()).await.0, 401);
    assert_eq!(world.mailbox().messages().len(), 0);
}

#[tokio::test]
async fn deliveries_are_refused_as_often_as_told() {
    let world = world().await;
    world.mailbox().refuse([503, 451]);

    let first = send_by_http(&world, "SG.any", &sent_by_http()).await;
    let mut client = Client::greeted(&world).await;
    let codes = [
        "MAIL FROM:<a@example.com>",
        "RCPT TO:<b@example.com>",
        "RCPT TO:<b@example.com>",
    ];
    let codes = client.codes(&codes).await;

    assert_eq!(
        (first.0, codes),
        (503, vec!["250".into(), "451".into(), "250".into()])
    );
    assert_eq!(send_by_http(&world, "SG.any", &sent_by_http()).await.0, 202);
}
