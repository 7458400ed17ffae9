use super::assistants;
use crate::{
    App, Result,
    billing::entitlements,
    extract::{Asker, Json},
};
use axum::extract::State;
use serde_json::{Value, json};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(openai_models))
        .routes(routes!(models))
        .routes(routes!(list_assistants))
}

/// The models of the user's plan, in OpenAI's shape.
#[utoipa::path(get, path = "/v1/models", tag = "openai", responses((status = 200, body = Value)))]
async fn openai_models(State(app): State<App>, Asker(auth): Asker) -> Result<Json<Value>> {
    let plan = entitlements::plan_of(&app, auth.user).await?;
    let models =
        plan.models.iter().chain(&plan.embeddings).map(
            |model| json!({"id": model, "object": "model", "created": 0, "owned_by": "plinth"}),
        );
    Ok(Json(
        json!({"object": "list", "data": models.collect::<Vec<_>>()}),
    ))
}

/// The models of the user's plan.
#[utoipa::path(get, path = "/api/models", tag = "chat", responses((status = 200, body = Value)))]
async fn models(State(app): State<App>, Asker(auth): Asker) -> Result<Json<Value>> {
    let plan = entitlements::plan_of(&app, auth.user).await?;
    let default = &app.config.chat.llm_model;
    let models = plan
        .models
        .iter()
        .map(|model| json!({"id": model, "default": model == default}));
    Ok(Json(json!({"data": models.collect::<Vec<_>>()})))
}

/// Who can be asked.
#[utoipa::path(get, path = "/api/assistants", tag = "chat", responses((status = 200, body = Value)))]
async fn list_assistants(State(app): State<App>, _asker: Asker) -> Json<Value> {
    let all = app.assistants.iter().map(|(id, assistant)| json!({"id": id, "title": assistant.title, "default": id == assistants::DEFAULT}));
    Json(json!({"data": all.collect::<Vec<_>>()}))
}
