use serde::{Deserialize, Serialize};

/// A language that mails are written in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Locale {
    #[default]
    En,
    De,
}

impl Locale {
    pub const ALL: [Self; 2] = [Self::En, Self::De];

    /// RFC 5646.
    pub fn tag(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::De => "de",
        }
    }

    /// That of a tag, wherever it is spoken: `de`, `de-AT`, `de_CH`.
    pub fn of(tag: &str) -> Option<Self> {
        let language = tag.split(['-', '_']).next().unwrap_or_default();
        let is = |locale: &Self| locale.tag().eq_ignore_ascii_case(language);
        Self::ALL.into_iter().find(is)
    }

    /// The one that a browser likes best of those we write, RFC 9110, section 12.5.4.
    pub fn accepted(header: &str) -> Option<Self> {
        let weighed = |range: &str| {
            let (tag, weight) = range.split_once(';').unwrap_or((range, "q=1"));
            let weight: f32 = weight.trim().strip_prefix("q=")?.parse().ok()?;
            Some((weight, Self::of(tag.trim())?))
        };
        let ranges = header.split(',').filter_map(weighed);
        let mut liked: Vec<_> = ranges.filter(|(weight, _)| *weight > 0.0).collect();
        liked.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        liked.first().map(|(_, locale)| *locale)
    }
}
