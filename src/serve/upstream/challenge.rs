//! Reading `WWW-Authenticate`: how a server wants to be asked. It must never guess at what is malformed.
//!
//! Source: RFC 9110, section 11.6.1. Several challenges may stand in one value, with commas between them as between their
//! parameters.

/// A header that is longer says nothing.
const LONGEST: usize = 8 * 1024;

/// One way that a server wants to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The scheme, in lower case.
    pub scheme: String,
    /// Its parameters; their names are in lower case.
    pub parameters: Vec<(String, String)>,
}

impl Challenge {
    /// The value of a parameter.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find_map(|(found, value)| (found == name).then_some(value.as_str()))
    }
}

/// The challenges of one value of the header, up to the first that is malformed.
#[must_use]
pub fn parse(header: &str) -> Vec<Challenge> {
    let mut reader = Reader { rest: if header.len() <= LONGEST { header } else { "" } };
    let mut challenges = Vec::new();
    while let Some(challenge) = reader.challenge() {
        challenges.push(challenge);
    }
    challenges
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn challenge(&mut self) -> Option<Challenge> {
        self.skip(", \t");
        let mut challenge = Challenge { scheme: self.token()?.to_ascii_lowercase(), parameters: Vec::new() };
        if !self.is_at_end_of_element() && self.skip(" ") == 0 {
            return None;
        }
        while !self.rest.is_empty() {
            let before = self.rest;
            self.skip(", \t");
            match self.parameter() {
                Some((name, _)) if challenge.parameter(&name).is_some() => return None,
                Some(parameter) => challenge.parameters.push(parameter),
                None if self.rest.is_empty() => break,
                // The next challenge.
                None if before.trim_start_matches([' ', '\t']).starts_with(',') => {
                    self.rest = before;
                    break;
                }
                None => self.token68()?,
            }
            if !self.is_at_end_of_element() {
                return None;
            }
        }
        Some(challenge)
    }

    /// A name and a value. Where there is none, nothing is taken.
    fn parameter(&mut self) -> Option<(String, String)> {
        let before = self.rest;
        let found = self.name_and_value();
        if found.is_none() {
            self.rest = before;
        }
        found
    }

    fn name_and_value(&mut self) -> Option<(String, String)> {
        let name = self.token()?.to_ascii_lowercase();
        self.skip(" \t");
        self.rest = self.rest.strip_prefix('=')?;
        self.skip(" \t");
        let value = if self.rest.starts_with('"') { self.quoted()? } else { self.token()?.to_owned() };
        Some((name, value))
    }

    /// A value of the old form, which no scheme that is understood here has.
    fn token68(&mut self) -> Option<()> {
        let of_it = |character: char| character.is_ascii_alphanumeric() || "-._~+/".contains(character);
        let rest = self.rest.trim_start_matches(of_it);
        if rest.len() == self.rest.len() {
            return None;
        }
        self.rest = rest.trim_start_matches('=');
        Some(())
    }

    fn token(&mut self) -> Option<&'a str> {
        let is_end = |character: char| !character.is_ascii_alphanumeric() && !"!#$%&'*+-.^_`|~".contains(character);
        let (token, rest) = self.rest.split_at(self.rest.find(is_end).unwrap_or(self.rest.len()));
        self.rest = rest;
        (!token.is_empty()).then_some(token)
    }

    fn quoted(&mut self) -> Option<String> {
        let mut value = String::new();
        let mut characters = self.rest.strip_prefix('"')?.chars();
        loop {
            match characters.next()? {
                '"' => break,
                '\\' => value.push(characters.next().filter(|character| is_text(*character))?),
                character if is_text(character) => value.push(character),
                _ => return None,
            }
        }
        self.rest = characters.as_str();
        Some(value)
    }

    /// Takes as many of these as there are, and says how many.
    fn skip(&mut self, characters: &str) -> usize {
        let before = self.rest.len();
        self.rest = self.rest.trim_start_matches(|character| characters.contains(character));
        before - self.rest.len()
    }

    fn is_at_end_of_element(&self) -> bool {
        let rest = self.rest.trim_start_matches([' ', '\t']);
        rest.is_empty() || rest.starts_with(',')
    }
}

fn is_text(character: char) -> bool {
    character == '\t' || !character.is_ascii_control()
}

#[cfg(test)]
mod tests {
    use super::{Challenge, LONGEST, parse};

    fn read(header: &str) -> String {
        let shown = |Challenge { scheme, parameters }: Challenge| {
            let parameters = parameters.into_iter().map(|(name, value)| format!("{name}={value}"));
            std::iter::once(scheme).chain(parameters).collect::<Vec<_>>().join(" ")
        };
        parse(header).into_iter().map(shown).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn challenges_are_read_as_http_says() {
        for (header, expected) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                "bearer realm=https://auth.docker.io/token service=registry.docker.io scope=repository:a/b:pull,push",
            ),
            ("Basic", "basic"),
            ("Basic realm=x", "basic realm=x"),
            ("BASIC\trealm=x", ""),
            ("Basic   Realm = \"x\"", "basic realm=x"),
            (r#"Basic realm="a\"b\\c""#, r#"basic realm=a"b\c"#),
            (r#"Basic realm="a, Bearer realm=b""#, "basic realm=a, Bearer realm=b"),
            (r#"Basic realm="é""#, "basic realm=é"),
            (r#"Basic realm="a", Bearer realm="b",service="c""#, "basic realm=a; bearer realm=b service=c"),
            (r"Basic, Bearer realm=b", "basic; bearer realm=b"),
            (r"Negotiate YWJj==, Basic realm=x", "negotiate; basic realm=x"),
            (r"Negotiate a=, Basic realm=x", "negotiate; basic realm=x"),
            (r#", ,Basic realm="a",, charset="UTF-8" ,"#, "basic realm=a charset=UTF-8"),
            (r#"Basic realm="", Newauth a=1"#, "basic realm=; newauth a=1"),
        ] {
            assert_eq!(read(header), expected, "{header}");
        }
    }

    #[test]
    fn nothing_is_made_of_what_is_malformed() {
        let long = format!("Basic realm=\"{}\"", "a".repeat(LONGEST));
        for header in [
            "",
            ",",
            "=",
            "\"Basic\"",
            "Basic realm=\"x",
            "Basic realm=\"x\\",
            "Basic realm=\"x\"y",
            "Basic realm=\"x\" charset=y",
            "Basic realm=a,realm=b",
            "Basic realm=\"a\u{7}\"",
            "Basic realm=é",
            "Basic a b",
            "Basic a, b=c d",
            "Basic=x",
            &long,
        ] {
            assert!(!parse(header).iter().any(|challenge| challenge.parameter("realm").is_some()), "{header}");
        }
        // What stood before it was whole.
        assert_eq!(read("Bearer realm=a, Basic realm=\"b"), "bearer realm=a");
    }
}
