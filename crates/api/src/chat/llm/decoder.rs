//! Server-sent events, read: the `data` of each, whatever the segments and line ends.
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html>

/// One event of a provider at most.
const MAX_EVENT: usize = 1024 * 1024;

/// Cuts a byte stream into the `data` of its events.
#[derive(Default)]
pub struct Decoder {
    /// A line that has begun.
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    skip_newline: bool,
}

/// The provider sent more than an event may hold.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLarge;

impl Decoder {
    /// Gives the `data` of each event that these bytes complete, until `each` wants no more.
    pub fn feed<E: From<TooLarge>>(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.skip_newline) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                self.line.extend_from_slice(bytes);
                return self.check().map_err(E::from);
            };
            self.skip_newline = bytes[end] == b'\r';
            if self.line.is_empty() {
                self.end_line(&bytes[..end], &mut each)?;
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(&bytes[..end]);
                self.end_line(&line, &mut each)?;
                line.clear();
                self.line = line;
            }
            self.check()?;
            bytes = &bytes[end + 1..];
        }
        Ok(())
    }

    fn check(&self) -> Result<(), TooLarge> {
        if self.line.len() + self.data.len() > MAX_EVENT {
            return Err(TooLarge);
        }
        Ok(())
    }

    fn end_line<E>(
        &mut self,
        line: &[u8],
        each: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if line.is_empty() {
            let given = if std::mem::take(&mut self.has_data) && !self.data.is_empty() {
                each(&self.data)
            } else {
                Ok(())
            };
            self.data.clear();
            return given;
        }
        if let Some(value) = line.strip_prefix(b"data:") {
            if std::mem::replace(&mut self.has_data, true) {
                self.data.push(b'\n');
            }
            let value = value.strip_prefix(b" ").unwrap_or(value);
            self.data.extend_from_slice(value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl Decoder {
        fn all(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, TooLarge> {
            let mut events = vec![];
            self.feed(bytes, |event| {
                events.push(event.to_vec());
                Ok::<_, TooLarge>(())
            })?;
            Ok(events)
        }
    }

    fn all(text: &str, step: usize) -> Vec<String> {
        let mut decoder = Decoder::default();
        let chunks = text
            .as_bytes()
            .chunks(step)
            .flat_map(|chunk| decoder.all(chunk).unwrap());
        chunks
            .map(|event| String::from_utf8(event).unwrap())
            .collect()
    }

    #[test]
    fn events_are_the_same_whatever_the_segments_and_line_ends() {
        let text = ": hello\n\nid: 1\nevent: x\ndata: {\"a\":\"ä\"}\n\ndata:two\ndata: lines\n\n\n\nevent: ping\ndata:\n\ndata\n\ndata: last\n\ndata: unfinished";
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
            let read: Vec<_> = pieces.flat_map(|piece| decoder.all(piece).unwrap()).collect();
            prop_assert_eq!(read, texts.into_iter().map(String::into_bytes).collect::<Vec<_>>());
        }

        #[test]
        fn no_bytes_make_it_panic_or_depend_on_where_they_are_cut(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in any::<prop::sample::Index>()) {
            let (mut whole, mut cut_in_two) = (Decoder::default(), Decoder::default());
            let (one, other) = bytes.split_at(cut.index(bytes.len() + 1));
            let two = [cut_in_two.all(one).unwrap(), cut_in_two.all(other).unwrap()].concat();
            prop_assert_eq!(whole.all(&bytes).unwrap(), two);
        }
    }

    #[test]
    fn an_event_without_end_is_refused_before_it_fills_the_memory() {
        let flood = vec![b'x'; 64 * 1024];
        let lines = [b"data: ".to_vec(), flood.clone(), b"\n".to_vec()].concat();
        for flood in [flood, lines] {
            let mut decoder = Decoder::default();
            assert!((0..64).any(|_| decoder.all(&flood) == Err(TooLarge)));
        }
    }
}
