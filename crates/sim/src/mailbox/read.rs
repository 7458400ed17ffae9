//! A mail's source, understood.

use chrono::{DateTime, Utc};
use mail_parser::{HeaderValue, MessageParser, MimeHeaders, PartType};

use super::Message;

/// What cannot be parsed is kept as text. The id is still to be given.
pub fn message(from: String, to: Vec<String>, raw: Vec<u8>, received_at: DateTime<Utc>) -> Message {
    let mut message = Message {
        id: 0,
        from,
        to,
        subject: String::new(),
        text: String::new(),
        html: None,
        headers: Vec::new(),
        attachments: Vec::new(),
        received_at,
        raw: Vec::new(),
    };
    match MessageParser::default().parse(&raw) {
        Some(parsed) => {
            message.subject = parsed.subject().unwrap_or_default().to_owned();
            message.text = parsed.body_text(0).unwrap_or_default().into_owned();
            message.html = parsed.html_bodies().find_map(|part| match &part.body {
                PartType::Html(html) => Some(html.to_string()),
                _ => None,
            });
            message.headers = headers(&parsed);
            let names = parsed
                .attachments()
                .map(|part| part.attachment_name().unwrap_or("unnamed"));
            message.attachments = names.map(String::from).collect();
        }
        None => message.text = String::from_utf8_lossy(&raw).into_owned(),
    }
    message.raw = raw;
    message
}

/// Each on one line.
fn headers(parsed: &mail_parser::Message<'_>) -> Vec<(String, String)> {
    let headers = parsed.headers().iter().map(|header| {
        let value = match &header.value {
            HeaderValue::Text(text) => text.to_string(),
            HeaderValue::Address(addresses) => written(addresses),
            _ => {
                let (start, end) = (header.offset_start as usize, header.offset_end as usize);
                let raw = parsed.raw_message().get(start..end);
                String::from_utf8_lossy(raw.unwrap_or_default()).into_owned()
            }
        };
        let words: Vec<_> = value.split_whitespace().collect();
        (header.name().to_owned(), words.join(" "))
    });
    headers.collect()
}

/// `Ann <ann@example.com>, bob@example.com`.
fn written(addresses: &mail_parser::Address<'_>) -> String {
    let one = |addr: &mail_parser::Addr<'_>| match (&addr.name, &addr.address) {
        (Some(name), Some(address)) => format!("{name} <{address}>"),
        (name, address) => address
            .as_ref()
            .or(name.as_ref())
            .map(ToString::to_string)
            .unwrap_or_default(),
    };
    addresses.iter().map(one).collect::<Vec<_>>().join(", ")
}
