//! A bucket of S3, or of one of the many that speak like it. Requests are signed by `rusty-s3` and
//! sent by our one HTTP client; what is large goes in parts, one at a time, so memory stays flat.
use super::{Config, file, place::Found};
use crate::http::Client;
use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::{Method, StatusCode, header::ETAG};
use rusty_s3::{Credentials, S3Action, UrlStyle, actions::ListObjectsV2};
use std::{path::Path, time::Duration};
use tokio::{fs::File, io::AsyncWriteExt};

/// The smallest that holds 150 GiB in the 10,000 parts that S3 allows
/// (https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html).
const PART: usize = 16 << 20;
/// A request of a part on a slow line.
const PATIENCE: Duration = Duration::from_secs(300);
/// Between two pieces of what is fetched.
const SILENCE: Duration = Duration::from_secs(60);
const ATTEMPTS: u32 = 4;

#[derive(Clone)]
pub struct Bucket {
    bucket: rusty_s3::Bucket,
    credentials: Credentials,
    prefix: String,
    http: Client,
}

impl Bucket {
    pub fn open(name: &str, prefix: &str, config: &Config) -> anyhow::Result<Self> {
        let (Some(id), Some(secret)) = (&config.aws_access_key_id, &config.aws_secret_access_key)
        else {
            bail!("AWS_ACCESS_KEY_ID or AWS_SECRET_ACCESS_KEY is not set");
        };
        let credentials = match &config.aws_session_token {
            Some(token) => Credentials::new_with_token(id, secret.expose(), token.expose()),
            None => Credentials::new(id, secret.expose()),
        };
        let region = config.aws_region.clone();
        let (endpoint, style) = match &config.aws_endpoint_url_s3 {
            Some(url) => (url.clone(), UrlStyle::Path),
            None => (
                format!("https://s3.{region}.amazonaws.com").parse()?,
                UrlStyle::VirtualHost,
            ),
        };
        Ok(Self {
            bucket: rusty_s3::Bucket::new(endpoint, style, name.to_owned(), region)?,
            credentials,
            prefix: prefix.to_owned(),
            http: Client::default(),
        })
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Sends a request, again after a pause where the network or the server failed.
    async fn send<'a>(
        &self,
        method: Method,
        action: &impl S3Action<'a>,
        body: Bytes,
    ) -> anyhow::Result<reqwest::Response> {
        for attempt in 1.. {
            let request = self
                .http
                .get()?
                .request(method.clone(), action.sign(PATIENCE))
                .timeout(PATIENCE)
                .body(body.clone());
            let answer = request.send().await;
            let again = match &answer {
                Ok(answer) => {
                    answer.status().is_server_error()
                        || answer.status() == StatusCode::TOO_MANY_REQUESTS
                }
                Err(_) => true,
            };
            if !again || attempt == ATTEMPTS {
                let answer = answer.map_err(reqwest::Error::without_url);
                return self
                    .accepted(answer.with_context(|| self.at("cannot be reached"))?)
                    .await;
            }
            tokio::time::sleep(Duration::from_millis(250) * attempt * attempt).await;
        }
        unreachable!("the loop ends by returning")
    }

    async fn accepted(&self, answer: reqwest::Response) -> anyhow::Result<reqwest::Response> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let text = answer.text().await.unwrap_or_default();
        let code = element(&text, "Code").unwrap_or(status.as_str());
        let remedy = match status.as_u16() {
            403 => ". Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and what the key may do",
            404 if code == "NoSuchBucket" => {
                ". Make the bucket first, or check its name and AWS_REGION"
            }
            301 | 307 | 400 => ". Check AWS_REGION and AWS_ENDPOINT_URL_S3",
            _ => "",
        };
        bail!(
            "{}{remedy}",
            self.at(&format!("answered {status} ({code})"))
        )
    }

    fn at(&self, what: &str) -> String {
        let host = self.bucket.base_url().host_str().unwrap_or_default();
        format!("s3://{} at {host} {what}", self.bucket.name())
    }

    pub async fn list(&self) -> anyhow::Result<Vec<Found>> {
        let mut all = vec![];
        let mut next: Option<String> = None;
        loop {
            let mut action = self.bucket.list_objects_v2(Some(&self.credentials));
            action.with_prefix(self.prefix.as_str());
            if let Some(token) = next.take() {
                action.with_continuation_token(token);
            }
            let text = self
                .send(Method::GET, &action, Bytes::new())
                .await?
                .text()
                .await?;
            let page = ListObjectsV2::parse_response(&text)
                .with_context(|| self.at("gave a list that cannot be read"))?;
            all.extend(page.contents.into_iter().filter_map(|object| {
                Some(Found {
                    name: object.key.strip_prefix(&self.prefix)?.to_owned(),
                    bytes: object.size.unwrap_or(0),
                })
            }));
            next = page.next_continuation_token;
            if next.is_none() {
                return Ok(all);
            }
        }
    }

    pub async fn remove(&self, name: &str) -> anyhow::Result<()> {
        let key = self.key(name);
        let action = self.bucket.delete_object(Some(&self.credentials), &key);
        self.send(Method::DELETE, &action, Bytes::new())
            .await
            .map(drop)
    }

    async fn put(&self, name: &str, body: Bytes) -> anyhow::Result<()> {
        let key = self.key(name);
        let action = self.bucket.put_object(Some(&self.credentials), &key);
        self.send(Method::PUT, &action, body).await.map(drop)
    }

    /// What is small: a sum. `None` where there is none.
    pub async fn text(&self, name: &str) -> anyhow::Result<Option<String>> {
        if !self.list().await?.iter().any(|found| found.name == name) {
            return Ok(None);
        }
        Ok(Some(self.get(name).await?.text().await?))
    }

    pub async fn fetch(&self, name: &str, to: &Path) -> anyhow::Result<()> {
        let mut pieces = self.get(name).await?.bytes_stream();
        let mut file = File::create(to).await?;
        while let Some(piece) = tokio::time::timeout(SILENCE, pieces.next())
            .await
            .with_context(|| self.at("fell silent"))?
        {
            file.write_all(&piece?).await?;
        }
        Ok(file.flush().await?)
    }

    /// Without a bound on the whole: what is fetched may be large.
    async fn get(&self, name: &str) -> anyhow::Result<reqwest::Response> {
        let key = self.key(name);
        let action = self.bucket.get_object(Some(&self.credentials), &key);
        let request = self.http.get()?.get(action.sign(PATIENCE)).send();
        let answer = tokio::time::timeout(SILENCE, request)
            .await
            .with_context(|| self.at("does not answer"))?
            .map_err(reqwest::Error::without_url)
            .with_context(|| self.at("cannot be reached"))?;
        self.accepted(answer).await
    }
}

