//! The outside view of a Plinth server: is it right (`smoke`), how close does it come to what the
//! machine allows (`bench`), and what is left when something breaks (`faults`)? Knows the server's contract and nothing of its code.
// A subscription of Stripe's has more fields than json! has patience.
#![recursion_limit = "256"]

mod answer;
mod bench;
mod events;
mod faults;
mod person;
mod process;
mod smoke;
mod table;

use clap::Parser;
use std::process::ExitCode;

/// As the server: what is compared then differs in what it does, not in how it allocates.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Looks at a Plinth server from outside.
///
/// Exit codes: 0 all is well, 1 it is not, 2 wrong use.
#[derive(Debug, Parser)]
#[command(name = "probe", version)]
enum Command {
    Smoke(smoke::Args),
    Bench(bench::Args),
    Faults(faults::Args),
    #[command(hide = true, subcommand)]
    Bare(bench::bare::Command),
}

fn main() -> ExitCode {
    let command = Command::parse();
    let mut runtime = match command {
        // What the server is compared with uses the cores as the server does.
        Command::Bare(_) => tokio::runtime::Builder::new_multi_thread(),
        // A load generator that stays on one core leaves the others to the server.
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let ran = runtime
        .enable_all()
        .build()
        .map_err(Into::into)
        .and_then(|runtime| {
            runtime.block_on(async {
                match command {
                    Command::Smoke(args) => smoke::run(args).await,
                    Command::Bench(args) => bench::run(args).await,
                    Command::Faults(args) => faults::run(args).await,
                    Command::Bare(bare) => bench::bare::run(bare).await.map(|()| true),
                }
            })
        });
    match ran {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("probe: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, error::ErrorKind};

    fn parse(line: &str) -> Result<Command, ErrorKind> {
        Command::try_parse_from(line.split_whitespace()).map_err(|error| error.kind())
    }

    #[test]
    fn the_command_line_is_sound() {
        Command::command().debug_assert();
    }

    #[test]
    fn smoke_takes_a_url_and_secrets() {
        let line = "probe smoke https://api.example.com/ --stripe-secret whsec_1 --json";
        let Ok(Command::Smoke(args)) = parse(line) else {
            panic!("{line}")
        };
        assert_eq!(args.url.as_str(), "https://api.example.com/");
        assert_eq!(args.stripe_secret.as_deref(), Some("whsec_1"));
        assert!(args.json && args.revenuecat_secret.is_none());
    }

    #[test]
    fn smoke_wants_a_web_address() {
        for line in ["probe smoke", "probe smoke nowhere", "probe smoke ftp://x"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn bench_has_defaults_and_bounds() {
        let Ok(Command::Bench(args)) = parse("probe bench health start --rounds 3") else {
            panic!()
        };
        assert_eq!((args.rounds, args.seconds, args.connections), (3, 3, 32));
        assert_eq!(args.scenarios.len(), 2);
        for line in [
            "probe bench --rounds 0",
            "probe bench --seconds 601",
            "probe bench nothing",
            "probe bench --set =1",
            "probe bench --postgres postgres://db.example.com/test",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        assert!(parse("probe bench --postgres postgres://root@127.0.0.1:5432/test").is_ok());
    }
}
