use super::{
    Form,
    generation::{self, Accepted, Answer, Asked},
    llm::{Failure, Usage, estimate_tokens},
    plain::usage_body,
    sse,
    stream::{Event, Reader, StopOnDrop},
    subject,
};
use crate::{
    App, Error, Result,
    extract::{self, Auth, Json},
    idempotency::{self, First, Keyed},
    limit::Action,
};
use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use futures_util::{Stream, StreamExt, stream};
use serde_json::{Map, Value, json};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

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
async fn completions(State(app): State<App>, auth: Auth, request: Request) -> Result<Response> {
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
    let keyed = match Keyed::look(
        &app,
        &auth,
        "/v1/chat/completions",
        Form::Completion,
        &headers,
        &body,
    )
    .await?
    {
        First::No(answer) => return Ok(replay(answer, streamed, include_usage)),
        First::Yes(keyed) => Some(keyed),
        First::Unkeyed => None,
    };
    let cancels = keyed.is_none();
    let asked = asked(&app, given, keyed)?;
    app.limits.check(Action::Chat, &subject(&auth)).await?;

    let accepted = generation::start(&app, &auth, asked, async |_| Ok(None)).await?;

    let guard = cancels.then(|| StopOnDrop(accepted.log.clone()));
    if streamed {
        return Ok(sse::response(chunks(accepted, include_usage, guard)));
    }
    let (answer, reason, usage) = accepted.whole().await?;
    drop(guard);
    if !Form::Completion.holds(&reason) {
        return Err(Failure::Truncated.into());
    }
    Ok(Json(completion(
        accepted.generation,
        accepted.created_at,
        &accepted.model,
        &answer,
        &reason,
        usage,
    ))
    .into_response())
}

fn asked(app: &App, given: Map<String, Value>, keyed: Option<Keyed>) -> Result<Asked> {
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
        keyed,
    })
}

fn flag(given: &Map<String, Value>, name: &str) -> Result<bool> {
    match given.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(Error::invalid(name, "has to be true or false")),
    }
}

fn id(generation: Uuid) -> String {
    format!("chatcmpl-{}", generation.simple())
}

/// OpenAI's answer in one piece.
pub fn completion(
    generation: Uuid,
    created: db::Timestamp,
    model: &str,
    answer: &Answer,
    reason: &str,
    usage: Usage,
) -> Value {
    json!({
        "id": id(generation),
        "object": "chat.completion",
        "created": created.unix(),
        "model": model,
        "choices": [{"index": 0, "message": answer.message(), "logprobs": null, "finish_reason": openai_reason(reason)}],
        "usage": usage_body(usage),
    })
}

/// These clients know OpenAI's words alone.
fn openai_reason(reason: &str) -> &str {
    if reason == "stopped" { "stop" } else { reason }
}

/// OpenAI's encoding of a log: chunks, then `[DONE]`; or an error, and no `[DONE]`.
fn chunks(
    accepted: Accepted,
    include_usage: bool,
    guard: Option<StopOnDrop>,
) -> impl Stream<Item = String> + Send + 'static {
    let head = json!({"id": id(accepted.generation), "object": "chat.completion.chunk", "created": accepted.created_at.unix(), "model": accepted.model});
    let chunk = move |choices: Value, usage: Value| {
        let mut chunk = head.clone();
        chunk["choices"] = choices;
        if include_usage {
            chunk["usage"] = usage;
        }
        format!("data: {chunk}\n\n")
    };
    let first = chunk(
        json!([{"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": null, "finish_reason": null}]),
        Value::Null,
    );
    struct Reading {
        reader: Reader,
        _guard: Option<StopOnDrop>,
    }
    let reading = Reading {
        reader: accepted.log.read(),
        _guard: guard,
    };
    let rest = stream::unfold(reading, move |mut reading| {
        let chunk = chunk.clone();
        async move {
            let (_, event) = reading.reader.next().await?;
            let text = match &*event {
                Event::Delta(delta) => chunk(
                    json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": null}]),
                    Value::Null,
                ),
                Event::Finish { reason, .. } if reason == "truncated" => {
                    failure(&Failure::Truncated)
                }
                Event::Finish { reason, usage } => {
                    let mut text = chunk(
                        json!([{"index": 0, "delta": {}, "logprobs": null, "finish_reason": openai_reason(reason)}]),
                        Value::Null,
                    );
                    if include_usage {
                        text += &chunk(json!([]), usage_body(*usage));
                    }
                    text + "data: [DONE]\n\n"
                }
                Event::Error(error) => failure(error),
            };
            Some((text, reading))
        }
    });
    stream::once(async { first }).chain(rest)
}

/// What makes every OpenAI SDK throw in the middle of a stream.
fn failure(failure: &Failure) -> String {
    let (code, message) = (failure.code(), Error::from(failure.clone()).to_string());
    format!(
        "data: {}\n\n",
        json!({"error": {"message": message, "type": "server_error", "param": null, "code": code}})
    )
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