/// One element's text, whatever is around it: not all of those who speak like S3 name the root alike.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(text)
}

/// An object on its way: in one piece, or where it is large in parts that become one at the end.
pub struct Upload {
    bucket: Bucket,
    name: String,
    id: Option<String>,
    etags: Vec<String>,
    part: BytesMut,
}

impl Upload {
    pub fn begin(bucket: Bucket, name: &str) -> Self {
        Self {
            bucket,
            name: name.to_owned(),
            id: None,
            etags: vec![],
            part: BytesMut::new(),
        }
    }

    pub async fn write(&mut self, piece: Bytes) -> anyhow::Result<()> {
        self.part.extend_from_slice(&piece);
        if self.part.len() >= PART {
            // Some demand that all parts but the last are of one size.
            let part = self.part.split_to(PART).freeze();
            self.send_part(part).await?;
        }
        Ok(())
    }

    async fn send_part(&mut self, part: Bytes) -> anyhow::Result<()> {
        let (bucket, key) = (&self.bucket, self.bucket.key(&self.name));
        let credentials = Some(&bucket.credentials);
        let id = match &self.id {
            Some(id) => id,
            None => {
                let action = bucket.bucket.create_multipart_upload(credentials, &key);
                let text = bucket
                    .send(Method::POST, &action, Bytes::new())
                    .await?
                    .text()
                    .await?;
                let id = element(&text, "UploadId")
                    .with_context(|| bucket.at("gave an answer that cannot be read"))?;
                self.id.insert(id.to_owned())
            }
        };
        let number = u16::try_from(self.etags.len() + 1).unwrap_or(u16::MAX);
        anyhow::ensure!(
            number <= 10_000,
            "the backup is larger than S3 takes in parts of 16 MiB"
        );
        let action = bucket.bucket.upload_part(credentials, &key, number, id);
        let answer = bucket.send(Method::PUT, &action, part).await?;
        let etag = answer
            .headers()
            .get(ETAG)
            .and_then(|etag| etag.to_str().ok());
        let etag = etag
            .with_context(|| bucket.at("did not say what it took"))?
            .to_owned();
        self.etags.push(etag);
        Ok(())
    }

    /// It appears, with its sum already beside it.
    pub async fn finish(mut self, sha256: &str) -> anyhow::Result<()> {
        let finished = self.complete(sha256).await;
        if finished.is_err() {
            self.give_up().await;
        }
        finished
    }

    async fn complete(&mut self, sha256: &str) -> anyhow::Result<()> {
        let rest = self.part.split().freeze();
        if self.id.is_some() && !rest.is_empty() {
            self.send_part(rest.clone()).await?;
        }
        let sum = file::checksum_line(sha256, &self.name).into();
        self.bucket.put(&file::checksum_of(&self.name), sum).await?;
        let Some(id) = &self.id else {
            return self.bucket.put(&self.name, rest).await;
        };
        let (bucket, key) = (&self.bucket, self.bucket.key(&self.name));
        let action = || {
            let etags = self.etags.iter().map(String::as_str);
            let credentials = Some(&bucket.credentials);
            bucket
                .bucket
                .complete_multipart_upload(credentials, &key, id, etags)
        };
        let body = action().body();
        let text = bucket
            .send(Method::POST, &action(), body.into())
            .await?
            .text()
            .await?;
        // S3 may find out that it failed after it said 200.
        anyhow::ensure!(
            !text.contains("<Error>"),
            bucket.at("could not put the parts together")
        );
        Ok(())
    }

    /// Parts that become nothing cost money as long as they lie there.
    pub async fn give_up(self) {
        let Some(id) = &self.id else { return };
        let (bucket, key) = (&self.bucket, self.bucket.key(&self.name));
        let credentials = Some(&bucket.credentials);
        let action = bucket.bucket.abort_multipart_upload(credentials, &key, id);
        if let Err(error) = bucket.send(Method::DELETE, &action, Bytes::new()).await {
            tracing::warn!(error = %format!("{error:#}"), "parts of a backup were left in the bucket");
        }
    }
}
