use super::{ask, assistants, generations::request_stop};
use crate::{
    App, Error, Result,
    error::Invalid,
    extract::{self, Asker, Auth, Json, List, Page, Path, Query, Time},
};
use axum::{extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, update, delete))
}

#[derive(Serialize, ToSchema)]
struct Conversation {
    id: Uuid,
    title: Option<String>,
    assistant: String,
    /// The newest message of the branch that is shown.
    active_leaf: Option<Uuid>,
    /// The id that its client gave it: the AI SDK's chat.
    client_id: Option<String>,
    /// Counts what changes of what is shown; sent with a change, it is refused when another came before.
    version: i64,
    archived_at: Option<Time>,
    created_at: Time,
    updated_at: Time,
}

impl From<db::conversations::Conversation> for Conversation {
    fn from(row: db::conversations::Conversation) -> Self {
        let db::conversations::Conversation {
            id,
            title,
            assistant,
            active_leaf,
            client_id,
            version,
            archived_at,
            created_at,
            updated_at,
            user_id: _,
        } = row;
        Self {
            id,
            title,
            assistant,
            active_leaf,
            client_id,
            version,
            archived_at: archived_at.map(Into::into),
            created_at: created_at.into(),
            updated_at: updated_at.into(),
        }
    }
}

#[derive(Deserialize, utoipa::IntoParams)]
struct Which {
    /// Words that have to be in it: full text.
    #[serde(default)]
    q: Option<String>,
    /// `1` lists the archived ones in place of the others.
    #[serde(default)]
    archived: Option<u8>,
}

/// The user's conversations, newest first.
#[utoipa::path(get, path = "/api/conversations", tag = "chat", params(Which, Page), responses((status = 200, body = List<Conversation>)))]
async fn list(
    State(app): State<App>,
    Asker(auth): Asker,
    Query(which): Query<Which>,
    Query(page): Query<Page>,
) -> Result<Json<List<Conversation>>> {
    let (limit, before) = (page.limit()?, page.cursor()?.unwrap_or(Uuid::max()));
    let rows = match which.q.as_deref().map(str::trim).filter(|q| !q.is_empty()) {
        Some(q) => search(&app, &auth, q, before, limit + 1).await?,
        None => {
            let archived = Some(which.archived == Some(1));
            db::conversations::page(&app.db, auth.user, archived, before, limit + 1).await?
        }
    };
    Ok(Json(List::of(rows, limit, |row| row.id, Into::into)))
}

/// Characters that are searched for at most.
const MAX_SEARCH: usize = 200;

async fn search(
    app: &App,
    auth: &Auth,
    q: &str,
    before: Uuid,
    limit: i64,
) -> Result<Vec<db::conversations::Conversation>> {
    if q.chars().count() > MAX_SEARCH || q.contains('\0') {
        let problem = format!("has to be {MAX_SEARCH} characters at most");
        return Err(Error::invalid("q", problem));
    }
    let words: Vec<_> = q.split_whitespace().collect();
    let expression = match app.db.is_sqlite() {
        // A word in quotes is a word, whatever is in it.
        true => words
            .iter()
            .map(|word| format!("\"{}\"", word.replace('"', "")))
            .collect::<Vec<_>>()
            .join(" "),
        false => q.to_owned(),
    };
    let escaped = |word: &&str| {
        let word = word.to_lowercase().replace('~', "~~");
        word.replace('%', "~%").replace('_', "~_")
    };
    let title = words.iter().map(escaped).collect::<Vec<_>>().join("%");
    let title = format!("%{title}%");
    Ok(db::conversations::search(&app.db, auth.user, &expression, &title, before, limit).await?)
}

#[derive(Default, Deserialize, ToSchema)]
struct NewConversation {
    /// 1 to 200 characters; absent, the first question gives it one.
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    assistant: Option<String>,
}

/// Begin a conversation, in which nothing is said yet.
#[utoipa::path(post, path = "/api/conversations", tag = "chat", request_body = Option<NewConversation>, responses((status = 201, body = Conversation)))]
async fn create(
    state: State<App>,
    Asker(auth): Asker,
    request: axum::extract::Request,
) -> Result<(StatusCode, Json<Conversation>)> {
    let new: NewConversation = extract::json_or_default(request, &state).await?;
    let mut faults = vec![];
    ask::assistant(&state, new.assistant.as_deref(), &mut faults);
    let title = new.title.as_deref().map(str::trim);
    if title.is_some_and(|title| !is_title(title)) {
        faults.push(Invalid::new("title", "has to be 1 to 200 characters"));
    }
    if !faults.is_empty() {
        return Err(Error::Invalid(faults));
    }

    let id = Uuid::now_v7();
    let assistant = new.assistant.as_deref().unwrap_or(assistants::DEFAULT);
    let mut tx = state.db.begin().await?;
    db::conversations::create(&mut tx, id, auth.user, title, assistant, None, state.now()).await?;
    tx.commit().await?;

    Ok((
        StatusCode::CREATED,
        show(state, Asker(auth), Path(id.to_string())).await?,
    ))
}

