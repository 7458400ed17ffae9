//! One call of one provider, up to the first word.
use super::{
    Backend, Broken, Failed, Failure, Next, Provider, Said, anthropic, decoder::Decoder, openai,
    refusal,
};
use crate::config::Secret;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{HeaderValue, header};
use serde_json::{Map, Value};
use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};
use tokio::time::Instant;

/// One attempt.
pub struct Call {
    pub client: reqwest::Client,
    pub backend: Arc<Backend>,
    /// Which of its keys.
    pub key: usize,
    pub model: Arc<str>,
    /// For the first word.
    pub deadline: Instant,
}

/// How a key is shown; nothing prints it.
pub fn header(provider: Provider, secret: &Secret) -> HeaderValue {
    let text = match provider {
        Provider::Anthropic => secret.expose().to_owned(),
        _ => format!("Bearer {}", secret.expose()),
    };
    // A key that no header can hold is taken by nobody.
    let mut value =
        HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("Bearer"));
    value.set_sensitive(true);
    value
}

/// A stream that has begun to say something.
pub struct Begun {
    pub bytes: Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>,
    pub reading: Reading,
    pub ready: VecDeque<Said>,
    /// How it broke behind what is ready.
    pub broken: Option<Broken>,
}

/// What has been read of a stream.
pub struct Reading {
    decoder: Decoder,
    dialect: Dialect,
}

enum Dialect {
    OpenAi(openai::Reader),
    Anthropic(anthropic::Reader),
}

impl Reading {
    fn new(provider: Provider) -> Self {
        Self {
            decoder: Decoder::default(),
            dialect: match provider {
                Provider::Anthropic => Dialect::Anthropic(anthropic::Reader::default()),
                _ => Dialect::OpenAi(openai::Reader::default()),
            },
        }
    }

    /// Reads what has come; what it says stands in `ready`, also when it breaks.
    pub fn take(&mut self, bytes: &[u8], ready: &mut VecDeque<Said>) -> Result<(), Broken> {
        let Self { decoder, dialect } = self;
        decoder.feed(bytes, |event| match dialect {
            // What comes after the end is not part of it.
            Dialect::OpenAi(reader) if reader.done => Ok(()),
            Dialect::Anthropic(reader) if reader.done => Ok(()),
            Dialect::OpenAi(reader) => reader.take(event, ready),
            Dialect::Anthropic(reader) => reader.take(event, ready),
        })
    }

    /// Said why it finished.
    pub fn is_finished(&self) -> bool {
        match &self.dialect {
            Dialect::OpenAi(reader) => reader.finished,
            Dialect::Anthropic(reader) => reader.finished,
        }
    }

    /// Said that nothing comes any more.
    pub fn is_done(&self) -> bool {
        match &self.dialect {
            Dialect::OpenAi(reader) => reader.done,
            Dialect::Anthropic(reader) => reader.done,
        }
    }
}

impl Call {
    /// Asks for an answer to OpenAI's request, and waits for its first word.
    pub async fn chat(self, request: &Map<String, Value>) -> Result<Begun, Failed> {
        let deadline = self.deadline;
        let begun = tokio::time::timeout_at(deadline, self.begin(request)).await;
        begun.unwrap_or_else(|_| Err(Failed::silent()))
    }

    async fn begin(self, request: &Map<String, Value>) -> Result<Begun, Failed> {
        let backend = &self.backend;
        let key = backend.keys[self.key].header.clone();
        let call = self.client.post(&backend.url);
        let (call, body) = match backend.provider {
            Provider::Anthropic => (
                call.header("x-api-key", key)
                    .header("anthropic-version", anthropic::VERSION),
                anthropic::request(request, &self.model).map_err(Failed::unsaid)?,
            ),
            provider => (
                call.header(header::AUTHORIZATION, key),
                openai::request(request, provider, &self.model),
            ),
        };
        let call = call
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "text/event-stream");
        let response = match call.body(body).send().await {
            Ok(response) => response,
            Err(error) => return Err(Failed::unreached(backend.provider, error)),
        };
        if !response.status().is_success() {
            return Err(refusal::read(response, backend.provider, self.key).await);
        }
        let mut begun = Begun {
            reading: Reading::new(backend.provider),
            bytes: Box::pin(response.bytes_stream()),
            ready: VecDeque::new(),
            broken: None,
        };
        // Until there is something to show for it, what it costs and how it stands is kept back:
        // the next one to be asked says it anew.
        while !begun.has_word() {
            match begun.bytes.next().await {
                Some(Ok(bytes)) => match begun.reading.take(&bytes, &mut begun.ready) {
                    Ok(()) => {}
                    // A word is a word, whatever came behind it in the same segment: whether it is
                    // asked again must not hang on how the network cut it.
                    Err(broken) if begun.has_word() => begun.broken = Some(broken),
                    Err(broken) => return Err(broken.into()),
                },
                Some(Err(_)) => return Err(Broken::cut("cut").into()),
                None => return Err(Broken::cut("ended").into()),
            }
        }
        Ok(begun)
    }
}

impl Begun {
    fn has_word(&self) -> bool {
        let mut ready = self.ready.iter();
        ready.any(|said| !matches!(said, Said::Usage(_)))
    }
}

impl Failed {
    /// The provider's fault or the network's, which may be over in a moment.
    pub(super) fn passing(failure: Failure, outcome: &'static str, after: Duration) -> Self {
        Self {
            failure,
            outcome,
            is_fault: true,
            next: Next::Again(after),
        }
    }

    /// Waited for as long as anyone would wait.
    pub(super) fn silent() -> Self {
        Self {
            failure: Failure::TimedOut,
            outcome: "first_token_timeout",
            is_fault: true,
            next: Next::OtherRoute,
        }
    }

    /// What was asked cannot be asked there.
    pub(super) fn unsaid(why: String) -> Self {
        Self {
            failure: Failure::Refused(why),
            outcome: "refused",
            is_fault: false,
            next: Next::Nothing,
        }
    }

    pub(super) fn unreached(provider: Provider, error: reqwest::Error) -> Self {
        let outcome = match (error.is_connect(), error.is_timeout()) {
            (true, true) => "connect_timeout",
            (true, false) => "connect",
            _ => "cut",
        };
        tracing::warn!(%provider, outcome, error = %error.without_url(), "a language model cannot be reached");
        Self::passing(Failure::unavailable(), outcome, Duration::ZERO)
    }
}

impl From<Broken> for Failed {
    fn from(broken: Broken) -> Self {
        Self::passing(broken.failure, broken.outcome, Duration::ZERO)
    }
}
