//! The part of the configuration about other registries: which are mirrored, how each is asked, and how much of them is kept.
//! Reading it is pure.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::de::{DeserializeSeed, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use super::{ConfigError, Repositories, text};
use crate::oci::host::InvalidHost;
use crate::oci::{Platform, RegistryHost};
use crate::quantity;
use crate::serve::cache::rights::PrivateImages;
use crate::serve::upstream::{Endpoint, Settings};

/// Another registry whose content is served too.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mirror {
    /// The registry's name as it stands in images' references: `docker.io`, or `registry.example.com:5000`.
    #[serde(with = "text")]
    #[schemars(with = "String")]
    pub host: RegistryHost,
    /// Where it is asked, in this order: `https://registry.example.com`. Where none is given, the name says it.
    #[serde(default, with = "text::list")]
    #[schemars(with = "Vec<String>")]
    pub endpoints: Vec<Endpoint>,
    /// As whom the registry is asked: a file of one line, `user:password`, or a folder with the files of a Kubernetes Secret,
    /// `username` and `password`, or `.dockerconfigjson`. It is taken up when it changes.
    #[serde(default)]
    pub credentials: Option<PathBuf>,
    /// A PEM file of authorities that are believed besides the public ones. It is taken up when it changes.
    #[serde(default)]
    pub authorities: Option<PathBuf>,
    /// The proxy through which it is asked: `http://proxy.example.com:3128`. Without it, those that the environment names.
    #[serde(default)]
    pub proxy: Option<String>,
    /// Hosts that may be asked for tokens with a credential, besides the endpoints and the known partners of large registries.
    #[serde(default)]
    pub token_realms: Vec<String>,
    /// Hosts that it may redirect to although their addresses are private.
    #[serde(default)]
    pub redirect_hosts: Vec<String>,
    /// Who may have images that the registry does not give to everybody: those to whom it gives them, asked with their own
    /// credential (`VerifyWithUpstream`); all who may ask here, with the configured credential (`Shared`); or nobody (`Deny`).
    #[serde(default)]
    pub private_images: PrivateImages,
    /// Which of its repositories are served; clients ask the registry itself for the others. Without it, all.
    #[serde(default)]
    pub repositories: Repositories,
    /// Whether it serves clients that do not say which registry they mean, as Docker does not. One may, at most.
    #[serde(default)]
    pub default: bool,
}

impl Mirror {
    /// Of this registry, with all else by default.
    #[must_use]
    pub fn of(host: RegistryHost) -> Self {
        Self {
            host,
            endpoints: Vec::new(),
            credentials: None,
            authorities: None,
            proxy: None,
            token_realms: Vec::new(),
            redirect_hosts: Vec::new(),
            private_images: PrivateImages::default(),
            repositories: Repositories::default(),
            default: false,
        }
    }

    /// Reads a flag: `HOST`, or `HOST=URL`. Docker's own name is the default, because Docker asks for nothing else in that way.
    ///
    /// # Errors
    /// When the host or the URL is malformed.
    pub fn of_flag(text: &str) -> Result<Self, ConfigError> {
        let wrong = |problem: &dyn fmt::Display| ConfigError::Flags(format!("--mirror HOST[=URL]: {problem}"));
        let (host, endpoint) = text.split_once('=').map_or((text, None), |(host, endpoint)| (host, Some(endpoint)));
        let host: RegistryHost = host.parse().map_err(|problem: InvalidHost| wrong(&problem))?;
        let endpoint = endpoint.map(Endpoint::parse).transpose().map_err(|problem| wrong(&problem))?;
        let default = host.as_str() == "docker.io";
        Ok(Self { endpoints: endpoint.into_iter().collect(), default, ..Self::of(host) })
    }

    /// How it is asked, as far as the document says that and not the files that it names.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let mut settings = Settings::of(self.host.clone());
        if !self.endpoints.is_empty() {
            settings.endpoints.clone_from(&self.endpoints);
        }
        settings.proxy.clone_from(&self.proxy);
        settings.token_realms.clone_from(&self.token_realms);
        settings.redirect_hosts.clone_from(&self.redirect_hosts);
        settings
    }
}

