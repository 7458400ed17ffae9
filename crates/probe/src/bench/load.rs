//! A closed loop over kept connections: each sends its next request when the last is answered.
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures_util::future::try_join_all;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use std::{
    cell::Cell,
    net::Ipv4Addr,
    time::{Duration, Instant},
};
use tokio::{net::TcpStream, time::MissedTickBehavior};

pub type Connection = http1::SendRequest<Full<Bytes>>;

/// A request is answered within this, or the measurement is broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// What one turn came to.
#[derive(Debug, Default)]
pub struct Turn {
    pub elapsed: Duration,
    /// Microseconds from sending a request to the end of its answer, one for each.
    pub latencies: Vec<u32>,
    /// Of the process that served; `None` where it cannot be told.
    pub cpu: Option<Duration>,
    /// Bytes, resident, at the end of the turn.
    pub rss: Option<u64>,
}

impl Turn {
    pub fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }
}

pub async fn connect(port: u16) -> Result<Connection> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the sender; what goes wrong is told there.
    tokio::spawn(connection);
    Ok(sender)
}

/// Kept connections to one port.
pub struct Load {
    connections: Vec<Connection>,
}

impl Load {
    pub async fn open(port: u16, connections: usize) -> Result<Self> {
        let connections = try_join_all((0..connections).map(|_| connect(port))).await?;
        Ok(Self { connections })
    }

    /// Asks for so long. `make` gives the request of each number; any answer but 200 is an error.
    pub async fn run(
        &mut self,
        turn: Duration,
        make: impl Fn(u64) -> Request<Full<Bytes>>,
    ) -> Result<Turn> {
        let number = Cell::new(0);
        let (make, number) = (&make, &number);
        let started = Instant::now();
        let deadline = started + turn;
        let loops = self.connections.iter_mut().map(async |connection| {
            let mut latencies = Vec::with_capacity(64 * 1024);
            loop {
                let request = make(number.replace(number.get() + 1));
                if Instant::now() >= deadline {
                    return Ok::<_, anyhow::Error>(latencies);
                }
                latencies.push(send(connection, request).await?);
            }
        });
        let latencies = tokio::time::timeout(turn + PATIENCE, try_join_all(loops));
        let latencies = latencies.await.context("no answer came any more")??;
        Ok(Turn {
            elapsed: started.elapsed(),
            latencies: latencies.concat(),
            ..Turn::default()
        })
    }
}

/// One request after the other at fixed times, whether or not the last was quick: what others keep the
/// server from shows in how long they take.
pub async fn paced(
    connection: &mut Connection,
    every: Duration,
    turn: Duration,
    request: &Request<Full<Bytes>>,
) -> Result<Turn> {
    let mut due = tokio::time::interval(every);
    due.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (started, mut latencies) = (Instant::now(), vec![]);
    while started.elapsed() < turn {
        due.tick().await;
        latencies.push(send(connection, request.clone()).await?);
    }
    Ok(Turn {
        elapsed: started.elapsed(),
        latencies,
        ..Turn::default()
    })
}

/// Microseconds until a request was answered to its end.
async fn send(connection: &mut Connection, request: Request<Full<Bytes>>) -> Result<u32> {
    let sent = Instant::now();
    let response = connection.send_request(request).await?;
    if response.status() != 200 {
        bail!("answered {}", explained(response).await);
    }
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX))
}

/// The status and the beginning of the body.
pub async fn explained(response: Response<Incoming>) -> String {
    let status = response.status();
    let body = response.into_body().collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let text: String = String::from_utf8_lossy(&body).chars().take(300).collect();
    format!("{status}: {text}")
}
