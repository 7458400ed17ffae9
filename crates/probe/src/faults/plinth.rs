//! The server under test: started, broken and started again at one address.
use super::scene::{Scene, Seen};
use crate::{
    answer::{Answer, send},
    person::User,
    process::{Process, signal, steady_port},
};
use anyhow::{Context, Result, bail};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;
use std::{
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};
use tokio::{process::Command, task::JoinHandle};

/// A debug build on a busy machine takes its time.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// `/health/live` is asked so often, and answers within so long.
const LIVE_EVERY: Duration = Duration::from_millis(100);
const LIVE_WITHIN: Duration = Duration::from_secs(5);

pub struct Plinth {
    pub port: u16,
    plinth: PathBuf,
    /// A folder in it for each life.
    folder: PathBuf,
    lives: usize,
    variables: Vec<(String, String)>,
    process: Option<Process>,
    /// Its log goes into a pipe that nobody reads.
    piped: bool,
    watch: Option<JoinHandle<()>>,
    client: Client,
    seen: Seen,
}

impl Plinth {
    pub fn new(scene: &Scene<'_>, folder: PathBuf, variables: &[(&str, &str)]) -> Result<Self> {
        let mut all = scene.variables.clone();
        // The last of a name counts.
        let own = variables.iter();
        all.extend(own.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Ok(Self {
            port: steady_port()?,
            plinth: scene.setup.plinth.clone(),
            folder,
            lives: 0,
            variables: all,
            process: None,
            piped: false,
            watch: None,
            client: scene.client.clone(),
            seen: scene.seen.clone(),
        })
    }

    /// Tells it something else from the next start on.
    pub fn tell(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Starts the process, which does not listen yet.
    pub fn launch(&mut self) -> Result<()> {
        self.lives += 1;
        let folder = self.folder.join(self.lives.to_string());
        std::fs::create_dir_all(&folder)?;
        let variables = self
            .variables
            .iter()
            .map(|(name, value)| (&**name, &**value));
        let set_up = |command: &mut Command| {
            if self.piped {
                command.stdout(Stdio::piped()).stderr(Stdio::piped());
            }
        };
        let process = Process::serve(&self.plinth, &folder, self.port, variables, set_up)?;
        self.process = Some(process);
        Ok(())
    }

    pub fn log_to_a_pipe(&mut self) {
        self.piped = true;
    }

    pub fn close_pipe(&mut self) -> Result<()> {
        self.process
            .as_mut()
            .context("it does not run")?
            .close_pipes();
        Ok(())
    }

    /// Starts it. Gives how long it took to be ready.
    pub async fn start(&mut self) -> Result<Duration> {
        self.launch()?;
        self.ready(READY_WITHIN).await
    }

    /// Waits until it is ready, and watches from then on whether it lives.
    pub async fn ready(&mut self, within: Duration) -> Result<Duration> {
        let started = Instant::now();
        loop {
            let ready = self.client.get(self.url("/health/ready"));
            let answer = ready.timeout(LIVE_WITHIN).send().await;
            if answer.is_ok_and(|answer| answer.status() == 200) {
                self.watch();
                return Ok(started.elapsed());
            }
            let process = self.process.as_mut().context("it was not started")?;
            if process.has_ended() || started.elapsed() > within {
                bail!(
                    "plinth does not get ready. It said:\n{}",
                    process.last_words()
                );
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn watch(&mut self) {
        if self.watch.is_some() {
            return;
        }
        let (client, url, seen) = (
            self.client.clone(),
            self.url("/health/live"),
            self.seen.clone(),
        );
        self.watch = Some(tokio::spawn(async move {
            loop {
                let answer = send(client.get(&url).timeout(LIVE_WITHIN)).await;
                seen.note(|records| {
                    records.asked_live += 1;
                    if answer.status != 200 {
                        records.not_live.push(answer.brief());
                    }
                });
                tokio::time::sleep(LIVE_EVERY).await;
            }
        }));
    }

    /// From here on it may be dead.
    pub fn look_away(&mut self) {
        if let Some(watch) = self.watch.take() {
            watch.abort();
        }
    }

    /// kill -9, and gone when this returns.
    pub async fn kill(&mut self) -> Result<()> {
        self.look_away();
        if let Some(process) = self.process.take() {
            signal("KILL", [process.pid()])?;
            let said = process.said();
            process.stop().await?;
            self.seen.note(|records| records.logs.push(said));
        }
        Ok(())
    }

    pub fn signal(&mut self, name: &str) -> Result<()> {
        if name == "TERM" {
            self.look_away();
        }
        signal(name, self.process.as_ref().map(Process::pid))
    }

    /// How it ended by itself; `None` when it did not.
    pub async fn ended(&mut self, within: Duration) -> Option<ExitStatus> {
        self.process.as_mut()?.ended(within).await
    }

    pub fn process(&self) -> Result<&Process> {
        self.process.as_ref().context("it does not run")
    }

    /// What it has said in this life.
    pub fn said(&self) -> String {
        self.process.as_ref().map(Process::said).unwrap_or_default()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn request(&self, method: Method, path: &str, token: &str) -> RequestBuilder {
        let request = self.client.request(method, self.url(path));
        match token {
            "" => request,
            token => request.bearer_auth(token),
        }
    }

    pub async fn get(&self, path: &str, token: &str) -> Answer {
        heard(&self.seen, self.request(Method::GET, path, token)).await
    }

    pub async fn post(&self, path: &str, token: &str, body: &Value) -> Answer {
        heard(
            &self.seen,
            self.request(Method::POST, path, token).json(body),
        )
        .await
    }

    pub async fn sign_up(&self) -> Result<User> {
        let user = User::sign_up(&self.client, &self.url("")).await?;
        let secrets = [&user.password, &user.token, &user.refresh_token].map(Clone::clone);
        self.seen.note(|records| records.secrets.extend(secrets));
        Ok(user)
    }

    /// What the binary says to a command, with this server's configuration.
    pub async fn command(&self, arguments: &[&str]) -> Result<std::process::Output> {
        let mut command = Command::new(self.plinth.canonicalize()?);
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.env_clear().env("PATH", path).args(arguments);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        Ok(command.kill_on_drop(true).output().await?)
    }

    /// The key that administers.
    pub async fn admin_key(&self) -> Result<String> {
        let output = self.command(&["keys", "service-role"]).await?;
        let said = String::from_utf8_lossy(&output.stdout);
        let key = said.lines().find(|line| line.starts_with("ey"));
        let key = key.with_context(|| {
            let error = String::from_utf8_lossy(&output.stderr);
            format!("no service-role key: {said}{error}")
        })?;
        self.seen
            .note(|records| records.secrets.push(key.to_owned()));
        Ok(key.to_owned())
    }
}

impl Drop for Plinth {
    fn drop(&mut self) {
        self.look_away();
        let said = self.said();
        self.seen.note(|records| records.logs.push(said));
    }
}

/// Sends it, and looks whether a failure is explained.
pub async fn heard(seen: &Seen, request: RequestBuilder) -> Answer {
    let answer = send(request).await;
    let has_code = ["/code", "/error/code", "/status"]
        .iter()
        .any(|at| answer.has_text(&[at]));
    let bare = answer.status >= 500 && !has_code && answer.body["ready"].is_null();
    if bare {
        seen.note(|records| records.unexplained.push(answer.brief()));
    }
    answer
}
