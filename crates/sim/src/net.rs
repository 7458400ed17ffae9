//! Listening on loopback, and closing every connection when the world goes.

use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header, uri::Authority};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Binds 127.0.0.1, on any free port when the wanted one is taken.
pub async fn bind(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
        Err(error) if port != 0 => {
            tracing::info!(port, %error, "port is not free, taking any other");
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
        }
        result => result,
    }
}

/// Serves every connection in a task of its own. Dropping this future closes them all: that is why
/// `axum::serve`, whose connections outlive it, is not used.
pub async fn accept<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F) -> Infallible
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    // Without it a word of a stream may wait 40 ms for the last one's acknowledgement.
                    let _ = stream.set_nodelay(true);
                    connections.spawn(serve(stream));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

pub async fn http(stream: TcpStream, router: Router) {
    let served = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::trace!(%error, "connection ended early");
    }
}

/// A page elsewhere may point its own name at 127.0.0.1 and would then read the mailbox as same
/// origin; only the Host header gives it away.
pub async fn local_names_only(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST);
    let name = host.map(|host| Authority::try_from(host.as_bytes()));
    let local = match &name {
        None => true,
        Some(Err(_)) => false,
        Some(Ok(name)) => {
            let name = name.host();
            matches!(name, "127.0.0.1" | "[::1]" | "localhost") || name.ends_with(".localhost")
        }
    };
    if !local {
        let refusal = "This simulation answers to 127.0.0.1 and localhost only.\n";
        return (StatusCode::MISDIRECTED_REQUEST, refusal).into_response();
    }
    next.run(request).await
}
