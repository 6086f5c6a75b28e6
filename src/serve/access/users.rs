//! The users of a registry: names, password hashes and who may write, out of two small files. Reading them is pure.

use std::collections::HashMap;

use thiserror::Error;

use super::Rights;

/// Why a file of users is not one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidUsers {
    /// A line is not `name:hash`.
    #[error("line {line} is not of the form name:hash")]
    Form {
        /// Counted from 1.
        line: usize,
    },
    /// The hash is not one of bcrypt.
    #[error("line {line}: the password's hash is not one of bcrypt; `htpasswd -B` makes one")]
    Hash {
        /// Counted from 1.
        line: usize,
    },
    /// A name stands there twice.
    #[error("line {line}: the user {name:?} was named before")]
    Twice {
        /// Counted from 1.
        line: usize,
        /// Which user.
        name: String,
    },
    /// A writer is not a user.
    #[error("line {line}: there is no user {name:?}")]
    NobodyByThatName {
        /// Counted from 1.
        line: usize,
        /// Which writer.
        name: String,
    },
}

/// Who there is.
#[derive(Debug)]
pub struct Users(HashMap<String, User>);

#[derive(Debug)]
struct User {
    hash: String,
    rights: Rights,
}

impl Users {
    /// Reads the files: `name:hash` a line; and the names of those who may write. Empty lines and those that begin with `#`
    /// do not count. Without a list of writers, all may write.
    ///
    /// # Errors
    /// When a line is malformed, with its number.
    pub fn parse(users: &str, writers: Option<&str>) -> Result<Self, InvalidUsers> {
        let rights = if writers.is_some() { Rights::Read } else { Rights::Write };
        let mut found = HashMap::new();
        for (line, text) in lines(users) {
            let (name, hash) = text.split_once(':').ok_or(InvalidUsers::Form { line })?;
            if name.is_empty() {
                return Err(InvalidUsers::Form { line });
            }
            if hash.parse::<bcrypt::HashParts>().is_err() {
                return Err(InvalidUsers::Hash { line });
            }
            let user = User { hash: hash.to_owned(), rights };
            if found.insert(name.to_owned(), user).is_some() {
                return Err(InvalidUsers::Twice { line, name: name.to_owned() });
            }
        }
        for (line, name) in lines(writers.unwrap_or_default()) {
            let nobody = || InvalidUsers::NobodyByThatName { line, name: name.to_owned() };
            found.get_mut(name).ok_or_else(nobody)?.rights = Rights::Write;
        }
        Ok(Self(found))
    }

    /// The rights of a user with this password. A wrong name takes as long to refuse as a wrong password: it is held against
    /// the hash of somebody.
    #[must_use]
    pub fn check(&self, name: &str, password: &str) -> Option<Rights> {
        let user = self.0.get(name);
        let hash = &user.or_else(|| self.0.values().next())?.hash;
        let right = bcrypt::verify(password, hash).unwrap_or(false);
        user.filter(|_| right).map(|user| user.rights)
    }
}

fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().map(str::trim).enumerate().map(|(index, line)| (index + 1, line));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::{InvalidUsers, Rights, Users};

    #[test]
    fn files_are_read_line_by_line() {
        let hash = bcrypt::hash("x", 4).unwrap();
        let two = format!("# people\n\na:{hash}\n  b:{hash}\r\n");
        let users = Users::parse(&two, Some("# writers\nb\n")).unwrap();
        assert_eq!((users.check("a", "x"), users.check("b", "x")), (Some(Rights::Read), Some(Rights::Write)));
        assert_eq!((users.check("a", "y"), users.check("c", "x")), (None, None));
        let users = Users::parse(&two, None).unwrap();
        assert_eq!(users.check("a", "x"), Some(Rights::Write));
        let twice = InvalidUsers::Twice { line: 2, name: "a".to_owned() };
        let nobody = InvalidUsers::NobodyByThatName { line: 2, name: "c".to_owned() };
        for (users, writers, expected) in [
            ("a".to_owned(), None, InvalidUsers::Form { line: 1 }),
            (format!(":{hash}"), None, InvalidUsers::Form { line: 1 }),
            ("\na:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=".to_owned(), None, InvalidUsers::Hash { line: 2 }),
            (format!("a:{hash}\na:{hash}"), None, twice),
            (format!("a:{hash}"), Some("a\nc"), nobody),
        ] {
            assert_eq!(Users::parse(&users, writers).unwrap_err(), expected);
        }
    }
}
