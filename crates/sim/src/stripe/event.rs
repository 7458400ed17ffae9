//! What happened: a snapshot of what it happened to, shown in any version, and what it was before.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::state::{Show, thing};
use super::version::Version;

#[derive(Clone)]
pub struct Event {
    pub id: String,
    pub created: i64,
    pub kind: String,
    cause: Option<Cause>,
    object: Arc<dyn Show>,
    before: Option<Arc<dyn Show>>,
    /// How many endpoints have yet to take it, at the time of showing.
    untaken: usize,
}

/// The request that caused it.
#[derive(Debug, Clone)]
pub struct Cause {
    pub request: String,
    pub idempotency_key: Option<String>,
}

thing!(Event, "event", events);

impl Event {
    pub fn new(
        kind: &str,
        at: i64,
        cause: Option<Cause>,
        object: impl Show + 'static,
        before: Option<Box<dyn Show>>,
    ) -> Self {
        Self {
            id: crate::dice::fresh("evt", 24),
            created: at,
            kind: kind.to_owned(),
            cause,
            object: Arc::new(object),
            before: before.map(Arc::from),
            untaken: 0,
        }
    }

    /// Which so many endpoints have yet to take.
    pub fn awaited(&self, untaken: usize) -> Self {
        Self {
            untaken,
            ..self.clone()
        }
    }

    /// The same, told once more.
    pub fn twin(&self) -> Self {
        Self {
            id: crate::dice::fresh("evt", 24),
            ..self.clone()
        }
    }

    /// Of what the event is about.
    pub fn object_id(&self) -> String {
        let shown = self.object.show(&Version::newest());
        shown["id"].as_str().unwrap_or_default().to_owned()
    }
}

impl Show for Event {
    fn show(&self, version: &Version) -> Value {
        let object = self.object.show(version);
        let previous = self
            .before
            .as_ref()
            .map(|before| previous(&before.show(version), &object));
        let mut data = json!({ "object": object });
        if let Some(previous) = previous {
            data["previous_attributes"] = previous.into();
        }
        let cause = self.cause.as_ref();
        json!({
            "id": self.id,
            "object": "event",
            "api_version": version.name(),
            "created": self.created,
            "data": data,
            "livemode": false,
            "pending_webhooks": self.untaken,
            "request": {
                "id": cause.map(|cause| &cause.request),
                "idempotency_key": cause.and_then(|cause| cause.idempotency_key.as_ref()),
            },
            "type": self.kind,
        })
    }
}

/// The members that changed, as they were; of a list the whole of it.
fn previous(before: &Value, after: &Value) -> Map<String, Value> {
    let Some(before) = before.as_object() else {
        return Map::new();
    };
    let mut changed = Map::new();
    for (name, was) in before {
        let is = &after[name];
        if was == is {
            continue;
        }
        let was = if was.is_object() && is.is_object() {
            previous(was, is).into()
        } else {
            was.clone()
        };
        changed.insert(name.clone(), was);
    }
    // What is new was null: metadata gains keys.
    for name in after
        .as_object()
        .into_iter()
        .flat_map(Map::keys)
        .filter(|name| !before.contains_key(*name))
    {
        changed.insert(name.clone(), Value::Null);
    }
    changed
}
