//! A user agent in words by which a person knows their device. It is text that a client chose: good
//! for recognising, never for deciding.

/// What says so, most telling first: nearly every browser also claims to be the ones before it.
const PROGRAMS: [(&str, &str); 12] = [
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("FxiOS/", "Firefox"),
    ("Firefox/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("Chromium/", "Chromium"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
    ("okhttp/", "App"),
    ("Dart/", "App"),
    ("CFNetwork/", "App"),
];

const SYSTEMS: [(&str, &str); 9] = [
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("okhttp", "Android"),
    ("Windows", "Windows"),
    ("CrOS", "ChromeOS"),
    ("Mac OS X", "Mac"),
    ("Darwin", "Apple"),
    ("Linux", "Linux"),
];

/// `Firefox on Windows`; the name of the program alone where nothing tells the system; `None` for
/// what names neither.
pub fn describe(agent: &str) -> Option<String> {
    let first = |known: &[(&str, &'static str)]| {
        let found = known.iter().find(|(mark, _)| agent.contains(mark));
        found.map(|(_, word)| *word)
    };
    match (first(&PROGRAMS), first(&SYSTEMS)) {
        (Some(program), Some(system)) => Some(format!("{program} on {system}")),
        (Some(program), None) => Some(program.to_owned()),
        (None, Some(system)) => Some(system.to_owned()),
        (None, None) => {
            let name = agent.split(['/', ' ']).next().unwrap_or_default();
            let word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            (!name.is_empty() && name.chars().all(word)).then(|| name.to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::describe;

    #[test]
    fn a_device_is_told_in_words() {
        let windows = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36";
        let phone = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Mobile/15E148 Safari/604.1";
        for (agent, device) in [
            (windows, Some("Chrome on Windows")),
            (&format!("{windows} Edg/141.0"), Some("Edge on Windows")),
            (phone, Some("Safari on iPhone")),
            (
                "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0",
                Some("Firefox on Linux"),
            ),
            (
                "Notes/12 CFNetwork/1568 Darwin/24.0.0",
                Some("App on Apple"),
            ),
            ("okhttp/4.12.0", Some("App on Android")),
            ("curl/8.5.0", Some("curl")),
            ("node", Some("node")),
            ("<script>alert(1)</script>", None),
            ("", None),
        ] {
            assert_eq!(describe(agent).as_deref(), device, "{agent}");
        }
    }
}
