//! Accepting connections, and letting go of them.
use crate::App;
use axum::{Router, extract::ConnectInfo};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
};
use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Who connects has this long to ask for something.
const PATIENCE: Duration = Duration::from_secs(10);
/// A connection may rest for so long between requests: longer than with proxies that keep them for
/// reuse (60 s with nginx and AWS), which would find it closed under the next POST.
const REST: Duration = Duration::from_secs(75);
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

/// Answers with these routes for as long as `work` takes: who asks before there is a product hears that it
/// is starting, and is not left waiting.
pub async fn meanwhile<T>(
    listening: &Listening,
    routes: Router,
    work: impl Future<Output = T>,
) -> T {
    let graceful = GracefulShutdown::new();
    let protocol = protocol();
    let answering = async {
        loop {
            let Ok((stream, peer)) = listening.listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (protocol, routes, watcher) =
                (protocol.clone(), routes.clone(), graceful.watcher());
            tokio::spawn(converse(protocol, stream, peer, routes, watcher, PATIENCE));
        }
    };
    let done = tokio::select! {
        done = work => done,
        () = answering => unreachable!("it accepts for ever"),
    };
    // A connection that was opened meanwhile knows nothing of the product.
    tokio::spawn(graceful.shutdown());
    done
}

/// Serves until `app.draining`, then lets connections end, at most for `SHUTDOWN_TIMEOUT`.
pub async fn serve(app: App, listening: Listening, router: Router) {
    let most = app.config.http.max_connections.get() as usize;
    let connections = Arc::new(Semaphore::new(most));
    let graceful = GracefulShutdown::new();
    let protocol = protocol();

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
        let conversation = converse(
            protocol.clone(),
            stream,
            peer,
            router.clone(),
            graceful.watcher(),
            PATIENCE,
        );
        tokio::spawn(async move {
            conversation.await;
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

/// HTTP/1 and HTTP/2, with bounds to what a client may make us hold, and for how long.
pub(super) fn protocol() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(REST)
        .max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30))
        .max_header_list_size(MAX_HEAD as u32);
    builder
}

/// One connection, to its end. One that has asked for nothing within `patience` is closed: hyper's
/// own timeout is for rests too, and starts when it knows which HTTP it reads, which a single byte
/// can keep from it.
pub(super) async fn converse(
    protocol: auto::Builder<TokioExecutor>,
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    graceful: Watcher,
    patience: Duration,
) {
    // Nagle's algorithm holds back the small writes of a stream for 40 ms.
    let _ = stream.set_nodelay(true);
    let asked = CancellationToken::new();
    let service =
        hyper::service::service_fn(|mut request: hyper::Request<hyper::body::Incoming>| {
            asked.cancel();
            request.extensions_mut().insert(ConnectInfo(peer));
            router.clone().oneshot(request)
        });
    let connection = protocol.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = pin!(graceful.watch(connection));
    // A client that goes away is no news.
    tokio::select! {
        _ = &mut connection => return,
        asked = tokio::time::timeout(patience, asked.cancelled()) => if asked.is_err() { return },
    }
    let _ = connection.await;
}
