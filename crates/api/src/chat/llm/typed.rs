//! What is not chat, through `async-openai`: its types and addresses, our transport. The transport
//! checks the status itself, because the crate would lose it where a body is not as it expects, and
//! asks once, because asking again is decided above.
use super::{Backend, Failed, Failure, Provider, call, call::Call, refusal};
use crate::config::Secret;
use async_openai::{config::Config, error::OpenAIError, middleware::HttpRequestFactory};
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, header};
use secrecy::SecretString;
use serde_json::{Map, Value};
use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

pub type Client = async_openai::Client<Account>;

#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Embeddings,
    Moderations,
}

/// A base URL and the key it takes.
#[derive(Clone)]
pub struct Account {
    base: Arc<str>,
    header: HeaderValue,
    /// The trait wants one; the header is what is sent.
    key: Arc<SecretString>,
}

impl Config for Account {
    fn headers(&self) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, self.header.clone())])
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn query(&self) -> Vec<(&str, &str)> {
        vec![]
    }

    fn api_base(&self) -> &str {
        &self.base
    }

    fn api_key(&self) -> &SecretString {
        &self.key
    }
}

pub fn client(provider: Provider, base: &str, key: &Secret, client: &reqwest::Client) -> Client {
    let account = Account {
        base: base.into(),
        header: call::header(provider, key),
        key: Arc::new(key.expose().to_owned().into()),
    };
    let transport = Transport {
        client: client.clone(),
        provider,
    };
    Client::build(client.clone(), account).with_http_service(transport)
}

#[derive(Clone)]
struct Transport {
    client: reqwest::Client,
    provider: Provider,
}

/// A failure on its way through the crate.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.outcome)]
struct Carried(Failed);

impl From<Carried> for OpenAIError {
    fn from(carried: Carried) -> Self {
        Self::Boxed(Box::new(carried))
    }
}

impl tower::Service<HttpRequestFactory> for Transport {
    type Response = reqwest::Response;
    type Error = OpenAIError;
    type Future = BoxFuture<'static, Result<reqwest::Response, OpenAIError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), OpenAIError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequestFactory) -> Self::Future {
        let Self { client, provider } = self.clone();
        Box::pin(async move {
            let sent = client.execute(request.build().await?).await;
            let response = sent.map_err(|error| Carried(Failed::unreached(provider, error)))?;
            if !response.status().is_success() {
                return Err(Carried(refusal::read(response, provider, 0).await).into());
            }
            Ok(response)
        })
    }
}

impl Call {
    /// Asks for what is answered in one piece.
    pub async fn typed(self, kind: Kind, request: &Map<String, Value>) -> Result<Value, Failed> {
        let mut request = request.clone();
        request.insert("model".into(), Value::from(&*self.model));
        let Backend {
            provider,
            base,
            keys,
            ..
        } = &*self.backend;
        if *provider == Provider::Anthropic {
            return Err(Failed::unsaid("this model answers in chats alone".into()));
        }
        let client = client(*provider, base, &keys[self.key].secret, &self.client);
        let (embeddings, moderations) = (client.embeddings(), client.moderations());
        let asked = async {
            match kind {
                Kind::Embeddings => embeddings.create_byot(request).await,
                Kind::Moderations => moderations.create_byot(request).await,
            }
        };
        match tokio::time::timeout_at(self.deadline, asked).await {
            Err(_) => Err(Failed::silent()),
            Ok(answer) => answer.map_err(failed),
        }
    }
}

fn failed(error: OpenAIError) -> Failed {
    let passing = |outcome| Failed::passing(Failure::unavailable(), outcome, Duration::ZERO);
    match error {
        OpenAIError::Boxed(carried) => match carried.downcast::<Carried>() {
            Ok(carried) => carried.0,
            Err(_) => passing("cut"),
        },
        OpenAIError::JSONDeserialize(..) => passing("malformed"),
        _ => passing("cut"),
    }
}
