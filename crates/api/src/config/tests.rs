use super::{Checked, Config, Problem, Secret, seconds};
use clap::CommandFactory;
use std::{collections::HashMap, time::Duration};

fn read(variables: &[(&str, &str)]) -> Result<Checked, Vec<Problem>> {
    let env: HashMap<_, _> = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Config::from_env(&env)
}

fn config(variables: &[(&str, &str)]) -> Config {
    read(variables)
        .unwrap_or_else(|problems| panic!("{problems:?}"))
        .config
}

/// The variables that are complained about.
fn refused(variables: &[(&str, &str)]) -> Vec<String> {
    read(variables)
        .err()
        .unwrap_or_default()
        .into_iter()
        .map(|problem| problem.variable)
        .collect()
}

fn warned(variables: &[(&str, &str)]) -> Vec<String> {
    read(variables)
        .unwrap()
        .warnings
        .into_iter()
        .map(|warning| warning.variable)
        .collect()
}

const LONG: &str = "3f9c0a7be1d24f5688a1c07d5e2b9f643f9c0a7be1d24f5688a1c07d5e2b9f64";

/// All that production cannot do without.
const PRODUCTION: [(&str, &str); 6] = [
    ("APP_ENV", "production"),
    ("PUBLIC_URL", "https://api.example.com"),
    ("JWT_SECRET", LONG),
    ("OPENAI_API_KEY", "sk-of-the-tests"),
    ("SMTP_URL", "smtps://user:password@mail.example.com:465"),
    ("MAIL_FROM", "Example <hello@example.com>"),
];

/// Production, and these besides or instead.
fn production<'a>(variables: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut all = PRODUCTION.to_vec();
    all.retain(|(name, _)| variables.iter().all(|(other, _)| other != name));
    all.extend(variables);
    all
}

#[test]
fn nothing_has_to_be_set_for_development() {
    let Checked { config, warnings } = read(&[]).unwrap();

    assert!(!config.is_production() && warnings.is_empty());
    assert_eq!(
        config.core.database_url.to_string(),
        "sqlite://data/plinth.db"
    );
    assert_eq!(config.core.port, 8080);
}

#[test]
fn all_problems_are_said_at_once_each_with_its_remedy() {
    let problems = read(&[
        ("PORT", "eighty"),
        ("APP_ENV", "staging"),
        ("DATABASE_URL", "mysql://root@localhost/plinth"),
        ("SHUTDOWN_TIMEOUT", "soon"),
        ("ALLOWED_ORIGINS", "*"),
        ("TRUSTED_PROXY", "nginx"),
        ("RATE_LIMITS", "api=many"),
        ("DATABASE_DIRECT_URL", "postgres://one/plinth"),
        ("DIRECT_URL", "postgres://another/plinth"),
    ])
    .unwrap_err();

    let mut variables: Vec<_> = problems
        .iter()
        .map(|problem| problem.variable.as_str())
        .collect();
    variables.sort_unstable();
    assert_eq!(
        variables,
        [
            "ALLOWED_ORIGINS",
            "APP_ENV",
            "DATABASE_URL",
            "DIRECT_URL",
            "PORT",
            "RATE_LIMITS",
            "SHUTDOWN_TIMEOUT",
            "TRUSTED_PROXY"
        ]
    );
    for problem in &problems {
        assert!(
            !problem.fault.is_empty() && problem.remedy.len() > 10,
            "{problem}"
        );
    }
    let said = problems.iter().map(ToString::to_string).collect::<String>();
    assert!(
        said.contains("Write one of: development, production."),
        "{said}"
    );
}

#[test]
fn the_names_of_other_frameworks_are_understood() {
    for (name, value) in [
        ("SECRET_KEY", LONG),
        ("SESSION_SECRET", LONG),
        ("JWT_SECRET", LONG),
    ] {
        assert_eq!(config(&[(name, value)]).auth.jwt_secret[0].expose(), LONG);
    }
    assert!(config(&production(&[("APP_ENV", ""), ("NODE_ENV", "production")])).is_production());
    assert_eq!(
        config(&[("FRONTEND_URL", "https://app.example.com")])
            .http
            .allowed_origins,
        ["https://app.example.com"]
    );
    assert_eq!(
        config(&[("DATABASE_PATH", "/data/app.db")])
            .core
            .database_url
            .to_string(),
        "sqlite:///data/app.db"
    );
    for name in ["DIRECT_URL", "DATABASE_UNPOOLED_URL"] {
        assert!(
            config(&[(name, "postgres://u:p@h/d")])
                .core
                .database_direct_url
                .is_some()
        );
    }
}

