//! One request to one place, with an end. It must never follow a redirect by itself, nor dial an address that it has not judged
//! where somebody else than the administrator said where to go.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::header::HeaderMap;
use hyper::{Method, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, ClientBuilder, Proxy, Response};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};
use url::{Host, Url};

use super::addresses::is_closed;
use super::authority::shown;
use super::endpoints::{InvalidSettings, Settings};
use super::trouble::{Away, Trouble};

/// Connections that are kept for one place while nobody needs them.
const IDLE_CONNECTIONS: usize = 16;

/// How long they are kept; servers and what stands before them commonly close those of a minute.
const IDLE_TIME: Duration = Duration::from_secs(50);

/// How far a request may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The administrator named the place.
    Anywhere,
    /// An upstream did: only what lies in the open Internet.
    Public,
}

/// How long is waited for what.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For a connection, with TLS.
    pub connect: Duration,
    /// For the head of one answer, with the connection.
    pub head: Duration,
    /// For all that one question needs until its answer begins, at all endpoints together.
    pub all: Duration,
    /// For the next bytes of a body.
    pub progress: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            head: Duration::from_secs(8),
            all: Duration::from_secs(20),
            progress: Duration::from_secs(30),
        }
    }
}

/// When one question must have its answer.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    pub fn after(wait: Duration) -> Self {
        Self(Instant::now() + wait)
    }

    pub fn is_over(self) -> bool {
        self.within(Duration::MAX).is_zero()
    }

    /// How long may be waited for a part of it that may take so long by itself.
    pub fn within(self, wait: Duration) -> Duration {
        self.0.saturating_duration_since(Instant::now()).min(wait)
    }
}

/// A request for one place.
pub struct Outgoing<'a> {
    pub method: &'a Method,
    pub url: &'a Url,
    pub reach: Reach,
    pub headers: HeaderMap,
}

/// Sends requests. Connections are kept and used again, whichever question they were made for.
pub struct Transport {
    anywhere: Client,
    public: Client,
    proxied: Client,
    proxies: Proxies,
    closed: Arc<[IpNet]>,
    head: Duration,
}

/// Which requests go through a proxy.
pub enum Proxies {
    /// All, through this one.
    One(Url),
    /// Those that the environment names (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`), but never to this host itself.
    Environment(Box<Matcher>),
    /// None.
    #[cfg(test)]
    None,
}

