//! Server-sent events, written.
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html>
use axum::{
    body::{Body, Bytes},
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::{Stream, StreamExt, stream};

/// A response of events, whose head leaves at once.
pub fn response(events: impl Stream<Item = String> + Send + 'static) -> Response {
    let open = stream::once(async { ": open\n\n".to_owned() });
    let body = Body::from_stream(
        open.chain(events)
            .map(|text| Ok::<_, std::convert::Infallible>(Bytes::from(text))),
    );
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream; charset=utf-8"),
    );
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-transform"),
    );
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    response
}
