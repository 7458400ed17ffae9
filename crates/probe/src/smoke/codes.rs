//! What the product mails to its users, and how the walk comes by it.
use super::{account::Account, walk::Walk};
use serde_json::json;
use std::time::{Duration, Instant};
use url::Url;

/// From a request to the mail it causes.
const DELIVERED_WITHIN: Duration = Duration::from_secs(15);

/// Where the links and codes of mails are read.
pub enum Codes {
    /// The simulated world's mailbox: `GET {url}/mailbox/messages?to=` lists the mails of an address.
    Mailbox(Url),
    /// A service-role key confirms addresses and makes codes, without a mail (`admin/generate_link`).
    ServiceRole(String),
    Nowhere,
}

type Found = Result<String, String>;

impl Codes {
    /// The link that confirms the account's address. A service-role key needs none.
    pub async fn link(&self, walk: &Walk, account: &Account) -> Found {
        let find = |text: &str| {
            let mut words = text.split_whitespace();
            let link = words.find(|word| word.starts_with("http") && word.contains("type=signup"));
            link.map(ToOwned::to_owned)
        };
        match self {
            Self::Mailbox(url) => read(walk, url, account, find).await,
            Self::ServiceRole(_) | Self::Nowhere => Err(NOWHERE.into()),
        }
    }

    /// The digits that let in who forgot the password.
    pub async fn code(&self, walk: &Walk, account: &Account) -> Found {
        let find = |text: &str| {
            let digits = |line: &&str| line.len() >= 6 && line.bytes().all(|b| b.is_ascii_digit());
            let code = text.lines().map(str::trim).find(digits);
            // The mail that confirms has digits of its own.
            let code = code.filter(|_| !text.contains("type=signup"));
            code.map(ToOwned::to_owned)
        };
        match self {
            Self::Mailbox(url) => read(walk, url, account, find).await,
            Self::ServiceRole(key) => make(walk, key, account).await,
            Self::Nowhere => Err(NOWHERE.into()),
        }
    }
}

const NOWHERE: &str = "needs --mailbox or --service-key";

/// The newest mail to the account in which `find` finds something.
async fn read(
    walk: &Walk,
    mailbox: &Url,
    account: &Account,
    find: impl Fn(&str) -> Option<String>,
) -> Found {
    let base = mailbox.as_str().trim_end_matches('/');
    let base = base.trim_end_matches("/mailbox");
    let list = format!("{base}/mailbox/messages?to={}", account.email);
    let asked = Instant::now();
    loop {
        let answer = walk.get(&list, "").await;
        if answer.status != 200 {
            return Err(format!("the mailbox answers {}", answer.brief()));
        }
        let messages = answer.body["messages"].as_array().cloned();
        let texts = messages.unwrap_or_default().into_iter();
        let mut texts = texts.filter_map(|message| message["text"].as_str().map(ToOwned::to_owned));
        match texts.find_map(|text| find(&text)) {
            Some(found) => return Ok(found),
            None if asked.elapsed() > DELIVERED_WITHIN => return Err("no mail came".into()),
            None => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn make(walk: &Walk, key: &str, account: &Account) -> Found {
    let body = json!({"type": "recovery", "email": account.email});
    let answer = walk.post("/auth/v1/admin/generate_link", key, &body).await;
    match answer.text_at("/email_otp") {
        "" => Err(format!("admin/generate_link answers {}", answer.brief())),
        code => Ok(code.to_owned()),
    }
}
