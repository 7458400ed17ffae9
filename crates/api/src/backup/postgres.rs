//! PostgreSQL's own tools, which know its every corner: `pg_dump` and `pg_restore`.
use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use db::backup::Ran;
use std::{
    io,
    path::Path,
    process::{Output, Stdio},
};
use tokio::{
    io::AsyncReadExt,
    process::{Child, Command},
    sync::mpsc::Sender,
};

pub const DUMP: &str = "pg_dump";
pub const RESTORE: &str = "pg_restore";

/// What libpq understands of a URL's parameters; sqlx has some of its own.
const LIBPQ: [&str; 10] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslnegotiation",
    "channel_binding",
    "connect_timeout",
    "options",
    "target_session_attrs",
    "host",
];
const CHUNK: usize = 256 * 1024;

/// The major version of a tool of this machine.
pub fn major(tool: &str) -> anyhow::Result<u32> {
    let said = std::process::Command::new(tool).arg("--version").output();
    let said = match said {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            bail!("{tool} is not here: install postgresql-client, of the server's version or newer")
        }
        said => said.with_context(|| format!("{tool} cannot be run"))?,
    };
    let text = String::from_utf8_lossy(&said.stdout);
    let number = text.split_whitespace().find_map(|word| {
        let digits = word.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    });
    number.with_context(|| format!("{tool} does not say which version it is"))
}

/// A tool older than the server would refuse at night, or leave out what it does not know.
pub fn fits(tool: &str, server: u32) -> anyhow::Result<()> {
    let here = major(tool)?;
    ensure!(
        here >= server,
        "{tool} is of PostgreSQL {here}, the server of {server}: install postgresql-client-{server} or newer"
    );
    Ok(())
}

/// With the address as an argument, which everyone on the machine can read, and the password in the
/// environment, which they cannot.
fn command(tool: &str, url: &url::Url) -> Command {
    let mut address = url.clone();
    let password = url.password().unwrap_or_default();
    let password = percent_decoded(password);
    let _ = address.set_password(None);
    let mut given: Vec<(String, String)> = url
        .query_pairs()
        .into_owned()
        .map(|(name, value)| match &*name {
            "ssl-mode" => ("sslmode".to_owned(), value),
            "ssl-root-cert" => ("sslrootcert".to_owned(), value),
            _ => (name, value),
        })
        .filter(|(name, _)| LIBPQ.contains(&name.as_str()))
        .collect();
    let strict =
        |(name, value): &(String, String)| name == "sslmode" && value.starts_with("verify");
    let has_root = given.iter().any(|(name, _)| name == "sslrootcert");
    if given.iter().any(strict) && !has_root && major(tool).is_ok_and(|major| major >= 16) {
        // As our own connections: the machine's certificates, not those of a file in a home.
        given.push(("sslrootcert".to_owned(), "system".to_owned()));
    }
    match given.is_empty() {
        true => address.set_query(None),
        false => {
            address.query_pairs_mut().clear().extend_pairs(given);
        }
    }
    let mut command = Command::new(tool);
    command
        .arg(format!("--dbname={address}"))
        .env("PGPASSWORD", password)
        .env("PGAPPNAME", tool)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

fn percent_decoded(text: &str) -> String {
    // As a form's value it is decoded alike, but for these two.
    let form = format!("p={}", text.replace('+', "%2B").replace('&', "%26"));
    let mut pairs = url::form_urlencoded::parse(form.as_bytes());
    pairs
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

/// Starts a dump of one schema, in the custom form: what a provider keeps beside it (Supabase has a
/// dozen schemas of its own) is not ours to put back.
pub fn dump(url: &url::Url, schema: &str) -> anyhow::Result<Child> {
    command(DUMP, url)
        .args(["--format=custom", "--no-owner", "--no-privileges"])
        .arg(format!("--schema=\"{schema}\""))
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("{DUMP} cannot be run"))
}

/// Passes on what a dump says; an error last where it failed.
pub async fn pieces(mut dump: Child, to: Sender<anyhow::Result<Bytes>>) {
    let read = async {
        let mut out = dump.stdout.take().context("no output")?;
        loop {
            let mut piece = Vec::with_capacity(CHUNK);
            while piece.len() < CHUNK {
                if out.read_buf(&mut piece).await? == 0 {
                    break;
                }
            }
            if piece.is_empty() {
                break;
            }
            if to.send(Ok(piece.into())).await.is_err() {
                // Nobody takes it any more: it ends when it is dropped.
                return Ok(());
            }
        }
        succeeded(DUMP, &dump.wait_with_output().await?)
    };
    if let Err(error) = read.await {
        let _ = to.send(Err(error)).await;
    }
}

fn succeeded(tool: &str, output: &Output) -> anyhow::Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let last = lines[lines.len().saturating_sub(3)..].join("; ");
    bail!("{tool} failed ({}): {last}", output.status)
}

