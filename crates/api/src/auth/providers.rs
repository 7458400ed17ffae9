//! Who else may say who somebody is: issuers of tokens, as data.
use super::apple;
use crate::{
    config::{Problem, Secret},
    http::is_loopback,
};
use jsonwebtoken::Algorithm;
use std::time::Duration;
use url::Url;

/// Others' sign-in.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Sign-in with others")]
pub struct Config {
    /// Client ids of Google that tokens may be made for: web, iOS, Android. The first is the web's.
    #[arg(long, value_delimiter = ',', visible_alias = "google-client-ids")]
    pub google_client_id: Vec<String>,

    /// Google's secret of the web client. What is registered there as its redirect URI is PUBLIC_URL/auth/v1/callback, here as for every provider.
    #[arg(long)]
    pub google_client_secret: Option<Secret>,

    /// Who issues Google's tokens.
    #[arg(long, value_parser = endpoint, default_value = "https://accounts.google.com")]
    pub google_issuer: String,

    /// Where Google's keys are.
    #[arg(long, value_parser = endpoint, default_value = "https://www.googleapis.com/oauth2/v3/certs")]
    pub google_jwks_url: String,

    /// Client ids of Apple that tokens may be made for: the services id of the web, bundle ids of apps. The first is the web's.
    #[arg(long, value_delimiter = ',', visible_alias = "apple-client-ids")]
    pub apple_client_id: Vec<String>,

    /// Apple's id of the team. With the key, Apple signs people in on the web too, and is told when they leave.
    #[arg(long)]
    pub apple_team_id: Option<String>,

    /// Apple's id of the key.
    #[arg(long)]
    pub apple_key_id: Option<String>,

    /// Apple's key: the text of the .p8 file, or the file's path in APPLE_PRIVATE_KEY_FILE.
    #[arg(long)]
    pub apple_private_key: Option<Secret>,

    /// Who issues Apple's tokens; its API is below.
    #[arg(long, value_parser = endpoint, default_value = APPLE)]
    pub apple_issuer: String,

    /// Where Apple's keys are. Default: `/auth/keys` of the issuer.
    #[arg(long, value_parser = endpoint)]
    pub apple_jwks_url: Option<String>,

    /// The client id of an OAuth app at GitHub.
    #[arg(long)]
    pub github_client_id: Option<String>,

    /// GitHub's secret of that app.
    #[arg(long)]
    pub github_client_secret: Option<Secret>,

    /// Where GitHub is: one of your own, perhaps.
    #[arg(long, value_parser = endpoint, default_value = "https://github.com")]
    pub github_url: String,

    /// Where GitHub's API is.
    #[arg(long, value_parser = endpoint, default_value = "https://api.github.com")]
    pub github_api_url: String,

    /// Any other issuer with OpenID discovery (Replit: https://replit.com/oidc). Exactly as its tokens write it.
    #[arg(long, value_parser = endpoint)]
    pub issuer_url: Option<String>,

    /// The client id at that issuer; Replit gives it to every app.
    #[arg(long, visible_alias = "issuer-client-id")]
    pub repl_id: Option<String>,

    /// The client secret at that issuer, where it gave one.
    #[arg(long)]
    pub issuer_client_secret: Option<Secret>,

    /// A project of Firebase whose ID tokens are taken as bearers.
    #[arg(long)]
    pub firebase_project_id: Option<String>,

    /// Who issues Firebase's tokens. Default: https://securetoken.google.com/ and the project.
    #[arg(long, value_parser = endpoint)]
    pub firebase_issuer: Option<String>,

    /// Where Firebase's keys are.
    #[arg(long, value_parser = endpoint, default_value = "https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com")]
    pub firebase_jwks_url: String,

    /// A project of Supabase whose access tokens are taken as bearers: https://….supabase.co.
    #[arg(long, value_parser = endpoint)]
    pub supabase_url: Option<String>,

    /// That project's legacy secret, where it still signs with it (HS256).
    #[arg(long)]
    pub supabase_jwt_secret: Option<Secret>,
}

