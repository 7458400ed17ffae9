//! A user's data, for them to take along.
use super::{audit, session::Client, step_up};
use crate::{
    App, Error, Result,
    error::explain,
    extract::Auth,
    http::Uncompressed,
    limit::Action,
    mail::{self, Mail},
};
use axum::{
    body::Body,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use db::users::User;
use futures_util::stream;
use serde_json::json;
use utoipa_axum::{router::OpenApiRouter, routes};

mod archive;
mod files;

pub use archive::Pieces;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(export))
}

/// Everything that hangs on one's account, as JSON files in a zip. Needs a sign-in of the last minutes, and
/// its owner hears of it by mail.
#[utoipa::path(get, path = "/auth/v1/user/export", tag = "sign-in",
    responses((status = 200, description = "A zip", content_type = "application/zip", body = [u8])))]
async fn export(State(app): State<App>, auth: Auth, client: Client) -> Result<Response> {
    let (action, now) = ("user_exported", app.now());
    step_up::demand(&app, &auth, &client, action).await?;
    let key = auth.user.to_string();
    app.limits.check(Action::Export, &key).await?;
    let mut tx = app.db.begin().await?;
    let user = db::users::locked(&mut tx, auth.user).await?;
    let user = user.ok_or(Error::SessionEnded)?;
    audit::succeeded(&mut tx, &client, action, user.id, json!({}), now).await?;
    mail::tell(&mut tx, &user, |to| Mail::DataExported { to }, now).await?;
    tx.commit().await?;

    let name = format!("attachment; filename=\"{}\"", file_name(&app));
    let headers = [
        (header::CONTENT_TYPE, "application/zip".to_owned()),
        (header::CONTENT_DISPOSITION, name),
    ];
    let pieces = stream::unfold(pieces(&app, user), async |mut pieces| {
        pieces.recv().await.map(|piece| (piece, pieces))
    });
    let mut response = (headers, Body::from_stream(pieces)).into_response();
    response.extensions_mut().insert(Uncompressed);
    Ok(response)
}

/// The archive, made while it is taken. One that fails ends early, and so is no zip.
pub fn pieces(app: &App, user: User) -> Pieces {
    let (db, (archive, pieces)) = (app.db.clone(), archive::Archive::new(app.now()));
    let failed = archive.failed();
    app.tasks.spawn(async move {
        if let Err(error) = files::write(&db, user, archive).await {
            tracing::warn!(error = explain(&error), "an export ended early");
            failed.tell().await;
        }
    });
    pieces
}

/// What it is saved as.
fn file_name(app: &App) -> String {
    let day: String = app.now().to_string().chars().take(10).collect();
    format!("export-{day}.zip")
}
