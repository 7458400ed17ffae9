//! Server-sent events: reading a provider's, writing ours.
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html>
use axum::{
    body::{Body, Bytes},
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::{Stream, StreamExt, stream};

/// One event of a provider at most.
const MAX_EVENT: usize = 1024 * 1024;

/// Cuts a byte stream into the `data` of its events, whatever the chunks and line ends.
#[derive(Default)]
pub struct Decoder {
    line: Vec<u8>,
    data: Vec<u8>,
    skip_newline: bool,
}

/// The provider sent more than an event may hold.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLarge;

impl Decoder {
    /// The `data` of each event that these bytes complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, TooLarge> {
        let mut events = vec![];
        for &byte in bytes {
            match byte {
                b'\n' if std::mem::take(&mut self.skip_newline) => continue,
                b'\n' => self.end_line(&mut events),
                b'\r' => {
                    self.end_line(&mut events);
                    self.skip_newline = true;
                    continue;
                }
                _ => self.line.push(byte),
            }
            self.skip_newline = false;
            if self.line.len() + self.data.len() > MAX_EVENT {
                return Err(TooLarge);
            }
        }
        Ok(events)
    }

    fn end_line(&mut self, events: &mut Vec<Vec<u8>>) {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            if !self.data.is_empty() {
                self.data.pop();
                events.push(std::mem::take(&mut self.data));
            }
        } else if let Some(value) = line.strip_prefix(b"data:") {
            self.data
                .extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
            self.data.push(b'\n');
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(text: &str, step: usize) -> Vec<String> {
        let mut decoder = Decoder::default();
        let chunks = text
            .as_bytes()
            .chunks(step)
            .flat_map(|chunk| decoder.feed(chunk).unwrap());
        chunks
            .map(|event| String::from_utf8(event).unwrap())
            .collect()
    }

    #[test]
    fn events_are_the_same_whatever_the_segments_and_line_ends() {
        let text = ": hello\n\nid: 1\nevent: x\ndata: {\"a\":\"ä\"}\n\ndata:two\ndata: lines\n\n\n\ndata: last\n\ndata: unfinished";
        for line_end in ["\n", "\r\n", "\r"] {
            for step in [1, 2, 3, 7, 1000] {
                assert_eq!(
                    all(&text.replace('\n', line_end), step),
                    ["{\"a\":\"ä\"}", "two\nlines", "last"],
                    "{line_end:?} {step}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_wherever_it_is_cut(
            texts in prop::collection::vec("[^\r\n]{1,40}", 0..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
            line_end in prop::sample::select(vec!["\n", "\r\n", "\r"]),
        ) {
            let event = |text: &String| format!("id: 1{line_end}: a comment{line_end}data: {text}{line_end}{line_end}");
            let bytes: Vec<u8> = texts.iter().map(event).collect::<String>().into();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();

            let mut decoder = Decoder::default();
            let pieces = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]);
            let read: Vec<_> = pieces.flat_map(|piece| decoder.feed(piece).unwrap()).collect();
            prop_assert_eq!(read, texts.into_iter().map(String::into_bytes).collect::<Vec<_>>());
        }

        #[test]
        fn no_bytes_make_it_panic_or_depend_on_where_they_are_cut(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in any::<prop::sample::Index>()) {
            let (mut whole, mut cut_in_two) = (Decoder::default(), Decoder::default());
            let (one, other) = bytes.split_at(cut.index(bytes.len() + 1));
            let two = [cut_in_two.feed(one).unwrap(), cut_in_two.feed(other).unwrap()].concat();
            prop_assert_eq!(whole.feed(&bytes).unwrap(), two);
        }
    }

    #[test]
    fn an_event_without_end_is_refused_before_it_fills_the_memory() {
        let mut decoder = Decoder::default();
        let flood = vec![b'x'; 64 * 1024];
        assert!((0..64).any(|_| decoder.feed(&flood) == Err(TooLarge)));
    }
}
