//! A mail server that takes everything, and outlives the servers that write to it.
use anyhow::Result;
use std::sync::{Arc, Mutex};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

#[derive(Clone, Default)]
pub struct Mailbox(Arc<Mutex<Vec<Mail>>>);

#[derive(Debug, Clone)]
pub struct Mail {
    pub to: String,
    pub subject: String,
    /// The same when one mail is delivered twice, as RFC 5321 allows when an acknowledgement is lost.
    pub id: String,
}

impl Mailbox {
    /// Opens it, and gives the port.
    pub async fn open() -> Result<(Self, u16)> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let (mailbox, port) = (Self::default(), listener.local_addr()?.port());
        let all = mailbox.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mailbox = all.clone();
                tokio::spawn(async move { mailbox.talk(stream).await });
            }
        });
        Ok((mailbox, port))
    }

    pub fn mails(&self) -> Vec<Mail> {
        self.0.lock().map(|mails| mails.clone()).unwrap_or_default()
    }

    async fn talk(&self, stream: TcpStream) -> std::io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        write.write_all(b"220 probe\r\n").await?;
        let mut to = String::new();
        while let Some(line) = lines.next_line().await? {
            let verb = line
                .split([' ', ':'])
                .next()
                .unwrap_or_default()
                .to_uppercase();
            let answer: &[u8] = match verb.as_str() {
                "DATA" => {
                    write.write_all(b"354 go on\r\n").await?;
                    let mut mail = Mail {
                        to: to.clone(),
                        subject: String::new(),
                        id: String::new(),
                    };
                    while let Some(line) = lines.next_line().await? {
                        if line == "." {
                            break;
                        }
                        if let Some(subject) = line.strip_prefix("Subject: ") {
                            mail.subject = subject.to_owned();
                        } else if let Some(id) = line.strip_prefix("Message-ID: ") {
                            mail.id = id.to_owned();
                        }
                    }
                    if let Ok(mut mails) = self.0.lock() {
                        mails.push(mail);
                    }
                    b"250 taken\r\n"
                }
                "RCPT" => {
                    let address = line.split(['<', '>']).nth(1);
                    to = address.unwrap_or_default().to_owned();
                    b"250 ok\r\n"
                }
                "QUIT" => {
                    write.write_all(b"221 bye\r\n").await?;
                    return Ok(());
                }
                _ => b"250 ok\r\n",
            };
            write.write_all(answer).await?;
        }
        Ok(())
    }
}
