//! One question to one endpoint: its challenge, a token, redirects, and what the last answer's status means. It must never send
//! a credential before it is asked for one, nor to another place than the endpoint and its realm.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderValue, LOCATION, RANGE, VIA, WWW_AUTHENTICATE};
use hyper::{Method, StatusCode};
use reqwest::Response;
use url::Url;

use crate::oci::RepositoryName;

use super::authority::{Authority, NamedHost, shown};
use super::challenge::{self, Challenge};
use super::endpoints::Endpoint;
use super::health::Watched;
use super::identity::Who;
use super::rate_limit::{RateLimit, retry_after};
use super::tokens::{Granted, Token, Tokens};
use super::transport::{Deadline, Limits, Outgoing, Reach, Transport, causes};
use super::trouble::{Away, Trouble};
use super::{realms, redirects};

/// The longest answer of a token server.
const LONGEST_TOKEN_ANSWER: usize = 256 * 1024;
/// A body that nobody wants is read up to here, so that its connection can be used again.
const LONGEST_UNWANTED: usize = 64 * 1024;
/// And for so long.
const PATIENCE_WITH_UNWANTED: Duration = Duration::from_millis(500);

/// How an endpoint wants to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    /// With a token from there.
    Token { realm: Url, reach: Reach, service: Option<String> },
    /// With the credential itself.
    Credential,
}

/// One endpoint, and what is remembered of it.
pub struct Registry {
    pub endpoint: Endpoint,
    pub watched: Watched,
    way: std::sync::Mutex<Option<Way>>,
    tokens: Tokens,
}

/// What all questions share.
pub struct Common {
    pub transport: Transport,
    pub limits: Limits,
    pub token_realms: Vec<NamedHost>,
    pub redirect_hosts: Vec<NamedHost>,
}

/// A question about something in a repository.
pub struct Question<'a> {
    pub method: Method,
    /// As it is called there.
    pub repository: &'a RepositoryName,
    pub url: Url,
    pub headers: HeaderMap,
    pub who: &'a Who,
    pub deadline: Deadline,
}

/// An answer that has what was asked for.
pub struct Answer {
    pub response: Response,
    /// Which request it answers, for people.
    pub what: String,
}

/// What a request carries to say who asks.
enum Pass {
    Nothing,
    /// Nothing, because nothing is granted to the anonymous.
    Refused,
    Credential(HeaderValue),
    Token(Granted),
}

impl Pass {
    fn header(&self) -> Option<&HeaderValue> {
        match self {
            Self::Nothing | Self::Refused => None,
            Self::Credential(header) | Self::Token(Granted { header, .. }) => Some(header),
        }
    }
}

struct Arrived {
    response: Response,
    url: Url,
    /// Whether the endpoint itself answers, and not a place that it redirects to.
    is_own: bool,
}

impl Registry {
    pub fn new(endpoint: Endpoint) -> Self {
        let watched = Watched::new(endpoint.to_string());
        Self { endpoint, watched, way: std::sync::Mutex::default(), tokens: Tokens::default() }
    }

