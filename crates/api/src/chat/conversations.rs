use crate::{
    App, Error, Result,
    extract::{Auth, Json, List, Page, Path, Query, Time},
};
use axum::{extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show, rename, delete))
        .routes(routes!(messages))
}

#[derive(Serialize, ToSchema)]
struct Conversation {
    id: Uuid,
    title: Option<String>,
    assistant: String,
    created_at: Time,
    updated_at: Time,
}

impl From<db::conversations::Conversation> for Conversation {
    fn from(row: db::conversations::Conversation) -> Self {
        let db::conversations::Conversation {
            id,
            title,
            assistant,
            created_at,
            updated_at,
            ..
        } = row;
        Self {
            id,
            title,
            assistant,
            created_at: created_at.into(),
            updated_at: updated_at.into(),
        }
    }
}

/// The user's conversations, newest first.
#[utoipa::path(get, path = "/api/conversations", tag = "chat", params(Page), responses((status = 200, body = List<Conversation>)))]
async fn list(
    State(app): State<App>,
    auth: Auth,
    Query(page): Query<Page>,
) -> Result<Json<List<Conversation>>> {
    let (limit, before) = (page.limit()?, page.cursor()?.unwrap_or(Uuid::max()));
    let rows = db::conversations::page(&app.db, auth.user, before, limit + 1).await?;
    Ok(Json(List::of(rows, limit, |row| row.id, Into::into)))
}

/// One conversation.
#[utoipa::path(get, path = "/api/conversations/{id}", tag = "chat", params(("id" = Uuid, Path)), responses((status = 200, body = Conversation), (status = 404)))]
async fn show(
    State(app): State<App>,
    auth: Auth,
    Path(id): Path<Uuid>,
) -> Result<Json<Conversation>> {
    let row = db::conversations::of_user(&app.db, auth.user, id)
        .await?
        .ok_or(Error::NotFound)?;
    Ok(Json(row.into()))
}

#[derive(Deserialize, ToSchema)]
struct ConversationUpdate {
    /// 1 to 200 characters.
    title: String,
}

/// Rename a conversation.
#[utoipa::path(patch, path = "/api/conversations/{id}", tag = "chat", params(("id" = Uuid, Path)), responses((status = 200, body = Conversation), (status = 404)))]
async fn rename(
    state: State<App>,
    auth: Auth,
    Path(id): Path<Uuid>,
    Json(update): Json<ConversationUpdate>,
) -> Result<Json<Conversation>> {
    let title = update.title.trim();
    if title.is_empty() || title.chars().count() > 200 {
        return Err(Error::invalid("title", "has to be 1 to 200 characters"));
    }

    let mut tx = state.db.begin().await?;
    let renamed = db::conversations::rename(&mut tx, auth.user, id, title, state.now()).await?;
    tx.commit().await?;

    if renamed {
        show(state, auth, Path(id)).await
    } else {
        Err(Error::NotFound)
    }
}

/// Delete a conversation with everything in it.
#[utoipa::path(delete, path = "/api/conversations/{id}", tag = "chat", params(("id" = Uuid, Path)), responses((status = 204), (status = 404)))]
async fn delete(State(app): State<App>, auth: Auth, Path(id): Path<Uuid>) -> Result<StatusCode> {
    let mut tx = app.db.begin().await?;
    let deleted = db::conversations::delete(&mut tx, auth.user, id).await?;
    tx.commit().await?;

    if deleted {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Error::NotFound)
    }
}

#[derive(Serialize, ToSchema)]
struct Message {
    id: Uuid,
    parent_id: Option<Uuid>,
    /// `user` or `assistant`.
    role: String,
    content: String,
    /// `complete`; of an answer also `streaming`, `truncated`, `stopped` or `failed`.
    status: String,
    model: Option<String>,
    input_tokens: Option<i64>,
    output_tokens: Option<i64>,
    created_at: Time,
}

impl From<db::conversations::Message> for Message {
    fn from(row: db::conversations::Message) -> Self {
        let db::conversations::Message {
            id,
            parent_id,
            role,
            content,
            status,
            model,
            input_tokens,
            output_tokens,
            created_at,
            ..
        } = row;
        Self {
            id,
            parent_id,
            role,
            content,
            status,
            model,
            input_tokens,
            output_tokens,
            created_at: created_at.into(),
        }
    }
}

/// A conversation's messages, oldest first.
#[utoipa::path(get, path = "/api/conversations/{id}/messages", tag = "chat", params(("id" = Uuid, Path), Page), responses((status = 200, body = List<Message>), (status = 404)))]
async fn messages(
    State(app): State<App>,
    auth: Auth,
    Path(id): Path<Uuid>,
    Query(page): Query<Page>,
) -> Result<Json<List<Message>>> {
    let (limit, after) = (page.limit()?, page.cursor()?.unwrap_or(Uuid::nil()));
    db::conversations::of_user(&app.db, auth.user, id)
        .await?
        .ok_or(Error::NotFound)?;
    let rows = db::conversations::messages(&app.db, id, after, limit + 1).await?;
    Ok(Json(List::of(rows, limit, |row| row.id, Into::into)))
}
