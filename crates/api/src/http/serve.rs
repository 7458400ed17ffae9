//! Accepting connections, and letting go of them.
use crate::App;
use axum::{Router, extract::ConnectInfo};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::Semaphore};
use tower::ServiceExt;

/// A client has this long to send the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request's head, and of what waits to be written to a slow reader.
const MAX_HEAD: usize = 64 * 1024;

/// A bound address.
pub struct Listening {
    listener: TcpListener,
    pub address: SocketAddr,
}

impl Listening {
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }
}

/// Serves until `app.draining`, then lets connections end, at most for `SHUTDOWN_TIMEOUT`.
pub async fn serve(app: App, listening: Listening, router: Router) {
    let connections = Arc::new(Semaphore::new(app.config.http.max_connections as usize));
    let graceful = GracefulShutdown::new();
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30))
        .max_header_list_size(MAX_HEAD as u32);

    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else {
            break;
        };
        let accepted = tokio::select! {
            accepted = listening.listener.accept() => accepted,
            () = app.draining.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly: without a pause this would spin.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Nagle's algorithm holds back the small writes of a stream for 40 ms.
        let _ = stream.set_nodelay(true);
        let router = router.clone();
        let service = hyper::service::service_fn(
            move |mut request: hyper::Request<hyper::body::Incoming>| {
                request.extensions_mut().insert(ConnectInfo(peer));
                router.clone().oneshot(request)
            },
        );
        let connection = graceful.watch(
            server
                .serve_connection_with_upgrades(TokioIo::new(stream), service)
                .into_owned(),
        );
        tokio::spawn(async move {
            // A client that goes away is no news.
            let _ = connection.await;
            drop(permit);
        });
    }

    drop(listening.listener);
    let open = graceful.count();
    if tokio::time::timeout(app.config.core.shutdown_timeout, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!(open, "connections were cut at the end of SHUTDOWN_TIMEOUT");
    }
}
