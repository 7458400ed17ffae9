//! What commands have in common: an instance without its outside, how they print, and how they end.
use super::{DONE, FAILED, runtime, serve};
use crate::{
    App,
    app::{Clock, Simulated},
    config::Checked,
    error::explain,
};
use clap::Args;
use serde_json::Value;
use std::{
    fmt,
    io::{self, ErrorKind, Write},
};

/// Prints a line, as `println!` does, to whoever still reads.
macro_rules! say {
    ($($words:tt)*) => {
        $crate::commands::frame::line(format_args!($($words)*))
    };
}
pub(crate) use say;

/// How a command prints.
#[derive(Args)]
pub struct Form {
    /// Print a JSON document a line
    #[arg(long)]
    pub json: bool,
}

impl Form {
    pub fn print(&self, document: &Value, text: &str) {
        if self.json {
            say!("{document}");
        } else {
            say!("{text}");
        }
    }
}

pub fn line(text: fmt::Arguments<'_>) {
    print(format_args!("{text}\n"));
}

/// Whoever closes the pipe has seen enough: that ends the command, and is no failure of it.
pub fn print(text: fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    let printed = out.write_fmt(text).and_then(|()| out.flush());
    match printed {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(DONE.into()),
        Err(error) => {
            eprintln!("plinth: cannot print: {error}");
            std::process::exit(FAILED.into());
        }
    }
}

/// Does it over the configured database, with everything that a server has but its outside.
pub fn over_app(checked: Checked, perform: impl AsyncFnOnce(&App) -> anyhow::Result<u8>) -> u8 {
    ended(runtime(async {
        let mut config = checked.config;
        serve::prepare_secret(&mut config)?;
        let db = serve::open(&config).await?;
        let app = App::new(config, db, Simulated::default(), Clock::system()).await?;
        let done = perform(&app).await;
        app.db.close().await;
        done
    }))
}

/// One clear line, and what is behind it.
pub fn ended(result: anyhow::Result<u8>) -> u8 {
    result.unwrap_or_else(|error| {
        let cause = error.root_cause().downcast_ref::<io::Error>();
        if cause.is_some_and(|cause| cause.kind() == ErrorKind::BrokenPipe) {
            return DONE;
        }
        eprintln!("plinth: {}", explain(&error));
        FAILED
    })
}
