//! `POST /v1/chat/completions`.

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

use super::prompt::{Format, Prompt};
use super::refusal::{self, Error};
use super::stream::{self, Step};
use super::wire::{self, Shape, Usage};
use super::{Llm, Reply, Ticket, prose, schema, tokens};
use crate::faults::{End, Knobs, Refusal};

pub async fn completions(State(llm): State<Llm>, headers: HeaderMap, body: Bytes) -> Response {
    let key = refusal::key(&headers);
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (mut ticket, reply) = llm.begin(key.as_ref().ok().cloned(), body.clone());

    if let Err(error) = key {
        ticket.finish();
        return error.into_response();
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

    match answer(&body, model, text).await {
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
    shape: Shape,
    said: Said,
    finish: &'static str,
    usage: Usage,
    stream: bool,
}

/// `model` and `text` are a script's, and come before the request's.
async fn answer(
    body: &Value,
    model: Option<String>,
    text: Option<String>,
) -> Result<Answer, Response> {
    if body.is_null() {
        let message = "We could not parse the JSON body of your request.";
        return Err(Error::invalid("body", "invalid_json", message).into_response());
    }
    let Some(asked) = body["model"].as_str() else {
        let message = "you must provide a model parameter";
        return Err(Error::invalid("model", "missing_required_parameter", message).into_response());
    };
    let model = model.as_deref().unwrap_or(asked);
    let knobs =
        Knobs::of_model(model).ok_or_else(|| Error::unknown_model(model).into_response())?;

    tokio::time::sleep(knobs.slow).await;
    if knobs.hang {
        std::future::pending::<()>().await;
    }
    if let Some(refusal) = knobs.refusal {
        return Err(refusal.response());
    }
    let prompt = Prompt::read(body).map_err(IntoResponse::into_response)?;
    let (said, cut) = say(&prompt, text, knobs.tokens);
    let finish = match &said {
        _ if cut || knobs.length => "length",
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
        shape: Shape::new(asked, prompt.include_usage, prompt.obfuscation),
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

        let body = self.shape.completion(&self.said, self.finish, self.usage);
        let words = u32::try_from(self.pieces().len()).unwrap_or(u32::MAX);
        tokio::time::sleep(gap.saturating_mul(words)).await;
        if self.knobs.error {
            ticket.finish();
            return (wire::headers(), Json(Refusal::ServerError.error().body())).into_response();
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
        let (words, chunks) = self.chunks();
        let middle = words.start + words.len() / 2;

        let spoil = move |(at, chunk): (usize, Bytes)| match at == middle {
            true if knobs.error => [
                Some(wire::event(&Refusal::ServerError.error().body())),
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
            wait.into_iter().chain([Step::Send(chunk)])
        };
        chunks.enumerate().flat_map(paced).chain(end)
    }

    /// An answer without fault, and where in it the words are. Chunks are made as they are sent: a
    /// thousand open streams hold words, not JSON.
    fn chunks(self) -> (Range<usize>, impl Iterator<Item = Bytes> + Send + 'static) {
        let pieces = self.pieces();
        let Self {
            knobs,
            shape,
            said,
            finish,
            usage,
            ..
        } = self;
        let head = match &said {
            Said::Text(_) => vec![shape.role(Some(""))],
            Said::Call { id, name, .. } => vec![shape.role(None), shape.tool(id, name)],
        };
        let tail = [
            Some(shape.finish(finish)),
            shape.include_usage.then(|| shape.usage(usage)),
            (!knobs.no_done).then_some(wire::DONE),
        ];
        let places = head.len()..head.len() + pieces.len();
        let words = pieces.into_iter().map(move |piece| match said {
            Said::Text(_) => shape.content(&piece),
            Said::Call { .. } => shape.arguments(&piece),
        });
        (
            places,
            head.into_iter()
                .chain(words)
                .chain(tail.into_iter().flatten()),
        )
    }
}

const GARBAGE: &[u8] = b"data: {\"id\":\"chatcmpl-sim\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"delta\n\n";
