//! Lines of the log on their way out. Whoever reads them may be slow, or stop: no request waits for that.
use std::{
    io::{self, Write},
    sync::mpsc::{SyncSender, TrySendError, sync_channel},
    time::Duration,
};

/// So many wait at most; what comes on top is left out, and counted.
const WAITING: usize = 4096;
/// When the process ends.
const FLUSHED_WITHIN: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub struct Lines(SyncSender<Message>);

enum Message {
    Line(Vec<u8>),
    /// Everything before it is out.
    Mark(SyncSender<()>),
}

impl Lines {
    pub fn to(mut out: impl Write + Send + 'static) -> Self {
        let (lines, waiting) = sync_channel(WAITING);
        std::thread::spawn(move || {
            for message in waiting {
                match message {
                    // Where nobody reads any more, there is nobody to tell.
                    Message::Line(line) => drop(out.write_all(&line)),
                    Message::Mark(reached) => drop(reached.send(())),
                }
            }
        });
        Self(lines)
    }

    /// Returns when all is out, or nobody takes it.
    pub fn flush_all(&self) {
        let (mark, reached) = sync_channel(1);
        if self.0.try_send(Message::Mark(mark)).is_ok() {
            let _ = reached.recv_timeout(FLUSHED_WITHIN);
        }
    }
}

impl Write for Lines {
    /// A line a call, as the formatter does.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let sent = self.0.try_send(Message::Line(line.to_vec()));
        if matches!(sent, Err(TrySendError::Full(_))) {
            metrics::counter!("log_lines_lost_total").increment(1);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex, mpsc};

    /// Takes a line each time it is told to, and keeps it.
    struct Slow {
        told: mpsc::Receiver<()>,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Slow {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.told.recv();
            self.taken.lock().unwrap().extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_who_reads_the_log_and_the_first_lines_are_kept() {
        let (tell, told) = mpsc::channel();
        let taken = Arc::new(Mutex::new(vec![]));
        let slow = Slow {
            told,
            taken: taken.clone(),
        };
        let mut lines = Lines::to(slow);

        for n in 0..WAITING + 100 {
            lines.write_all(format!("{n}\n").as_bytes()).unwrap();
        }
        // Nobody holds it back from here on.
        drop(tell);
        lines.flush_all();

        // One was in its hands when the others began to wait.
        while lines.0.try_send(Message::Line(vec![])).is_err() {
            std::thread::yield_now();
        }
        lines.flush_all();
        let taken = String::from_utf8(taken.lock().unwrap().clone()).unwrap();
        let kept = taken.lines().count();
        assert!((WAITING..=WAITING + 1).contains(&kept), "{kept}");
        let first: String = (0..100).map(|n| format!("{n}\n")).collect();
        assert!(taken.starts_with(&first));
    }
}