#[test]
fn two_names_of_one_variable_have_to_agree() {
    assert_eq!(
        refused(&[("DATABASE_URL", "sqlite://a.db"), ("DATABASE_PATH", "b.db")]),
        ["DATABASE_PATH"]
    );
    assert!(
        refused(&[
            ("JWT_SECRET", "one"),
            ("SECRET_KEY", " \"one\" "),
            ("SESSION_SECRET", "")
        ])
        .is_empty()
    );
}

#[test]
fn two_names_of_one_list_are_put_together_the_first_name_first() {
    let config = config(&[
        ("SECRET_KEY", "older,oldest"),
        ("JWT_SECRET", "newest"),
        ("FRONTEND_URL", "https://app.example.com"),
        ("ALLOWED_ORIGINS", "https://admin.example.com"),
    ]);

    let secrets = config.auth.jwt_secret.iter().map(Secret::expose);
    assert_eq!(secrets.collect::<Vec<_>>(), ["newest", "older", "oldest"]);
    assert_eq!(config.http.allowed_origins.len(), 2);
}

#[test]
fn a_value_may_stand_in_a_file() {
    let folder = std::env::temp_dir();
    let file = folder.join(format!("plinth-secret-{}", std::process::id()));
    std::fs::write(&file, format!("{LONG}\r\n")).unwrap();
    let path = file.to_str().unwrap();

    assert_eq!(
        config(&[("JWT_SECRET_FILE", path)]).auth.jwt_secret[0].expose(),
        LONG
    );
    assert_eq!(
        config(&[("SECRET_KEY_FILE", path)]).auth.jwt_secret[0].expose(),
        LONG
    );
    assert_eq!(
        config(&[("JWT_SECRET_FILE", path), ("JWT_SECRET", LONG)])
            .auth
            .jwt_secret
            .len(),
        1
    );
    assert_eq!(
        refused(&[("PORT", "80"), ("PORT_FILE", path)]),
        ["PORT_FILE"]
    );
    assert_eq!(
        refused(&[("JWT_SECRET_FILE", "/nowhere/at/all")]),
        ["JWT_SECRET_FILE"]
    );
    std::fs::remove_file(file).unwrap();
}

#[test]
fn what_copying_leaves_around_a_value_is_taken_off() {
    for port in [
        "9000",
        " 9000 ",
        "\"9000\"",
        "'9000'",
        "9000\r\n",
        "\t\"9000\"\r\n",
        "\" 9000 \"",
    ] {
        assert_eq!(config(&[("PORT", port)]).core.port, 9000, "{port:?}");
    }
    for empty in ["", " ", "\r\n", "\"\"", "''", "\" \""] {
        assert_eq!(config(&[("PORT", empty)]).core.port, 8080, "{empty:?}");
    }
    let secrets = config(&[("STRIPE_WEBHOOK_SECRET", "\"whsec_one, whsec_two\"\r\n")])
        .billing
        .stripe_webhook_secret;
    assert_eq!(
        secrets
            .iter()
            .map(super::Secret::expose)
            .collect::<Vec<_>>(),
        ["whsec_one", "whsec_two"]
    );
    assert_eq!(
        config(&[(
            "ALLOWED_ORIGINS",
            " https://a.example.com , https://b.example.com/ "
        )])
        .http
        .allowed_origins,
        ["https://a.example.com", "https://b.example.com"]
    );
}