    fn way(&self) -> Option<Way> {
        self.way.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn remember(&self, way: Way) {
        *self.way.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(way);
    }

    /// Asks, with whatever the endpoint wants to see first.
    pub async fn ask(&self, common: &Common, question: &Question<'_>) -> Result<Answer, Trouble> {
        let pass = match self.way() {
            None => Pass::Nothing,
            Some(way) => match self.pass(common, question, &way, None).await {
                // Some registries give no token to the anonymous, and what is public without one.
                Err(Trouble::Denied) if question.who.credential.is_none() => Pass::Refused,
                pass => pass?,
            },
        };
        let arrived = self.follow(common, question, pass.header()).await?;
        let arrived = match self.second_try(common, question, &pass, &arrived).await? {
            None => arrived,
            Some(pass) => {
                drain(arrived.response).await;
                let arrived = self.follow(common, question, pass.header()).await?;
                if arrived.is_own && arrived.response.status() == StatusCode::UNAUTHORIZED {
                    drain(arrived.response).await;
                    return Err(match pass {
                        Pass::Credential(_) => question.who.rejected(),
                        _ => Trouble::Denied,
                    });
                }
                arrived
            }
        };
        judge(question, arrived).await
    }

    /// With what to ask once more after a refusal, if there is anything.
    async fn second_try(
        &self,
        common: &Common,
        question: &Question<'_>,
        tried: &Pass,
        arrived: &Arrived,
    ) -> Result<Option<Pass>, Trouble> {
        let status = arrived.response.status();
        let way = match (status, tried) {
            _ if !arrived.is_own => return Ok(None),
            (StatusCode::UNAUTHORIZED, _) => {
                let Some(way) = self.challenged(common, arrived.response.headers())? else { return Ok(None) };
                self.remember(way.clone());
                way
            }
            // What a token was good for may have changed since it was granted.
            (StatusCode::FORBIDDEN, Pass::Token(_)) => match self.way() {
                Some(way) => way,
                None => return Ok(None),
            },
            _ => return Ok(None),
        };
        match (tried, &way) {
            (Pass::Token(Granted { is_fresh: true, .. }) | Pass::Refused, Way::Token { .. }) => return Ok(None),
            (Pass::Credential(_), Way::Credential) => return Err(question.who.rejected()),
            _ => {}
        }
        let refused = match tried {
            Pass::Token(granted) => Some(&granted.header),
            _ => None,
        };
        match self.pass(common, question, &way, refused).await? {
            Pass::Nothing | Pass::Refused => Ok(None),
            pass => Ok(Some(pass)),
        }
    }

    /// How the endpoint wants to be asked, by its challenges: with a token if it can be.
    fn challenged(&self, common: &Common, headers: &HeaderMap) -> Result<Option<Way>, Trouble> {
        let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenges: Vec<Challenge> = values.flat_map(challenge::parse).collect();
        let bearer = challenges.iter().find(|challenge| challenge.scheme == "bearer");
        let Some((bearer, realm)) = bearer.and_then(|bearer| Some((bearer, bearer.parameter("realm")?))) else {
            let basic = challenges.iter().any(|challenge| challenge.scheme == "basic");
            return Ok(basic.then_some(Way::Credential));
        };
        let endpoint = self.endpoint.authority();
        let realm: Url = realm.parse().map_err(|_| {
            Trouble::Wrong(format!("{endpoint}: tokens are said to come from something that is no URL"))
        })?;
        let reach = realms::judge(endpoint, &realm, &common.token_realms)
            .map_err(|reason| Trouble::Wrong(format!("{endpoint}: {reason}")))?;
        Ok(Some(Way::Token { realm, reach, service: bearer.parameter("service").map(str::to_owned) }))
    }

    /// What to ask with. `refused` is a token that did not help.
    async fn pass(
        &self,
        common: &Common,
        question: &Question<'_>,
        way: &Way,
        refused: Option<&HeaderValue>,
    ) -> Result<Pass, Trouble> {
        match way {
            Way::Credential => Ok(question.who.basic().map_or(Pass::Nothing, Pass::Credential)),
            Way::Token { realm, reach, service } => {
                let slot = self.tokens.slot(question.repository, question.who.mark, Instant::now());
                let fetch = self.fetch_token(common, question, realm, *reach, service.as_deref());
                slot.get(refused, question.deadline, fetch).await.map(Pass::Token)
            }
        }
    }

    async fn fetch_token(
        &self,
        common: &Common,
        question: &Question<'_>,
        realm: &Url,
        reach: Reach,
        service: Option<&str>,
    ) -> Result<Token, Trouble> {
        let mut url = realm.clone();
        url.set_fragment(None);
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            // Never more than this, whatever the endpoint would have us ask for.
            query.append_pair("scope", &format!("repository:{}:pull", question.repository));
        }
        let what = format!("GET {}", shown(&url));
        let mut headers = HeaderMap::new();
        headers.extend(question.headers.get(VIA).map(|via| (VIA, via.clone())));
        headers.extend(question.who.basic().map(|credential| (AUTHORIZATION, credential)));
        let (begun, method) = (Instant::now(), Method::GET);
        self.watched.requests.add(1);
        let request = Outgoing { method: &method, url: &url, reach, headers };
        let response = common.transport.send(request, question.deadline).await?;
        match response.status() {
            StatusCode::OK => {
                let wait = common.limits.progress;
                let body = read_bounded(response, LONGEST_TOKEN_ANSWER, wait, question.deadline, &what).await?;
                let token = Token::read(&body, begun);
                self.watched.tokens.add(1);
                token.ok_or_else(|| Trouble::away(Away::Failing, format!("{what}: the answer has no token in it")))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                drain(response).await;
                Err(question.who.rejected())
            }
            status => {
                let trouble = failing(&what, status, response.headers());
                drain(response).await;
                Err(trouble)
            }
        }
    }

