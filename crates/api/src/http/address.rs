//! Where a request comes from, as far as that can be believed.
//!
//! A header is believed only from whom `TRUSTED_PROXY` names; from anyone else it is text that anyone
//! can write, and a rate limit by it would be none.
use crate::App;
use axum::extract::{ConnectInfo, FromRequestParts, Request};
use http::{HeaderMap, request::Parts};
use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

/// Whose word on the client's address is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustedProxy {
    /// `Fly-Client-IP`: <https://fly.io/docs/networking/request-headers/>.
    Fly,
    /// `X-Real-IP`: <https://docs.railway.com/reference/public-networking>.
    Railway,
    /// `CF-Connecting-IP`: <https://developers.cloudflare.com/fundamentals/reference/http-headers/>.
    Cloudflare,
    /// Cloudflare stands before every Render service; its edge appends itself to `X-Forwarded-For`.
    Render,
    /// So many proxies of ours, each appending whom it saw to `X-Forwarded-For`.
    Hops(usize),
    /// Proxies at these addresses, each appending whom it saw.
    Networks(Vec<ipnet::IpNet>),
}

impl FromStr for TrustedProxy {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let hint = "has to be fly, railway, cloudflare, render, a number of proxies, or CIDRs like 10.0.0.0/8,fd00::/8";
        Ok(match text.trim().to_ascii_lowercase().as_str() {
            "fly" => Self::Fly,
            "railway" => Self::Railway,
            "cloudflare" => Self::Cloudflare,
            "render" => Self::Render,
            number if number.bytes().all(|b| b.is_ascii_digit()) => {
                Self::Hops(number.parse().map_err(|_| hint.to_owned())?)
            }
            list => {
                let network = |text: &str| {
                    text.trim()
                        .parse::<ipnet::IpNet>()
                        .or_else(|_| text.trim().parse::<IpAddr>().map(Into::into))
                };
                Self::Networks(
                    list.split(',')
                        .map(network)
                        .collect::<Result<_, _>>()
                        .map_err(|_| hint.to_owned())?,
                )
            }
        })
    }
}

impl TrustedProxy {
    /// The client's address; the peer's own when the proxy said nothing usable.
    fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let single = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse().ok();
        let said: Option<IpAddr> = match self {
            Self::Fly => single("fly-client-ip"),
            Self::Railway => single("x-real-ip"),
            Self::Cloudflare => single("cf-connecting-ip"),
            Self::Render => {
                single("cf-connecting-ip").or_else(|| forwarded_for(headers).nth(1).flatten())
            }
            Self::Hops(0) => None,
            Self::Hops(n) => forwarded_for(headers).nth(n - 1).flatten(),
            Self::Networks(ours) => {
                let ours = |ip: &IpAddr| ours.iter().any(|network| network.contains(ip));
                let chain = std::iter::once(Some(peer)).chain(forwarded_for(headers));
                // From the right, the first that is not ours; an unreadable entry ends what can be believed.
                chain.map_while(|ip| ip).find(|ip| !ours(ip))
            }
        };
        said.unwrap_or(peer)
    }
}

/// `X-Forwarded-For` from the right, the nearest proxy's word first; `None` for what is no address.
fn forwarded_for(headers: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
    let lines = headers.get_all("x-forwarded-for").into_iter().rev();
    lines
        .flat_map(|line| line.to_str().unwrap_or("?").rsplit(','))
        .map(|part| part.trim().parse().ok())
}

/// Where the request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

impl ClientAddress {
    /// What limits count by: an IPv6 client owns its whole /64.
    pub fn bucket(self) -> IpAddr {
        match self.0.to_canonical() {
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            v4 => v4,
        }
    }
}

/// Notes the address for whoever asks later.
pub fn resolve(app: &App, request: &mut Request) {
    let peer = request
        .extensions()
        .get::<ConnectInfo<SocketAddr>>()
        .map(|info| info.0.ip());
    let peer = peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let client = app
        .config
        .http
        .trusted_proxy
        .as_ref()
        .map_or(peer, |proxy| proxy.client(peer, request.headers()));
    request
        .extensions_mut()
        .insert(ClientAddress(client.to_canonical()));
}

impl<S: Sync> FromRequestParts<S> for ClientAddress {
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts
            .extensions
            .get()
            .copied()
            .unwrap_or(Self(IpAddr::V4(Ipv4Addr::UNSPECIFIED))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(proxy: &str, headers: &[(&'static str, &str)]) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let proxy: TrustedProxy = proxy.parse().unwrap();
        proxy.client("10.0.0.9".parse().unwrap(), &map).to_string()
    }

    #[test]
    fn each_platform_is_believed_in_its_own_header_alone() {
        assert_eq!(
            client(
                "fly",
                &[("fly-client-ip", "1.2.3.4"), ("x-forwarded-for", "6.6.6.6")]
            ),
            "1.2.3.4"
        );
        assert_eq!(
            client(
                "railway",
                &[("x-real-ip", "1.2.3.4"), ("cf-connecting-ip", "6.6.6.6")]
            ),
            "1.2.3.4"
        );
        assert_eq!(
            client("cloudflare", &[("cf-connecting-ip", "2001:db8::1")]),
            "2001:db8::1"
        );
        assert_eq!(
            client(
                "render",
                &[("x-forwarded-for", "6.6.6.6, 1.2.3.4, 172.16.0.1")]
            ),
            "1.2.3.4"
        );
        assert_eq!(client("fly", &[("x-forwarded-for", "6.6.6.6")]), "10.0.0.9");
    }

    #[test]
    fn hops_count_from_the_right_so_that_what_a_client_prepends_is_ignored() {
        assert_eq!(
            client("1", &[("x-forwarded-for", "6.6.6.6, 1.2.3.4")]),
            "1.2.3.4"
        );
        assert_eq!(
            client("2", &[("x-forwarded-for", "6.6.6.6, 1.2.3.4, 10.0.0.1")]),
            "1.2.3.4"
        );
        assert_eq!(
            client(
                "2",
                &[
                    ("x-forwarded-for", "6.6.6.6"),
                    ("x-forwarded-for", "1.2.3.4, 10.0.0.1")
                ]
            ),
            "1.2.3.4"
        );
        assert_eq!(client("3", &[("x-forwarded-for", "1.2.3.4")]), "10.0.0.9");
        assert_eq!(
            client("1", &[("x-forwarded-for", "not an address")]),
            "10.0.0.9"
        );
    }

    #[test]
    fn networks_are_walked_over_until_a_stranger() {
        assert_eq!(
            client(
                "10.0.0.0/8",
                &[("x-forwarded-for", "6.6.6.6, 1.2.3.4, 10.1.1.1")]
            ),
            "1.2.3.4"
        );
        assert_eq!(
            client("192.168.0.0/16", &[("x-forwarded-for", "6.6.6.6")]),
            "10.0.0.9"
        );
    }

    #[test]
    fn an_ipv6_client_counts_as_its_network() {
        let bucket = |ip: &str| ClientAddress(ip.parse().unwrap()).bucket().to_string();
        assert_eq!(bucket("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(bucket("::ffff:1.2.3.4"), "1.2.3.4");
    }
}
