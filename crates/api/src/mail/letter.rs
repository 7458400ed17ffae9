//! What mails say, and how they look. Every word is in `templates/`, in one file a language; a mail's
//! text and its HTML are made of the same words, so that neither says less than the other.
use super::Locale;
use anyhow::Context;
use chrono::Datelike;
use minijinja::{Environment, UndefinedBehavior, context, value::Serde};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::HashMap;

const HTML: &str = include_str!("templates/mail.html");

/// A mail, written.
#[derive(Debug)]
pub struct Letter {
    pub subject: String,
    pub text: String,
    pub html: String,
}

/// Everything that mails say, in each language.
pub struct Templates {
    environment: Environment<'static>,
    words: Vec<(Locale, Words)>,
}

/// Of one language; `{{ … }}` are facts of the mail.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    every: Every,
    mails: HashMap<String, Said>,
}

/// What every mail says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Every {
    /// Before a link in letters, which is also a button.
    link: String,
    /// At the end.
    foot: String,
}

/// What one kind of mail says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    subject: String,
    title: String,
    /// Paragraphs in front of the code and the link.
    before: Vec<String>,
    /// What the link does.
    #[serde(default)]
    button: String,
    /// Paragraphs behind them.
    after: Vec<String>,
}

impl Templates {
    pub fn load() -> anyhow::Result<Self> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.add_template("mail.html", HTML)?;
        environment.add_filter("day", day);
        let read = |locale| -> anyhow::Result<_> {
            let words = match locale {
                Locale::En => include_str!("templates/en.toml"),
                Locale::De => include_str!("templates/de.toml"),
            };
            Ok((locale, toml::from_str(words).context(locale.tag())?))
        };
        Ok(Self {
            environment,
            words: Locale::ALL
                .into_iter()
                .map(read)
                .collect::<Result<_, _>>()?,
        })
    }

    /// Writes a mail of this kind. `facts` are plain text: what HTML needs escaped is escaped here.
    pub fn write(
        &self,
        kind: &str,
        locale: Locale,
        facts: &Map<String, Value>,
    ) -> anyhow::Result<Letter> {
        let (_, words) = self
            .words
            .iter()
            .find(|(other, _)| *other == locale)
            .context("a language without words")?;
        let said = words.mails.get(kind);
        let said = said.with_context(|| format!("no words for {kind}"))?;
        let told = minijinja::Value::from(Serde(facts));
        let fill = |text: &String| self.environment.render_str(text, told.clone());
        let fill_all = |texts: &[String]| texts.iter().map(fill).collect::<Result<Vec<_>, _>>();
        let fact = |name| facts.get(name).and_then(Value::as_str);
        let (code, link) = (fact("code"), fact("link"));
        let (title, foot) = (fill(&said.title)?, fill(&words.every.foot)?);
        let (before, after) = (fill_all(&said.before)?, fill_all(&said.after)?);

        let mut text = vec![title.clone()];
        text.extend(before.iter().cloned());
        text.extend(code.map(|code| format!("    {code}")));
        text.extend(link.map(|link| format!("{}:\n{link}", said.button)));
        text.extend(after.iter().cloned());
        text.push(format!("-- \n{foot}"));
        let html = context! {
            locale => locale.tag(), button => said.button.as_str(), link_words => words.every.link.as_str(),
            title, before, code, link, after, foot, ..told.clone()
        };
        Ok(Letter {
            subject: fill(&said.subject)?,
            text: text.join("\n\n") + "\n",
            html: self.environment.get_template("mail.html")?.render(html)?,
        })
    }
}

const MONATE: [&str; 12] = [
    "Januar",
    "Februar",
    "März",
    "April",
    "Mai",
    "Juni",
    "Juli",
    "August",
    "September",
    "Oktober",
    "November",
    "Dezember",
];

/// A day as it is written in a language: `{{ until | day('de') }}`. What is no day stays as it is.
fn day(text: String, language: &str) -> String {
    let Ok(day) = text.parse::<chrono::NaiveDate>() else {
        return text;
    };
    match language {
        "de" => format!(
            "{}. {} {}",
            day.day(),
            MONATE[day.month0() as usize],
            day.year()
        ),
        _ => day.format("%-d %B %Y").to_string(),
    }
}

#[cfg(test)]
impl Templates {
    /// The kinds of mail that have words in this language.
    pub fn kinds(&self, locale: Locale) -> impl Iterator<Item = &str> {
        let (_, words) = self
            .words
            .iter()
            .find(|(other, _)| *other == locale)
            .unwrap();
        words.mails.keys().map(String::as_str)
    }

    /// The facts that the words of a mail name.
    pub fn facts_named(&self, kind: &str, locale: Locale) -> std::collections::BTreeSet<String> {
        let (_, words) = self
            .words
            .iter()
            .find(|(other, _)| *other == locale)
            .unwrap();
        let said = &words.mails[kind];
        let all = [&said.subject, &said.title, &words.every.foot];
        let all = all.into_iter().chain(&said.before).chain(&said.after);
        all.flat_map(|text| {
            self.environment
                .template_from_str(text)
                .unwrap()
                .undeclared_variables(false)
        })
        .collect()
    }
}
