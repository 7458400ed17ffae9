//! The smallest value a JSON schema allows.

use serde_json::{Map, Value, json};

/// Strings are a few words of `about`, as far as the schema leaves them free.
pub fn instance(schema: &Value, about: &str) -> Value {
    Instance {
        root: schema,
        about,
    }
    .of(schema, 0)
}

struct Instance<'a> {
    root: &'a Value,
    about: &'a str,
}

/// Below it a recursive schema is cut with null.
const MAX_DEPTH: usize = 16;
const MAX_ITEMS: u64 = 100;
const MAX_CHARS: u64 = 10_000;

impl Instance<'_> {
    fn of(&self, schema: &Value, depth: usize) -> Value {
        if depth > MAX_DEPTH {
            return Value::Null;
        }
        for fixed in ["const", "default"] {
            if let Some(value) = schema.get(fixed) {
                return value.clone();
            }
        }
        if let Some(value) = schema["enum"].get(0) {
            return value.clone();
        }
        if let Some(target) = schema["$ref"].as_str() {
            let pointer = target.trim_start_matches('#');
            let target = self.root.pointer(pointer).unwrap_or(&Value::Null);
            return self.of(target, depth + 1);
        }
        for choice in ["anyOf", "oneOf"] {
            if let Some(choices) = schema[choice].as_array() {
                let real = choices.iter().find(|choice| choice["type"] != "null");
                return real.map_or(Value::Null, |choice| self.of(choice, depth + 1));
            }
        }
        if let Some(all) = schema["allOf"].as_array() {
            let parts = all.iter().map(|part| self.of(part, depth + 1));
            return parts.fold(self.object(schema, depth), merged);
        }
        match kind(schema) {
            "object" => self.object(schema, depth),
            "array" => {
                let count = schema["minItems"].as_u64().unwrap_or(0).min(MAX_ITEMS);
                (0..count)
                    .map(|_| self.of(&schema["items"], depth + 1))
                    .collect()
            }
            "string" => self.string(schema).into(),
            "integer" => json!(least(schema, true) as i64),
            "number" => json!(least(schema, false)),
            "boolean" => json!(false),
            _ => Value::Null,
        }
    }

    /// Required properties only.
    fn object(&self, schema: &Value, depth: usize) -> Value {
        let required = schema["required"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let names = required.iter().filter_map(Value::as_str);
        let properties = names.map(|name| {
            (
                name.to_owned(),
                self.of(&schema["properties"][name], depth + 1),
            )
        });
        Value::Object(properties.collect::<Map<_, _>>())
    }

    fn string(&self, schema: &Value) -> String {
        match schema["format"].as_str() {
            Some("date-time") => return "2027-01-01T09:00:00Z".to_owned(),
            Some("date") => return "2027-01-01".to_owned(),
            Some("time") => return "09:00:00Z".to_owned(),
            Some("duration") => return "P1D".to_owned(),
            Some("email") => return "ann@example.com".to_owned(),
            Some("uuid") => return "8c1d1d7e-5f0a-4a53-9b5e-0c2a7a4f3b11".to_owned(),
            Some("uri") => return "https://example.com".to_owned(),
            Some("hostname") => return "example.com".to_owned(),
            Some("ipv4") => return "192.0.2.1".to_owned(),
            Some("ipv6") => return "2001:db8::1".to_owned(),
            _ => {}
        }
        let words = super::prose::quote(self.about).unwrap_or_else(|| "something".to_owned());
        let least = schema["minLength"].as_u64().unwrap_or(0).min(MAX_CHARS) as usize;
        let most = schema["maxLength"]
            .as_u64()
            .unwrap_or(MAX_CHARS)
            .min(MAX_CHARS) as usize;
        let padded = words.chars().chain(std::iter::repeat_n('.', least));
        padded
            .take(words.chars().count().max(least).min(most))
            .collect()
    }
}

fn kind(schema: &Value) -> &str {
    match &schema["type"] {
        Value::String(kind) => kind,
        Value::Array(kinds) => {
            let mut kinds = kinds.iter().filter_map(Value::as_str);
            kinds.find(|kind| *kind != "null").unwrap_or("null")
        }
        _ if schema.get("properties").is_some() => "object",
        _ if schema.get("items").is_some() => "array",
        _ if schema.is_object() => "string",
        _ => "null",
    }
}

/// 1 where the schema has nothing against it.
fn least(schema: &Value, integer: bool) -> f64 {
    let bound = |name: &str| schema[name].as_f64();
    let high = bound("maximum").or(bound("exclusiveMaximum").map(|high| high - 1.0));
    let step = bound("multipleOf").filter(|step| *step > 0.0);
    let step = step.or(integer.then_some(1.0));

    let above = |low: f64| match high {
        Some(high) if !integer => f64::midpoint(low, high),
        _ => low.floor() + 1.0,
    };
    let low = bound("minimum").or(bound("exclusiveMinimum").map(above));
    let value = low.unwrap_or_else(|| high.map_or(1.0, |high| high.min(1.0)));
    step.map_or(value, |step| (value / step).ceil() * step)
}

fn merged(mut into: Value, part: Value) -> Value {
    match (&mut into, part) {
        (Value::Object(into), Value::Object(part)) => into.extend(part),
        (into, part) if into.as_object().is_some_and(Map::is_empty) => *into = part,
        _ => {}
    }
    into
}
