//! Settles what producers left behind that are gone: the process was killed, the machine lost.
use super::generation::{self, Answer};
use crate::App;

pub const KIND: &str = "sweep_generations";
const AT_ONCE: i64 = 100;

/// What reached the disk of an answer is kept and said to be cut off; one of which nothing did has
/// failed, and costs the user nothing.
pub async fn run(app: &App) -> anyhow::Result<()> {
    for abandoned in db::generations::expired(&app.db, app.now(), AT_ONCE).await? {
        let text = match abandoned.message_id {
            Some(message) => db::conversations::message(&app.db, message)
                .await?
                .map(|message| message.content),
            None => None,
        };
        let answer = Answer::of_text(text.unwrap_or_default());
        let status = if answer.text.is_empty() {
            "failed"
        } else {
            "truncated"
        };
        let mut tx = app.db.begin().await?;
        if let Some(generation) = db::generations::finish(
            &mut tx,
            abandoned.id,
            "interrupted",
            Some("interrupted"),
            app.now(),
        )
        .await?
        {
            generation::close(app, &mut tx, &generation, &answer, status).await?;
        }
        tx.commit().await?;
        tracing::warn!(generation = %abandoned.id, status, "an abandoned answer was settled");
    }
    Ok(())
}