/// What of other registries is kept, and for how long it is good.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Cache {
    /// How many bytes are kept, as `50Gi`. What was used longest ago goes first.
    #[serde(with = "text")]
    #[schemars(with = "String")]
    pub size: Size,
    /// Seconds for which a tag is taken for what it was. 0: it is asked for each time.
    pub tag_max_age_seconds: u64,
    /// Seconds for which a tag that was good is served on while its registry cannot be asked.
    pub stale_if_error_seconds: u64,
    /// Seconds for which a right that was proven holds on while its registry cannot be asked.
    pub right_stale_if_error_seconds: u64,
    /// A file of digests, one a line, whose images are never evicted, up to 80 % of the size. It is taken up when it changes.
    pub pinned: Option<PathBuf>,
    /// Images that are fetched ahead and never evicted, as `docker.io/library/postgres:17`; together up to 80 % of the size.
    pub pin: Vec<String>,
    /// For which platforms, as `linux/arm64`, an index of images is pinned or in use; without it, for all that it has.
    #[serde(with = "text::list")]
    #[schemars(with = "Vec<String>")]
    pub platforms: Vec<Platform>,
    /// A file of digests, one a line, whose images are evicted after all others. It is taken up when it changes.
    pub in_use: Option<PathBuf>,
    /// Ranges of addresses that no registry may redirect to, as `10.96.0.0/12`, besides those that are private everywhere.
    #[serde(with = "text::list")]
    #[schemars(with = "Vec<String>")]
    pub closed_ranges: Vec<IpNet>,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            size: Size(20 * 1024 * 1024 * 1024),
            tag_max_age_seconds: 60,
            stale_if_error_seconds: 7 * 24 * 3600,
            right_stale_if_error_seconds: 3600,
            pinned: None,
            pin: Vec::new(),
            platforms: Vec::new(),
            in_use: None,
            closed_ranges: Vec::new(),
        }
    }
}

/// A number of bytes, as `50Gi`; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(u64);

/// Why a text is not a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a size is a number of bytes above 0, as 50Gi or 500M")]
pub struct InvalidSize;

impl Size {
    /// In bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = InvalidSize;

    fn from_str(text: &str) -> Result<Self, InvalidSize> {
        let bytes = quantity::milli(text).and_then(|milli| u64::try_from(milli / 1000).ok());
        bytes.filter(|bytes| *bytes > 0).map(Self).ok_or(InvalidSize)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(30, "Gi"), (20, "Mi"), (10, "Ki")];
        let whole = units.into_iter().find(|(shift, _)| self.0.trailing_zeros() >= *shift);
        let (shift, unit) = whole.unwrap_or((0, ""));
        write!(formatter, "{}{unit}", self.0 >> shift)
    }
}

/// Reads the mirrors one after the other, so that what does not go together is told where it stands.
pub(super) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Mirror>, D::Error> {
    struct Mirrors;

    impl<'de> Visitor<'de> for Mirrors {
        type Value = Vec<Mirror>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a list of mirrors")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Mirror>, A::Error> {
            let mut mirrors = Vec::new();
            while let Some(mirror) = list.next_element_seed(Beside(&mirrors))? {
                mirrors.push(mirror);
            }
            Ok(mirrors)
        }
    }

    deserializer.deserialize_seq(Mirrors)
}

/// Reads a mirror that stands beside these.
struct Beside<'a>(&'a [Mirror]);

impl<'de> DeserializeSeed<'de> for Beside<'_> {
    type Value = Mirror;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Mirror, D::Error> {
        let mirror = Mirror::deserialize(deserializer)?;
        mirror.settings().check().map_err(D::Error::custom)?;
        conflict(self.0, &mirror).map_or(Ok(mirror), |problem| Err(D::Error::custom(problem)))
    }
}

