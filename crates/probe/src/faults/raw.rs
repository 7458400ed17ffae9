//! Connections that speak as no client should.
use anyhow::Result;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// What came back, and whether the server closed the connection, within this time.
pub async fn say(port: u16, bytes: &[u8], within: Duration) -> Result<(String, bool)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    // A server that has heard enough may close before it is told all.
    let _ = tokio::time::timeout(within, stream.write_all(bytes)).await;
    Ok(hear(&mut stream, within).await)
}

/// Reads until the connection is closed or the time is over.
pub async fn hear(stream: &mut TcpStream, within: Duration) -> (String, bool) {
    let mut heard = vec![];
    let mut part = [0; 4096];
    let reading = async {
        loop {
            match stream.read(&mut part).await {
                Ok(0) | Err(_) => return,
                Ok(length) => heard.extend_from_slice(&part[..length]),
            }
        }
    };
    let closed = tokio::time::timeout(within, reading).await.is_ok();
    (String::from_utf8_lossy(&heard).into_owned(), closed)
}

/// The statuses of the answers in it, in order.
pub fn statuses(heard: &str) -> Vec<u16> {
    let lines = heard
        .lines()
        .filter_map(|line| line.strip_prefix("HTTP/1.1 "));
    lines
        .filter_map(|line| line.get(..3)?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_of_a_connection_is_seen() {
        let heard = "HTTP/1.1 200 OK\r\n\r\n{}HTTP/1.1 400 Bad Request\r\n\r\n";
        assert_eq!(statuses("HTTP/1.1 431 x\r\n"), [431]);
        assert_eq!(statuses(&heard.replace("{}", "{}\n")), [200, 400]);
    }
}
