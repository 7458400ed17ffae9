//! `plinth health`: whether the server on this machine lives, for images that have no curl.
use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

/// Shorter than the patience of who asks: an image's health check has five seconds.
const PATIENCE: Duration = Duration::from_secs(3);

/// Reads two variables and not the configuration, whose other faults are not the question.
pub fn run(environment: &HashMap<String, String>) -> anyhow::Result<()> {
    let set = |name| {
        let value = environment.get(name).map(|value| value.trim());
        value.filter(|value| !value.is_empty())
    };
    let port = set("PORT").map_or(Ok(8080), str::parse)?;
    let host = set("HOST").map_or(Ok(Ipv4Addr::LOCALHOST.into()), str::parse)?;
    ask(SocketAddr::new(reachable(host), port))
}

/// Who listens on every address answers on loopback.
fn reachable(host: IpAddr) -> IpAddr {
    if host.is_unspecified() {
        Ipv4Addr::LOCALHOST.into()
    } else {
        host
    }
}

fn ask(address: SocketAddr) -> anyhow::Result<()> {
    let mut server = TcpStream::connect_timeout(&address, PATIENCE)?;
    server.set_read_timeout(Some(PATIENCE))?;
    write!(
        server,
        "GET /health/live HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut status = [0; 12];
    server.read_exact(&mut status)?;
    anyhow::ensure!(
        &status == b"HTTP/1.1 200",
        "{address} answers {}",
        String::from_utf8_lossy(&status)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::TcpListener, thread};

    fn server_that_says(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || {
            let (mut client, _) = listener.accept().expect("a client");
            let mut asked = [0; 22];
            client.read_exact(&mut asked).expect("a question");
            assert_eq!(&asked, b"GET /health/live HTTP/");
            client.write_all(answer).expect("an answer");
        });
        address
    }

    #[test]
    fn a_server_that_lives_is_well_and_any_other_is_not() {
        assert!(ask(server_that_says(b"HTTP/1.1 200 OK\r\n\r\n{}")).is_ok());
        for other in [
            &b"HTTP/1.1 503 Service Unavailable\r\n\r\n"[..],
            b"",
            b"220 mail",
        ] {
            assert!(ask(server_that_says(other)).is_err());
        }
        let nobody = TcpListener::bind("127.0.0.1:0").and_then(|gone| gone.local_addr());
        assert!(ask(nobody.expect("an address")).is_err());
    }

    #[test]
    fn who_listens_everywhere_is_asked_on_loopback() {
        for everywhere in ["0.0.0.0", "::"] {
            let host = everywhere.parse().expect("an address");
            assert_eq!(reachable(host), IpAddr::from(Ipv4Addr::LOCALHOST));
        }
    }
}
