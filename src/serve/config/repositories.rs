//! Which repositories of a registry are meant. Pure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::oci::{RepositoryName, canary};

/// Which repositories of a registry are served: those that a pattern of `include` matches, or all where there is none, without
/// those that one of `exclude` matches. A pattern is a name, or the beginning of names with `*` at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Repositories {
    /// Patterns of those that are, such as `library/*`.
    pub include: Vec<String>,
    /// Patterns of those that are not.
    pub exclude: Vec<String>,
}

impl Repositories {
    /// Whether a repository is meant. The canary always is.
    #[must_use]
    pub fn mean(&self, repository: &RepositoryName) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, repository.as_str()));
        repository.as_str() == canary::REPOSITORY
            || ((self.include.is_empty() || any(&self.include)) && !any(&self.exclude))
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |beginning| name.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use super::Repositories;

    #[test]
    fn what_is_included_and_not_excluded_is_meant() {
        let of = |include: &[&str], exclude: &[&str]| {
            let own = |patterns: &[&str]| patterns.iter().map(|&pattern| pattern.to_owned()).collect();
            Repositories { include: own(include), exclude: own(exclude) }
        };
        for (include, exclude, meant, not) in [
            (&[][..], &[][..], &["a", "library/nginx"][..], &[][..]),
            (
                &["library/*", "team/app"],
                &[],
                &["library/nginx", "library/a/b", "team/app"],
                &["library", "team/app2", "a"],
            ),
            (&[], &["library/*"], &["a", "library"], &["library/nginx"]),
            (&["team/*"], &["team/secret*"], &["team/app"], &["team/secret", "team/secrets/a", "a"]),
            (&["*"], &["a"], &["b"], &["a"]),
            (&["a"], &["*"], &["wharf/canary"], &["a"]),
        ] {
            let repositories = of(include, exclude);
            for (names, expected) in [(meant, true), (not, false)] {
                for name in names {
                    let found = repositories.mean(&name.parse().unwrap());
                    assert_eq!(found, expected, "{name} of {include:?} without {exclude:?}");
                }
            }
        }
    }
}
