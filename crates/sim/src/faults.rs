//! What can go wrong, chosen by the model's name: `sim-slow-2000-cut-5` waits two seconds, sends
//! five chunks and drops the connection.

use std::time::Duration;

/// What a model's name asks for. A name that is not `sim` or `sim-…` asks for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Knobs {
    /// Before the response begins, also before an error.
    pub slow: Duration,
    /// Between two words, instead of the world's own pace.
    pub gap: Option<Duration>,
    /// Exactly so many tokens of prose.
    pub tokens: Option<usize>,
    /// An error instead of an answer.
    pub refusal: Option<Refusal>,
    /// Accepts, never answers.
    pub hang: bool,
    /// Ends too soon.
    pub end: Option<End>,
    /// A chunk of broken JSON midway; the rest follows.
    pub garbage: bool,
    /// `data: {"error":…}` midway, which ends the stream.
    pub error: bool,
    /// Everything but `[DONE]`.
    pub no_done: bool,
    /// finish_reason `length`, whatever the length.
    pub length: bool,
}

/// After so many chunks, the first of which holds the role alone; an answer that is not streamed
/// ends after half its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The connection dies.
    Cut(usize),
    /// The body ends in good order: no finish_reason, no `[DONE]`.
    Eof(usize),
    /// Silence.
    Stall(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    RateLimited,
    Quota,
    BadKey,
    BadRequest,
    ServerError,
    Unavailable,
    Overloaded,
    BadGateway,
}

/// Every knob and what it does, for the models list and the home page.
pub const KNOBS: &[(&str, &str)] = &[
    ("sim-slow-2000", "2,000 ms before the response begins"),
    ("sim-gap-50", "50 ms between tokens"),
    ("sim-tokens-200", "exactly 200 tokens"),
    ("sim-length", "finish_reason length"),
    ("sim-cut-5", "connection dies after 5 chunks"),
    ("sim-eof-5", "clean end after 5 chunks, nothing finished"),
    ("sim-stall-5", "5 chunks, then silence"),
    ("sim-hang", "accepts, never answers"),
    ("sim-garbage", "broken JSON midway"),
    ("sim-error", "an error event midway"),
    ("sim-nodone", "no [DONE] at the end"),
    ("sim-429", "rate limit, Retry-After: 1"),
    ("sim-quota", "429 insufficient_quota"),
    ("sim-401", "the key is not accepted"),
    ("sim-400", "the request is not accepted"),
    ("sim-500", "server error"),
    ("sim-503", "unavailable"),
    ("sim-529", "overloaded"),
    ("sim-html-502", "a proxy's HTML page"),
];

impl Knobs {
    /// `None`: a `sim` model with a knob that does not exist, or a number where none belongs.
    pub fn of_model(model: &str) -> Option<Self> {
        let mut knobs = Self::default();
        let mut names = match model.strip_prefix("sim-") {
            Some(names) => names.split('-'),
            None => return Some(knobs),
        };

        while let Some(name) = names.next() {
            let mut number = || names.next()?.parse::<u32>().ok();
            match name {
                "slow" => knobs.slow = Duration::from_millis(number()?.into()),
                "gap" => knobs.gap = Some(Duration::from_millis(number()?.into())),
                "tokens" => knobs.tokens = Some((number()? as usize).min(MAX_TOKENS)),
                "cut" => knobs.end = Some(End::Cut(number()? as usize)),
                "eof" => knobs.end = Some(End::Eof(number()? as usize)),
                "stall" => knobs.end = Some(End::Stall(number()? as usize)),
                "hang" => knobs.hang = true,
                "garbage" => knobs.garbage = true,
                "error" => knobs.error = true,
                "nodone" => knobs.no_done = true,
                "length" => knobs.length = true,
                "429" => knobs.refusal = Some(Refusal::RateLimited),
                "quota" => knobs.refusal = Some(Refusal::Quota),
                "401" => knobs.refusal = Some(Refusal::BadKey),
                "400" => knobs.refusal = Some(Refusal::BadRequest),
                "500" => knobs.refusal = Some(Refusal::ServerError),
                "503" => knobs.refusal = Some(Refusal::Unavailable),
                "529" => knobs.refusal = Some(Refusal::Overloaded),
                "html" if number() == Some(502) => knobs.refusal = Some(Refusal::BadGateway),
                _ => return None,
            }
        }
        Some(knobs)
    }
}

/// More is a typing error.
const MAX_TOKENS: usize = 100_000;
