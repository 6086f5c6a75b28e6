//! What the administrator lets Registries have: further names, and how many of them a namespace may hold. Pure.
//! It must never allow a name that the cluster itself gives out: such a name is the address of somebody's Service.

use std::str::FromStr;

/// The administrator's limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Which further names Registries may bear. Empty: none.
    pub allowed_hosts: Vec<HostPattern>,
    /// How many Registries a namespace may hold; 0 for any number.
    pub registries_per_namespace: u32,
}

impl Limits {
    /// Whether a Registry may bear this name.
    #[must_use]
    pub fn allows(&self, host: &str) -> bool {
        !is_inside(host) && self.allowed_hosts.iter().any(|pattern| pattern.matches(host))
    }
}

/// Whether a name is one of those that the cluster gives to Services.
fn is_inside(host: &str) -> bool {
    format!("{host}.").contains(".svc.")
}

/// A host, or all hosts one label below a domain, as certificates and Ingresses write it: `*.example.com`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// This host.
    Exact(String),
    /// Every host with one label before this domain.
    OneLabelBelow(String),
}

impl HostPattern {
    fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(exact) => host == exact,
            Self::OneLabelBelow(domain) => host.split_once('.').is_some_and(|(_, rest)| rest == domain),
        }
    }
}

/// A text is no host pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a DNS name in lower case with at least one dot, or such a name after `*.`")]
pub struct NoHostPattern;

impl FromStr for HostPattern {
    type Err = NoHostPattern;

    fn from_str(text: &str) -> Result<Self, NoHostPattern> {
        let (wildcard, name) = text.strip_prefix("*.").map_or((false, text), |rest| (true, rest));
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        if name.len() > 253 || !name.contains('.') || !name.split('.').all(label) {
            return Err(NoHostPattern);
        }
        let name = name.to_owned();
        Ok(if wildcard { Self::OneLabelBelow(name) } else { Self::Exact(name) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_allowed_is_allowed() {
        let limits = |patterns: &[&str]| Limits {
            allowed_hosts: patterns.iter().map(|text| text.parse().unwrap()).collect(),
            ..Limits::default()
        };
        for (patterns, host, allowed) in [
            (&[][..], "images.example.com", false),
            (&["images.example.com"], "images.example.com", true),
            (&["images.example.com"], "x.images.example.com", false),
            (&["a.example.com", "*.example.com"], "images.example.com", true),
            (&["*.example.com"], "example.com", false),
            (&["*.example.com"], "a.b.example.com", false),
            (&["*.example.com"], "aexample.com", false),
            // Not even on the administrator's own word: it is the address of somebody's Service.
            (&["*.platform.svc", "other.svc"], "team.platform.svc", false),
            (&["other.svc"], "other.svc", false),
            (&["team.platform.svc.cluster.local"], "team.platform.svc.cluster.local", false),
        ] {
            assert_eq!(limits(patterns).allows(host), allowed, "{patterns:?} {host}");
        }
    }

    #[test]
    fn a_pattern_is_a_name_or_a_name_after_a_star() {
        for text in ["images.example.com", "*.example.com", "a-1.b"] {
            assert!(text.parse::<HostPattern>().is_ok(), "{text}");
        }
        let long = format!("{}.example.com", "a".repeat(64));
        for text in ["", "*", "localhost", "*.com", "a.*.com", "*a.example.com", "A.example.com", ".example.com", &long]
        {
            assert_eq!(text.parse::<HostPattern>(), Err(NoHostPattern), "{text}");
        }
    }
}