#[test]
fn whatever_stands_in_a_variable_is_taken_or_refused_by_its_name() {
    let odd = [
        "=",
        "--help",
        "-h",
        "--",
        ",",
        "\u{0}",
        "💩",
        "$HOME",
        "a=b",
        &"x".repeat(10_000),
        "-1",
        "1e999",
        "true",
        "http://[",
    ];

    for arg in Config::command().get_arguments() {
        let names = super::example::names(arg);
        for name in &names {
            assert!(
                refused(&[(name, "")]).is_empty() && refused(&[(name, " \"\" \r\n")]).is_empty(),
                "{name} may be empty"
            );
            for odd in odd {
                let refused = refused(&[(name, odd)]);
                assert!(
                    refused.iter().all(|refused| names.contains(refused)),
                    "{name}={}: {refused:?}",
                    odd.chars().next().unwrap_or_default()
                );
            }
        }
    }
}

#[test]
fn databases_are_named_as_providers_and_frameworks_name_them() {
    let shown = |url: &str| {
        config(&[("DATABASE_URL", url)])
            .core
            .database_url
            .to_string()
    };

    for (given, expected) in [
        ("sqlite://data/app.db", "sqlite://data/app.db"),
        ("sqlite:///data/app.db", "sqlite:///data/app.db"),
        ("sqlite:data/app.db", "sqlite://data/app.db"),
        ("./app.db", "sqlite://./app.db"),
        (
            "postgres://user:password@db.example.com/app",
            "postgres://db.example.com:5432/app",
        ),
        (
            "postgresql://user:password@host:5433/database",
            "postgres://host:5433/database",
        ),
        (
            "postgresql+asyncpg://user:pass@host:5432/solacore_prod",
            "postgres://host:5432/solacore_prod",
        ),
        (
            "postgresql+psycopg2://user:p%40ss%2Fword@host/app?sslmode=require",
            "postgres://host:5432/app",
        ),
        (
            "postgres://user:password@[::1]:5432/app",
            "postgres://[::1]:5432/app",
        ),
        (
            "postgresql+asyncpg://user@host/app?ssl=require",
            "postgres://host:5432/app",
        ),
    ] {
        assert_eq!(shown(given), expected);
    }
    for wrong in [
        "mysql://localhost/app",
        "mongodb://localhost",
        "postgres://user:pass word@:host:/x",
        "sqlite::memory:",
        "sqlite://",
        "https://db.example.com",
    ] {
        assert_eq!(
            refused(&[("DATABASE_URL", wrong)]),
            ["DATABASE_URL"],
            "{wrong}"
        );
    }
}

#[test]
fn a_name_that_is_nearly_ours_is_pointed_out() {
    let warnings = read(&[
        ("STRIPE_WEBHOOK_SECERT", "x"),
        ("DATABSE_URL", "x"),
        ("SENTRY_DNS", "x"),
        ("JWT_SECRETS", "x"),
        ("HOMEBREW_PREFIX", "x"),
        ("PATH", "x"),
    ])
    .unwrap()
    .warnings;

    let said: Vec<_> = warnings
        .iter()
        .map(|warning| format!("{}: {}", warning.variable, warning.remedy))
        .collect();
    assert_eq!(
        said,
        [
            "DATABSE_URL: Did you mean DATABASE_URL?",
            "JWT_SECRETS: Did you mean JWT_SECRET?",
            "SENTRY_DNS: Did you mean SENTRY_DSN?",
            "STRIPE_WEBHOOK_SECERT: Did you mean STRIPE_WEBHOOK_SECRET?"
        ]
    );
}

#[test]
fn log_levels_may_be_pythons_and_no_others() {
    let level = |word: &str| config(&[("LOG_LEVEL", word)]).telemetry.log_level;

    for (word, expected) in [
        ("INFO", "info"),
        ("DEBUG", "debug"),
        ("WARNING", "warn"),
        ("ERROR", "error"),
        ("CRITICAL", "error"),
        ("Trace", "trace"),
        ("off", "off"),
        ("info,db=debug", "info,db=debug"),
    ] {
        assert_eq!(level(word), expected, "{word}");
    }
    for wrong in ["verbose", "loud", "12", "info,db=loud"] {
        assert_eq!(refused(&[("LOG_LEVEL", wrong)]), ["LOG_LEVEL"], "{wrong}");
    }
}