    /// Sends a question, and follows redirects. The credential stays behind when the place changes, also if it changes back.
    async fn follow(
        &self,
        common: &Common,
        question: &Question<'_>,
        pass: Option<&HeaderValue>,
    ) -> Result<Arrived, Trouble> {
        let (endpoint, mut url) = (self.endpoint.authority(), question.url.clone());
        let (mut reach, mut pass, mut is_own) = (Reach::Anywhere, pass, true);
        for _ in 0..=redirects::MOST {
            let mut headers = question.headers.clone();
            if let Some(pass) = pass {
                headers.insert(AUTHORIZATION, pass.clone());
            }
            self.watched.requests.add(1);
            let request = Outgoing { method: &question.method, url: &url, reach, headers };
            let response = common.transport.send(request, question.deadline).await?;
            if is_own {
                self.watched.limited(RateLimit::read(response.headers()));
            }
            let location = response.headers().get(LOCATION).filter(|_| redirects(response.status()));
            let Some(location) = location else { return Ok(Arrived { response, url, is_own }) };
            let target = redirects::judge(endpoint, &url, location.as_bytes(), &common.redirect_hosts);
            let target = target.map_err(Trouble::Wrong)?;
            drain(response).await;
            if Authority::of(&url).as_ref() != Some(&target.at) {
                pass = None;
                is_own = false;
            }
            (url, reach) = (target.url, target.reach);
        }
        Err(Trouble::Wrong(format!("{}: more than {} redirects", shown(&question.url), redirects::MOST)))
    }
}

fn redirects(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// What an answer means. Only one that has what was asked for keeps its body.
async fn judge(question: &Question<'_>, arrived: Arrived) -> Result<Answer, Trouble> {
    let Arrived { response, url, is_own } = arrived;
    let (status, what) = (response.status(), format!("{} {}", question.method, shown(&url)));
    let trouble = match status.as_u16() {
        200 => return Ok(Answer { response, what }),
        206 if question.headers.contains_key(RANGE) => return Ok(Answer { response, what }),
        404 | 410 => Trouble::NotFound,
        508 => Trouble::Loop,
        // A store behind a redirect knows nothing of who may have what: its link may be too old, or for another method.
        401 | 403 if !is_own && question.method == Method::HEAD => Trouble::Wrong(format!("{what}: {status}")),
        401 | 403 if !is_own => Trouble::away(Away::Failing, format!("{what}: {status}")),
        401 | 403 | 451 => Trouble::Denied,
        405 | 501 => Trouble::Wrong(format!("{what}: {status}")),
        429 | 500..=599 => failing(&what, status, response.headers()),
        _ => Trouble::Wrong(format!("{what}: {status}")),
    };
    drain(response).await;
    Err(trouble)
}

/// An answer that says that there is none now.
fn failing(what: &str, status: StatusCode, headers: &HeaderMap) -> Trouble {
    let wait = retry_after(headers).filter(|wait| !wait.is_zero());
    let how = match (status.as_u16(), wait) {
        (429, wait) => Away::TooMany(wait),
        (503, Some(wait)) => Away::Told(wait),
        _ => Away::Failing,
    };
    Trouble::away(how, format!("{what}: {status}"))
}

/// Reads a body that nobody wants, if it is short.
async fn drain(mut response: Response) {
    let length = response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > LONGEST_UNWANTED) {
        return;
    }
    let read = async {
        let mut read = 0;
        while let Ok(Some(bytes)) = response.chunk().await {
            read += bytes.len();
            if read > LONGEST_UNWANTED {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(PATIENCE_WITH_UNWANTED, read).await;
}

/// Reads a whole body that may be so long.
pub async fn read_bounded(
    mut response: Response,
    longest: usize,
    progress: Duration,
    deadline: Deadline,
    what: &str,
) -> Result<Bytes, Trouble> {
    let mut body = BytesMut::new();
    loop {
        let wait = deadline.within(progress);
        let silent = |_| Trouble::away(Away::Silent, format!("{what}: nothing more came for {} ms", wait.as_millis()));
        let chunk = tokio::time::timeout(wait, response.chunk()).await.map_err(silent)?;
        let broken = |error: reqwest::Error| {
            let causes = causes(&error.without_url());
            Trouble::away(Away::Unreachable, format!("{what}: the answer broke off: {causes}"))
        };
        let Some(chunk) = chunk.map_err(broken)? else { return Ok(body.freeze()) };
        if body.len() + chunk.len() > longest {
            return Err(Trouble::Wrong(format!("{what}: the answer is longer than {longest} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
}
