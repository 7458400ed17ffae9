//! The recorded bodies and vectors in `tests/fixtures`.

use std::{fs, path::PathBuf};

use serde_json::Value;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// The bytes of one fixture, as `stripe/legacy--customer.deleted.json`.
pub fn body(file: &str) -> Vec<u8> {
    fs::read(folder().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

pub fn json(file: &str) -> Value {
    serde_json::from_slice(&body(file)).unwrap()
}

/// The events that a provider's `_index.json` lists, with `file` as a path for [`body`].
pub fn index(provider: &str) -> Vec<Value> {
    let mut index = json(&format!("{provider}/_index.json"));
    let mut events = index["events"].as_array_mut().unwrap().split_off(0);
    for event in &mut events {
        event["file"] = format!("{provider}/{}", text(event, "file")).into();
    }
    events
}

pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key]
        .as_str()
        .unwrap_or_else(|| panic!("{key} of {value}"))
}
