//! A body sent step by step.

use std::io;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;

use super::Ticket;

#[derive(Debug, Clone)]
pub enum Step {
    Send(Bytes),
    Wait(Duration),
    /// Nothing more, and the connection stays open.
    Hang,
    /// The connection dies.
    Cut,
}

impl Step {
    pub fn send(bytes: impl Into<Bytes>) -> Self {
        Self::Send(bytes.into())
    }
}

/// The ticket is finished with the last step, before the client can react to it.
pub fn body(steps: impl Iterator<Item = Step> + Send + 'static, ticket: Ticket) -> Body {
    let start = (steps.peekable(), ticket);
    Body::from_stream(stream::unfold(
        start,
        |(mut steps, mut ticket)| async move {
            loop {
                let step = steps.next();
                if steps.peek().is_none() && !matches!(step, Some(Step::Wait(_) | Step::Hang)) {
                    ticket.finish();
                }
                match step? {
                    Step::Send(bytes) => return Some((Ok(bytes), (steps, ticket))),
                    Step::Wait(time) => tokio::time::sleep(time).await,
                    Step::Hang => std::future::pending().await,
                    Step::Cut => {
                        // Lets hyper flush what it holds: an error throws that away.
                        tokio::task::yield_now().await;
                        let cut = io::Error::from(io::ErrorKind::ConnectionReset);
                        return Some((Err(cut), (steps, ticket)));
                    }
                }
            }
        },
    ))
}
