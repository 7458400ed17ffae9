//! Requests that a proxy and a server may read differently, and headers without end (49, 50).
use super::{case::Case, raw, scene::Scene};
use anyhow::Result;
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(3);

pub async fn run(scene: &Scene<'_>, case: &mut Case) -> Result<()> {
    let server = scene.serve(&[]).await?;
    // A second request hides in the body of the first, for whoever reads its length differently.
    let hidden = "GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n";
    let post = "POST /auth/v1/signup HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    let shapes = [
        (
            "two lengths",
            format!("{post}Content-Length: 2\r\nContent-Length: 40\r\n\r\n{{}}{hidden}"),
        ),
        (
            "a list of lengths",
            format!("{post}Content-Length: 2, 40\r\n\r\n{{}}{hidden}"),
        ),
        (
            "length and chunks",
            format!(
                "{post}Content-Length: 45\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
            ),
        ),
        (
            "chunks twice",
            format!(
                "{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{hidden}"
            ),
        ),
        (
            "an unknown coding",
            format!("{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "a blank before the colon",
            format!("{post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "a folded header",
            format!("{post}X-A: b\r\n Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n{{}}"),
        ),
        (
            "a length with a sign",
            format!("{post}Content-Length: +2\r\n\r\n{{}}{hidden}"),
        ),
        (
            "a chunk without end",
            format!("{post}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{{}}"),
        ),
        (
            "a chunk of a negative size",
            format!("{post}Transfer-Encoding: chunked\r\n\r\n-1\r\n{{}}"),
        ),
        (
            "NUL in a header",
            "GET /health/live HTTP/1.1\r\nHost: x\r\nX-A: a\0b\r\n\r\n".to_owned(),
        ),
        ("no version", "GET /health/live\r\n\r\n".to_owned()),
        (
            "a version of its own",
            "GET /health/live HTTP/9.9\r\nHost: x\r\n\r\n".to_owned(),
        ),
    ];
    let mut wrong = vec![];
    for (name, bytes) in &shapes {
        let (heard, closed) = raw::say(server.port, bytes.as_bytes(), WITHIN).await?;
        let statuses = raw::statuses(&heard);
        let smuggled = heard.contains(r#"{"live":true}"#);
        let bad = statuses
            .iter()
            .any(|status| *status >= 500 || *status < 400);
        if smuggled || bad || !closed {
            wrong.push(format!(
                "{name}: {statuses:?}{}",
                if closed { "" } else { ", left open" }
            ));
        }
    }
    case.none(
        format!(
            "{} ambiguous requests are refused, and the connection closed",
            shapes.len()
        ),
        &wrong,
    );

    let many = (0..500)
        .map(|n| format!("X-{n}: a\r\n"))
        .collect::<String>();
    let hops = "10.0.0.1, ".repeat(10_000);
    let bombs = [
        (
            "500 headers",
            format!("GET /health/live HTTP/1.1\r\nHost: x\r\n{many}\r\n"),
        ),
        (
            "a cookie of 1 MiB",
            format!(
                "GET /health/live HTTP/1.1\r\nHost: x\r\nCookie: {}\r\n\r\n",
                "a".repeat(1 << 20)
            ),
        ),
        (
            "10,000 hops",
            format!(
                "GET /health/live HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {hops}\r\nConnection: close\r\n\r\n"
            ),
        ),
        (
            "a path of 1 MiB",
            format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(1 << 20)),
        ),
    ];
    let mut wrong = vec![];
    for (name, bytes) in &bombs {
        let (heard, closed) = raw::say(server.port, bytes.as_bytes(), WITHIN).await?;
        let statuses = raw::statuses(&heard);
        // 10,000 hops are long and well-formed: either will do, but not an error of the server's.
        let fine = statuses.iter().all(|status| *status < 500) && closed;
        if !fine {
            wrong.push(format!(
                "{name}: {statuses:?}{}",
                if closed { "" } else { ", left open" }
            ));
        }
    }
    case.none("header bombs are refused or borne", &wrong);
    let live = server.get("/health/live", "").await;
    case.check("then it answers as ever", live.status == 200, live.brief());
    Ok(())
}
