//! What can be printed from the declaration is printed from it.
use super::{Config, Problem, Secret};
use clap::{Arg, CommandFactory};
use std::{any::TypeId, collections::HashMap, fmt::Write};

/// The variable's name, then its aliases.
pub fn names(arg: &Arg) -> Vec<String> {
    let aliases = arg.get_visible_aliases().unwrap_or_default();
    arg.get_long()
        .into_iter()
        .chain(aliases)
        .map(variable)
        .collect()
}

fn variable(long: &str) -> String {
    long.to_uppercase().replace('-', "_")
}

pub fn is_secret(arg: &Arg) -> bool {
    let secret = arg.get_value_parser().type_id() == TypeId::of::<Secret>();
    // A database URL holds a password.
    secret || arg.get_value_parser().type_id() == TypeId::of::<db::DatabaseUrl>()
}

fn default(arg: &Arg) -> String {
    let values = arg.get_default_values().iter();
    values
        .map(|value| value.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(",")
}

fn sections() -> Vec<(String, Vec<Arg>)> {
    let mut sections: Vec<(String, Vec<Arg>)> = vec![];
    for arg in Config::command().get_arguments() {
        let heading = arg.get_help_heading().unwrap_or_default();
        match sections.last_mut() {
            Some((last, args)) if last == heading => args.push(arg.clone()),
            _ => sections.push((heading.to_owned(), vec![arg.clone()])),
        }
    }
    sections
}

fn help(arg: &Arg) -> String {
    arg.get_help().map(ToString::to_string).unwrap_or_default()
}

pub fn dotenv() -> String {
    let mut out = String::from(
        "# Every variable Plinth reads. Nothing here has to be set for development: `cargo run` works as it is.\n\
         # Each may also be given as NAME_FILE, the path of a file that holds the value.\n\
         # Generated from the code by `plinth accept`; see what is in force with `plinth config`.\n",
    );
    for (heading, args) in sections() {
        let _ = write!(out, "\n# --- {heading}\n");
        for arg in args {
            let _ = write!(out, "\n# {}\n", help(&arg));
            if let [_, aliases @ ..] = names(&arg).as_slice()
                && !aliases.is_empty()
            {
                let _ = writeln!(out, "# Also: {}", aliases.join(", "));
            }
            let _ = writeln!(out, "#{}={}", names(&arg)[0], default(&arg));
        }
    }
    out
}

pub fn markdown() -> String {
    let mut out = String::new();
    for (heading, args) in sections() {
        let _ = write!(
            out,
            "\n### {heading}\n\n| variable | default | what it does |\n|---|---|---|\n"
        );
        for arg in args {
            let [name, aliases @ ..] = &*names(&arg) else {
                continue;
            };
            let also = aliases
                .iter()
                .map(|alias| format!("<br>`{alias}`"))
                .collect::<String>();
            let default = Some(default(&arg))
                .filter(|d| !d.is_empty())
                .map(|d| format!("`{d}`"))
                .unwrap_or_default();
            let _ = writeln!(
                out,
                "| `{name}`{also} | {default} | {} |",
                help(&arg).replace('|', "\\|")
            );
        }
    }
    out
}

/// Variables that nothing reads, but whose name is nearly one of ours.
pub fn misspelt(env: &HashMap<String, String>) -> Vec<Problem> {
    let known: Vec<String> = Config::command().get_arguments().flat_map(names).collect();
    let mut strange: Vec<&String> = env
        .keys()
        .filter(|name| name.len() >= 8 && !known.contains(name) && !name.ends_with("_FILE"))
        .collect();
    strange.sort();
    let near = |name: &String| {
        known
            .iter()
            .find(|ours| ours.len() >= 8 && strsim::damerau_levenshtein(ours, name) == 1)
    };
    strange
        .into_iter()
        .filter_map(|name| near(name).map(|ours| (name, ours)))
        .map(|(name, ours)| {
            Problem::new(
                name,
                "is not read by anything",
                format!("Did you mean {ours}?"),
            )
        })
        .collect()
}
