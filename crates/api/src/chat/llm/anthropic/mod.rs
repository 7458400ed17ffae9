//! Anthropic's Messages API, from OpenAI's request and to OpenAI's deltas.
//! <https://docs.anthropic.com/en/api/messages>, <https://docs.anthropic.com/en/api/messages-streaming>

mod reader;
mod request;
#[cfg(test)]
mod tests;

pub use reader::Reader;
pub use request::request;

pub const VERSION: &str = "2023-06-01";
/// The tool through which it is made to answer as a JSON schema wants.
const ANSWER: &str = "answer_as_json";
