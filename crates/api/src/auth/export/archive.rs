//! A zip that is sent while it is made: of it no more than a piece is in memory.
use anyhow::{Context, bail};
use bytes::Bytes;
use db::Timestamp;
use serde::Serialize;
use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::mpsc;
use zip::{
    ZipWriter,
    write::{SimpleFileOptions, StreamWriter},
};

/// How much is made before it is sent.
const PIECE: usize = 32 * 1024;

/// The end at which the pieces come out.
pub type Pieces = mpsc::Receiver<io::Result<Bytes>>;

/// What was made and not sent.
#[derive(Clone, Default)]
struct Made(Arc<Mutex<Vec<u8>>>);

impl Write for Made {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        made.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub struct Archive {
    zip: ZipWriter<StreamWriter<Made>>,
    made: Made,
    pieces: mpsc::Sender<io::Result<Bytes>>,
    options: SimpleFileOptions,
    /// How many items the list that is being written has.
    items: usize,
}

impl Archive {
    pub fn new(now: Timestamp) -> (Self, Pieces) {
        let made = Made::default();
        let (pieces, receiver) = mpsc::channel(2);
        let archive = Self {
            zip: ZipWriter::new_stream(made.clone()),
            made,
            pieces,
            options: SimpleFileOptions::default().last_modified_time(date(now).unwrap_or_default()),
            items: 0,
        };
        (archive, receiver)
    }

    /// By whom the other end hears that no more comes, although it is not whole.
    pub fn failed(&self) -> Failed {
        Failed(self.pieces.clone())
    }

    /// A file of text.
    pub async fn text(&mut self, name: &str, text: &str) -> anyhow::Result<()> {
        self.zip.start_file(name, self.options)?;
        self.zip.write_all(text.as_bytes())?;
        self.send(PIECE).await
    }

    /// A file that is one document.
    pub async fn document(&mut self, name: &str, document: &impl Serialize) -> anyhow::Result<()> {
        self.text(name, &serde_json::to_string_pretty(document)?)
            .await
    }

    /// Begins a file that is a list.
    pub fn begin(&mut self, name: &str) -> anyhow::Result<()> {
        self.items = 0;
        self.zip.start_file(name, self.options)?;
        Ok(self.zip.write_all(b"[")?)
    }

    /// One more item of it.
    pub async fn item(&mut self, item: &impl Serialize) -> anyhow::Result<()> {
        let before: &[u8] = if self.items == 0 { b"\n" } else { b",\n" };
        self.items += 1;
        self.zip.write_all(before)?;
        serde_json::to_writer(&mut self.zip, item)?;
        self.send(PIECE).await
    }

    /// The list is whole.
    pub async fn end(&mut self) -> anyhow::Result<()> {
        self.zip.write_all(b"\n]\n")?;
        self.send(PIECE).await
    }

    /// A file that is a list of what is at hand.
    pub async fn list<T: Serialize>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
    ) -> anyhow::Result<()> {
        self.begin(name)?;
        for item in items {
            self.item(&item).await?;
        }
        self.end().await
    }

    /// The archive is whole.
    pub async fn finish(mut self) -> anyhow::Result<()> {
        let zip = std::mem::replace(&mut self.zip, ZipWriter::new_stream(Made::default()));
        zip.finish().context("finishing an archive")?;
        self.send(0).await
    }

    /// Sends what was made, once it is so much. Waits while nobody takes it.
    async fn send(&mut self, from: usize) -> anyhow::Result<()> {
        let piece = {
            let mut made = self.made.0.lock().unwrap_or_else(PoisonError::into_inner);
            if made.len() < from {
                return Ok(());
            }
            std::mem::take(&mut *made)
        };
        if self.pieces.send(Ok(piece.into())).await.is_err() {
            bail!("whoever asked went away");
        }
        Ok(())
    }
}

pub struct Failed(mpsc::Sender<io::Result<Bytes>>);

impl Failed {
    pub async fn tell(self) {
        let error = io::Error::other("the archive could not be made to its end");
        let _ = self.0.send(Err(error)).await;
    }
}

/// As zips write times.
fn date(now: Timestamp) -> Option<zip::DateTime> {
    let at = chrono::DateTime::from_timestamp_micros(now.as_micros())?;
    zip::DateTime::try_from(at.naive_utc()).ok()
}
