//! Chat: one generation, one log of events, several encodings of it.
use crate::{
    App,
    config::{Problem, some_seconds},
    extract::Auth,
};
use std::time::Duration;
use utoipa_axum::router::OpenApiRouter;

mod answer;
mod ask;
pub mod assistants;
mod completions;
mod conversations;
mod embeddings;
mod encode;
mod generation;
mod generations;
pub mod llm;
mod messages;
mod models;
mod moderation;
mod plain;
pub mod prices;
mod profile;
mod quota;
mod rate_limits;
pub mod relay;
mod scrub;
mod spending;
mod sse;
pub mod stream;
pub mod sweep;
mod switch;
#[cfg(test)]
mod tests;
pub mod titles;
mod tokens;
mod ui;
mod usage;
pub mod watch;
mod ws;

/// A producer that is not heard of for so long is gone; the sweeper settles what it left.
pub const LEASE: Duration = Duration::from_secs(30);

/// Bytes of a request at most: the AI SDK sends the whole chat each time, OpenAI's the whole context.
pub const MAX_BODY: usize = 4 * 1024 * 1024;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(plain::routes())
        .merge(completions::routes())
        .merge(models::routes())
        .merge(embeddings::routes())
        .merge(conversations::routes())
        .merge(messages::routes())
        .merge(ui::routes())
        .merge(ws::routes())
        .merge(profile::routes())
        .merge(generations::routes())
        .merge(usage::routes())
        .merge(switch::routes())
        .merge(spending::routes())
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY))
}

/// Chat.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Language model")]
pub struct Config {
    #[command(flatten)]
    pub providers: llm::Config,

    /// The model that answers where none is asked for; part of every plan.
    #[arg(long, default_value = "gpt-4o-mini")]
    pub llm_model: String,

    /// Seconds that the model may be silent, before the first word and between words; an answer may take ten times as long in all. LLM_FIRST_TOKEN_TIMEOUT, LLM_IDLE_TIMEOUT and LLM_TOTAL_TIMEOUT name each alone.
    #[arg(long, value_parser = some_seconds, default_value = "30")]
    pub llm_timeout: Duration,

    /// Tokens of an answer at most.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=32_768))]
    pub llm_max_tokens: u32,

    /// Characters of a question at most, on /api/chat.
    #[arg(long, default_value_t = 1000)]
    pub chat_max_message_chars: usize,

    /// How many of the last messages the model is shown.
    #[arg(long, default_value_t = 10)]
    pub chat_history_limit: usize,

    /// The model gives a conversation its title after the first answer, at the cost of the house.
    #[arg(long, action = clap::ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new(), default_value = "true")]
    pub chat_titles: bool,

    /// What tells who somebody is (e-mail addresses, phone numbers, card numbers, IBANs) is not shown to the provider: it is asked about [EMAIL_1], and what that stands for is put back in the answer.
    #[arg(long, action = clap::ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new(), default_value = "off")]
    pub pii_scrub: bool,

    /// Who judges what users say before it is stored or answered: openai, by OpenAI's moderations. What is flagged is refused.
    #[arg(long, value_enum, default_value = "off")]
    pub moderation: moderation::Moderator,

    /// The model that judges.
    #[arg(long, default_value = "omni-moderation-latest")]
    pub moderation_model: String,

    /// While the moderator cannot be had, what nobody judged is refused (closed), or answered (open).
    #[arg(long, value_enum, default_value = "closed")]
    pub moderation_unavailable: moderation::Unjudged,
}

impl Config {
    pub fn check(
        &self,
        production: bool,
        problems: &mut Vec<Problem>,
        warnings: &mut Vec<Problem>,
    ) {
        self.providers
            .check(&self.llm_model, production, problems, warnings);
    }

    /// Where nobody who is asked has the default model, one that they have.
    pub fn choose_model(&mut self) {
        self.providers.choose_model(&mut self.llm_model);
    }

    /// Whether this configuration leaves the model to be simulated.
    pub fn is_simulated(&self) -> bool {
        self.providers.is_simulated()
    }

    /// Whether `sim-…` models may be asked for.
    pub fn allows_simulated_models(&self) -> bool {
        let asked = self.providers.providers().into_iter();
        asked
            .map(|provider| self.providers.base_url(provider))
            .all(crate::http::is_loopback)
    }
}

/// The subject under which a user's quotas are counted.
fn subject(auth: &Auth) -> String {
    subject_of(auth.user)
}

fn subject_of(user: uuid::Uuid) -> String {
    format!("user:{user}")
}

/// How a kept answer is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As `POST /api/chat` answers.
    Plain,
    /// As `POST /api/conversations/{id}/messages` answers.
    Message,
    /// As `POST /v1/chat/completions` answers.
    Completion,
    /// As `POST /v1/embeddings` answers: in the provider's own words.
    Embeddings,
}

impl Form {
    /// Whether an answer that ended so is one. Cut off, it is a failure to OpenAI's clients, who retry.
    pub fn holds(self, reason: &str) -> bool {
        self != Self::Completion || reason != "truncated"
    }

    fn answer(
        self,
        head: &generation::Head,
        answer: &answer::Answer,
        reason: &str,
        usage: llm::Usage,
    ) -> serde_json::Value {
        match (self, head.place) {
            (Self::Plain, Some(place)) => plain::plain(&answer.text, reason, usage, place),
            (Self::Message, _) => messages::answer(head, &answer.text, reason, usage),
            _ => encode::completion::completion(head, answer, reason, usage),
        }
    }
}
