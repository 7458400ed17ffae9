//! What a server said to one request.
use reqwest::{RequestBuilder, header::HeaderMap};
use serde_json::Value;
use std::time::{Duration, Instant};

/// What a request came to.
pub struct Answer {
    /// 0 when there was none; the text then says why.
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    /// Null when it is not JSON.
    pub body: Value,
    pub took: Duration,
    /// The server's, in DER, where the answer came over TLS.
    pub certificate: Option<Vec<u8>>,
}

impl Answer {
    pub fn text_at(&self, pointer: &str) -> &str {
        let value = self.body.pointer(pointer);
        value.and_then(Value::as_str).unwrap_or_default()
    }

    pub fn has_text(&self, pointers: &[&str]) -> bool {
        pointers
            .iter()
            .all(|pointer| !self.text_at(pointer).is_empty())
    }

    /// A whole one, as GoTrue gives it.
    pub fn is_session(&self) -> bool {
        self.status == 200
            && self.text_at("/token_type") == "bearer"
            && self.has_text(&["/access_token", "/refresh_token", "/user/id"])
            && self.body["expires_in"].is_u64()
            && self.body["expires_at"].is_u64()
    }

    pub fn is_refused(&self, status: u16, code: &str) -> bool {
        self.status == status && self.text_at("/code") == code
    }

    pub fn has_header(&self, name: &str) -> bool {
        self.headers.contains_key(name)
    }

    /// Short, and without what must not be shown: names the members of what is long or secret.
    pub fn brief(&self) -> String {
        if self.status == 0 {
            return self.text.clone();
        }
        let code = self.text_at("/code");
        let said = if !code.is_empty() {
            code.to_owned()
        } else if self.text.len() <= 72 && !self.text.contains("token") {
            self.text.trim().to_owned()
        } else if let Value::Object(members) = &self.body {
            let names: Vec<_> = members.keys().map(String::as_str).collect();
            format!("{{{}}}", names.join(", "))
        } else {
            format!("{} bytes", self.text.len())
        };
        let short: String = said.chars().take(72).collect();
        format!("{} {short}", self.status).trim_end().to_owned()
    }
}

/// Sends it, and hears it out.
pub async fn send(request: RequestBuilder) -> Answer {
    let sent = Instant::now();
    let answered = async {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let tls = response.extensions().get::<reqwest::tls::TlsInfo>();
        let certificate = tls.and_then(|tls| tls.peer_certificate().map(<[u8]>::to_vec));
        Ok::<_, reqwest::Error>((status, headers, certificate, response.text().await?))
    };
    let (status, headers, certificate, text) = answered
        .await
        .unwrap_or_else(|error| (0, HeaderMap::new(), None, plainly(&error)));
    Answer {
        status,
        headers,
        body: serde_json::from_str(&text).unwrap_or_default(),
        text,
        took: sent.elapsed(),
        certificate,
    }
}

/// The cause, which reqwest keeps inside.
fn plainly(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    format!("no answer: {cause}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_brief_answer_shows_no_tokens() {
        let brief = |status, text: &str| {
            let answer = Answer {
                status,
                headers: HeaderMap::new(),
                text: text.into(),
                body: serde_json::from_str(text).unwrap_or_default(),
                took: Duration::ZERO,
                certificate: None,
            };
            answer.brief()
        };
        let session = r#"{"access_token":"ey.secret","user":{"id":"1"}}"#;
        assert_eq!(brief(200, session), "200 {access_token, user}");
        assert_eq!(brief(200, r#"{"ready":true}"#), r#"200 {"ready":true}"#);
        assert_eq!(
            brief(400, r#"{"code":"bad_json","detail":"…"}"#),
            "400 bad_json"
        );
        assert_eq!(brief(204, ""), "204");
    }
}
