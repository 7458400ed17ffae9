use super::{
    Form,
    answer::Answer,
    generation::{self, Ended},
    llm::{Failure, Usage, estimate_tokens},
    quota,
    scrub::Scrub,
    subject,
};
use crate::{
    App, Error, Result,
    billing::{
        entitlements,
        plans::{ModelAccess, Plan},
    },
    extract::{self, Asker, Auth, Json},
    idempotency::{self, Keyed, Retries, Seen},
    limit::Action,
};
use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value};
use std::time::Duration;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// Texts of one request at most, as with OpenAI.
const MAX_INPUTS: usize = 2048;
const MAX_DIMENSIONS: u64 = 4096;
/// Bytes of an answer that is kept for a retry: two thousand vectors are fifty times as much.
const MAX_KEPT: usize = 1024 * 1024;
/// Members of the request that the provider is given as they are.
const PASSED_ON: [&str; 4] = ["model", "input", "dimensions", "encoding_format"];
/// Between the end of the longest call and the sweeper, which settles what a process that ended left.
const SLACK: Duration = Duration::from_secs(60);

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(embeddings))
}

/// OpenAI's embeddings of one text or several. They count as one message, and as the tokens they have.
#[utoipa::path(post, path = "/v1/embeddings", tag = "openai", request_body = Value,
    params(("Idempotency-Key" = Option<String>, Header, description = "A retry with the same key gets the same answer and costs nothing, where that is no larger than 1 MiB")),
    responses((status = 200, body = Value)))]
async fn embeddings(
    State(app): State<App>,
    Asker(auth): Asker,
    request: Request,
) -> Result<Response> {
    let headers = request.headers().clone();
    if !extract::is_json(&headers) {
        return Err(Error::UnsupportedMediaType);
    }
    let body = extract::body(request, &app).await?;
    let asked = Asked::of(&app, extract::parse(&body)?)?;
    let plan = entitlements::plan_of(&app, auth.user).await?;
    match app.plans.allows_embedding(plan, &asked.model) {
        ModelAccess::Allowed => {}
        ModelAccess::NotInPlan => return Err(Error::ModelNotInPlan { model: asked.model }),
        ModelAccess::Unknown => return Err(Error::ModelNotFound { model: asked.model }),
    }
    let request = idempotency::Request {
        scope: "/v1/embeddings",
        form: Form::Embeddings,
        retries: Retries::Said,
        headers: &headers,
        body: &body,
    };
    let keyed = match request.has_key() {
        false => None,
        true => match Keyed::look(&app, &auth, &request).await? {
            Seen::New(keyed) => Some(keyed),
            Seen::Answered(answer) => return Ok(idempotency::replayed(answer)),
            Seen::Joins(_) => return Err(Error::IdempotencyInFlight),
        },
    };
    app.limits.check(Action::Chat, &subject(&auth)).await?;

    // A client that leaves does not leave open what was set aside.
    let making = {
        let (app, plan) = (app.clone(), plan.clone());
        async move {
            let generation = open(&app, &auth, &plan, &asked, keyed.as_ref()).await?;
            make(app, auth.user, generation, asked.request, keyed).await
        }
    };
    let made = app.tasks.spawn(making).await;

    let answer = made.map_err(|error| Error::Internal(error.into()))??;
    Ok(Json(answer).into_response())
}

struct Asked {
    request: Map<String, Value>,
    model: String,
    /// An upper estimate.
    tokens: i64,
}

impl Asked {
    fn of(app: &App, mut given: Map<String, Value>) -> Result<Self> {
        let Some(Value::String(model)) = given.get("model").cloned() else {
            return Err(Error::invalid("model", "has to be one of GET /v1/models"));
        };
        let dimensions = given.get("dimensions").filter(|value| !value.is_null());
        let possible = |value: &Value| {
            value
                .as_u64()
                .is_some_and(|n| (1..=MAX_DIMENSIONS).contains(&n))
        };
        if dimensions.is_some_and(|value| !possible(value)) {
            return Err(Error::invalid("dimensions", "has to be 1 to 4096"));
        }
        let format = given
            .get("encoding_format")
            .filter(|value| !value.is_null());
        if format.is_some_and(|value| value != "float" && value != "base64") {
            let problem = "has to be float or base64";
            return Err(Error::invalid("encoding_format", problem));
        }
        let mut texts = texts(&mut given)?;
        let tokens = texts.iter().map(|text| estimate_tokens(text)).sum();
        if app.config.chat.pii_scrub {
            Scrub::hiding(&mut texts);
        }
        given.retain(|name, value| PASSED_ON.contains(&name.as_str()) && !value.is_null());
        Ok(Self {
            request: given,
            model,
            tokens,
        })
    }
}

