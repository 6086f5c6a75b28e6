//! The error codes of the protocol and the body that carries them.

use serde::Serialize;

/// A code of the protocol's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The blob is not in the repository.
    BlobUnknown,
    /// The upload cannot go on like this.
    BlobUploadInvalid,
    /// There is no such upload.
    BlobUploadUnknown,
    /// The digest is malformed, or not that of the content.
    DigestInvalid,
    /// The manifest names content that is not in the repository.
    ManifestBlobUnknown,
    /// The manifest is not one, or not of its type.
    ManifestInvalid,
    /// The manifest is not in the repository.
    ManifestUnknown,
    /// The repository's name is malformed.
    NameInvalid,
    /// There is no such repository.
    NameUnknown,
    /// The length is not as announced.
    SizeInvalid,
    /// Credentials are needed.
    Unauthorized,
    /// The credentials do not suffice.
    Denied,
    /// The operation is not offered.
    Unsupported,
    /// More than a limit allows.
    TooManyRequests,
    /// The server failed; not of the table, which has nothing for it.
    Unavailable,
}

impl ErrorCode {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::BlobUnknown,
        Self::BlobUploadInvalid,
        Self::BlobUploadUnknown,
        Self::DigestInvalid,
        Self::ManifestBlobUnknown,
        Self::ManifestInvalid,
        Self::ManifestUnknown,
        Self::NameInvalid,
        Self::NameUnknown,
        Self::SizeInvalid,
        Self::Unauthorized,
        Self::Denied,
        Self::Unsupported,
        Self::TooManyRequests,
        Self::Unavailable,
    ];

    /// As it is written in the body of an error.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unavailable => "UNAVAILABLE",
        }
    }

    /// The body of an answer with this error.
    #[must_use]
    pub fn body(self, message: &str) -> String {
        #[derive(Serialize)]
        struct Entry<'a> {
            code: &'static str,
            message: &'a str,
        }
        #[derive(Serialize)]
        struct Body<'a> {
            errors: [Entry<'a>; 1],
        }
        let body = Body { errors: [Entry { code: self.as_str(), message }] };
        // Two strings always serialize.
        serde_json::to_string(&body).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::ErrorCode;

    #[test]
    fn codes_are_written_as_the_protocol_writes_them() {
        let names: BTreeSet<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), ErrorCode::ALL.len());
        assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')));
    }

    #[test]
    fn a_body_is_valid_json_whatever_the_message() {
        let body = ErrorCode::NameInvalid.body("a \"quoted\"\nname");
        let value: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(value["errors"][0]["code"], "NAME_INVALID");
        assert_eq!(value["errors"][0]["message"], "a \"quoted\"\nname");
    }
}
