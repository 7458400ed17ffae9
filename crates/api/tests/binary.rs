//! The binary as an operator meets it: its words, exit codes and signals, and what survives `kill -9`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

const SECRET: &str = "3f9c0a7be1d24f5688a1c07d5e2b9f643f9c0a7be1d24f5688a1c07d5e2b9f64";
const STRIPE_SECRET: &str = "whsec_3f9c0a7be1d24f5688a1c07d5e2b9f64";
const REVENUECAT_SECRET: &str = "revenuecat_3f9c0a7be1d24f5688a1c07d5e2b9f64";
const PASSWORD: &str = "correct horse battery";

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "plinth-binary-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn database(&self) -> String {
        format!("sqlite://{}", self.0.join("plinth.db").display())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The binary, with nothing in its environment but this.
fn plinth(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plinth"));
    command
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let folder = Folder::new();
    plinth(&folder.0, arguments, variables).output().unwrap()
}

fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Starts to serve where that cannot be: with exit code 1 and one line that says why.
fn fails_to_serve(folder: &Path, variables: &[(&str, &str)]) -> String {
    let variables = [&[("PORT", "0"), ("LOG_FORMAT", "json")], variables].concat();
    let output = plinth(folder, &["serve"], &variables).output().unwrap();
    let said = words(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let lines: Vec<_> = said.lines().filter(|line| !line.starts_with('{')).collect();
    let [line] = lines[..] else {
        panic!("not one line: {said}")
    };
    assert!(line.starts_with("plinth: "), "{line}");
    line.to_owned()
}

/// A server that runs.
struct Serving {
    child: Child,
    url: String,
    log: Arc<Mutex<String>>,
    client: reqwest::Client,
}

impl Serving {
    /// Waits until it says on which port it serves.
    async fn start(folder: &Folder, variables: &[(&str, &str)]) -> Self {
        let database = folder.database();
        let usual = [
            ("PORT", "0"),
            ("LOG_FORMAT", "json"),
            ("DATABASE_URL", database.as_str()),
            ("RATE_LIMITS", "off"),
        ];
        let mut child = plinth(&folder.0, &[], &[&usual, variables].concat())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, kept) = (
            BufReader::new(child.stderr.take().unwrap()).lines(),
            log.clone(),
        );
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                *kept.lock().unwrap() += &(line + "\n");
            }
        });
        let began = Instant::now();
        let port = loop {
            let text = log.lock().unwrap().clone();
            let serves = text
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                .find(|line| line["message"] == "Plinth serves");
            if let Some(line) = serves {
                break line["port"].as_u64().unwrap();
            }
            assert!(
                began.elapsed() < Duration::from_secs(20) && child.try_wait().unwrap().is_none(),
                "it does not start: {text}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(20))
            .build()
            .unwrap();
        Self {
            child,
            url: format!("http://127.0.0.1:{port}"),
            log,
            client,
        }
    }

    fn request(&self, method: &str, token: &str, path: &str) -> reqwest::RequestBuilder {
        let request = self
            .client
            .request(method.parse().unwrap(), format!("{}{path}", self.url));
        if token.is_empty() {
            request
        } else {
            request.bearer_auth(token)
        }
    }

    async fn post(&self, token: &str, path: &str, body: Value) -> (u16, String) {
        let answer = self
            .request("POST", token, path)
            .json(&body)
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn get(&self, token: &str, path: &str) -> (u16, Value) {
        let answer = self.request("GET", token, path).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn sign_up(&self, email: &str) -> Value {
        let (status, body) = self
            .post(
                "",
                "/auth/v1/signup",
                json!({"email": email, "password": PASSWORD}),
            )
            .await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// A stream that has begun: its first words, and the rest to come.
    async fn stream(&self, token: &str, path: &str, body: Value) -> (String, reqwest::Response) {
        let mut answer = self
            .request("POST", token, path)
            .json(&body)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        let mut text = String::new();
        while text.matches("data:").count() < 3 {
            text += &words(&answer.chunk().await.unwrap().unwrap());
        }
        (text, answer)
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// How it ends, within `patience`.
    async fn ended(&mut self, patience: Duration) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                began.elapsed() < patience,
                "it does not end: {}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

mod words_and_exit_codes {
    use super::*;

    const PRODUCTION: [(&str, &str); 6] = [
        ("APP_ENV", "production"),
        ("PUBLIC_URL", "https://api.example.com"),
        ("JWT_SECRET", SECRET),
        ("OPENAI_API_KEY", "sk-of-the-tests"),
        ("SMTP_URL", "smtps://user:password@mail.example.com:465"),
        ("MAIL_FROM", "Example <hello@example.com>"),
    ];

    #[test]
    fn a_good_configuration_is_fit_to_start_with() {
        for variables in [
            &PRODUCTION[..],
            &[],
            &[("SMTP_URL", "smtp://localhost:1025")],
        ] {
            let output = run(&["config", "--check"], variables);
            assert_eq!(output.status.code(), Some(0), "{}", words(&output.stderr));
            assert_eq!(
                words(&output.stdout),
                "The configuration is fit to start with.\n"
            );
        }
    }

    #[test]
    fn a_bad_one_is_exit_code_2_and_everything_that_is_wrong_without_a_secret() {
        let variables = [
            ("APP_ENV", "production"),
            ("PORT", "eighty"),
            ("JWT_SECRET", "hunter2"),
            ("DATABASE_URL", "postgres://user:hunter2@[db/app"),
            ("DEBUG", "true"),
        ];

        for command in [
            &["config", "--check"][..],
            &["config"],
            &["serve"],
            &[],
            &["migrate"],
            &["doctor"],
        ] {
            let output = run(command, &variables);
            let said = words(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{command:?}: {said}");
            for variable in [
                "PORT",
                "JWT_SECRET",
                "DATABASE_URL",
                "DEBUG",
                "PUBLIC_URL",
                "OPENAI_API_KEY",
                "SMTP_URL",
            ] {
                assert!(
                    said.contains(&format!("\n  {variable} ")),
                    "{variable}: {said}"
                );
            }
            assert!(
                !said.contains("hunter2") && !said.contains("panicked"),
                "{said}"
            );
        }
    }

    #[test]
    fn what_is_in_force_is_shown_with_secrets_hidden() {
        let output = run(&["config"], &PRODUCTION);

        let said = words(&output.stdout);
        assert!(
            said.contains("https://api.example.com") || said.contains("api.example.com"),
            "{said}"
        );
        assert!(
            said.contains("***") && !said.contains(SECRET) && !said.contains("password@"),
            "{said}"
        );
    }

    #[test]
    fn wrong_use_is_exit_code_2() {
        for wrong in [
            &["sevre"][..],
            &["--port", "80"],
            &["serve", "--role", "king"],
            &["webhooks"],
            &["config", "--check", "--example"],
        ] {
            let output = run(wrong, &[]);
            assert_eq!(
                output.status.code(),
                Some(2),
                "{wrong:?}: {}",
                words(&output.stderr)
            );
        }
        for right in [
            &["--help"][..],
            &["--version"],
            &["serve", "--help"],
            &["openapi"],
            &["config", "--example"],
        ] {
            assert_eq!(run(right, &[]).status.code(), Some(0), "{right:?}");
        }
    }

    #[test]
    fn pending_migrations_are_exit_code_1_until_they_have_run() {
        let folder = Folder::new();
        let database = folder.database();
        let migrate = |step: &[&str]| {
            plinth(
                &folder.0,
                &[&["migrate"], step].concat(),
                &[("DATABASE_URL", &database)],
            )
            .output()
            .unwrap()
            .status
            .code()
        };

        assert_eq!(migrate(&["status"]), Some(1));
        assert_eq!(migrate(&[]), Some(0));
        assert_eq!(migrate(&["status"]), Some(0));
        assert_eq!(migrate(&["down", "1"]), Some(0));
        assert_eq!(migrate(&["status"]), Some(1));
    }

    #[test]
    fn a_schema_that_is_not_there_is_not_made_where_that_is_turned_off() {
        let folder = Folder::new();

        let line = fails_to_serve(
            &folder.0,
            &[
                ("DATABASE_URL", &folder.database()),
                ("MIGRATE_ON_START", "false"),
            ],
        );

        assert!(line.contains("run `plinth migrate` first"), "{line}");
    }
}

mod what_it_cannot_start_on {
    use super::*;

    #[test]
    fn a_file_that_is_no_database() {
        let folder = Folder::new();
        std::fs::write(
            folder.0.join("plinth.db"),
            "These are the notes of a meeting, long enough for a header of SQLite's. ".repeat(100),
        )
        .unwrap();

        let line = fails_to_serve(&folder.0, &[("DATABASE_URL", &folder.database())]);

        assert!(
            line.contains("damaged or is no SQLite database") && line.contains("plinth.db"),
            "{line}"
        );
    }

    #[test]
    fn a_database_whose_pages_are_damaged() {
        let folder = Folder::new();
        let database = folder.database();
        assert!(
            plinth(&folder.0, &["migrate"], &[("DATABASE_URL", &database)])
                .output()
                .unwrap()
                .status
                .success()
        );
        let file = folder.0.join("plinth.db");
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[100..8_192].fill(0xAA);
        std::fs::write(&file, bytes).unwrap();

        let line = fails_to_serve(&folder.0, &[("DATABASE_URL", &database)]);

        assert!(line.contains("damaged"), "{line}");
    }

    #[test]
    fn a_folder_that_cannot_be_made() {
        let folder = Folder::new();
        std::fs::write(folder.0.join("file"), "").unwrap();

        for url in [
            format!("sqlite://{}/file/plinth.db", folder.0.display()),
            format!("sqlite://{}", folder.0.display()),
        ] {
            let line = fails_to_serve(&folder.0, &[("DATABASE_URL", &url)]);
            assert!(
                line.contains("cannot open the database file")
                    || line.contains("development.secret"),
                "{line}"
            );
        }
    }

    #[test]
    fn a_port_in_use() {
        let folder = Folder::new();
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port().to_string();

        let line = fails_to_serve(
            &folder.0,
            &[("DATABASE_URL", &folder.database()), ("PORT", &port)],
        );

        assert!(
            line.contains(&format!("cannot listen on 127.0.0.1:{port}")) && line.contains("PORT"),
            "{line}"
        );
    }

    /// A file system of its own; `None`, and a word, for who may not mount one.
    struct Mounted(Folder);

    impl Mounted {
        fn new(options: &str) -> Option<Self> {
            let folder = Folder::new();
            let mount = Command::new("mount")
                .args(["-t", "tmpfs", "-o", options, "tmpfs"])
                .arg(&folder.0)
                .stderr(Stdio::null())
                .status();
            if mount.is_ok_and(|status| status.success()) {
                return Some(Self(folder));
            }
            eprintln!("skipped: only root may mount a file system");
            None
        }
    }

    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(&self.0.0).status();
        }
    }

    #[test]
    fn a_volume_that_is_read_only() {
        let Some(volume) = Mounted::new("ro,size=1m") else {
            return;
        };

        let line = fails_to_serve(
            &volume.0.0,
            &[
                ("DATABASE_URL", &volume.0.database()),
                ("JWT_SECRET", SECRET),
            ],
        );
        assert!(
            line.contains("cannot open the database file") && line.contains("read only"),
            "{line}"
        );
        let line = fails_to_serve(&volume.0.0, &[("DATABASE_URL", &volume.0.database())]);
        assert!(line.contains("development.secret"), "{line}");
    }

    #[test]
    fn a_disk_that_is_full() {
        let Some(volume) = Mounted::new("size=1m") else {
            return;
        };
        let all = vec![0; 1 << 20];
        let _ = std::fs::write(volume.0.0.join("ballast"), all);

        let line = fails_to_serve(
            &volume.0.0,
            &[
                ("DATABASE_URL", &volume.0.database()),
                ("JWT_SECRET", SECRET),
            ],
        );

        assert!(line.contains("full"), "{line}");
    }

    #[test]
    fn a_postgresql_that_refuses_us() {
        let Some(server) = db::testing::variable(db::testing::VARIABLE) else {
            return;
        };
        let folder = Folder::new();
        let mut url: url::Url = server.parse().unwrap();
        url.set_path("/there_is_no_such_database");

        let line = fails_to_serve(
            &folder.0,
            &[("DATABASE_URL", url.as_str()), ("JWT_SECRET", SECRET)],
        );

        assert!(line.contains("there_is_no_such_database"), "{line}");
    }
}

mod being_stopped {
    use super::*;

    /// Words that come for a minute.
    const SLOWLY: &str = "sim-gap-300-tokens-200";

    fn completion() -> Value {
        json!({"model": SLOWLY, "stream": true, "messages": [{"role": "user", "content": "Tell me a story."}]})
    }

    #[tokio::test]
    async fn in_production_load_balancers_are_told_then_streams_end_in_good_order() {
        let world = sim::start(sim::Options::default()).await.unwrap();
        let folder = Folder::new();
        let mut serving = Serving::start(
            &folder,
            &[
                ("APP_ENV", "production"),
                ("PUBLIC_URL", "http://127.0.0.1:8080"),
                ("JWT_SECRET", SECRET),
                ("OPENAI_API_KEY", "sk-of-the-tests"),
                ("OPENAI_BASE_URL", &world.llm_url()),
                ("LLM_MODEL", SLOWLY),
                ("AUTH_AUTOCONFIRM", "true"),
                ("SHUTDOWN_TIMEOUT", "3"),
            ],
        )
        .await;
        let session = serving.sign_up("ann@example.com").await;
        let token = session["access_token"].as_str().unwrap();
        let (mut plain, mut first) = serving
            .stream(
                token,
                "/api/chat",
                json!({"message": "Tell me a story.", "stream": true}),
            )
            .await;
        let (mut openai, mut second) = serving
            .stream(token, "/v1/chat/completions", completion())
            .await;

        serving.signal("TERM");
        let began = Instant::now();
        while serving.get("", "/health/ready").await.0 != 503 {
            assert!(began.elapsed() < Duration::from_secs(1), "it stays ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(serving.get("", "/health/live").await.0, 200);
        assert_eq!(serving.get(token, "/api/usage").await.0, 200);
        while let Some(chunk) = first.chunk().await.unwrap() {
            plain += &words(&chunk);
        }
        while let Some(chunk) = second.chunk().await.unwrap() {
            openai += &words(&chunk);
        }

        assert_eq!(serving.ended(Duration::from_secs(9)).await.code(), Some(0));
        let last = plain
            .trim_end()
            .rsplit("\n\n")
            .find(|event| event.contains("event:"))
            .unwrap();
        assert!(
            last.contains("event: finish") || last.contains("event: error"),
            "{last}"
        );
        assert_eq!(
            plain.matches("event: finish").count() + plain.matches("event: error").count(),
            1,
            "{plain}"
        );
        assert!(
            openai.trim_end().ends_with("data: [DONE]") || openai.contains("\"error\""),
            "{openai}"
        );
        assert!(
            !serving.log().contains("not everything had ended"),
            "{}",
            serving.log()
        );
    }

    #[tokio::test]
    async fn an_idle_instance_stops_at_once() {
        let folder = Folder::new();
        let mut serving = Serving::start(&folder, &[]).await;
        // A connection that is kept alive is no reason to stay.
        assert_eq!(serving.get("", "/health").await.0, 200);

        serving.signal("INT");

        assert_eq!(serving.ended(Duration::from_secs(2)).await.code(), Some(0));
    }

    #[tokio::test]
    async fn being_told_twice_it_waits_for_nobody() {
        let folder = Folder::new();
        let mut serving = Serving::start(&folder, &[]).await;
        let session = serving.sign_up("ann@example.com").await;
        let _stream = serving
            .stream(
                session["access_token"].as_str().unwrap(),
                "/v1/chat/completions",
                completion(),
            )
            .await;

        serving.signal("TERM");
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(
            serving.child.try_wait().unwrap().is_none(),
            "it did not wait for the stream"
        );
        serving.signal("TERM");

        serving.ended(Duration::from_secs(2)).await;
        assert!(
            serving.log().contains("told twice to stop"),
            "{}",
            serving.log()
        );
    }

    #[tokio::test]
    async fn what_was_acknowledged_outlives_a_kill_in_the_middle_of_an_answer() {
        let folder = Folder::new();
        let variables = [("LLM_MODEL", SLOWLY)];
        let mut serving = Serving::start(&folder, &variables).await;
        let session = serving.sign_up("ann@example.com").await;
        let token = session["access_token"].as_str().unwrap();
        let _stream = serving
            .stream(
                token,
                "/api/chat",
                json!({"message": "Tell me a story.", "stream": true}),
            )
            .await;

        serving.signal("KILL");
        serving.ended(Duration::from_secs(2)).await;
        // On the same port: it is in the tokens.
        let port = serving.url.rsplit(':').next().unwrap().to_owned();
        let serving = Serving::start(&folder, &[("LLM_MODEL", SLOWLY), ("PORT", &port)]).await;

        let (status, conversations) = serving.get(token, "/api/conversations").await;
        assert_eq!(status, 200, "{conversations}");
        let id = conversations["data"][0]["id"].as_str().unwrap();
        let (_, messages) = serving
            .get(token, &format!("/api/conversations/{id}/messages"))
            .await;
        assert_eq!(
            (
                &messages["data"][0]["role"],
                &messages["data"][0]["content"]
            ),
            (&json!("user"), &json!("Tell me a story."))
        );
        assert_eq!(
            (&messages["data"][1]["role"], &messages["data"][1]["status"]),
            (&json!("assistant"), &json!("streaming"))
        );
    }
}

mod secrets {
    use super::*;

    fn canary(what: &str) -> String {
        format!("CaNaRy-{what}-7291")
    }

    #[tokio::test]
    async fn stay_out_of_logs_metrics_and_answers() {
        let world = sim::start(sim::Options {
            llm_gap: Duration::ZERO,
            ..sim::Options::default()
        })
        .await
        .unwrap();
        let folder = Folder::new();
        let serving = Serving::start(
            &folder,
            &[
                ("JWT_SECRET", &format!("{SECRET}{}", canary("jwt"))),
                ("OPENAI_API_KEY", &canary("api-key")),
                ("OPENAI_BASE_URL", &world.llm_url()),
                ("SMTP_URL", &world.smtp_url()),
                (
                    "STRIPE_WEBHOOK_SECRET",
                    &format!("{STRIPE_SECRET}{}", canary("stripe")),
                ),
                ("REVENUECAT_WEBHOOK_SECRET", REVENUECAT_SECRET),
                ("AUTH_AUTOCONFIRM", "false"),
                ("LOG_LEVEL", "trace"),
            ],
        )
        .await;
        let mut refusals = String::new();
        let mut secrets: Vec<String> = [
            "jwt",
            "api-key",
            "stripe",
            "password",
            "another",
            "prompt",
            "bearer",
            "query",
            "cookie",
            "signature",
            "body",
            "model",
            "refresh",
        ]
        .map(canary)
        .into();

        let email = "canary@example.com";
        let password = canary("password");
        let signed_up = serving
            .post(
                "",
                "/auth/v1/signup",
                json!({"email": email, "password": password, "data": {"note": canary("body")}}),
            )
            .await;
        assert_eq!(signed_up.0, 200, "{}", signed_up.1);
        let began = Instant::now();
        let code = loop {
            if let Some(mail) = world.mailbox().to(email).first() {
                break mail
                    .text
                    .split(|c: char| !c.is_ascii_digit())
                    .find(|word| word.len() == 6)
                    .unwrap()
                    .to_owned();
            }
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "no mail: {}",
                serving.log()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let (status, session) = serving
            .post(
                "",
                "/auth/v1/verify",
                json!({"type": "signup", "email": email, "token": code}),
            )
            .await;
        assert_eq!(status, 200, "{session}");
        let (status, session) = serving
            .post(
                "",
                "/auth/v1/token?grant_type=password",
                json!({"email": email, "password": password}),
            )
            .await;
        assert_eq!(status, 200, "{session}");
        let session: Value = serde_json::from_str(&session).unwrap();
        let (status, refreshed) = serving
            .post(
                "",
                "/auth/v1/token?grant_type=refresh_token",
                json!({"refresh_token": session["refresh_token"]}),
            )
            .await;
        assert_eq!(status, 200, "{refreshed}");
        let refreshed: Value = serde_json::from_str(&refreshed).unwrap();
        for session in [&session, &refreshed] {
            secrets.extend(
                ["access_token", "refresh_token"]
                    .map(|name| session[name].as_str().unwrap().to_owned()),
            );
        }
        // A code of six digits may well be part of a time: with the word before it, it is none.
        secrets.push(format!("\"{code}\""));
        secrets.push(email.to_owned());
        let token = refreshed["access_token"].as_str().unwrap();

        let prompt = canary("prompt");
        assert_eq!(
            serving
                .post(token, "/api/chat", json!({"message": prompt}))
                .await
                .0,
            200
        );
        for model in [
            "gpt-4o-mini",
            "sim-400",
            "sim-401",
            "sim-500",
            "sim-garbage",
            "sim-cut-3",
            "sim-error",
            "sim-html-502",
        ] {
            for stream in [true, false] {
                let (status, text) = serving.post(token, "/v1/chat/completions", json!({"model": model, "stream": stream, "messages": [{"role": "user", "content": prompt}]})).await;
                if status != 200 {
                    refusals += &text;
                }
            }
        }

        let wrong = [
            serving
                .post(
                    "",
                    "/auth/v1/token?grant_type=password",
                    json!({"email": email, "password": canary("another")}),
                )
                .await,
            serving
                .post(
                    "",
                    "/auth/v1/token?grant_type=refresh_token",
                    json!({"refresh_token": canary("refresh")}),
                )
                .await,
            serving
                .post(
                    "",
                    "/auth/v1/verify",
                    json!({"type": "signup", "email": email, "token": canary("another")}),
                )
                .await,
            serving
                .post(
                    "",
                    "/auth/v1/signup",
                    json!({"email": email, "password": {"nested": canary("password")}}),
                )
                .await,
            serving
                .post(
                    "",
                    "/auth/v1/signup",
                    json!({"email": format!("{}@", canary("body")), "password": password}),
                )
                .await,
            serving
                .post(&canary("bearer"), "/api/chat", json!({"message": prompt}))
                .await,
            serving
                .post(
                    &canary("bearer"),
                    "/webhooks/revenuecat",
                    json!({"event": canary("body")}),
                )
                .await,
            serving
                .post(
                    REVENUECAT_SECRET,
                    "/webhooks/revenuecat",
                    json!({"event": canary("body")}),
                )
                .await,
            serving
                .post(
                    REVENUECAT_SECRET,
                    "/webhooks/revenuecat",
                    json!({"event": {"id": canary("body"), "type": canary("body")}}),
                )
                .await,
        ];
        for (status, text) in wrong {
            assert!((400..500).contains(&status), "{text}");
            refusals += &text;
        }
        let strange = [
            serving.request("GET", "", &format!("/nowhere?token={}", canary("query"))),
            serving
                .request("GET", token, "/api/usage")
                .header("cookie", canary("cookie")),
            serving
                .request("POST", "", "/auth/v1/signup")
                .header("content-type", "application/json")
                .body(format!("{{\"password\": \"{}\", oh", canary("body"))),
            serving
                .request("POST", "", "/webhooks/stripe")
                .header(
                    "stripe-signature",
                    format!("t=1,v1={}", canary("signature")),
                )
                .body(canary("body")),
        ];
        for request in strange {
            let answer = request.send().await.unwrap();
            if !answer.status().is_success() {
                refusals += &answer.text().await.unwrap();
            }
        }
        let metrics = serving
            .request("GET", "", "/metrics")
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;

        let log = serving.log();
        assert!(
            log.matches("\"answered\"").count() > 20
                && metrics.contains("http_requests_total")
                && refusals.len() > 1_000,
            "{log}"
        );
        for secret in &secrets {
            for (place, text) in [
                ("the log", &log),
                ("the metrics", &metrics),
                ("an answer", &refusals),
            ] {
                let found = text.lines().find(|line| line.contains(secret));
                assert!(
                    found.is_none(),
                    "{secret} is in {place}: {}",
                    found.unwrap_or_default()
                );
            }
        }
    }
}

#[test]
fn keys_are_listed_rotated_and_revoked() {
    let folder = Folder::new();
    let database = folder.database();
    let variables = [("DATABASE_URL", database.as_str())];
    let run = |arguments: &[&str]| {
        let output = plinth(&folder.0, &[&["keys"], arguments].concat(), &variables).output();
        let output = output.unwrap();
        let said = words(&output.stdout) + &words(&output.stderr);
        (output.status.code().unwrap(), said)
    };
    let json = |arguments: &[&str]| -> Vec<Value> {
        let (code, said) = run(&[arguments, &["--json"]].concat());
        assert_eq!(code, 0, "{said}");
        said.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let states = || {
        let keys = json(&["list"]).into_iter();
        let named = keys.map(|key| {
            (
                key["kid"].as_str().unwrap().to_owned(),
                key["state"].as_str().unwrap().to_owned(),
            )
        });
        named.collect::<Vec<_>>()
    };
    let [(first, _)] = &states()[..] else {
        panic!()
    };

    let published = &json(&["rotate"])[0];
    let second = published["kid"].as_str().unwrap();
    assert_eq!(
        (&published["rotated"], &json(&["rotate"])[0]["rotated"]),
        (&json!("published"), &json!("waiting"))
    );
    assert_eq!(states().len(), 2);
    let activated = &json(&["rotate", "--force"])[0];
    assert_eq!(
        activated,
        &json!({"rotated": "activated", "kid": second, "retired": first})
    );
    assert_eq!(
        json(&["revoke", first])[0],
        json!({"revoked": first, "replaced_by": null})
    );

    let state = |kid: &str, state: &str| (kid.to_owned(), state.to_owned());
    assert_eq!(states(), [state(second, "active"), state(first, "revoked")]);
    let (_, list) = run(&["list"]);
    assert!(
        list.contains(&format!("{second}  ES256  active for ")) && list.contains(": signs"),
        "{list}"
    );
    for kid in ["nothing", "-8nothing", "--nothing"] {
        let (code, said) = run(&["revoke", kid]);
        let expected = format!("there is no key {kid}");
        assert!(code == 1 && said.contains(&expected), "{said}");
    }
}

mod failures_reach_sentry {
    use super::*;
    use axum::{Router, body::Bytes, extract::State, routing::post};

    fn service_role_key(folder: &Folder, serving: &Serving) -> String {
        let database = folder.database();
        let variables = [
            ("DATABASE_URL", database.as_str()),
            ("PUBLIC_URL", &serving.url),
        ];
        let mut command = plinth(&folder.0, &["keys", "service-role"], &variables);
        words(&command.output().unwrap().stdout).trim().to_owned()
    }

    #[tokio::test]
    async fn a_test_error_is_reported_under_the_id_that_was_answered_and_without_a_secret() {
        let (envelopes, mut came) = tokio::sync::mpsc::unbounded_channel();
        let sentry = Router::new()
            .route(
                "/api/1/envelope/",
                post(
                    async |State(envelopes): State<tokio::sync::mpsc::UnboundedSender<_>>,
                           body: Bytes| {
                        let _ = envelopes.send(words(&body));
                    },
                ),
            )
            .with_state(envelopes);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dsn = format!("http://key@{}/1", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, sentry).into_future());
        let folder = Folder::new();
        let variables = [
            ("SENTRY_DSN", dsn.as_str()),
            ("SENTRY_TRACES_SAMPLE_RATE", "0"),
            ("APP_VERSION", "7.1.2"),
        ];
        let serving = Serving::start(&folder, &variables).await;
        let key = service_role_key(&folder, &serving);

        let (status, answer) = serving.post(&key, "/api/admin/test-error", json!({})).await;

        assert_eq!(status, 202, "{answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let id = answer["sentry_event_id"].as_str().unwrap().replace('-', "");
        let envelope = loop {
            let envelope = tokio::time::timeout(Duration::from_secs(20), came.recv());
            let envelope = envelope.await.unwrap().unwrap();
            if envelope.contains(&id) {
                break envelope;
            }
        };
        for said in ["A test error", r#""release":"7.1.2""#, r#""flow":"other""#] {
            assert!(envelope.contains(said), "{said}: {envelope}");
        }
        assert!(!envelope.contains(&key), "{envelope}");
        let (status, answer) = serving.post("", "/api/admin/test-error", json!({})).await;
        assert_eq!(status, 401, "{answer}");
    }

    #[tokio::test]
    async fn where_sentry_is_not_configured_the_answer_says_so() {
        let folder = Folder::new();
        let serving = Serving::start(&folder, &[]).await;
        let key = service_role_key(&folder, &serving);

        let (status, answer) = serving
            .post(key.trim(), "/api/admin/test-error", json!({}))
            .await;

        assert_eq!(
            (status, answer.as_str()),
            (202, r#"{"sentry_event_id":null}"#)
        );
        assert!(serving.log().contains("A test error"), "{}", serving.log());
    }
}
