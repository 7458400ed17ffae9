//! Forms with brackets in their names, as Stripe's SDKs send them: `items[0][price]=price_pro`.

use serde_json::{Map, Value};

use super::refusal::{Refusal, Result};

pub type Metadata = Map<String, Value>;

/// Parameters, or those within one of them. Every value is a text.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Params {
    /// The name of what these are within.
    within: String,
    tree: Map<String, Value>,
}

/// More is an attack rather than a form.
const MAX_INDEX: usize = 100;

impl Params {
    pub fn parse(encoded: &[u8]) -> Self {
        let mut tree = Value::Object(Map::new());
        for (name, value) in form_urlencoded::parse(encoded) {
            let path: Vec<_> = name
                .split('[')
                .map(|part| part.trim_end_matches(']'))
                .collect();
            put(&mut tree, &path, &value);
        }
        let Value::Object(tree) = tree else {
            return Self::default();
        };
        Self {
            within: String::new(),
            tree,
        }
    }

    /// These and those.
    pub fn and(mut self, more: Self) -> Self {
        self.tree.extend(more.tree);
        self
    }

    /// Refuses any other parameter.
    pub fn only(&self, known: &[&str]) -> Result<()> {
        let unknown = |name: &&String| !known.contains(&name.as_str()) && *name != "expand";
        match self.tree.keys().find(unknown) {
            Some(name) => Err(Refusal::unknown(&self.name(name))),
            None => Ok(()),
        }
    }

    /// `None` when absent or unset.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.tree
            .get(name)?
            .as_str()
            .filter(|text| !text.is_empty())
    }

    pub fn owned(&self, name: &str) -> Option<String> {
        self.text(name).map(str::to_owned)
    }

    pub fn required(&self, name: &str) -> Result<&str> {
        self.text(name)
            .ok_or_else(|| Refusal::missing(&self.name(name)))
    }

    /// One of these words.
    pub fn word(&self, name: &str, words: &[&'static str]) -> Result<Option<&'static str>> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let word = words.iter().find(|word| **word == text);
        let refusal = || {
            Refusal::invalid(
                &self.name(name),
                format!(
                    "Invalid {}: must be one of {}",
                    self.name(name),
                    words.join(", or ")
                ),
            )
        };
        word.copied().map(Some).ok_or_else(refusal)
    }

    pub fn has(&self, name: &str) -> bool {
        self.tree.contains_key(name)
    }

    /// Sent as an empty text, which takes a value away.
    pub fn is_unset(&self, name: &str) -> bool {
        self.tree.get(name).and_then(Value::as_str) == Some("")
    }

    pub fn int(&self, name: &str) -> Result<Option<i64>> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let refusal = |_| Refusal::invalid(&self.name(name), format!("Invalid integer: {text}"));
        text.parse().map(Some).map_err(refusal)
    }

    pub fn flag(&self, name: &str) -> Result<Option<bool>> {
        match self.text(name) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(other) => Err(Refusal::invalid(
                &self.name(name),
                format!("Invalid boolean: {other}"),
            )),
        }
    }

    /// What is within a parameter; nothing when it is absent.
    pub fn inside(&self, name: &str) -> Self {
        let tree = self.tree.get(name).and_then(Value::as_object).cloned();
        Self {
            within: self.name(name),
            tree: tree.unwrap_or_default(),
        }
    }

    pub fn each(&self, name: &str) -> Vec<Self> {
        let values = self.tree.get(name).and_then(Value::as_array);
        let trees = values.into_iter().flatten().enumerate();
        trees
            .map(|(at, value)| Self {
                within: format!("{}[{at}]", self.name(name)),
                tree: value.as_object().cloned().unwrap_or_default(),
            })
            .collect()
    }

    pub fn texts(&self, name: &str) -> Vec<String> {
        let values = self.tree.get(name).and_then(Value::as_array);
        let texts = values.into_iter().flatten().filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    }

    /// Puts `metadata` over what is there; an empty value takes its key away.
    pub fn merge_metadata(&self, metadata: &mut Metadata) {
        if self.is_unset("metadata") {
            metadata.clear();
        }
        for (key, value) in self.inside("metadata").tree {
            if value == "" {
                metadata.remove(&key);
            } else {
                metadata.insert(key, value);
            }
        }
    }

    pub fn metadata(&self) -> Metadata {
        let mut metadata = Metadata::new();
        self.merge_metadata(&mut metadata);
        metadata
    }

    /// As JSON, with booleans for their words.
    pub fn json(&self) -> Value {
        fn typed(value: &Value) -> Value {
            match value {
                Value::Object(tree) => tree
                    .iter()
                    .map(|(key, value)| (key.clone(), typed(value)))
                    .collect(),
                Value::Array(values) => values.iter().map(typed).collect(),
                Value::String(text) if text == "true" => true.into(),
                Value::String(text) if text == "false" => false.into(),
                other => other.clone(),
            }
        }
        typed(&Value::Object(self.tree.clone()))
    }

    pub fn name(&self, name: &str) -> String {
        if self.within.is_empty() {
            name.to_owned()
        } else {
            format!("{}[{name}]", self.within)
        }
    }
}

/// Into arrays for `[]` and numbers, into objects for names.
fn put(node: &mut Value, path: &[&str], text: &str) {
    let Some((first, rest)) = path.split_first() else {
        *node = text.into();
        return;
    };
    let index = if first.is_empty() {
        Some(usize::MAX)
    } else {
        first.parse::<usize>().ok()
    };
    match index {
        Some(index) => {
            if !node.is_array() {
                *node = Value::Array(vec![]);
            }
            let Value::Array(values) = node else { return };
            let index = index.min(values.len()).min(MAX_INDEX);
            if index == values.len() {
                values.push(Value::Null);
            }
            put(&mut values[index], rest, text);
        }
        None => {
            if !node.is_object() {
                *node = Value::Object(Map::new());
            }
            put(&mut node[*first], rest, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_make_a_tree() {
        let form = b"a=1&items[0][price]=p&items[0][quantity]=2&items[1][id]=si&expand[]=x&expand[]=y.z&metadata[k]=v%26w&created[gte]=3&off=";
        let params = Params::parse(form);

        assert_eq!(params.text("a"), Some("1"));
        let items = params.each("items");
        assert_eq!(
            (
                items[0].text("price"),
                items[0].int("quantity"),
                items[1].text("id")
            ),
            (Some("p"), Ok(Some(2)), Some("si"))
        );
        assert_eq!(params.texts("expand"), ["x", "y.z"]);
        assert_eq!(params.metadata()["k"], "v&w");
        assert_eq!(params.inside("created").int("gte"), Ok(Some(3)));
        assert!(params.is_unset("off") && params.text("off").is_none());
    }

    #[test]
    fn a_refusal_names_the_parameter_as_it_was_sent() {
        let params = Params::parse(b"items[0][quantity]=two");

        let refusal = params.each("items")[0].int("quantity").unwrap_err();

        assert_eq!(refusal.body("req")["error"]["param"], "items[0][quantity]");
    }
}
