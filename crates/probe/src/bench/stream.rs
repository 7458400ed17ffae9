//! A client of OpenAI's streams.
use super::load::{Connection, connect, explained};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Incoming, header};
use serde_json::json;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// An answer on a connection of its own, up to its first token.
pub async fn first_of(port: u16, request: &Request<Full<Bytes>>) -> Result<Stream> {
    let mut connection = connect(port).await?;
    let mut stream = tokio::time::timeout(PATIENCE, Stream::open(&mut connection, request))
        .await
        .context("no first token")??;
    stream.connection = Some(connection);
    Ok(stream)
}

pub struct Stream {
    body: Incoming,
    /// Kept open by whoever keeps the stream.
    connection: Option<Connection>,
}

impl Stream {
    /// Returns with the first token.
    pub async fn open(connection: &mut Connection, request: &Request<Full<Bytes>>) -> Result<Self> {
        let mut stream = Self::begin(connection, request).await?;
        let mut read = vec![];
        while !has_token(&read) {
            let frame = stream.body.frame().await;
            let frame = frame.context("the answer ended before its first token")??;
            read.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        }
        Ok(stream)
    }

    /// Returns with the status.
    pub async fn begin(
        connection: &mut Connection,
        request: &Request<Full<Bytes>>,
    ) -> Result<Self> {
        connection.ready().await?;
        let response = connection.send_request(request.clone()).await?;
        if response.status() != 200 {
            bail!("answered {}", explained(response).await);
        }
        Ok(Self {
            body: response.into_body(),
            connection: None,
        })
    }

    /// Returns with what comes next.
    pub async fn read_on(&mut self) -> Result<()> {
        let frame = self.body.frame().await;
        frame.context("the answer ended early")??;
        Ok(())
    }

    /// Returns with the end; gives when the last token came.
    pub async fn drain(&mut self) -> Result<Instant> {
        let mut last = Instant::now();
        while let Some(frame) = self.body.frame().await {
            let frame = frame?;
            if frame.data_ref().is_some_and(|data| has_token(data)) {
                last = Instant::now();
            }
        }
        Ok(last)
    }
}

/// A chunk whose text is not empty: the first one may hold the role alone.
fn has_token(read: &[u8]) -> bool {
    const TEXT: &[u8] = b"\"content\":\"";
    read.windows(TEXT.len() + 1)
        .any(|window| window.starts_with(TEXT) && window[TEXT.len()] != b'"')
}

pub fn ask(model: &str, token: &str) -> Result<Request<Full<Bytes>>> {
    let body = json!({"model": model, "stream": true, "messages": [{"role": "user", "content": "Tell me of the sea."}]});
    let request = Request::post("/v1/chat/completions")
        .header(header::HOST, "127.0.0.1")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::AUTHORIZATION, format!("Bearer {token}"));
    Ok(request.body(Full::from(body.to_string()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_no_token() {
        let role = br#"data: {"choices":[{"delta":{"role":"assistant","content":""}}]}"#;
        let token = br#"data: {"choices":[{"delta":{"content":"The"}}]}"#;
        assert!(!has_token(b": open\n\n"));
        assert!(!has_token(role));
        assert!(has_token(&[role.as_slice(), token].concat()));
    }
}
