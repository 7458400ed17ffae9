use super::{
    Form,
    encode::{Listener, completion},
    generation::{self, Asked, Once},
    llm::{Failure, estimate_tokens},
    rate_limits, sse,
};
use crate::{
    App, Error, Result,
    extract::{self, Asker, Json},
    idempotency::{self, Retries},
};
use axum::{
    extract::{Request, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde_json::{Map, Value, json};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(completions))
}

/// Members of the request that the provider is given as they are.
const PASSED_ON: [&str; 19] = [
    "messages",
    "temperature",
    "top_p",
    "stop",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "reasoning_effort",
    "verbosity",
    "modalities",
    "prediction",
    "metadata",
    "service_tier",
    "prompt_cache_key",
];

/// OpenAI's chat completions: any OpenAI SDK works with `base_url = PUBLIC_URL/v1` and an access
/// token as its key. Nothing is kept but what it cost. When the client of an unkeyed request leaves,
/// the answer is stopped.
#[utoipa::path(post, path = "/v1/chat/completions", tag = "openai", request_body = Value,
    params(("Idempotency-Key" = Option<String>, Header, description = "A retry with the same key gets the same answer and costs nothing")),
    responses((status = 200, description = "A chat completion, or chunks of it as server-sent events", content((Value = "application/json"), (String = "text/event-stream")))))]
async fn completions(
    State(app): State<App>,
    Asker(auth): Asker,
    request: Request,
) -> Result<Response> {
    let headers = request.headers().clone();
    if !extract::is_json(&headers) {
        return Err(Error::UnsupportedMediaType);
    }
    let body = extract::body(request, &app).await?;
    let given: Map<String, Value> = extract::parse(&body)?;
    let streamed = flag(&given, "stream")?;
    let include_usage = given
        .get("stream_options")
        .and_then(|options| options.get("include_usage"))
        .and_then(Value::as_bool)
        .unwrap_or(false);
    let asked = asked(&app, given)?;
    let request = idempotency::Request {
        scope: "/v1/chat/completions",
        form: Form::Completion,
        retries: Retries::Said,
        headers: &headers,
        body: &body,
    };
    let ask = |keyed| {
        let asked = Asked {
            keyed: Some(keyed),
            ..asked.clone()
        };
        generation::start(&app, &auth, asked, async |_| Ok(None))
    };
    let mut accepted = match generation::once(&app, &auth, request, ask).await {
        Ok(Once::Kept(answer)) => return Ok(replay(answer, streamed, include_usage)),
        Ok(Once::Accepted(accepted)) => accepted,
        Err(error) => return Ok(refused(&app, error)),
    };

    let left = accepted.left.map(|left| (left, app.now()));
    let say = |mut response: Response| {
        if let Some((left, now)) = left {
            rate_limits::say(response.headers_mut(), left, now);
        }
        response
    };
    if streamed {
        let listener = Listener::new(&app, &auth, accepted.reader);
        let chunks = completion::chunks(accepted.head, listener, include_usage, accepted.guard);
        return Ok(say(sse::response(chunks)));
    }
    let (answer, reason, usage) = match accepted.whole().await {
        Ok(whole) => whole,
        Err(error) => return Ok(say(error.into_response())),
    };
    if !Form::Completion.holds(&reason) {
        return Ok(say(Error::from(Failure::Truncated).into_response()));
    }
    let whole = completion::completion(&accepted.head, &answer, &reason, usage);
    Ok(say(Json(whole).into_response()))
}

/// A quota that is used up is said in headers as well.
fn refused(app: &App, error: Error) -> Response {
    let mut headers = HeaderMap::new();
    if let Error::QuotaExceeded {
        what, resets_at, ..
    } = &error
    {
        rate_limits::say_none(&mut headers, what, *resets_at, app.now());
    }
    (headers, error).into_response()
}

fn asked(app: &App, given: Map<String, Value>) -> Result<Asked> {
    let messages = given
        .get("messages")
        .and_then(Value::as_array)
        .filter(|messages| !messages.is_empty());
    let messages = messages
        .ok_or_else(|| Error::invalid("messages", "has to be a list of at least one message"))?;
    if !messages
        .iter()
        .all(|message| message.get("role").is_some_and(Value::is_string))
    {
        return Err(Error::invalid("messages", "needs a role in each message"));
    }
    let model = match given.get("model") {
        Some(Value::String(model)) => model.clone(),
        _ => return Err(Error::invalid("model", "has to be one of GET /v1/models")),
    };
    if given.get("n").is_some_and(|n| n.as_u64() != Some(1)) {
        return Err(Error::invalid("n", "has to be 1"));
    }
    let wanted = ["max_completion_tokens", "max_tokens"]
        .iter()
        .find_map(|name| {
            given
                .get(*name)
                .filter(|value| !value.is_null())
                .map(|value| (name, value))
        });
    let ceiling = i64::from(app.config.chat.llm_max_tokens);
    let max_output = match wanted {
        None => ceiling,
        Some((name, value)) => value
            .as_i64()
            .filter(|n| *n >= 1)
            .ok_or_else(|| Error::invalid(name, "has to be a positive whole number"))?
            .min(ceiling),
    };
    let shown = estimate_tokens(&Value::from(messages.clone()).to_string())
        + estimate_tokens(&given.get("tools").map(Value::to_string).unwrap_or_default());
    let request = given
        .into_iter()
        .filter(|(name, value)| PASSED_ON.contains(&name.as_str()) && !value.is_null())
        .collect();
    Ok(Asked {
        request,
        model,
        prompt_text_tokens: shown,
        max_output,
        keyed: None,
    })
}

fn flag(given: &Map<String, Value>, name: &str) -> Result<bool> {
    match given.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(Error::invalid(name, "has to be true or false")),
    }
}

/// A kept answer, once more.
fn replay(answer: String, streamed: bool, include_usage: bool) -> Response {
    if !streamed {
        return idempotency::replayed(answer);
    }
    let mut chunk: Value = serde_json::from_str(&answer).unwrap_or_default();
    let usage = chunk["usage"].take();
    let mut choice = chunk["choices"][0].take();
    let mut message = choice["message"].take();
    for (index, call) in message["tool_calls"]
        .as_array_mut()
        .into_iter()
        .flatten()
        .enumerate()
    {
        call["index"] = index.into();
    }
    let reason = choice["finish_reason"].take();
    chunk["object"] = "chat.completion.chunk".into();
    let mut line = |choices: Value, usage: Value| {
        chunk["choices"] = choices;
        if let (Some(members), false) = (chunk.as_object_mut(), include_usage) {
            members.remove("usage");
        } else {
            chunk["usage"] = usage;
        }
        format!("data: {chunk}\n\n")
    };
    let mut text = line(
        json!([{"index": 0, "delta": message, "logprobs": null, "finish_reason": null}]),
        Value::Null,
    );
    text += &line(
        json!([{"index": 0, "delta": {}, "logprobs": null, "finish_reason": reason}]),
        Value::Null,
    );
    if include_usage {
        text += &line(json!([]), usage);
    }
    text += "data: [DONE]\n\n";
    let mut response = sse::response(stream::iter([text]));
    idempotency::mark(&mut response);
    response
}
