//! What the scripted upstream does wrong, and when.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Ping,
    Token,
    HeadTag,
    GetTag,
    HeadManifest,
    GetManifest,
    HeadBlob,
    GetBlob,
    /// Of a blob, where a redirect leads.
    Storage,
    Tags,
    Referrers,
}

/// What is done instead of the right thing.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The challenge again, whatever token was sent.
    Unauthorized,
    Forbidden,
    NotFound,
    TooMany,
    Internal,
    Unavailable,
    /// Nothing at all.
    Silent,
    /// The right thing, after this time.
    Late(Duration),
    /// The connection ends without an answer.
    Dropped,
    /// Half of the body, then nothing.
    HangInBody,
    /// Half of the body, then the end of the connection.
    CutInBody,
    /// One byte is another one, where the body begins, in its middle, or where it ends.
    WrongBytes(Place),
    /// All of it, although a part was asked for.
    IgnoredRange,
    /// Another part than was asked for.
    OtherRange,
    /// Few bytes at a time.
    Drip(usize, Duration),
    /// Half of the body, then a byte a second until the gate is open.
    Gate(CancellationToken),
    /// All but the last byte, which waits for the gate.
    GateAtEnd(CancellationToken),
    /// To the storage.
    Redirect,
    /// To where this request went.
    Circle,
    /// To an address.
    Elsewhere(String),
    /// A length that is less than that of what there is.
    ShortLength,
    /// A length that is more.
    LongLength,
    NoLength,
    /// A header with another digest.
    LyingDigest,
    /// Without the header.
    NoDigest,
    WrongType,
    Schema1,
    /// The right bytes, and then others without end.
    Endless,
    /// Nothing, with success.
    Empty,
    /// Compressed, although nobody may.
    Encoded,
}

/// Where a byte is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    First,
    Middle,
    Last,
}

impl Fault {
    /// All that come by themselves and need nothing else.
    pub fn all() -> Vec<Self> {
        let mut all = vec![
            Self::Unauthorized,
            Self::Forbidden,
            Self::NotFound,
            Self::TooMany,
            Self::Internal,
            Self::Unavailable,
            Self::Silent,
            Self::Dropped,
            Self::HangInBody,
            Self::CutInBody,
            Self::IgnoredRange,
            Self::OtherRange,
            Self::Drip(1000, Duration::from_millis(5)),
            Self::Redirect,
            Self::Circle,
            Self::ShortLength,
            Self::LongLength,
            Self::NoLength,
            Self::LyingDigest,
            Self::NoDigest,
            Self::WrongType,
            Self::Schema1,
            Self::Endless,
            Self::Empty,
            Self::Encoded,
        ];
        all.extend([Place::First, Place::Middle, Place::Last].map(Self::WrongBytes));
        all
    }

    /// Whether what came cannot be used, so that it is fetched again; or cannot be known to be what came before.
    pub fn costs_bytes(&self) -> bool {
        !matches!(
            self,
            Self::Unauthorized
                | Self::Forbidden
                | Self::NotFound
                | Self::TooMany
                | Self::Internal
                | Self::Unavailable
                | Self::Silent
                | Self::Dropped
                | Self::Drip(..)
                | Self::Redirect
                | Self::Circle
                | Self::NoDigest
        )
    }
}

/// A fault, and the requests that it befalls.
#[derive(Clone, Debug)]
pub struct Rule {
    pub kind: Kind,
    /// For this tag or digest, or for any.
    pub reference: Option<String>,
    /// So many are answered well before.
    pub after: usize,
    /// So many get it.
    pub times: usize,
    pub fault: Fault,
}

impl Rule {
    /// The first request of its kind.
    pub fn first(kind: Kind, fault: Fault) -> Self {
        Self { kind, reference: None, after: 0, times: 1, fault }
    }

    pub fn always(kind: Kind, fault: Fault) -> Self {
        Self { times: usize::MAX, ..Self::first(kind, fault) }
    }

    pub fn of(mut self, reference: &str) -> Self {
        self.reference = Some(reference.to_owned());
        self
    }

    /// Whether a request is one of those that it befalls; counts it.
    pub fn befalls(&mut self, kind: Kind, reference: &str) -> bool {
        let concerns = self.kind == kind && self.reference.as_deref().is_none_or(|own| own == reference);
        if !concerns {
            return false;
        }
        if self.after > 0 {
            self.after -= 1;
            return false;
        }
        let befalls = self.times > 0;
        self.times = self.times.saturating_sub(1);
        befalls
    }
}
