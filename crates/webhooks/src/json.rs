//! Reading the JSON of a provider: members we do not know are skipped, members we read have the
//! documented type or the whole body is refused. An error names the member, never its value.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::Unreadable;

pub(crate) type Result<T> = std::result::Result<T, Unreadable>;

/// The JSON of `body`. Refuses an object that has a key twice: parsers disagree on which one
/// counts, so what we act on might not be what another part of the system saw. Nesting is bounded
/// by serde_json (128).
pub(crate) fn parse(body: &[u8]) -> Result<Value> {
    // Two passes, because serde_json silently keeps the last of two equal keys.
    serde_json::from_slice::<UniqueKeys>(body)
        .and_then(|_| serde_json::from_slice(body))
        .map_err(|e| Unreadable(format!("it is not JSON: {e}")))
}

/// An object of the body that knows where it stands. An object that is absent or null reads as
/// one without members.
pub(crate) struct Object<'a> {
    path: String,
    members: Option<&'a Map<String, Value>>,
}

impl<'a> Object<'a> {
    /// The whole body.
    pub fn root(body: &'a Value) -> Result<Self> {
        let members = body
            .as_object()
            .ok_or_else(|| Unreadable("it is not an object".into()))?;
        Ok(Self {
            path: String::new(),
            members: Some(members),
        })
    }

    /// Whether the member was sent, even as null.
    pub fn has(&self, key: &str) -> bool {
        self.members
            .is_some_and(|members| members.contains_key(key))
    }

    /// The names of its members.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.members
            .into_iter()
            .flat_map(|members| members.keys().map(String::as_str))
    }

    /// A member that has to be there, read by `get`: `o.required("id", Object::text)`.
    pub fn required<T>(
        &self,
        key: &str,
        get: impl FnOnce(&Self, &str) -> Result<Option<T>>,
    ) -> Result<T> {
        get(self, key)?.ok_or_else(|| Unreadable(format!("{} is missing", self.path_of(key))))
    }

    /// A text; an empty one counts as absent.
    pub fn text(&self, key: &str) -> Result<Option<String>> {
        let text = self.get(key, "a text", Value::as_str)?;
        Ok(text.filter(|text| !text.is_empty()).map(str::to_owned))
    }

    /// A whole number.
    pub fn int(&self, key: &str) -> Result<Option<i64>> {
        self.get(key, "a whole number", Value::as_i64)
    }

    /// Any number.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        self.get(key, "a number", Value::as_f64)
    }

    /// True or false.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.get(key, "true or false", Value::as_bool)
    }

    /// An inner object, without members when it is absent or null.
    pub fn object(&self, key: &str) -> Result<Object<'a>> {
        Ok(Object {
            path: self.path_of(key),
            members: self.get(key, "an object", Value::as_object)?,
        })
    }

    /// An inner object that has to be there.
    pub fn required_object(&self, key: &str) -> Result<Object<'a>> {
        let object = self.object(key)?;
        self.required(key, |_, _| Ok(object.members.is_some().then_some(object)))
    }

    /// The objects of an array; none when it is absent or null.
    pub fn objects(&self, key: &str) -> Result<Vec<Object<'a>>> {
        let path = self.path_of(key);
        self.array(key)?
            .unwrap_or_default()
            .iter()
            .enumerate()
            .map(|(i, value)| match value.as_object() {
                Some(members) => Ok(Object {
                    path: format!("{path}[{i}]"),
                    members: Some(members),
                }),
                None => Err(Unreadable(format!("{path}[{i}] has to be an object"))),
            })
            .collect()
    }

    /// The texts of an array.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<String>>> {
        let Some(values) = self.array(key)? else {
            return Ok(None);
        };
        values
            .iter()
            .map(|value| value.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .map(Some)
            .ok_or_else(|| self.wrong(key, "an array of texts"))
    }

    /// All members, when each is a text.
    pub fn into_texts(self) -> Result<BTreeMap<String, String>> {
        let mut texts = BTreeMap::new();
        for (key, value) in self.members.into_iter().flatten() {
            let Some(text) = value.as_str() else {
                return Err(Unreadable(format!("{} has to hold only texts", self.path)));
            };
            texts.insert(key.clone(), text.to_owned());
        }
        Ok(texts)
    }

    /// The id of another object, which may be sent as the id or as the object that has it
    /// (<https://docs.stripe.com/api/expanding_objects>).
    pub fn id(&self, key: &str) -> Result<Option<String>> {
        match self.members.and_then(|members| members.get(key)) {
            Some(Value::Object(_)) => self.object(key)?.required("id", Object::text).map(Some),
            _ => self.text(key),
        }
    }

    fn array(&self, key: &str) -> Result<Option<&'a [Value]>> {
        self.get(key, "an array", |value| value.as_array().map(Vec::as_slice))
    }

    fn get<T>(
        &self,
        key: &str,
        wanted: &str,
        as_wanted: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.members.and_then(|members| members.get(key)) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match as_wanted(value) {
                Some(value) => Ok(Some(value)),
                None => Err(self.wrong(key, wanted)),
            },
        }
    }

    fn wrong(&self, key: &str, wanted: &str) -> Unreadable {
        Unreadable(format!("{} has to be {wanted}", self.path_of(key)))
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }
}

/// Any JSON in which no object has a key twice. Carries nothing.
struct UniqueKeys;

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for UniqueKeys {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self, A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            map.next_value::<Self>()?;
            if !keys.insert(key) {
                return Err(A::Error::custom("an object has a key twice"));
            }
        }
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Self, A::Error> {
        while seq.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_unit<E>(self) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> std::result::Result<Self, E> {
        Ok(self)
    }
}