impl Config {
    pub fn check(&self, production: bool, problems: &mut Vec<Problem>) {
        let clients = [
            ("GOOGLE_CLIENT_ID", self.google_client_id.as_slice()),
            ("APPLE_CLIENT_ID", self.apple_client_id.as_slice()),
            ("GITHUB_CLIENT_ID", self.github_client_id.as_slice()),
            ("REPL_ID", self.repl_id.as_slice()),
        ];
        for (variable, ids) in clients {
            if production && ids.iter().any(|id| id == DEVELOPMENT_CLIENT) {
                problems.push(Problem::new(
                    variable,
                    "is the client of the simulated provider, which believes anyone",
                    "Copy the client id that the provider gave you.",
                ));
            }
        }
        let github = [
            ("GITHUB_CLIENT_ID", self.github_client_id.is_some()),
            ("GITHUB_CLIENT_SECRET", self.github_client_secret.is_some()),
        ];
        if let [(one, true), (other, false)] | [(other, false), (one, true)] = github {
            problems.push(Problem::new(
                one,
                format!("is set without {other}"),
                "Copy both of the OAuth app at GitHub.",
            ));
        }
        // The other way round is how every program on Replit starts.
        if self.issuer_url.is_some() && self.repl_id.is_none() {
            problems.push(Problem::new(
                "ISSUER_URL",
                "is set without REPL_ID",
                "Set REPL_ID to the client that the issuer knows you as: a token is for one client alone.",
            ));
        }
        if self.supabase_jwt_secret.is_some() && self.supabase_url.is_none() {
            problems.push(Problem::new(
                "SUPABASE_JWT_SECRET",
                "is set without SUPABASE_URL",
                "Set SUPABASE_URL too: tokens are taken from one project alone.",
            ));
        }
        if let Some(Err(why)) = self.apple_private_key.as_ref().map(apple::signing_key) {
            problems.push(Problem::new(
                "APPLE_PRIVATE_KEY",
                format!("cannot be used: {why}"),
                "Write the text of the .p8 file that Apple gave, or name the file in APPLE_PRIVATE_KEY_FILE.",
            ));
        }
        let key = [
            ("APPLE_TEAM_ID", self.apple_team_id.is_some()),
            ("APPLE_KEY_ID", self.apple_key_id.is_some()),
            ("APPLE_PRIVATE_KEY", self.apple_private_key.is_some()),
        ];
        let given = key.iter().find(|(_, given)| *given);
        let missing = key.iter().find(|(_, given)| !given);
        if let (Some((given, _)), Some((missing, _))) = (given, missing) {
            problems.push(Problem::new(
                *given,
                format!("is set without {missing}"),
                "Set APPLE_TEAM_ID, APPLE_KEY_ID and APPLE_PRIVATE_KEY, or none of them: without them tokens of apps are taken, but nothing can be revoked.",
            ));
        }
    }
}

/// What we are called by the simulated providers.
pub const DEVELOPMENT_CLIENT: &str = "plinth-development";
/// Who issues Apple's tokens, unless another stands in.
pub const APPLE: &str = "https://appleid.apple.com";

/// https, or a stand-in on this machine; as it was written, since issuers are compared exactly.
fn endpoint(text: &str) -> Result<String, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if may_be_asked(&url) {
        Ok(text.to_owned())
    } else {
        Err("has to be https (http on loopback alone), without a user or a fragment".into())
    }
}

/// Whether this is a place that we ask for keys and tokens.
pub fn may_be_asked(url: &Url) -> bool {
    let safe = url.scheme() == "https" || (url.scheme() == "http" && is_loopback(url));
    safe && url.username().is_empty() && url.password().is_none() && url.fragment().is_none()
}

/// Where the keys are that sign an issuer's tokens.
#[derive(Debug, Clone)]
pub enum Signed {
    /// By the keys of this JWK set; without a URL, the `jwks_uri` of the issuer's discovery.
    ByKeysAt(Option<String>),
    /// By a secret that we share.
    With(Secret),
}

/// For which addresses a provider's word that one is verified is as good as a mail to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// Its own mailboxes, and domains that it hosts:
    /// <https://developers.google.com/identity/gsi/web/guides/verify-google-id-token>.
    Google,
    /// Its own mailboxes and relays.
    Apple,
    None,
}

/// One issuer, and what its tokens have to look like.
#[derive(Debug, Clone)]
pub struct Provider {
    /// GoTrue's word for it.
    pub name: &'static str,
    /// What `iss` may say. The first is the one that identities are kept under.
    pub issuers: Vec<String>,
    /// What `aud` may say: never the request's choice.
    pub audiences: Vec<String>,
    /// And no other.
    pub algorithms: &'static [Algorithm],
    pub signed: Signed,
    pub authority: Authority,
    /// How old a token may be, by `iat`.
    pub max_age: Option<Duration>,
    /// Signs people in, rather than being a bearer alone.
    pub signs_in: bool,
    /// For the exchange of a code; Apple's is made anew each time.
    pub client_secret: Option<Secret>,
}

impl Provider {
    /// Whether what it signs is taken for one request after the other. What Google and Apple make signs in
    /// once: it says nothing of a session there.
    pub fn makes_bearers(&self) -> bool {
        ["firebase", "supabase", "oidc"].contains(&self.name)
    }

    /// The one that identities are kept under.
    pub fn issuer(&self) -> &str {
        self.issuers.first().map_or("", String::as_str)
    }

