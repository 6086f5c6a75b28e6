//! The registry as others here see it: questions go to its endpoints in order, and its answers are checked. It must never give
//! what it has not checked, but for blobs, whose bytes are checked by who keeps them.

use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::Arc;
use std::time::Instant;

use hyper::Method;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, VIA};
use ring::hmac;

use crate::oci::{Digest, ManifestType, Reference, RegistryHost, RepositoryName};

use super::authority::NamedHost;
use super::blobs::Blob;
use super::condition::{Condition, Told};
use super::endpoints::{InvalidSettings, Settings};
use super::exchange::{Answer, Common, Question, Registry};
use super::health::Health;
use super::identity::Who;
use super::transport::{Deadline, Limits, Proxies, Transport};
use super::trouble::{Tried, Trouble};
use super::{Basic, Failure, FetchedManifest, Head, Identity, List, Listed, Object, Source, lists, manifests};

pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// What a chain of servers may be called, in bytes, before it is taken for a loop.
const LONGEST_CHAIN: usize = 4096;

/// Another registry, that can be asked. Cloning is cheap and shares connections, tokens and breakers.
#[derive(Clone)]
pub struct Upstream {
    shared: Arc<Shared>,
    via: HeaderValue,
}

struct Shared {
    host: RegistryHost,
    registries: Vec<Registry>,
    condition: Condition,
    common: Common,
    credential: Option<Basic>,
    instance: String,
    key: hmac::Key,
}

impl Upstream {
    /// With these settings. `instance` names this server in `Via`, so that it can tell that it is asked by itself.
    ///
    /// # Errors
    /// When the settings cannot be used.
    pub fn new(settings: Settings, instance: &str) -> Result<Self, InvalidSettings> {
        let proxies = Proxies::of(&settings)?;
        Self::with(settings, instance, proxies, Limits::default())
    }

    pub(super) fn with(
        settings: Settings,
        instance: &str,
        proxies: Proxies,
        limits: Limits,
    ) -> Result<Self, InvalidSettings> {
        let named = |names: &[String]| names.iter().map(|name| NamedHost::parse(name)).collect::<Result<Vec<_>, _>>();
        let common = Common {
            transport: Transport::new(&settings, proxies, &limits)?,
            limits,
            token_realms: named(&settings.token_realms)?,
            redirect_hosts: named(&settings.redirect_hosts)?,
        };
        if settings.endpoints.is_empty() {
            return Err(InvalidSettings::NoEndpoint(settings.host));
        }
        let is_name = !instance.is_empty() && instance.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let via = HeaderValue::try_from(format!("1.1 {instance}")).ok().filter(|_| is_name);
        let via = via.ok_or_else(|| InvalidSettings::Instance(instance.to_owned()))?;
        let shared = Shared {
            host: settings.host,
            registries: settings.endpoints.into_iter().map(Registry::new).collect(),
            condition: Condition::default(),
            common,
            credential: settings.credential,
            instance: instance.to_owned(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>()),
        };
        Ok(Self { shared: Arc::new(shared), via })
    }

    /// The same, for a request that came with this `Via`: a loop over several servers is seen only if each passes on who was
    /// before it.
    #[must_use]
    pub fn behind(&self, received: &str) -> Self {
        let received = received.trim();
        let chain = HeaderValue::try_from(format!("{received}, 1.1 {}", self.shared.instance));
        match chain {
            Ok(via) if !received.is_empty() && via.len() <= LONGEST_CHAIN => Self { via, ..self.clone() },
            _ => self.clone(),
        }
    }

    /// Which registry it is.
    #[must_use]
    pub fn host(&self) -> &RegistryHost {
        &self.shared.host
    }

    /// How its endpoints are doing.
    #[must_use]
    pub fn health(&self) -> Health {
        Health::of(self.shared.registries.iter().map(|registry| &registry.watched))
    }

    /// How it is doing as a whole.
    #[must_use]
    pub fn told(&self) -> Told {
        self.shared.condition.told()
    }

    /// Something of it was served as it was, because it could not be asked.
    pub fn serves_stale(&self) {
        self.shared.condition.serves_stale();
    }

    /// Whether no endpoint would be asked now: all were away shortly before.
    #[must_use]
    pub fn is_away(&self) -> bool {
        let now = Instant::now();
        self.shared.registries.iter().all(|registry| registry.watched.refuses(now))
    }

    /// What it says of an object.
    ///
    /// # Errors
    /// When it says nothing, or that there is none.
    pub async fn head(&self, object: &Object, identity: &Identity) -> Result<Head, Failure> {
        let who = &self.who(identity);
        let deadline = self.deadline();
        let (repository, rest) = match object {
            Object::Manifest(repository, reference) => (repository, format!("manifests/{reference}")),
            Object::Blob(repository, digest) => (repository, format!("blobs/{digest}")),
        };
        let rest = &rest;
        self.in_order(object, who, deadline, move |registry| async move {
            let accept = matches!(object, Object::Manifest(..)).then(manifests::accepted);
            let headers = self.headers(accept);
            let asked = Asked { method: Method::HEAD, repository, rest, query: &[], headers };
            let answer = self.ask(registry, asked, who, deadline).await?;
            head_of(object, &answer)
        })
        .await
    }