fn texts(given: &mut Map<String, Value>) -> Result<Vec<&mut String>> {
    let texts: Option<Vec<_>> = match given.get_mut("input") {
        Some(Value::String(text)) => Some(vec![text]),
        Some(Value::Array(items)) => items
            .iter_mut()
            .map(|item| match item {
                Value::String(text) => Some(text),
                _ => None,
            })
            .collect(),
        _ => None,
    };
    texts
        .filter(|texts| (1..=MAX_INPUTS).contains(&texts.len()))
        .filter(|texts| texts.iter().all(|text| !text.is_empty()))
        .ok_or_else(|| {
            let problem = "has to be a text or a list of 1 to 2048 texts, none of them empty";
            Error::invalid("input", problem)
        })
}

/// Sets aside what it may cost, or refuses with nothing stored.
async fn open(
    app: &App,
    auth: &Auth,
    plan: &Plan,
    asked: &Asked,
    keyed: Option<&Keyed>,
) -> Result<Uuid> {
    let (id, now) = (Uuid::now_v7(), app.now());
    let mut tx = app.db.begin().await?;
    if let Some(keyed) = keyed {
        keyed.claim(app, &mut tx, id).await?;
    }
    let reserved =
        quota::reserve(&mut tx, auth.user, plan, &asked.model, asked.tokens, 0, now).await?;
    db::generations::create(
        &mut tx,
        id,
        auth.user,
        None,
        None,
        &asked.model,
        // Nobody renews its lease: it lasts as long as the call may, and no longer.
        &format!("{}/embeddings", app.instance),
        now + app.llm.total() + SLACK,
        reserved.window_start,
        reserved.amount.tokens,
        reserved.amount.microusd,
        reserved.price,
        reserved.in_model_window,
        reserved.in_budget,
        asked.tokens,
        now,
    )
    .await?;
    tx.commit().await?;
    Ok(id)
}

/// Asks the provider, and settles.
async fn make(
    app: App,
    user: Uuid,
    id: Uuid,
    request: Map<String, Value>,
    keyed: Option<Keyed>,
) -> Result<Value> {
    let asking = app.llm.embed(&request, user);
    let answer = tokio::time::timeout(app.llm.total(), asking).await;
    let answer = answer.unwrap_or(Err(Failure::TimedOut));
    let (reason, code) = match &answer {
        Ok(_) => ("stop", None),
        Err(failure) => ("error", Some(failure.code())),
    };
    let tokens = answer
        .as_ref()
        .ok()
        .and_then(|answer| answer.pointer("/usage/prompt_tokens")?.as_i64());
    let ended = Ended {
        answer: Answer::default(),
        status: if answer.is_ok() { "complete" } else { "failed" },
        usage: tokens.map(|tokens| Usage {
            input: tokens.clamp(0, i64::from(i32::MAX)),
            ..Usage::default()
        }),
        by: None,
        was_asked: !matches!(
            answer,
            Err(Failure::Unavailable { .. } | Failure::Refused(_))
        ),
        seq: 0,
    };
    let mut tx = app.db.begin().await?;
    let finished = db::generations::finish(&mut tx, id, reason, code, true, app.now()).await?;
    if let Some(generation) = finished {
        generation::close(&app, &mut tx, &generation, &ended).await?;
    }
    if let Some(keyed) = &keyed {
        match answer.as_ref().map(Value::to_string) {
            Ok(kept) if kept.len() <= MAX_KEPT => keyed.complete(&app, &mut tx, &kept).await?,
            _ => keyed.release(&mut tx).await?,
        }
    }
    tx.commit().await?;
    Ok(answer?)
}