    /// Whether a browser can be sent there, and what it brings back exchanged.
    pub fn takes_browsers(&self, config: &Config) -> bool {
        self.signs_in && (self.name != "apple" || apple::is_configured(config))
    }
}

const HOUR: Duration = Duration::from_secs(3600);

/// Every provider that is configured.
pub fn all(config: &Config) -> Vec<Provider> {
    [
        google(config),
        apple(config),
        github(config),
        oidc(config),
        firebase(config),
    ]
    .into_iter()
    .flatten()
    .chain(supabase(config))
    .collect()
}

fn google(config: &Config) -> Option<Provider> {
    let mut issuers = vec![config.google_issuer.clone()];
    issuers.extend(
        config
            .google_issuer
            .split_once("://")
            .map(|(_, host)| host.to_owned()),
    );
    (!config.google_client_id.is_empty()).then(|| Provider {
        name: "google",
        issuers,
        audiences: config.google_client_id.clone(),
        algorithms: &[Algorithm::RS256],
        signed: Signed::ByKeysAt(Some(config.google_jwks_url.clone())),
        authority: Authority::Google,
        max_age: Some(HOUR),
        signs_in: true,
        client_secret: config.google_client_secret.clone(),
    })
}

fn apple(config: &Config) -> Option<Provider> {
    let mut issuers = vec![config.apple_issuer.clone()];
    if config.apple_issuer == APPLE {
        // Seen in tokens too: <https://github.com/supabase/auth/blob/master/internal/api/provider/apple.go>.
        issuers.push("https://account.apple.com".into());
    }
    let keys = config.apple_jwks_url.clone();
    let keys = keys.unwrap_or_else(|| format!("{}/auth/keys", config.apple_issuer));
    (!config.apple_client_id.is_empty()).then(|| Provider {
        name: "apple",
        issuers,
        audiences: config.apple_client_id.clone(),
        algorithms: &[Algorithm::RS256],
        signed: Signed::ByKeysAt(Some(keys)),
        authority: Authority::Apple,
        max_age: Some(HOUR),
        signs_in: true,
        client_secret: None,
    })
}

/// It issues no tokens: there is no algorithm in which one would be taken.
fn github(config: &Config) -> Option<Provider> {
    let url = config.github_url.trim_end_matches('/');
    Some(Provider {
        name: "github",
        issuers: vec![url.to_owned(), format!("{url}/login/oauth")],
        audiences: vec![config.github_client_id.clone()?],
        algorithms: &[],
        signed: Signed::ByKeysAt(None),
        authority: Authority::None,
        max_age: None,
        signs_in: true,
        client_secret: config.github_client_secret.clone(),
    })
}

fn oidc(config: &Config) -> Option<Provider> {
    Some(Provider {
        name: "oidc",
        issuers: vec![config.issuer_url.clone()?],
        audiences: vec![config.repl_id.clone()?],
        algorithms: &[Algorithm::RS256, Algorithm::ES256],
        signed: Signed::ByKeysAt(None),
        authority: Authority::None,
        max_age: Some(HOUR),
        signs_in: true,
        client_secret: config.issuer_client_secret.clone(),
    })
}

/// <https://firebase.google.com/docs/auth/admin/verify-id-tokens>
fn firebase(config: &Config) -> Option<Provider> {
    let project = config.firebase_project_id.clone()?;
    let issuer = config.firebase_issuer.clone();
    Some(Provider {
        name: "firebase",
        issuers: vec![
            issuer.unwrap_or_else(|| format!("https://securetoken.google.com/{project}")),
        ],
        audiences: vec![project],
        algorithms: &[Algorithm::RS256],
        signed: Signed::ByKeysAt(Some(config.firebase_jwks_url.clone())),
        authority: Authority::None,
        max_age: None,
        signs_in: false,
        client_secret: None,
    })
}

/// One for its keys and one for its secret, so that neither serves the other's algorithm.
/// <https://supabase.com/docs/guides/auth/signing-keys>
fn supabase(config: &Config) -> Vec<Provider> {
    let Some(url) = &config.supabase_url else {
        return vec![];
    };
    let issuer = format!("{}/auth/v1", url.trim_end_matches('/'));
    let keys = Provider {
        name: "supabase",
        audiences: vec!["authenticated".into()],
        algorithms: &[Algorithm::ES256, Algorithm::RS256],
        signed: Signed::ByKeysAt(Some(format!("{issuer}/.well-known/jwks.json"))),
        issuers: vec![issuer],
        authority: Authority::None,
        max_age: None,
        signs_in: false,
        client_secret: None,
    };
    let secret = config.supabase_jwt_secret.clone().map(|secret| Provider {
        algorithms: &[Algorithm::HS256],
        signed: Signed::With(secret),
        ..keys.clone()
    });
    std::iter::once(keys).chain(secret).collect()
}
