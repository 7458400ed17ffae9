//! Whether the server is there, says so in the agreed words, and shows nothing that it should not.
use super::walk::Walk;
use crate::answer::{Answer, send};
use reqwest::{Method, header};
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

/// A certificate that is renewed by itself has more than this left.
const CERTIFICATE_DAYS: i64 = 14;

impl Walk {
    /// `false`: nobody is there, and asking on would say the same many times.
    pub async fn health(&mut self) -> bool {
        let answer = self.get("/health", "").await;
        let right = answer.status == 200
            && has_exactly(&answer.body, &["status", "version", "database"])
            && answer.text_at("/status") == "healthy"
            && answer.text_at("/database") == "connected"
            && answer.has_text(&["/version"]);
        let expected = "200, exactly healthy, version, connected";
        self.note("GET /health", expected, &answer, right);
        if answer.status == 0 {
            return false;
        }
        self.certificate(&answer);
        self.headers(answer);

        let answer = self.get("/health/ready", "").await;
        let right = answer.status == 200 && answer.body == json!({"ready": true});
        self.note("GET /health/ready", "200 {\"ready\":true}", &answer, right);

        let answer = self.get("/health/live", "").await;
        let right = answer.status == 200 && answer.body == json!({"live": true});
        self.note("GET /health/live", "200 {\"live\":true}", &answer, right);

        let answer = self.get("/api/health", "").await;
        let services = ["database", "redis", "llm", "stripe", "revenuecat", "mail"];
        let known = |name: &str| {
            let state = answer.body["services"][name].as_str().unwrap_or_default();
            ["ok", "degraded", "off", "simulated"].contains(&state)
        };
        let right = answer.status == 200
            && answer.has_text(&["/timestamp"])
            && services.iter().all(|name| known(name));
        let expected = "200 with timestamp and services";
        self.note("GET /api/health", expected, &answer, right);
        true
    }

    /// How long the certificate is good for, where there is one.
    fn certificate(&mut self, answer: &Answer) {
        let Some(der) = &answer.certificate else {
            return;
        };
        let (status, days) = match X509Certificate::from_der(der) {
            Ok((_, certificate)) => {
                let left = certificate.validity().not_after.timestamp() - crate::events::now();
                (200, left / (24 * 60 * 60))
            }
            Err(_) => (0, 0),
        };
        let seen = Answer {
            status,
            headers: Default::default(),
            text: format!("{days} days left"),
            body: Value::Null,
            took: answer.took,
            certificate: None,
        };
        let right = days >= CERTIFICATE_DAYS;
        self.note("certificate", "14 days left or more", &seen, right);
    }

    fn headers(&mut self, mut answer: Answer) {
        let mut wanted = vec!["x-request-id", "x-content-type-options", "referrer-policy"];
        if answer.certificate.is_some() {
            wanted.push("strict-transport-security");
        }
        wanted.retain(|name| !answer.has_header(name));
        let right = wanted.is_empty();
        answer.body = Value::Null;
        answer.text = match right {
            true => "all there".to_owned(),
            false => format!("without {}", wanted.join(", ")),
        };
        let expected = "request id and security headers";
        self.note("headers", expected, &answer, right);
    }

    /// Others' pages, and the metrics of others.
    pub async fn closed_doors(&mut self, on_loopback: bool) {
        let evil = self
            .request(Method::GET, "/api/billing/plans")
            .header(header::ORIGIN, "https://evil.example");
        let answer = send(evil).await;
        let name = header::ACCESS_CONTROL_ALLOW_ORIGIN.as_str();
        let right = answer.status == 200 && !answer.has_header(name);
        let expected = "no Access-Control-Allow-Origin";
        self.note("a foreign page", expected, &answer, right);

        let (step, expected) = ("GET /metrics, no token", "401 or 403");
        if on_loopback {
            self.skip(step, expected, "on this machine they are open");
        } else {
            let answer = self.get("/metrics", "").await;
            let right = matches!(answer.status, 401 | 403);
            self.note(step, expected, &answer, right);
        }

        let answer = self.get("/.well-known/jwks.json", "").await;
        let keys = answer.body["keys"].as_array().cloned().unwrap_or_default();
        let public =
            |key: &Value| key["kty"].is_string() && key["kid"].is_string() && key["d"].is_null();
        let right = answer.status == 200 && !keys.is_empty() && keys.iter().all(public);
        let expected = "200, public keys alone";
        self.note("GET /.well-known/jwks.json", expected, &answer, right);
    }
}

fn has_exactly(body: &Value, members: &[&str]) -> bool {
    body.as_object().is_some_and(|body| {
        body.len() == members.len() && members.iter().all(|name| body.contains_key(*name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_may_have_no_further_members() {
        let names = ["status", "version"];
        for (body, expected) in [
            (json!({"version": "1", "status": "healthy"}), true),
            (json!({"version": "1", "status": "healthy", "x": 1}), false),
            (json!({"version": "1"}), false),
        ] {
            assert_eq!(has_exactly(&body, &names), expected, "{body}");
        }
    }
}
