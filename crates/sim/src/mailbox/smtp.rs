//! Enough of SMTP for every mail library: RFC 5321, AUTH (4954), SIZE (1870), 8BITMIME (6152),
//! PIPELINING (2920), SMTPUTF8 (6531). Any name and password will do; there is no TLS.

use std::io;
use std::time::{Duration, SystemTime};

use smtp_proto::{AUTH_LOGIN, AUTH_PLAIN, Error, Request};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::Mailbox;

const MAX_MAIL_BYTES: usize = 10 * 1024 * 1024;
const MAX_LINE_BYTES: u64 = 4096;
const MAX_RECIPIENTS: usize = 100;
/// Replies that refuse something; then the client is not one.
const MAX_REFUSALS: usize = 20;
/// RFC 5321, 4.5.3.2.7: at least five minutes.
const IDLE: Duration = Duration::from_secs(300);
const MAIL_TIME: Duration = Duration::from_secs(600);

pub async fn session(stream: TcpStream, mailbox: Mailbox) {
    let (read, write) = stream.into_split();
    let mut session = Session {
        read: BufReader::new(read),
        write: BufWriter::new(write),
        mailbox,
        greeted: false,
        envelope: None,
        refusals: 0,
    };
    if let Err(error) = session.run().await {
        tracing::debug!(%error, "mail session ended early");
    }
}

struct Session {
    read: BufReader<OwnedReadHalf>,
    write: BufWriter<OwnedWriteHalf>,
    mailbox: Mailbox,
    greeted: bool,
    /// From MAIL to the end of DATA.
    envelope: Option<Envelope>,
    refusals: usize,
}

struct Envelope {
    from: String,
    to: Vec<String>,
}

impl Session {
    async fn run(&mut self) -> io::Result<()> {
        self.reply("220 localhost ESMTP sim").await?;
        while self.refusals < MAX_REFUSALS {
            let Ok(line) = timeout(IDLE, self.line()).await else {
                return self.leave("421 4.4.2 Too long without a command").await;
            };
            match line? {
                Line::Is(line) => match Request::parse(&mut line.iter()) {
                    Ok(Request::Quit) => return self.leave("221 2.0.0 Bye").await,
                    Ok(request) => self.command(request).await?,
                    Err(error) => self.reply(&explain(&error)).await?,
                },
                Line::TooLong => return self.leave("500 5.5.2 Line too long").await,
                Line::End => return Ok(()),
            }
        }
        self.leave("421 4.7.0 Too many errors").await
    }

    async fn command<T: AsRef<str> + PartialEq>(&mut self, request: Request<T>) -> io::Result<()> {
        match request {
            Request::Ehlo { .. } => {
                self.greet();
                let size = format!("250 SIZE {MAX_MAIL_BYTES}");
                self.write.write_all(b"250-localhost\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n250-AUTH PLAIN LOGIN\r\n").await?;
                self.reply(&size).await
            }
            Request::Helo { .. } => {
                self.greet();
                self.reply("250 localhost").await
            }
            Request::Mail { from } => {
                if !self.greeted {
                    return self.reply("503 5.5.1 EHLO first").await;
                }
                if self.envelope.is_some() {
                    return self.reply("503 5.5.1 One mail at a time").await;
                }
                if from.size > MAX_MAIL_BYTES {
                    return self.reply(TOO_LARGE).await;
                }
                let from = from.address.as_ref().to_owned();
                self.envelope = Some(Envelope {
                    from,
                    to: Vec::new(),
                });
                self.reply("250 2.1.0 Ok").await
            }
            Request::Rcpt { to } => match &mut self.envelope {
                None => self.reply("503 5.5.1 MAIL first").await,
                Some(envelope) if envelope.to.len() >= MAX_RECIPIENTS => {
                    self.reply("452 4.5.3 Too many recipients").await
                }
                Some(envelope) => {
                    if let Some(code) = self.mailbox.refusal() {
                        let class = code / 100;
                        return self
                            .reply(&format!("{code} {class}.0.0 As you told me to"))
                            .await;
                    }
                    envelope.to.push(to.address.as_ref().to_owned());
                    self.reply("250 2.1.5 Ok").await
                }
            },
            Request::Data => match self.envelope.take() {
                None => self.reply("503 5.5.1 MAIL first").await,
                Some(envelope) if envelope.to.is_empty() => {
                    self.envelope = Some(envelope);
                    self.reply("503 5.5.1 RCPT first").await
                }
                Some(envelope) => self.mail(envelope).await,
            },
            Request::Auth {
                mechanism,
                initial_response,
            } => self.auth(mechanism, initial_response.as_ref()).await,
            Request::Rset => {
                self.envelope = None;
                self.reply("250 2.0.0 Ok").await
            }
            Request::Noop { .. } => self.reply("250 2.0.0 Ok").await,
            Request::Vrfy { .. } => self.reply("252 2.1.5 Send it and see").await,
            Request::Help { .. } => {
                self.reply("214 2.0.0 Every mail ends in the mailbox page")
                    .await
            }
            _ => self.reply("502 5.5.1 Not here").await,
        }
    }

