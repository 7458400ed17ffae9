//! `POST /v1/chat/completions` and `POST /v1/messages`.

use std::iter;
use std::ops::Range;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::Value;
use uuid::Uuid;

use super::messages::{self, Dialect};
use super::prompt::{self, Format, Prompt};
use super::refusal::{self, Error};
use super::stream::{self, Step};
use super::wire::{self, Shape, Usage};
use super::{Llm, Reply, Ticket, prose, schema, tokens};
use crate::faults::{End, Knobs, Refusal};

pub async fn completions(State(llm): State<Llm>, headers: HeaderMap, body: Bytes) -> Response {
    ask(llm, headers, body, Dialect::OpenAi).await
}

pub async fn messages(State(llm): State<Llm>, headers: HeaderMap, body: Bytes) -> Response {
    ask(llm, headers, body, Dialect::Anthropic).await
}

async fn ask(llm: Llm, headers: HeaderMap, body: Bytes, dialect: Dialect) -> Response {
    let key = refusal::key(&headers);
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (mut ticket, reply) = llm.begin(key.as_ref().ok().cloned(), body.clone());

    if let Err(error) = key {
        ticket.finish();
        return dialect.refusal(&error);
    }
    let (model, text) = match reply {
        Some(Reply::Status {
            status,
            headers,
            body,
        }) => {
            ticket.finish();
            return scripted(status, headers, body);
        }
        Some(Reply::Stream(steps)) => return event_stream(stream::body(steps.into_iter(), ticket)),
        Some(Reply::As(model)) => (Some(model), None),
        Some(Reply::Text(text)) => (None, Some(text)),
        None => (None, None),
    };

    match answer(dialect, &dialect.openai(body), model, text).await {
        Ok(answer) => answer.into_response(llm.gap, ticket).await,
        Err(refusal) => {
            ticket.finish();
            refusal
        }
    }
}