/// What keeps a mirror from standing beside those before it.
pub(super) fn conflict(before: &[Mirror], mirror: &Mirror) -> Option<String> {
    if before.iter().any(|other| other.host == mirror.host) {
        return Some(format!("the mirror {} is given twice", mirror.host));
    }
    let default = before.iter().find(|other| other.default).filter(|_| mirror.default)?;
    Some(format!("{} and {} are both the default mirror", default.host, mirror.host))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::{Cache, Mirror, PrivateImages, Size};

    fn parse(rest: &str) -> Result<Config, String> {
        let text = format!("root: /data\nlisten: 127.0.0.1:5000\n{rest}");
        Config::parse(Path::new("serve.yaml"), &text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_mirror_is_its_name_and_what_differs_from_the_usual() {
        let config = parse("mirrors: [{host: docker.io}]\n").unwrap();
        assert_eq!(config.mirrors, [Mirror::of("docker.io".parse().unwrap())]);
        assert_eq!(config.cache, Cache::default());
        let config = parse(
            "mirrors:
- host: docker.io
  default: true
  endpoints: [https://mirror.example.com, http://127.0.0.1:5001/v2/hub]
  privateImages: Shared
- {host: 'r.example.com:5000', proxy: 'http://proxy:3128', tokenRealms: [auth.example.com], redirectHosts: [10.0.0.7]}
cache: {size: 50Gi, tagMaxAgeSeconds: 0, closedRanges: [10.96.0.0/12, 'fd00::/8']}
localNames: [team.platform.svc]
",
        )
        .unwrap();
        let [hub, other] = &config.mirrors[..] else { panic!("{:?}", config.mirrors) };
        assert_eq!((hub.endpoints.len(), hub.private_images, hub.default), (2, PrivateImages::Shared, true));
        assert_eq!(hub.settings().endpoints, hub.endpoints);
        assert_eq!(other.settings().endpoints[0].to_string(), "https://r.example.com:5000");
        assert_eq!(config.cache.size.bytes(), 50 << 30);
        assert_eq!((config.cache.tag_max_age_seconds, config.cache.stale_if_error_seconds), (0, 604_800));
        // What is written is read back.
        let text = serde_saphyr::to_string(&config).unwrap();
        assert_eq!(Config::parse(Path::new("x"), &text).unwrap(), config);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place_and_without_secrets() {
        let one = |line: &str| format!("mirrors:\n- host: docker.io\n  {line}\n");
        for (text, place, reason) in [
            ("mirrors:\n- host: https://docker.io\n".to_owned(), (4, 9), "without a scheme"),
            ("mirrors:\n- host: docker.io/library\n".to_owned(), (4, 9), "a path"),
            ("mirrors:\n- host: Docker.io\n".to_owned(), (4, 9), "lower case"),
            ("mirrors:\n- host: a\n- host: b\n- host: a\n".to_owned(), (6, 3), "the mirror a is given twice"),
            (
                "mirrors:\n- {host: a, default: true}\n- {host: b, default: true}\n".to_owned(),
                (5, 3),
                "a and b are both",
            ),
            ("mirrors:\n- endpoints: []\n".to_owned(), (4, 3), "host"),
            (one("endpoint: https://a"), (5, 3), "endpoint"),
            (one("endpoints:\n  - https://a\n  - ftp://b"), (7, 5), "https://"),
            (one("endpoints: [https://me:secret@a]"), (5, 15), "credentials"),
            (one("endpoints: ['https://a?token=secret']"), (5, 15), "no `?`"),
            (one("privateImages: Everybody"), (5, 18), "Everybody"),
            (one("proxy: http://me:secret@proxy"), (4, 3), "a proxy"),
            (one("tokenRealms: ['https://auth']"), (4, 3), "https://auth"),
            (one("redirectHosts: ['10.0.0.0/8']"), (4, 3), "10.0.0.0/8"),
            ("cache:\n  size: 0\n".to_owned(), (4, 9), "a size"),
            ("cache:\n  size: 50GB\n".to_owned(), (4, 9), "a size"),
            ("cache:\n  size: -1Gi\n".to_owned(), (4, 9), "a size"),
            ("cache:\n  tagMaxAgeSeconds: -1\n".to_owned(), (4, 21), "u64"),
            ("cache:\n  closedRanges: [10.0.0.0/33]\n".to_owned(), (4, 18), ""),
            ("localNames: [a, B]\n".to_owned(), (3, 17), "lower case"),
        ] {
            let error = parse(&text).unwrap_err();
            let place = format!("at line {}, column {}", place.0, place.1);
            assert!(error.contains(&place) && error.contains(reason), "{text}{place} {reason}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_flag_names_a_mirror_and_where_it_is_asked() {
        for (flag, host, endpoint, default) in [
            ("docker.io", "docker.io", None, true),
            ("docker.io=https://mirror.example.com", "docker.io", Some("https://mirror.example.com"), true),
            ("r.example.com:5000=http://127.0.0.1:1", "r.example.com:5000", Some("http://127.0.0.1:1"), false),
        ] {
            let mirror = Mirror::of_flag(flag).unwrap();
            let endpoints: Vec<String> = mirror.endpoints.iter().map(ToString::to_string).collect();
            assert_eq!((mirror.host.as_str(), mirror.default), (host, default));
            assert_eq!(endpoints, endpoint.into_iter().map(str::to_owned).collect::<Vec<_>>());
        }
        for flag in ["", "https://u:secret@a", "docker.io=", "docker.io=mirror.example.com", "a=https://u:secret@b"] {
            let error = Mirror::of_flag(flag).unwrap_err().to_string();
            assert!(error.starts_with("--mirror") && !error.contains("secret"), "{flag}: {error}");
        }
        let of = |flags: &[&str]| {
            let config = Config::of("/data".into(), "127.0.0.1:5000".parse().unwrap(), None);
            let mirrors = flags.iter().map(|flag| Mirror::of_flag(flag).unwrap()).collect();
            config.with_mirrors(mirrors, "1Gi".parse().unwrap()).map_err(|error| error.to_string())
        };
        assert_eq!(of(&["ghcr.io", "docker.io"]).unwrap().cache.size.bytes(), 1 << 30);
        assert_eq!(of(&["ghcr.io", "ghcr.io=https://a"]).unwrap_err(), "the mirror ghcr.io is given twice");
    }

    #[test]
    fn a_size_is_read_and_written() {
        for (text, bytes, written) in
            [("50Gi", 50 << 30, "50Gi"), ("1.5Ki", 1536, "1536"), ("500M", 500_000_000, "500000000")]
        {
            let size: Size = text.parse().unwrap();
            assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, written));
            assert_eq!(size.to_string().parse(), Ok(size));
        }
        for text in ["", "0", "100m", "-1", "16Ei", "Gi", "many"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
