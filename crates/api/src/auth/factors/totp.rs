//! Codes that change with the time: RFC 6238 over HMAC-SHA1 with six digits, which is what authenticator
//! apps understand.
use aws_lc_rs::hmac;
use db::Timestamp;
use qrcode::{QrCode, render::svg};
use subtle::ConstantTimeEq;
use url::Url;

/// Seconds that a code stands.
const STEP: i64 = 30;

/// The code of a step.
pub fn code(secret: &[u8], step: i64) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret);
    let mac = hmac::sign(&key, &step.to_be_bytes());
    let mac = mac.as_ref();
    // RFC 4226, section 5.3: dynamic truncation.
    let offset = usize::from(mac[mac.len() - 1] & 0xf);
    let number = mac[offset..offset + 4]
        .iter()
        .fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    format!("{:06}", (number & 0x7fff_ffff) % 1_000_000)
}

/// The step whose code this is: that of now, or one beside it for a clock that is not right.
pub fn step_of(secret: &[u8], given: &str, now: Timestamp) -> Option<i64> {
    let current = now.unix() / STEP;
    let fits = |step: &i64| -> bool {
        code(secret, *step)
            .as_bytes()
            .ct_eq(given.as_bytes())
            .into()
    };
    (current - 1..=current + 1).rev().find(fits)
}

/// What an authenticator app is set up with: <https://github.com/google/google-authenticator/wiki/Key-Uri-Format>.
pub fn uri(issuer: &str, account: &str, secret: &str) -> anyhow::Result<Url> {
    let issuer = issuer.replace(':', " ");
    let mut uri = Url::parse("otpauth://totp/")?;
    if let Ok(mut path) = uri.path_segments_mut() {
        path.pop_if_empty().push(&format!("{issuer}:{account}"));
    }
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("algorithm", "SHA1")
        .append_pair("digits", "6")
        .append_pair("issuer", &issuer)
        .append_pair("period", "30")
        .append_pair("secret", secret)
        .finish();
    // Apps show a plus as it is.
    uri.set_query(Some(&query.replace('+', "%20")));
    Ok(uri)
}

/// A QR code, as SVG. Its colours are words: supabase-js makes a `data:` address of it as it is, which a `#`
/// would end.
pub fn qr(text: &str) -> anyhow::Result<String> {
    let code = QrCode::new(text)?;
    Ok(code
        .render::<svg::Color<'_>>()
        .dark_color(svg::Color("black"))
        .light_color(svg::Color("white"))
        .min_dimensions(200, 200)
        .build())
}

/// RFC 4648 without padding: 8 characters for each 5 bytes, of which there have to be whole groups.
pub fn base32(bytes: &[u8]) -> String {
    const ALPHABET: [char; 32] = [
        'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I', 'J', 'K', 'L', 'M', 'N', 'O', 'P', 'Q', 'R',
        'S', 'T', 'U', 'V', 'W', 'X', 'Y', 'Z', '2', '3', '4', '5', '6', '7',
    ];
    let mut text = String::new();
    for group in bytes.chunks_exact(5) {
        let bits = group
            .iter()
            .fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        text.extend(
            (0..8)
                .rev()
                .map(|n| ALPHABET[(bits >> (5 * n)) as usize & 31]),
        );
    }
    text
}
