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
    /// Everything but the reason to finish.
    pub no_finish: bool,
    /// finish_reason `length`, whatever the length.
    pub length: bool,
    /// finish_reason `content_filter`.
    pub filter: bool,
    /// Calls of tools as Gemini sends them: whole, without index and id, and finished by `stop`.
    pub no_index: bool,
    /// Comments, pings and events without data between the chunks.
    pub noise: bool,
    /// Lines end in CRLF.
    pub crlf: bool,
    /// A byte at a time, through the midst of characters.
    pub split: bool,
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
    /// With so many seconds to wait.
    RateLimited(u32),
    Quota,
    /// 402.
    Unpaid,
    /// 403.
    Forbidden,
    /// 404.
    NoModel,
    /// 413.
    TooLarge,
    /// 504.
    GatewayTimeout,
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
    ("sim-nofinish", "[DONE], and nothing finished"),
    ("sim-filter", "finish_reason content_filter"),
    ("sim-noindex", "tool calls whole, without index and id"),
    (
        "sim-noise",
        "comments, pings and empty events between chunks",
    ),
    ("sim-crlf", "lines end in CRLF"),
    ("sim-split", "a byte at a time"),
    ("sim-429", "rate limit, Retry-After: 1"),
    ("sim-retry-30", "rate limit, Retry-After: 30"),
    ("sim-quota", "429 insufficient_quota"),
    ("sim-401", "the key is not accepted"),
    ("sim-402", "the bill is not paid"),
    ("sim-403", "the key may not do this"),
    ("sim-404", "no such model"),
    ("sim-400", "the request is not accepted"),
    ("sim-413", "the request is too large"),
    ("sim-500", "server error"),
    ("sim-503", "unavailable"),
    ("sim-504", "a gateway's timeout"),
    ("sim-529", "overloaded"),
    ("sim-html-502", "a proxy's HTML page"),
];

impl Knobs {
    /// The directive at the beginning of a question, without its slash: a client that cannot choose
    /// the model asks `/sim-cut-5 Hello`.
    pub fn directive(question: &str) -> Option<&str> {
        let name = question.split_whitespace().next()?.strip_prefix('/')?;
        (name.starts_with("sim-") && Self::of_model(name).is_some()).then_some(name)
    }

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
                "nofinish" => knobs.no_finish = true,
                "length" => knobs.length = true,
                "filter" => knobs.filter = true,
                "noindex" => knobs.no_index = true,
                "noise" => knobs.noise = true,
                "crlf" => knobs.crlf = true,
                "split" => knobs.split = true,
                "429" => knobs.refusal = Some(Refusal::RateLimited(1)),
                "retry" => knobs.refusal = Some(Refusal::RateLimited(number()?)),
                "402" => knobs.refusal = Some(Refusal::Unpaid),
                "403" => knobs.refusal = Some(Refusal::Forbidden),
                "404" => knobs.refusal = Some(Refusal::NoModel),
                "413" => knobs.refusal = Some(Refusal::TooLarge),
                "504" => knobs.refusal = Some(Refusal::GatewayTimeout),
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