    fn greet(&mut self) {
        self.greeted = true;
        self.envelope = None;
    }

    async fn mail(&mut self, envelope: Envelope) -> io::Result<()> {
        self.reply("354 End with a line of one dot").await?;
        let raw = timeout(MAIL_TIME, self.data()).await??;
        let Some(raw) = raw else {
            return self.reply(TOO_LARGE).await;
        };
        let id = self
            .mailbox
            .receive(envelope.from, envelope.to, raw, SystemTime::now().into());
        self.reply(&format!("250 2.0.0 Ok: message {id}")).await
    }

    /// `None` when it is too large. Only `CRLF . CRLF` ends it: a bare LF before the dot would let
    /// one mail smuggle in another.
    async fn data(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut mail = Vec::new();
        let mut part = Vec::new();
        let mut size = 0;
        let mut line_begins = true;
        let mut last = b'\n';
        loop {
            part.clear();
            let mut limited = (&mut self.read).take(MAX_LINE_BYTES);
            if limited.read_until(b'\n', &mut part).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line_begins && part == b".\r\n" {
                return Ok((size <= MAX_MAIL_BYTES).then_some(mail));
            }
            let stuffed = line_begins && part[0] == b'.';
            let content = &part[usize::from(stuffed)..];
            size += content.len();
            if size <= MAX_MAIL_BYTES {
                mail.extend_from_slice(content);
            }
            line_begins = part.ends_with(b"\r\n") || (part == b"\n" && last == b'\r');
            last = part[part.len() - 1];
        }
    }

    async fn auth(&mut self, mechanism: u64, initial: &str) -> io::Result<()> {
        // "VXNlcm5hbWU6" and "UGFzc3dvcmQ6" are "Username:" and "Password:".
        let prompts: &[&str] = match mechanism {
            _ if !self.greeted => return self.reply("503 5.5.1 EHLO first").await,
            AUTH_PLAIN if initial.is_empty() => &["334 "],
            AUTH_PLAIN => &[],
            AUTH_LOGIN if initial.is_empty() => &["334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6"],
            AUTH_LOGIN => &["334 UGFzc3dvcmQ6"],
            _ => return self.reply("504 5.5.4 PLAIN or LOGIN").await,
        };
        for prompt in prompts {
            self.reply(prompt).await?;
            match timeout(IDLE, self.line()).await?? {
                Line::Is(line) if line.trim_ascii() == b"*" => {
                    return self.reply("501 5.7.0 As you wish").await;
                }
                Line::Is(_) => {}
                Line::TooLong | Line::End => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        self.reply("235 2.7.0 Welcome").await
    }

    async fn line(&mut self) -> io::Result<Line> {
        let mut line = Vec::new();
        let mut limited = (&mut self.read).take(MAX_LINE_BYTES);
        limited.read_until(b'\n', &mut line).await?;
        Ok(match line.last() {
            Some(b'\n') => Line::Is(line),
            Some(_) if line.len() as u64 == MAX_LINE_BYTES => Line::TooLong,
            _ => Line::End,
        })
    }

    /// Replies to commands that came together go together.
    async fn reply(&mut self, reply: &str) -> io::Result<()> {
        self.refusals += usize::from(reply.starts_with(['4', '5']));
        self.write.write_all(reply.as_bytes()).await?;
        self.write.write_all(b"\r\n").await?;
        if self.read.buffer().is_empty() {
            self.write.flush().await?;
        }
        Ok(())
    }

    async fn leave(&mut self, reply: &str) -> io::Result<()> {
        self.reply(reply).await?;
        self.write.shutdown().await
    }
}

const TOO_LARGE: &str = "552 5.3.4 The mail is larger than 10 MiB";

enum Line {
    Is(Vec<u8>),
    TooLong,
    End,
}

fn explain(error: &Error) -> String {
    match error {
        Error::InvalidSenderAddress => "553 5.1.7 That is no address".to_owned(),
        Error::InvalidRecipientAddress => "553 5.1.3 That is no address".to_owned(),
        Error::SyntaxError { syntax } => format!("501 5.5.4 It is {syntax}"),
        Error::InvalidParameter { param } => format!("501 5.5.4 Bad parameter {param}"),
        Error::UnsupportedParameter { param } => {
            let printable = param.replace(|char: char| char.is_control(), " ");
            format!("555 5.5.4 Unknown parameter {printable}")
        }
        _ => "500 5.5.1 Unknown command".to_owned(),
    }
}
