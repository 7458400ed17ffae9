//! `plinth webhooks …` as an operator runs it: the built binary, its words and its exit codes.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the answer")]
use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../webhooks/tests/fixtures");

/// Exit code, standard output and standard error.
type Ran = (i32, String, String);

fn plinth(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plinth"));
    command.current_dir(folder).env_clear();
    command
}

fn run(command: &mut Command, input: &[u8]) -> Ran {
    let pipes = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap();
    // Who is refused for its arguments reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn fixture(path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(format!("{FIXTURES}/{path}")).unwrap()).unwrap()
}

/// A folder of its own, removed when this is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("plinth-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running instance that takes events and leaves them to others to apply.
struct Instance {
    process: Child,
    folder: Folder,
    url: String,
}

impl Instance {
    fn start() -> Self {
        let folder = Folder::new("serves");
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let process = plinth(&folder.0)
            .args(["serve", "--role", "api"])
            .envs([("PORT", port.to_string()), ("HOST", "127.0.0.1".into())])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut process = process.unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        assert!(
            lines.any(|line| line.unwrap().contains("Ctrl-C")),
            "it did not start"
        );
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            process,
            folder,
            url: format!("http://127.0.0.1:{port}"),
        }
    }

    /// `plinth webhooks` with these words, over the same database.
    fn webhooks(&self, words: &[&str]) -> Ran {
        run(plinth(&self.folder.0).arg("webhooks").args(words), b"")
    }

    /// The documents that it prints.
    fn documents(&self, words: &[&str]) -> Vec<Value> {
        let (code, out, err) = self.webhooks(&[words, &["--json"]].concat());
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        out.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn verify(provider: &str, secrets: &[&str], header: &str, vector: &Value, body: &[u8]) -> Ran {
    let mut command = plinth(&std::env::temp_dir());
    command.args(["webhooks", "verify", "--provider", provider]);
    for secret in secrets {
        command.arg(format!("--secret={secret}"));
    }
    let number = |name: &str| vector[name].as_i64();
    command
        .arg(format!("--header={header}"))
        .arg(format!("--now={}", number("now").unwrap()));
    if let Some(tolerance) = number("tolerance") {
        command.arg(format!("--tolerance={tolerance}"));
    }
    run(command.arg("-"), body)
}

fn assert_said(ran: &Ran, accepted: bool, what: &Value) {
    let (code, out, err) = ran;
    assert_eq!(
        (*code, err.as_str()),
        (if accepted { 0 } else { 1 }, ""),
        "{what}: {out}"
    );
    let word = if accepted { "accepted " } else { "refused: " };
    assert!(
        out.starts_with(word) && out.trim().len() > word.len() && out.lines().count() == 1,
        "{what}: {out}"
    );
}

#[test]
fn every_stripe_vector_is_accepted_by_its_id_or_refused_with_its_reason() {
    let vectors = fixture("stripe-signatures.json");
    let mut accepted = 0;
    for vector in vectors["vectors"].as_array().unwrap() {
        // Without a header or a secret there is nothing to ask about.
        let Some(header) = vector["header"].as_str() else {
            continue;
        };
        let secrets: Vec<_> = vector["secrets"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s.as_str().unwrap())
            .collect();
        if secrets.is_empty() {
            continue;
        }
        let body = BASE64_STANDARD
            .decode(vector["body_base64"].as_str().unwrap())
            .unwrap();

        let ran = verify("stripe", &secrets, header, vector, &body);

        let good = vector["recommended"]
            .as_str()
            .unwrap()
            .starts_with("accept");
        assert_said(&ran, good, &vector["id"]);
        accepted += usize::from(good);
        if good {
            let event: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(
                ran.1.trim(),
                format!("accepted {}", event["id"].as_str().unwrap())
            );
        }
    }
    assert!(accepted > 10);
}

#[test]
fn every_revenuecat_vector_of_one_check_is_accepted_or_refused() {
    let vectors = fixture("revenuecat-signatures.json");
    let mut asked = 0;
    for vector in vectors["vectors"].as_array().unwrap() {
        let secret = |name: &str| vector[name].as_str();
        let (secret, header) = match (secret("signing_secret"), secret("authorization_secret")) {
            (Some(secret), None) => (secret, "X-RevenueCat-Webhook-Signature"),
            (None, Some(secret)) => (secret, "Authorization"),
            _ => continue,
        };
        let Some(header) = vector["headers"][header].as_str() else {
            continue;
        };
        let body = std::fs::read(format!(
            "{FIXTURES}/revenuecat/{}",
            vector["body_file"].as_str().unwrap()
        ))
        .unwrap();

        let ran = verify("revenuecat", &[secret], header, vector, &body);

        assert_said(&ran, vector["expect"] == "accept", &vector["id"]);
        asked += 1;
    }
    assert!(asked > 5);
}

#[test]
fn a_question_that_cannot_be_asked_is_exit_2() {
    let folder = Folder::new("misused");
    let ask = |words: &[&str]| run(plinth(&folder.0).arg("webhooks").args(words), b"{}");
    let good = [
        "verify",
        "--provider",
        "stripe",
        "--secret",
        "s",
        "--header",
        "t=1,v1=0",
    ];

    assert_eq!(ask(&[&good[..], &["-"]].concat()).0, 1);
    for wrong in [
        &[&good[..], &["no-such-file"]].concat()[..],
        &good,
        &[
            "verify",
            "--provider",
            "paypal",
            "--secret",
            "s",
            "--header",
            "h",
            "-",
        ],
        &["verify", "--provider", "stripe", "--header", "h", "-"],
        &["verify", "--provider", "stripe", "--secret", "s", "-"],
        &["list", "--status", "lost"],
        &["list", "--limit", "0"],
        &["show"],
        &["frobnicate"],
    ] {
        let (code, out, err) = ask(wrong);
        assert_eq!((code, out.as_str()), (2, ""), "{wrong:?}");
        assert!(
            !err.is_empty() && !err.contains("panicked"),
            "{wrong:?}: {err}"
        );
    }
    assert!(
        !folder.0.join("data").exists(),
        "whoever only asks makes no database"
    );
}

#[test]
fn events_are_sent_listed_shown_and_replayed() {
    let instance = Instance::start();
    let url = instance.url.as_str();

    let sent = instance.webhooks(&["send", "--provider", "stripe", url]);
    assert_eq!(
        sent,
        (0, "200 OK {\"received\":true}\n".into(), String::new())
    );
    let body = instance.folder.0.join("event.json");
    std::fs::copy(format!("{FIXTURES}/revenuecat/RENEWAL--normal.json"), &body).unwrap();
    let from_file = [
        "send",
        "--provider",
        "revenuecat",
        "--file",
        body.to_str().unwrap(),
        url,
    ];
    assert_eq!(instance.webhooks(&from_file).0, 0);
    assert_eq!(
        instance.webhooks(&from_file),
        (
            0,
            "200 OK {\"received\":true,\"duplicate\":true}\n".into(),
            String::new()
        )
    );
    let (code, out, _) =
        instance.webhooks(&["send", "--provider", "stripe", "--secret", "wrong", url]);
    assert_eq!(
        (
            code,
            out.starts_with("400 Bad Request"),
            out.contains("invalid_signature")
        ),
        (1, true, true),
        "{out}"
    );
    let (code, out, err) =
        instance.webhooks(&["send", "--provider", "stripe", "http://127.0.0.1:1"]);
    assert_eq!(
        (code, out.as_str(), err.lines().count()),
        (1, "", 1),
        "{err}"
    );

    let listed = instance.documents(&["list"]);
    let kinds: Vec<_> = listed
        .iter()
        .map(|event| (&event["type"], &event["status"]))
        .collect();
    let received = json!("received");
    assert_eq!(
        kinds,
        [
            (&json!("RENEWAL"), &received),
            (&json!("customer.subscription.created"), &received)
        ]
    );
    assert_eq!(instance.documents(&["list", "--limit", "1"]), listed[..1]);
    assert_eq!(
        instance.documents(&["list", "--status", "received"]),
        listed
    );
    assert_eq!(
        instance.documents(&["list", "--status", "dead"]),
        Vec::<Value>::new()
    );
    let (_, text, _) = instance.webhooks(&["list"]);
    assert!(
        text.lines()
            .zip(&listed)
            .all(|(line, event)| line.starts_with(event["id"].as_str().unwrap())),
        "{text}"
    );

    for id in ["id", "external_id"] {
        let shown = instance.documents(&["show", listed[0][id].as_str().unwrap()]);
        assert_eq!(
            (&shown[0]["id"], &shown[0]["body"]),
            (
                &listed[0]["id"],
                &fixture("revenuecat/RENEWAL--normal.json")
            )
        );
    }
    let id = listed[1]["external_id"].as_str().unwrap();
    assert_eq!(
        instance.documents(&["replay", id]),
        [json!({"id": listed[1]["id"], "replayed": true})]
    );
    assert_eq!(instance.documents(&["retry-dead"]), [json!({"retried": 0})]);
    for verb in ["show", "replay"] {
        assert_eq!(
            instance.webhooks(&[verb, "evt_none"]),
            (
                1,
                String::new(),
                "plinth: there is no event evt_none\n".into()
            )
        );
    }
}