    /// Fetches a manifest.
    ///
    /// # Errors
    /// When it does not come, or is none, or another than the one that was asked for.
    pub async fn manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        identity: &Identity,
    ) -> Result<FetchedManifest, Failure> {
        let who = &self.who(identity);
        let deadline = self.deadline();
        let rest = &format!("manifests/{reference}");
        self.in_order(&(repository, reference), who, deadline, move |registry| async move {
            let headers = self.headers(Some(manifests::accepted()));
            let asked = Asked { method: Method::GET, repository, rest, query: &[], headers };
            let answer = self.ask(registry, asked, who, deadline).await?;
            manifests::read(answer, reference, &self.shared.common.limits, deadline).await
        })
        .await
    }

    /// Fetches a list.
    ///
    /// # Errors
    /// When it does not come, or is none.
    pub async fn list(
        &self,
        repository: &RepositoryName,
        listed: &Listed,
        identity: &Identity,
    ) -> Result<List, Failure> {
        let who = &self.who(identity);
        let deadline = self.deadline();
        let (rest, query) = &lists::asked(listed);
        self.in_order(&(repository, rest), who, deadline, move |registry| async move {
            let (mut pages, mut query) = (lists::Pages::default(), query.clone());
            loop {
                let said: Vec<(&str, &str)> = query.iter().map(|(name, value)| (&**name, &**value)).collect();
                let headers = self.headers(Some(lists::accepted(listed)));
                let asked = Asked { method: Method::GET, repository, rest, query: &said, headers };
                let answer = self.ask(registry, asked, who, deadline).await?;
                match pages.add(answer, listed, self.limits(), deadline).await? {
                    Some(next) => query = next,
                    None => return Ok(pages.end(listed)),
                }
            }
        })
        .await
    }

    /// Where the bytes of a blob come from.
    #[must_use]
    pub fn blob(&self, repository: &RepositoryName, digest: &Digest, identity: &Identity) -> Box<dyn Source> {
        Box::new(Blob::new(self.clone(), repository.clone(), digest.clone(), self.who(identity)))
    }

    pub(super) fn registries(&self) -> &[Registry] {
        &self.shared.registries
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.shared.common.limits
    }

    pub(super) fn deadline(&self) -> Deadline {
        Deadline::after(self.shared.common.limits.all)
    }

    fn who(&self, identity: &Identity) -> Who {
        Who::of(identity, self.shared.credential.as_ref(), &self.shared.key)
    }

    /// Takes note of how a question ended.
    pub(super) fn ended<T>(&self, answer: Result<T, Trouble>, who: &Who) -> Result<T, Failure> {
        self.shared.condition.note(answer.as_ref().err(), who.is_configured());
        answer.map_err(|trouble| trouble.of(&self.shared.host))
    }

    /// Asks one endpoint after the other, until one is believed.
    async fn in_order<'a, T, Asking: Future<Output = Result<T, Trouble>>>(
        &'a self,
        object: &impl Hash,
        who: &Who,
        deadline: Deadline,
        ask: impl Fn(&'a Registry) -> Asking,
    ) -> Result<T, Failure> {
        let (number, mut tried) = (number_of(object), Tried::default());
        // One that could not answer in time any more would be taken to be away.
        for registry in self.shared.registries.iter().take_while(|_| !deadline.is_over()) {
            match registry.watched.ask(number, ask(registry)).await {
                Ok(found) => return self.ended(Ok(found), who),
                Err(trouble) => {
                    if let Err(believed) = tried.add(trouble) {
                        return self.ended(Err(believed), who);
                    }
                }
            }
        }
        self.ended(Err(tried.end()), who)
    }

    /// Asks one endpoint.
    pub(super) async fn ask(
        &self,
        registry: &Registry,
        asked: Asked<'_>,
        who: &Who,
        deadline: Deadline,
    ) -> Result<Answer, Trouble> {
        let Asked { method, repository, rest, query, headers } = asked;
        // A name that is too long there is of nothing that is there.
        let repository = registry.endpoint.repository(repository).ok_or(Trouble::NotFound)?;
        let url = registry.endpoint.url(&repository, rest, query);
        let question = Question { method, repository: &repository, url, headers, who, deadline };
        registry.ask(&self.shared.common, &question).await
    }

    /// What every request carries; never anything that a client sent, but for the servers that it came through.
    pub(super) fn headers(&self, accept: Option<HeaderValue>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.unwrap_or(HeaderValue::from_static("*/*")));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(VIA, self.via.clone());
        headers
    }
}

/// What is asked of an endpoint.
pub(super) struct Asked<'a> {
    pub method: Method,
    pub repository: &'a RepositoryName,
    pub rest: &'a str,
    pub query: &'a [(&'a str, &'a str)],
    pub headers: HeaderMap,
}

/// A number for an object, that is the same for as long as this process lives.
pub(super) fn number_of(object: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    object.hash(&mut hasher);
    hasher.finish()
}

fn head_of(object: &Object, answer: &Answer) -> Result<Head, Trouble> {
    let headers = answer.response.headers();
    if matches!(object, Object::Manifest(..)) && manifests::is_of_the_first_schema(headers) {
        return Err(Trouble::NotFound);
    }
    let digest = content_digest(headers);
    let asked = match object {
        Object::Manifest(_, Reference::Tag(_)) => None,
        Object::Manifest(_, Reference::Digest(digest)) | Object::Blob(_, digest) => Some(digest),
    };
    if let (Some(found), Some(asked)) = (&digest, asked)
        && found.algorithm() == asked.algorithm()
        && found != asked
    {
        return Err(Trouble::Wrong(format!("{}: it is said to be {found}", answer.what)));
    }
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| ManifestType::parse(value.to_str().ok()?));
    let media_type = media_type.filter(|_| matches!(object, Object::Manifest(..)));
    Ok(Head { digest, length: length(headers), media_type })
}

/// The digest that an answer says its content has; none where it is of a kind that is not known.
pub(super) fn content_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get(CONTENT_DIGEST)?.to_str().ok()?.parse().ok()
}

/// How long the body of an answer is said to be.
pub(super) fn length(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(CONTENT_LENGTH)?.to_str().ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}
