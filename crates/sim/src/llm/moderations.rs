//! `POST /v1/moderations`: what names something bad is flagged for it.

use axum::Json;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::messages::Dialect;
use super::refusal::{self, Error};
use super::wire;
use crate::faults::Knobs;

/// Each category, and the words that bring a text into it.
const CATEGORIES: &[(&str, &[&str])] = &[
    ("harassment", &["idiot", "moron"]),
    ("hate", &["hateful"]),
    ("illicit", &["counterfeit"]),
    ("self-harm", &["suicide", "self-harm"]),
    ("sexual", &["porn"]),
    ("violence", &["murder", "kill you"]),
];

pub async fn moderations(headers: HeaderMap, body: Bytes) -> Result<Response, Error> {
    refusal::key(&headers)?;
    let body: Value = serde_json::from_slice(&body).map_err(|_| {
        let message = "We could not parse the JSON body of your request.";
        Error::invalid("body", "invalid_json", message)
    })?;
    let model = body["model"].as_str().unwrap_or("omni-moderation-latest");
    let knobs = Knobs::of_model(model).ok_or_else(|| Error::unknown_model(model))?;
    let inputs = match &body["input"] {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items
            .iter()
            .filter_map(|item| item.as_str().or(item["text"].as_str()))
            .map(String::from)
            .collect(),
        _ => {
            let message = "Missing required parameter: 'input'.";
            return Err(Error::invalid(
                "input",
                "missing_required_parameter",
                message,
            ));
        }
    };

    tokio::time::sleep(knobs.slow).await;
    if knobs.hang {
        std::future::pending::<()>().await;
    }
    if let Some(refusal) = knobs.refusal {
        return Ok(refusal.response(Dialect::OpenAi));
    }
    let results: Vec<_> = inputs.iter().map(|text| judged(text)).collect();
    let id = format!("modr-{}", Uuid::new_v4().simple());
    let answer = json!({"id": id, "model": model, "results": results});
    Ok((wire::headers(), Json(answer)).into_response())
}

fn judged(text: &str) -> Value {
    let text = text.to_lowercase();
    let in_category = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let categories = CATEGORIES
        .iter()
        .map(|(name, words)| ((*name).to_owned(), in_category(words)));
    let categories: Vec<_> = categories.collect();
    let flagged = categories.iter().any(|(_, is)| *is);
    let scores = categories
        .iter()
        .map(|(name, is)| (name.clone(), json!(if *is { 0.98 } else { 0.001 })));
    let scores: Map<_, _> = scores.collect();
    let categories: Map<_, _> = categories
        .into_iter()
        .map(|(name, is)| (name, is.into()))
        .collect();
    json!({"flagged": flagged, "categories": categories, "category_scores": scores})
}
