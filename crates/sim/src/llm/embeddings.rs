//! `POST /v1/embeddings`: texts that share words lie near each other, so that a search over them
//! finds something.

use axum::Json;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use super::messages::Dialect;
use super::refusal::{self, Error};
use super::tokens;
use super::wire;
use crate::dice::Dice;
use crate::faults::Knobs;

const DIMENSIONS: u64 = 1536;
const MAX_DIMENSIONS: u64 = 4096;
const MAX_INPUTS: usize = 2048;

pub async fn embeddings(headers: HeaderMap, body: Bytes) -> Result<Response, Error> {
    refusal::key(&headers)?;
    let body: Value = serde_json::from_slice(&body).map_err(|_| {
        let message = "We could not parse the JSON body of your request.";
        Error::invalid("body", "invalid_json", message)
    })?;
    let model = body["model"].as_str().unwrap_or("sim");
    let knobs = Knobs::of_model(model).ok_or_else(|| Error::unknown_model(model))?;
    let inputs = inputs(&body["input"])?;
    let dimensions = match &body["dimensions"] {
        Value::Null => DIMENSIONS,
        value => value
            .as_u64()
            .filter(|n| (1..=MAX_DIMENSIONS).contains(n))
            .ok_or_else(|| {
                let message = format!("Invalid 'dimensions': expected 1 to {MAX_DIMENSIONS}.");
                Error::invalid("dimensions", "invalid_value", message)
            })?,
    };

    tokio::time::sleep(knobs.slow).await;
    if knobs.hang {
        std::future::pending::<()>().await;
    }
    if let Some(refusal) = knobs.refusal {
        return Ok(refusal.response(Dialect::OpenAi));
    }
    let base64 = body["encoding_format"] == "base64";
    let encode = |(index, text): (usize, &String)| {
        let vector = vector(text, dimensions as usize);
        let embedding = if base64 {
            let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
            json!(STANDARD.encode(bytes))
        } else {
            json!(vector)
        };
        json!({"object": "embedding", "index": index, "embedding": embedding})
    };
    let data: Vec<_> = inputs.iter().enumerate().map(encode).collect();
    let tokens: usize = inputs.iter().map(|text| tokens::count(text)).sum();
    let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    let answer = json!({"object": "list", "data": data, "model": model, "usage": usage});
    Ok((wire::headers(), Json(answer)).into_response())
}

/// A text, texts, tokens, or lists of tokens.
fn inputs(input: &Value) -> Result<Vec<String>, Error> {
    let inputs = match input {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) if items.first().is_some_and(Value::is_number) => {
            vec![input.to_string()]
        }
        Value::Array(items) => {
            let texts = items
                .iter()
                .map(|item| item.as_str().map_or_else(|| item.to_string(), String::from));
            texts.collect()
        }
        _ => {
            let message = "Missing required parameter: 'input'.";
            return Err(Error::invalid(
                "input",
                "missing_required_parameter",
                message,
            ));
        }
    };
    if inputs.is_empty() || inputs.len() > MAX_INPUTS || inputs.iter().any(String::is_empty) {
        let message = "Invalid 'input': expected 1 to 2048 texts, none of them empty.";
        return Err(Error::invalid("input", "invalid_value", message));
    }
    Ok(inputs)
}

/// The sum of one direction a word, of length 1.
fn vector(text: &str, dimensions: usize) -> Vec<f32> {
    let mut sum = vec![0.0_f32; dimensions];
    let words = text.to_lowercase();
    let words = words
        .split(|char: char| !char.is_alphanumeric())
        .filter(|word| !word.is_empty());
    // The text itself counts a little: no two texts are quite the same, and none is without direction.
    let parts = words.map(|word| (word, 1.0)).chain([(text, 0.1)]);
    for (part, weight) in parts {
        let mut dice = Dice::of(part);
        sum.iter_mut().for_each(|x| *x += weight * dice.signed());
    }
    let length = sum
        .iter()
        .map(|x| x * x)
        .sum::<f32>()
        .sqrt()
        .max(f32::MIN_POSITIVE);
    sum.iter().map(|x| x / length).collect()
}