fn scripted(status: u16, headers: Vec<(String, String)>, body: String) -> Response {
    let kind = if body.starts_with(['{', '[']) {
        "application/json"
    } else {
        "text/html"
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, [(header::CONTENT_TYPE, kind)], body).into_response();
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn event_stream(body: Body) -> Response {
    let kind = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (kind, wire::headers(), body).into_response()
}

/// What the model says: words, or a call of a tool.
pub enum Said {
    Text(String),
    Call {
        id: String,
        name: String,
        arguments: String,
    },
}

struct Answer {
    knobs: Knobs,
    wire: Wire,
    said: Said,
    finish: &'static str,
    usage: Usage,
    stream: bool,
}

/// `model` and `text` are a script's, and come before the request's.
async fn answer(
    dialect: Dialect,
    body: &Value,
    model: Option<String>,
    text: Option<String>,
) -> Result<Answer, Response> {
    if body.is_null() {
        let message = "We could not parse the JSON body of your request.";
        return Err(dialect.refusal(&Error::invalid("body", "invalid_json", message)));
    }
    let Some(asked) = body["model"].as_str() else {
        let message = "you must provide a model parameter";
        let error = Error::invalid("model", "missing_required_parameter", message);
        return Err(dialect.refusal(&error));
    };
    let question = prompt::question(body);
    let directive = Knobs::directive(&question).filter(|_| !asked.starts_with("sim-"));
    let model = model.as_deref().or(directive).unwrap_or(asked);
    let knobs =
        Knobs::of_model(model).ok_or_else(|| dialect.refusal(&Error::unknown_model(model)))?;

    tokio::time::sleep(knobs.slow).await;
    if knobs.hang {
        std::future::pending::<()>().await;
    }
    if let Some(refusal) = knobs.refusal {
        return Err(refusal.response(dialect));
    }
    let mut prompt = Prompt::read(body).map_err(|error| dialect.refusal(&error))?;
    if let Some(directive) = directive {
        let rest = prompt.user.trim_start().strip_prefix('/');
        let rest = rest.and_then(|rest| rest.strip_prefix(directive));
        prompt.user = rest.unwrap_or_default().trim().to_owned();
    }
    let (said, cut) = say(&prompt, text, knobs.tokens);
    let finish = match &said {
        _ if cut || knobs.length => "length",
        _ if knobs.filter => "content_filter",
        Said::Call { .. } if knobs.no_index => "stop",
        Said::Call { .. } => "tool_calls",
        Said::Text(_) => "stop",
    };
    let completion_tokens = match &said {
        Said::Text(text) => tokens::count(text),
        Said::Call {
            name, arguments, ..
        } => tokens::count(name) + tokens::count(arguments),
    };
    Ok(Answer {
        wire: match dialect {
            Dialect::OpenAi => {
                Wire::OpenAi(Shape::new(asked, prompt.include_usage, prompt.obfuscation))
            }
            Dialect::Anthropic => Wire::Anthropic(messages::Shape::new(asked, prompt.tokens)),
        },
        said,
        finish,
        usage: Usage::new(prompt.tokens, completion_tokens),
        stream: prompt.stream,
        knobs,
    })
}

/// The second is whether the answer was longer than the request allows.
fn say(prompt: &Prompt, text: Option<String>, exactly: Option<usize>) -> (Said, bool) {
    if let (Some(tool), None) = (&prompt.tool, &text) {
        let arguments = schema::instance(&tool.parameters, &prompt.user).to_string();
        let arguments = if arguments == "null" {
            "{}".to_owned()
        } else {
            arguments
        };
        let id = format!("call_{}", Uuid::new_v4().simple());
        return (
            Said::Call {
                id,
                name: tool.name.clone(),
                arguments,
            },
            false,
        );
    }

    let text = text.unwrap_or_else(|| match &prompt.format {
        Format::JsonSchema(schema) => schema::instance(schema, &prompt.user).to_string(),
        Format::JsonObject => {
            serde_json::json!({"answer": prose::answer(prompt, None)}).to_string()
        }
        Format::Text => prose::answer(prompt, exactly),
    });
    let stop = prompt
        .stop
        .iter()
        .filter_map(|stop| text.find(stop.as_str()))
        .min();
    let text = &text[..stop.unwrap_or(text.len())];
    let short = tokens::truncate(text, prompt.max_tokens.unwrap_or(usize::MAX));
    (Said::Text(short.to_owned()), short.len() < text.len())
}

impl Answer {
    async fn into_response(self, gap: Duration, mut ticket: Ticket) -> Response {
        let gap = self.knobs.gap.unwrap_or(gap);
        if self.stream {
            return event_stream(stream::body(self.steps(gap), ticket));
        }

        let body = match &self.wire {
            Wire::OpenAi(shape) => shape.completion(&self.said, self.finish, self.usage),
            Wire::Anthropic(shape) => shape.message(&self.said, self.finish, self.usage),
        };
        let words = u32::try_from(self.pieces().len()).unwrap_or(u32::MAX);
        tokio::time::sleep(gap.saturating_mul(words)).await;
        if self.knobs.error {
            ticket.finish();
            let body = Json(self.wire.dialect().error(&Refusal::ServerError.error()));
            return (wire::headers(), body).into_response();
        }
        if self.knobs.end.is_none() && !self.knobs.garbage {
            ticket.finish();
            return (wire::headers(), Json(body)).into_response();
        }
        let body = body.to_string();
        let half = Bytes::copy_from_slice(&body.as_bytes()[..body.len() / 2]);
        let end = match self.knobs.end {
            Some(End::Cut(_)) => Some(Step::Cut),
            Some(End::Stall(_)) => Some(Step::Hang),
            Some(End::Eof(_)) | None => None,
        };
        let steps = iter::once(Step::Send(half)).chain(end);
        let kind = [(header::CONTENT_TYPE, "application/json")];
        (kind, wire::headers(), stream::body(steps, ticket)).into_response()
    }

    fn pieces(&self) -> Vec<String> {
        match &self.said {
            Said::Text(text) => tokens::pieces(text),
            Said::Call { arguments, .. } => tokens::pieces(arguments),
        }
    }

    fn steps(self, gap: Duration) -> impl Iterator<Item = Step> + Send + 'static {
        let knobs = self.knobs.clone();
        let (crlf, noise, split) = (knobs.crlf, knobs.noise, knobs.split);
        let dialect = self.wire.dialect();
        let (words, chunks) = self.chunks();
        let middle = words.start + words.len() / 2;

        let spoil = move |(at, chunk): (usize, Bytes)| match at == middle {
            true if knobs.error => [
                Some(dialect.error_event(&Refusal::ServerError.error())),
                None,
            ],
            true if knobs.garbage => [Some(Bytes::from_static(GARBAGE)), Some(chunk)],
            _ => [Some(chunk), None],
        };
        let (most, end) = match knobs.end {
            Some(End::Cut(chunks)) => (chunks, Some(Step::Cut)),
            Some(End::Stall(chunks)) => (chunks, Some(Step::Hang)),
            Some(End::Eof(chunks)) => (chunks, None),
            None => (usize::MAX, None),
        };
        let chunks = chunks
            .enumerate()
            .take(if knobs.error { middle + 1 } else { usize::MAX });
        let chunks = chunks.flat_map(spoil).flatten().take(most);

        let paced = move |(at, chunk)| {
            let wait = ((1..words.end).contains(&at) && !gap.is_zero()).then_some(Step::Wait(gap));
            let chunk = disguised(chunk, crlf, noise);
            let size = if split { 1 } else { chunk.len().max(1) };
            let parts = (0..chunk.len().div_ceil(size)).map(move |part| {
                let end = ((part + 1) * size).min(chunk.len());
                Step::Send(chunk.slice(part * size..end))
            });
            wait.into_iter().chain(parts)
        };
        chunks.enumerate().flat_map(paced).chain(end)
    }

    /// An answer without fault, and where in it the words are. Chunks are made as they are sent: a
    /// thousand open streams hold words, not JSON.
    fn chunks(self) -> (Range<usize>, impl Iterator<Item = Bytes> + Send + 'static) {
        let pieces = if self.knobs.no_index && matches!(self.said, Said::Call { .. }) {
            vec![]
        } else {
            self.pieces()
        };
        let Self {
            knobs,
            wire,
            said,
            finish,
            usage,
            ..
        } = self;
        let head = wire.head(&said, knobs.no_index);
        let tail = wire.tail(finish, usage, &knobs);
        let places = head.len()..head.len() + pieces.len();
        let is_text = matches!(said, Said::Text(_));
        let words = pieces
            .into_iter()
            .map(move |piece| wire.word(&piece, is_text));
        (places, head.into_iter().chain(words).chain(tail))
    }
}