/// What a dump says of itself: the schema that it holds and its migrations.
pub async fn inspect(file: &Path) -> anyhow::Result<(String, Vec<Ran>)> {
    let list = run(Command::new(RESTORE).arg("--list").arg(file)).await?;
    // `215; 1259 16386 TABLE public _sqlx_migrations postgres`
    let schema = list.lines().find_map(|line| {
        let mut words = line.split(" TABLE ").nth(1)?.split(' ');
        let schema = words.next()?;
        (words.next()? == "_sqlx_migrations").then(|| schema.to_owned())
    });
    let Some(schema) = schema else {
        return Ok((String::new(), vec![]));
    };
    let mut command = Command::new(RESTORE);
    command
        .args(["--data-only", "--table=_sqlx_migrations", "--file=-"])
        .arg(format!("--schema={schema}"))
        .arg(file);
    Ok((schema, migrations(&run(&mut command).await?)))
}

/// Reads the rows of COPY.
fn migrations(script: &str) -> Vec<Ran> {
    let mut lines = script.lines();
    let Some(columns) = lines.by_ref().find_map(|line| {
        let (_, rest) = line.strip_prefix("COPY ")?.split_once('(')?;
        let (columns, _) = rest.split_once(')')?;
        Some(columns.split(", ").map(str::to_owned).collect::<Vec<_>>())
    }) else {
        return vec![];
    };
    let at = |name: &str| columns.iter().position(|column| column == name);
    let (version, checksum) = (at("version"), at("checksum"));
    lines
        .take_while(|line| *line != "\\.")
        .filter_map(|line| {
            let values: Vec<_> = line.split('\t').collect();
            Some(Ran {
                version: values.get(version?)?.parse().ok()?,
                checksum: hex::decode(values.get(checksum?)?.strip_prefix("\\\\x")?).ok()?,
            })
        })
        .collect()
}

/// Puts a dump into an empty schema, all of it or nothing.
pub async fn restore(url: &url::Url, file: &Path, schema: &str) -> anyhow::Result<()> {
    let mut command = command(RESTORE, url);
    command
        .args([
            "--single-transaction",
            "--exit-on-error",
            "--no-owner",
            "--no-privileges",
        ])
        .arg(format!("--schema={schema}"))
        .arg(file);
    run(&mut command).await.map(drop)
}

async fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("{RESTORE} cannot be run"))?;
    succeeded(RESTORE, &output)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_in_no_argument() {
        let url = "postgres://ann:s%23cret%2B1@db.example:6432/app?sslmode=require&statement-cache-capacity=0";
        let command = command(DUMP, &url.parse().unwrap());
        let command = command.as_std();
        let arguments: Vec<_> = command
            .get_args()
            .map(|arg| arg.to_string_lossy())
            .collect();
        assert_eq!(
            arguments,
            ["--dbname=postgres://ann@db.example:6432/app?sslmode=require"]
        );
        let password = command.get_envs().find(|(name, _)| *name == "PGPASSWORD");
        assert_eq!(password.unwrap().1.unwrap(), "s#cret+1");
    }

    #[test]
    fn a_tool_that_is_not_there_is_named_with_its_package() {
        let error = major("pg_dump_that_is_nowhere").unwrap_err().to_string();
        assert!(
            error.contains("is not here") && error.contains("postgresql-client"),
            "{error}"
        );
    }

    #[test]
    fn the_history_is_read_from_a_dump_whatever_the_order_of_its_columns() {
        let script = "SET x;\nCOPY public._sqlx_migrations (version, description, success, checksum) FROM stdin;\n1\tusers\tt\t\\\\x00ff\n2\tjobs\tt\t\\\\x01\n\\.\n3\tno\tt\t\\\\x02\n";
        let ran = |version, checksum: &[u8]| Ran {
            version,
            checksum: checksum.into(),
        };
        assert_eq!(migrations(script), [ran(1, &[0, 255]), ran(2, &[1])]);
        assert_eq!(migrations("nothing"), []);
    }
}