fn is_title(title: &str) -> bool {
    (1..=200).contains(&title.chars().count())
}

/// One conversation.
#[utoipa::path(get, path = "/api/conversations/{id}", tag = "chat", params(("id" = String, Path, description = "Ours, or the client's: the AI SDK's chat")), responses((status = 200, body = Conversation), (status = 404)))]
async fn show(
    State(app): State<App>,
    Asker(auth): Asker,
    Path(id): Path<String>,
) -> Result<Json<Conversation>> {
    let row = of_id(&app, &auth, &id).await?.ok_or(Error::NotFound)?;
    Ok(Json(row.into()))
}

/// The user's conversation of this id, by us or by the client.
pub async fn of_id(
    app: &App,
    auth: &Auth,
    id: &str,
) -> Result<Option<db::conversations::Conversation>> {
    if id.contains('\0') {
        return Ok(None);
    }
    if let Ok(id) = Uuid::try_parse(id)
        && let Some(found) = db::conversations::of_user(&app.db, auth.user, id).await?
    {
        return Ok(Some(found));
    }
    Ok(db::conversations::of_client(&app.db, auth.user, id).await?)
}

#[derive(Deserialize, ToSchema)]
struct ConversationUpdate {
    /// 1 to 200 characters.
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    archived: Option<bool>,
    /// The message up to which it is shown: another branch.
    #[serde(default)]
    active_leaf: Option<Uuid>,
    /// The version that is changed; absent, whichever there is.
    #[serde(default)]
    version: Option<i64>,
}

/// Rename a conversation, archive it or take it back, or show another branch.
#[utoipa::path(patch, path = "/api/conversations/{id}", tag = "chat", params(("id" = Uuid, Path)), request_body = ConversationUpdate, responses((status = 200, body = Conversation), (status = 404), (status = 409, description = "It was changed in the meantime")))]
async fn update(
    state: State<App>,
    Asker(auth): Asker,
    Path(id): Path<Uuid>,
    Json(update): Json<ConversationUpdate>,
) -> Result<Json<Conversation>> {
    let title = update.title.as_deref().map(str::trim);
    if title.is_some_and(|title| !is_title(title)) {
        return Err(Error::invalid("title", "has to be 1 to 200 characters"));
    }
    if title.is_none() && update.archived.is_none() && update.active_leaf.is_none() {
        return Err(Error::invalid(
            "body",
            "changes nothing: it needs title, archived or active_leaf",
        ));
    }
    let found = db::conversations::of_user(&state.db, auth.user, id).await?;
    found.ok_or(Error::NotFound)?;
    if let Some(leaf) = update.active_leaf
        && db::conversations::message_of(&state.db, id, Some(leaf), "")
            .await?
            .is_none()
    {
        return Err(Error::invalid(
            "active_leaf",
            "is not a message of this conversation",
        ));
    }

    let ConversationUpdate {
        archived,
        active_leaf,
        version,
        ..
    } = update;
    let mut tx = state.db.begin().await?;
    let now = state.now();
    let updated = db::conversations::update(
        &mut tx,
        auth.user,
        id,
        title,
        archived,
        active_leaf,
        version,
        now,
    );
    if !updated.await? {
        return Err(Error::ConversationChanged);
    }
    tx.commit().await?;

    show(state, Asker(auth), Path(id.to_string())).await
}

/// Delete a conversation with everything in it. An answer that is being made is stopped, and settled.
#[utoipa::path(delete, path = "/api/conversations/{id}", tag = "chat", params(("id" = Uuid, Path)), responses((status = 204), (status = 404)))]
async fn delete(
    State(app): State<App>,
    Asker(auth): Asker,
    Path(id): Path<Uuid>,
) -> Result<StatusCode> {
    let found = db::conversations::of_user(&app.db, auth.user, id).await?;
    found.ok_or(Error::NotFound)?;
    let newest = db::generations::newest(&app.db, id).await?;
    if let Some(newest) = newest {
        request_stop(&app, &newest).await?;
    }

    let mut tx = app.db.begin().await?;
    db::conversations::hold(&mut tx, auth.user, id).await?;
    db::generations::hold(&mut tx, id).await?;
    db::conversations::delete(&mut tx, auth.user, id).await?;
    tx.commit().await?;

    Ok(StatusCode::NO_CONTENT)
}