#[test]
fn durations_have_units() {
    for (text, expected) in [
        ("90", 90),
        ("90s", 90),
        ("15m", 900),
        ("2h", 7_200),
        ("30d", 2_592_000),
        ("0", 0),
        ("5 m", 300),
    ] {
        assert_eq!(seconds(text), Ok(Duration::from_secs(expected)), "{text}");
    }
    for wrong in [
        "",
        "m",
        "-1",
        "1.5",
        "1w",
        "1e3",
        "99999999999999999999",
        "9999999999d",
    ] {
        assert!(seconds(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn what_would_never_answer_is_refused() {
    for name in [
        "REQUEST_TIMEOUT",
        "MAX_CONNECTIONS",
        "LLM_TIMEOUT",
        "DATABASE_ACQUIRE_TIMEOUT",
        "DATABASE_MAX_CONNECTIONS",
        "AUTH_ACCESS_TTL",
        "AUTH_OTP_TTL",
        "AUTH_SESSION_IDLE",
        "AUTH_SESSION_ABSOLUTE",
    ] {
        assert_eq!(refused(&[(name, "0")]), [name]);
    }
    for (name, value) in [
        ("REDIS_URL", "localhost:6379"),
        ("REDIS_URL", "http://localhost"),
        ("SENTRY_DSN", "https://sentry.io"),
        ("SMTP_URL", "mail.example.com"),
    ] {
        assert_eq!(refused(&[(name, value)]), [name], "{value}");
    }
}

#[test]
fn production_takes_no_simulated_part() {
    assert!(refused(&PRODUCTION).is_empty());
    for (name, _) in PRODUCTION.iter().filter(|(name, _)| *name != "APP_ENV") {
        assert_eq!(
            refused(&production(&[(name, "")])),
            [*name],
            "without {name}"
        );
    }
    assert_eq!(
        refused(&production(&[("STRIPE_SECRET_KEY", "sk_live_1")])),
        ["STRIPE_WEBHOOK_SECRET"]
    );
    let simulated = crate::auth::providers::DEVELOPMENT_CLIENT;
    for name in [
        "GOOGLE_CLIENT_ID",
        "APPLE_CLIENT_ID",
        "GITHUB_CLIENT_ID",
        "REPL_ID",
    ] {
        let variables = [(name, simulated), ("GITHUB_CLIENT_SECRET", "secret")];
        let variables = &variables[..if name.starts_with("GITHUB") { 2 } else { 1 }];
        assert_eq!(refused(&production(variables)), [name]);
        assert!(refused(variables).is_empty(), "{name} in development");
    }
}

#[test]
fn a_provider_is_named_as_a_whole() {
    for (name, value) in [
        ("GITHUB_CLIENT_ID", "1"),
        ("GITHUB_CLIENT_SECRET", "1"),
        ("ISSUER_URL", "https://replit.com/oidc"),
        ("APPLE_KEY_ID", "1"),
    ] {
        assert_eq!(refused(&[(name, value)]), [name]);
    }
    let key = |text: &'static str| {
        [
            ("APPLE_TEAM_ID", "1"),
            ("APPLE_KEY_ID", "1"),
            ("APPLE_PRIVATE_KEY", text),
        ]
    };
    let kind = ["PRIVATE", "KEY"].join(" ");
    let der = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgZZZZ";
    let pem = format!("-----BEGIN {kind}-----\n{der}");
    assert_eq!(refused(&key("-----BEGIN")), ["APPLE_PRIVATE_KEY"]);
    assert_eq!(refused(&key(pem.leak())), ["APPLE_PRIVATE_KEY"], "cut off");
}

#[test]
fn production_takes_no_secret_that_others_know_or_can_guess() {
    for weak in [
        "changethis",
        "secret",
        "<256-bit-random-hex>",
        "random_secure_string",
        "your-secret-key-change-me-in-production-please",
        &LONG[..31],
        &"a".repeat(64),
        "super-secret-jwt-token-with-at-least-32-characters-long",
    ] {
        let problems = read(&production(&[("JWT_SECRET", weak)])).unwrap_err();
        assert_eq!(
            problems
                .iter()
                .map(|p| p.variable.as_str())
                .collect::<Vec<_>>(),
            ["JWT_SECRET"],
            "{weak}"
        );
        assert!(problems[0].remedy.contains("openssl rand -hex 32"));
    }
    assert_eq!(
        refused(&production(&[("JWT_SECRET", &format!("{LONG},short"))])),
        ["JWT_SECRET"]
    );
    for (name, weak) in [
        ("STRIPE_WEBHOOK_SECRET", "whsec_development_only"),
        ("REVENUECAT_WEBHOOK_SECRET", "development_only"),
        ("STRIPE_WEBHOOK_SECRET", "whsec_xxx"),
        ("REVENUECAT_SIGNING_SECRET", "short"),
    ] {
        assert_eq!(refused(&production(&[(name, weak)])), [name], "{weak}");
    }
}

#[test]
fn production_shows_nothing_and_admits_nobody_by_accident() {
    for (name, value) in [
        ("DEBUG", "true"),
        ("DEBUG", "1"),
        ("ALLOWED_ORIGINS", "*"),
        ("ALLOWED_ORIGINS", "app.example.com"),
        ("ALLOWED_ORIGINS", "https://app.example.com/login"),
        ("ENABLE_HSTS", "0"),
        ("PUBLIC_URL", "http://api.example.com"),
        ("OPENAI_BASE_URL", "http://llm.example.com/v1"),
        ("SENDGRID_API_BASE", "http://sendgrid.example.com"),
    ] {
        assert_eq!(refused(&production(&[(name, value)])), [name], "{value}");
    }
    assert!(
        refused(&production(&[
            ("DEBUG", "false"),
            ("ENABLE_HSTS", "1"),
            ("PUBLIC_URL", "http://127.0.0.1:8080")
        ]))
        .is_empty()
    );
}

#[test]
fn production_warns_of_what_is_risky_but_yours_to_decide() {
    assert_eq!(
        warned(&production(&[(
            "DATABASE_URL",
            "postgres://u:p@db.example.com/app"
        )])),
        ["DATABASE_URL"]
    );
    assert!(
        warned(&production(&[(
            "DATABASE_URL",
            "postgres://u:p@db.example.com/app?sslmode=verify-full"
        )]))
        .is_empty()
    );
    assert_eq!(
        warned(&production(&[
            ("STRIPE_SECRET_KEY", "sk_test_1"),
            ("STRIPE_WEBHOOK_SECRET", LONG)
        ])),
        ["STRIPE_SECRET_KEY"]
    );
    assert_eq!(
        warned(&production(&[("AUTH_AUTOCONFIRM", "true")])),
        ["AUTH_AUTOCONFIRM"]
    );
}

/// A value that would be seen anywhere.
const CANARY: &str = "CaNaRy7291";

#[test]
fn secrets_are_shown_neither_by_debug_nor_in_problems() {
    let secret = |arg: &&clap::Arg| {
        super::example::is_secret(arg) && !arg.get_id().as_str().starts_with("database")
    };
    let command = Config::command();
    let names: Vec<_> = command
        .get_arguments()
        .filter(secret)
        .flat_map(super::example::names)
        .collect();
    assert!(names.len() > 10, "{names:?}");

    let database = format!("postgres://user:{CANARY}@db.example.com/app?password={CANARY}");
    for name in &names {
        for value in [
            CANARY.to_owned(),
            format!("x {CANARY}\u{0}"),
            format!("redis://:{CANARY}@localhost:99999999"),
            format!("smtp://u:{CANARY}@["),
        ] {
            let shown = format!("{:?}", read(&production(&[(name, &value)])));
            assert!(!shown.contains(CANARY), "{name}: {shown}");
        }
    }
    for url in [
        &database,
        &database.replace("postgres:", "mysql:"),
        &format!("postgres://user:{CANARY}@[nowhere"),
        &format!("postgres://u:{CANARY}@h:99999999/d"),
    ] {
        let read = read(&production(&[("DATABASE_URL", url)]));
        assert!(!format!("{read:?}").contains(CANARY), "{read:?}");
    }
}

/// Blocks of the guides that Plinth takes the place of, with secrets that are long enough.
mod blocks_of_other_guides {
    use super::*;

    /// What is not in a block, and production needs.
    fn completed(block: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
        let has = |names: &[&str]| block.iter().any(|(name, _)| names.contains(name));
        let mut all = block.to_vec();
        let missing = [
            (&["APP_ENV", "NODE_ENV"][..], ("APP_ENV", "production")),
            (&["PUBLIC_URL"], ("PUBLIC_URL", "https://api.example.com")),
            (
                &["JWT_SECRET", "SECRET_KEY", "SESSION_SECRET"],
                ("JWT_SECRET", LONG),
            ),
            (&["OPENAI_API_KEY"], ("OPENAI_API_KEY", "sk-of-the-tests")),
            (
                &["SENDGRID_API_KEY", "SMTP_URL"],
                ("AUTH_AUTOCONFIRM", "true"),
            ),
            (&["MAIL_FROM"], ("MAIL_FROM", "hello@example.com")),
        ];
        all.extend(
            missing
                .into_iter()
                .filter(|(names, _)| !has(names))
                .map(|(_, pair)| pair),
        );
        all
    }

    fn accepted(block: &[(&'static str, &'static str)]) -> Config {
        config(block);
        config(&completed(block))
    }

    #[test]
    fn flask_on_replit() {
        let config = accepted(&[
            (
                "DATABASE_URL",
                "postgresql://user:password@host:5432/database",
            ),
            ("OPENAI_API_KEY", "sk-prod-xxx"),
            ("STRIPE_SECRET_KEY", "sk_live_xxx"),
            ("SENDGRID_API_KEY", "SG.xxx"),
            ("SESSION_SECRET", LONG),
            ("REPL_ID", "0190a8c0"),
            ("STRIPE_WEBHOOK_SECRET", LONG),
            ("ISSUER_URL", "https://replit.com/oidc"),
            ("LOG_LEVEL", "INFO"),
            ("DEBUG", "False"),
        ]);
        assert_eq!(config.auth.jwt_secret[0].expose(), LONG);
    }

    #[test]
    fn flask_with_sqlite() {
        let config = accepted(&[
            ("SECRET_KEY", LONG),
            ("DATABASE_PATH", "/app/data/app.db"),
            ("SESSION_COOKIE_SECURE", "1"),
            ("REMEMBER_COOKIE_SECURE", "1"),
            ("ENABLE_HSTS", "1"),
            ("STRIPE_SECRET_KEY", "sk_live_xxx"),
            ("STRIPE_WEBHOOK_SECRET", LONG),
        ]);
        assert_eq!(
            config.core.database_url.to_string(),
            "sqlite:///app/data/app.db"
        );
    }

    #[test]
    fn fastapi_with_mobile_apps() {
        let config = accepted(&[
            ("DEBUG", "false"),
            (
                "DATABASE_URL",
                "postgresql+asyncpg://user:pass@host:5432/solacore_prod",
            ),
            ("JWT_SECRET", LONG),
            ("GOOGLE_CLIENT_ID", "1.apps.googleusercontent.com"),
            ("APPLE_CLIENT_ID", "com.solacore.app"),
            ("LLM_PROVIDER", "openai"),
            ("OPENAI_API_KEY", "sk-prod-xxx"),
            ("LLM_MODEL", "gpt-4o-mini"),
            ("LLM_TIMEOUT", "30"),
            ("LLM_MAX_TOKENS", "1024"),
            ("STRIPE_SECRET_KEY", "sk_live_xxx"),
            ("STRIPE_WEBHOOK_SECRET", LONG),
            ("STRIPE_PRICE_STANDARD", "price_standard_live"),
            ("STRIPE_PRICE_PRO", "price_pro_live"),
            (
                "STRIPE_SUCCESS_URL",
                "https://api.example.com/subscriptions/success?session_id={CHECKOUT_SESSION_ID}",
            ),
            (
                "STRIPE_CANCEL_URL",
                "https://api.example.com/subscriptions/cancel",
            ),
            ("REVENUECAT_WEBHOOK_SECRET", LONG),
            ("REVENUECAT_ENTITLEMENT_STANDARD", "standard_access"),
            ("REVENUECAT_ENTITLEMENT_PRO", "pro_access"),
            ("SENTRY_DSN", "https://key@o0.ingest.sentry.io/0"),
            ("APP_VERSION", "1.0.0"),
        ]);
        assert_eq!(
            (config.core.app_version.as_str(), config.chat.llm_max_tokens),
            ("1.0.0", 1024)
        );
        assert_eq!(
            config.billing.stripe_price_pro.as_deref(),
            Some("price_pro_live")
        );
    }

    #[test]
    fn express_on_railway() {
        let config = accepted(&[
            ("OPENAI_API_KEY", "sk-prod-xxx"),
            ("SUPABASE_URL", "https://abc.supabase.co"),
            ("SUPABASE_SERVICE_KEY", "eyJ"),
            ("SUPABASE_ANON_KEY", "eyJ"),
            ("FRONTEND_URL", "https://asonti.vercel.app"),
            ("PORT", "3002"),
        ]);
        assert_eq!(
            (config.core.port, config.http.allowed_origins),
            (3002, vec!["https://asonti.vercel.app".to_owned()])
        );
        assert!(super::config(&completed(&[("NODE_ENV", "production")])).is_production());
    }

    #[test]
    fn fastapi_on_fly() {
        let config = accepted(&[
            ("SECRET_KEY", LONG),
            ("ADMIN_PASSWORD", "a long temporary one"),
            ("GEMINI_API_KEY", "AIza"),
            (
                "DATABASE_URL",
                "postgresql://postgres:pass@db.abc.supabase.co:5432/postgres",
            ),
            ("REDIS_URL", "redis://default:pass@fly-app.upstash.io:6379"),
            ("STRIPE_SECRET_KEY", "sk_live_xxx"),
            ("STRIPE_WEBHOOK_SECRET", LONG),
            (
                "ALLOWED_ORIGINS",
                "https://your-domain.com,https://www.your-domain.com",
            ),
            ("FIREBASE_API_KEY", "AIza"),
        ]);
        assert_eq!(config.http.allowed_origins.len(), 2);
    }
}

#[test]
fn a_default_model_without_a_price_is_told_of() {
    let base = ("OPENAI_BASE_URL", "https://llm.example.com/v1");
    assert_eq!(warned(&[base, ("LLM_MODEL", "gpt-9")]), ["LLM_MODEL"]);
    assert_eq!(
        warned(&[base, ("LLM_MODEL", "gpt-4o")]),
        Vec::<String>::new()
    );
}

#[test]
fn the_first_admins_password_is_nothing_that_others_guess() {
    let with = |password| {
        [
            ("ADMIN_EMAIL", "ada@example.com"),
            ("ADMIN_PASSWORD", password),
        ]
    };
    let good = "9fK2-vQ7x-LmT4-zR8w";

    assert_eq!(refused(&production(&with(good))), [] as [&str; 0]);
    for password in [
        "admin",
        "Admin1234567890!",
        "changeme-changeme",
        "correct",
        "aaaaaaaaaaaaaaaaaaaa",
        "ada@example.com",
        "Plinth-2026-Plinth",
    ] {
        assert_eq!(
            refused(&production(&with(password))),
            ["ADMIN_PASSWORD"],
            "{password}"
        );
        assert_eq!(
            refused(&with(password)),
            [] as [&str; 0],
            "development takes any"
        );
    }
    assert_eq!(
        refused(&[("ADMIN_EMAIL", "ada"), ("ADMIN_PASSWORD", good)]),
        ["ADMIN_EMAIL"]
    );
    assert_eq!(
        warned(&[("ADMIN_EMAIL", "ada@example.com")]),
        ["ADMIN_EMAIL"]
    );
    assert_eq!(
        refused(&production(&[("ADMIN_PASSWORD", "admin")])),
        [] as [&str; 0],
        "of nobody it is no password"
    );
    assert_eq!(warned(&[("ADMIN_PASSWORD", good)]), ["ADMIN_PASSWORD"]);
}

mod providers {
    use super::*;
    use crate::chat::llm::Provider;

    fn asked(variables: &[(&str, &str)]) -> Vec<&'static str> {
        let config = config(variables);
        let providers = config.chat.providers.providers();
        providers.into_iter().map(Provider::name).collect()
    }

    #[test]
    fn those_that_have_a_key_are_asked_in_the_order_they_are_named() {
        let (openai, claude) = (("OPENAI_API_KEY", "sk-1"), ("ANTHROPIC_API_KEY", "sk-2"));
        assert_eq!(asked(&[]), ["openai"], "simulated");
        assert_eq!(asked(&[openai, claude]), ["openai", "anthropic"]);
        let order = ("LLM_PROVIDER", "anthropic, openai");
        assert_eq!(asked(&[openai, claude, order]), ["anthropic", "openai"]);
        assert_eq!(asked(&[openai, order]), ["openai"]);
        assert_eq!(asked(&[order]), ["anthropic", "openai"], "simulated");
        assert_eq!(warned(&[openai, order]), ["ANTHROPIC_API_KEY"]);
        assert_eq!(refused(&[("LLM_PROVIDER", "openia")]), ["LLM_PROVIDER"]);
    }

    #[test]
    fn production_misses_the_key_of_each_that_is_named() {
        let named = ("LLM_PROVIDER", "openai,gemini,anthropic");
        assert_eq!(
            refused(&production(&[named])),
            ["GEMINI_API_KEY", "ANTHROPIC_API_KEY"]
        );
        let gemini = [("OPENAI_API_KEY", ""), ("GEMINI_API_KEY", "AIza")];
        assert!(refused(&production(&gemini)).is_empty());
        assert_eq!(
            refused(&production(&[("ANTHROPIC_BASE_URL", "http://example.com")])),
            ["ANTHROPIC_BASE_URL"]
        );
    }

    #[test]
    fn the_default_model_is_one_that_somebody_has() {
        let gemini = ("GEMINI_API_KEY", "AIza");
        assert_eq!(config(&[gemini]).chat.llm_model, "gemini-2.5-flash");
        assert_eq!(config(&[]).chat.llm_model, "gpt-4o-mini");
        let key = ("OPENAI_API_KEY", "sk-1");
        assert_eq!(
            config(&[gemini, key, ("LLM_PROVIDER", "gemini,openai")])
                .chat
                .llm_model,
            "gpt-4o-mini"
        );
        assert_eq!(
            refused(&[gemini, ("LLM_MODEL", "claude-opus-4-1")]),
            ["LLM_MODEL"]
        );
        let gateway = [key, ("LLM_MODEL", "claude-opus-4-1")];
        assert!(refused(&gateway).is_empty(), "a gateway may have any");
    }

    #[test]
    fn who_stands_in_for_a_model_is_named() {
        let keys = [
            ("OPENAI_API_KEY", "sk-1"),
            ("GEMINI_API_KEY", "AIza"),
            ("ANTHROPIC_API_KEY", "sk-2"),
        ];
        let with = |more: &[(&'static str, &'static str)]| [&keys[..], more].concat();
        let stand_ins = (
            "LLM_FALLBACK_MODELS",
            "gpt-4o-mini=claude-haiku-4-5,gpt-4o-mini=gemini-2.5-flash,gpt-4o=openai:llama-3",
        );

        let config = config(&with(&[stand_ins]));
        let routes = |model: &str| -> Vec<String> {
            let routes = config.chat.providers.routes(model);
            routes
                .iter()
                .map(|(provider, model)| format!("{provider}:{model}"))
                .collect()
        };
        assert_eq!(
            routes("gpt-4o-mini"),
            [
                "openai:gpt-4o-mini",
                "gemini:gemini-2.5-flash",
                "anthropic:claude-haiku-4-5"
            ]
        );
        assert_eq!(routes("gpt-4o"), ["openai:gpt-4o", "openai:llama-3"]);
        assert_eq!(routes("claude-haiku-4-5"), ["anthropic:claude-haiku-4-5"]);
        assert_eq!(routes("llama-3"), ["openai:llama-3"]);
        assert!(warned(&with(&[])).contains(&"LLM_FALLBACK_MODELS".into()));
        for wrong in [
            "gpt-4o",
            "=claude-1",
            "gpt-4o=llama-3",
            "gpt-4o=nobody:x",
            "gpt-4o=",
        ] {
            assert_eq!(
                refused(&[("LLM_FALLBACK_MODELS", wrong)]),
                ["LLM_FALLBACK_MODELS"],
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_temperature_is_from_0_to_2() {
        assert_eq!(config(&[]).chat.providers.llm_temperature, 0.7);
        for wrong in ["-1", "2.5", "warm", "NaN"] {
            assert_eq!(
                refused(&[("LLM_TEMPERATURE", wrong)]),
                ["LLM_TEMPERATURE"],
                "{wrong}"
            );
        }
    }
}