/// The same to whoever reads events as they are defined.
fn disguised(chunk: Bytes, crlf: bool, noise: bool) -> Bytes {
    const NOISE: &str = ": still here\n\nevent: ping\ndata:\n\nretry: 1\nid: 7\n";
    if !crlf && !noise {
        return chunk;
    }
    let text = String::from_utf8_lossy(&chunk);
    let mut text = if noise {
        format!("{NOISE}{text}")
    } else {
        text.into_owned()
    };
    if crlf {
        text = text.replace('\n', "\r\n");
    }
    text.into()
}

/// How an answer is written down.
enum Wire {
    OpenAi(Shape),
    Anthropic(messages::Shape),
}

impl Wire {
    fn dialect(&self) -> Dialect {
        match self {
            Self::OpenAi(_) => Dialect::OpenAi,
            Self::Anthropic(_) => Dialect::Anthropic,
        }
    }

    fn head(&self, said: &Said, whole_call: bool) -> Vec<Bytes> {
        match (self, said) {
            (Self::OpenAi(shape), Said::Text(_)) => vec![shape.role(Some(""))],
            (
                Self::OpenAi(shape),
                Said::Call {
                    name, arguments, ..
                },
            ) if whole_call => {
                vec![shape.role(None), shape.whole_call(name, arguments)]
            }
            (Self::OpenAi(shape), Said::Call { id, name, .. }) => {
                vec![shape.role(None), shape.tool(id, name)]
            }
            (Self::Anthropic(shape), said) => shape.head(said),
        }
    }

    fn word(&self, piece: &str, is_text: bool) -> Bytes {
        match self {
            Self::OpenAi(shape) if is_text => shape.content(piece),
            Self::OpenAi(shape) => shape.arguments(piece),
            Self::Anthropic(shape) => shape.word(piece, is_text),
        }
    }

    fn tail(&self, finish: &str, usage: Usage, knobs: &Knobs) -> Vec<Bytes> {
        match self {
            Self::OpenAi(shape) => {
                let tail = [
                    (!knobs.no_finish).then(|| shape.finish(finish)),
                    shape.include_usage.then(|| shape.usage(usage)),
                    (!knobs.no_done).then_some(wire::DONE),
                ];
                tail.into_iter().flatten().collect()
            }
            Self::Anthropic(shape) => shape.tail(finish, usage, knobs),
        }
    }
}

const GARBAGE: &[u8] = b"data: {\"id\":\"chatcmpl-sim\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"delta\n\n";