impl Transport {
    pub fn new(settings: &Settings, proxies: Proxies, limits: &Limits) -> Result<Self, InvalidSettings> {
        let closed: Arc<[IpNet]> = settings.closed_ranges.clone().into();
        let tls = trust(settings)?;
        let begin = || {
            Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .http1_only()
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .user_agent(concat!("wharf/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(limits.connect)
                .pool_max_idle_per_host(IDLE_CONNECTIONS)
                .pool_idle_timeout(IDLE_TIME)
        };
        let end = |builder: ClientBuilder| {
            builder.build().map_err(|error| InvalidSettings::Client {
                host: settings.host.clone(),
                reason: causes(&error.without_url()),
            })
        };
        let through = match &proxies {
            Proxies::One(proxy) => {
                begin().no_proxy().proxy(Proxy::all(proxy.clone()).map_err(|_| InvalidSettings::Proxy)?)
            }
            Proxies::Environment(_) => begin(),
            #[cfg(test)]
            Proxies::None => begin(),
        };
        Ok(Self {
            anywhere: end(begin().no_proxy())?,
            public: end(begin().no_proxy().dns_resolver(OpenAddresses { closed: closed.clone() }))?,
            proxied: end(through)?,
            proxies,
            closed,
            head: limits.head,
        })
    }

    /// Sends a request and waits for the head of the answer, whatever it is.
    ///
    /// # Errors
    /// When there is none in time, or the place must not be asked.
    pub async fn send(&self, request: Outgoing<'_>, deadline: Deadline) -> Result<Response, Trouble> {
        let Outgoing { method, url, reach, headers } = request;
        let what = || format!("{method} {}", shown(url));
        // The resolver sees names only.
        if reach == Reach::Public
            && let Some(address) = literal(url)
            && is_closed(address, &self.closed)
        {
            return Err(Trouble::Wrong(format!("{}: {}", what(), ClosedAddress)));
        }
        let client = match (self.proxies.take(url), reach) {
            // What a proxy dials, it decides; the address is not known here.
            (true, _) => &self.proxied,
            (false, Reach::Anywhere) => &self.anywhere,
            (false, Reach::Public) => &self.public,
        };
        let request = client.request(method.clone(), url.clone()).headers(headers).build();
        let request =
            request.map_err(|error| Trouble::Wrong(format!("{}: {}", what(), causes(&error.without_url()))))?;
        let wait = deadline.within(self.head);
        match tokio::time::timeout(wait, client.execute(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(failed(&what(), error)),
            Err(_) => Err(Trouble::away(Away::Silent, format!("{}: no answer within {} ms", what(), wait.as_millis()))),
        }
    }
}

fn failed(what: &str, error: reqwest::Error) -> Trouble {
    let error = error.without_url();
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(found) = cause {
        if found.is::<ClosedAddress>() {
            return Trouble::Wrong(format!("{what}: {ClosedAddress}"));
        }
        cause = found.source();
    }
    let how = if error.is_timeout() { Away::Silent } else { Away::Unreachable };
    Trouble::away(how, format!("{what}: {}", causes(&error)))
}

/// An error with all that led to it. Those of the client speak of connections and names, never of headers.
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(found) = cause {
        let found_text = found.to_string();
        if !text.ends_with(&found_text) {
            text = format!("{text}: {found_text}");
        }
        cause = found.source();
    }
    text
}

fn literal(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
        Host::Domain(_) => None,
    }
}

impl Proxies {
    /// Those of the settings, or else of the environment.
    pub fn of(settings: &Settings) -> Result<Self, InvalidSettings> {
        let Some(proxy) = &settings.proxy else { return Ok(Self::Environment(Box::new(Matcher::from_env()))) };
        let url: Url = proxy.parse().map_err(|_| InvalidSettings::Proxy)?;
        let is_plain = matches!(url.scheme(), "http" | "https")
            && url.username().is_empty()
            && url.password().is_none()
            && matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.fragment().is_none();
        if is_plain { Ok(Self::One(url)) } else { Err(InvalidSettings::Proxy) }
    }

    /// Whether a request for this goes through one.
    pub fn take(&self, url: &Url) -> bool {
        match self {
            Self::One(_) => true,
            Self::Environment(matcher) => {
                let is_here = match url.host() {
                    Some(Host::Domain(name)) => name == "localhost",
                    _ => literal(url).is_some_and(|address| address.is_loopback()),
                };
                let uri = url.as_str().parse::<Uri>();
                !is_here && uri.is_ok_and(|uri| matcher.intercept(&uri).is_some())
            }
            #[cfg(test)]
            Self::None => false,
        }
    }
}

/// The public authorities, and those of the settings.
fn trust(settings: &Settings) -> Result<ClientConfig, InvalidSettings> {
    let invalid = |reason: String| InvalidSettings::Authorities { host: settings.host.clone(), reason };
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(pem) = &settings.authorities {
        let mut found = 0;
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| invalid(error.to_string()))?;
            roots.add(certificate).map_err(|error| invalid(error.to_string()))?;
            found += 1;
        }
        if found == 0 {
            return Err(invalid("there is no certificate in them".into()));
        }
    }
    let provider = Arc::new(crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = versions.map_err(|error| invalid(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// The address that a name stands for may not be dialled.
#[derive(Debug)]
pub struct ClosedAddress;

impl fmt::Display for ClosedAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(
            "this host and private networks are no place to be sent to; where that is right, name the host in redirectHosts",
        )
    }
}

impl Error for ClosedAddress {}

/// Resolves names, and gives the addresses that may be dialled: those are the ones that the client dials.
struct OpenAddresses {
    closed: Arc<[IpNet]>,
}

impl Resolve for OpenAddresses {
    fn resolve(&self, name: Name) -> Resolving {
        let closed = self.closed.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let open: Vec<SocketAddr> = found.filter(|address| !is_closed(address.ip(), &closed)).collect();
            if open.is_empty() {
                return Err(ClosedAddress.into());
            }
            Ok(Box::new(open.into_iter()) as Addrs)
        })
    }
}
