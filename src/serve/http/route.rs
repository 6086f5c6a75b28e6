//! What a request asks for, out of its method, path and query. Pure.

use hyper::Method;
use thiserror::Error;

use crate::oci::digest::InvalidDigest;
use crate::oci::name::InvalidName;
use crate::oci::path::{self, Endpoint, InvalidPath, decode};
use crate::oci::tag::InvalidTag;
use crate::oci::{Algorithm, Digest, Reference, RepositoryName, Tag};
use crate::serve::access::Rights;
use crate::serve::repository::UploadId;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Whether this is a registry.
    Base,
    /// A blob; without its bytes for HEAD.
    GetBlob(RepositoryName, Digest),
    /// To take a blob away.
    DeleteBlob(RepositoryName, Digest),
    /// To begin an upload, or to be spared one.
    BeginUpload(RepositoryName, Begin),
    /// How far an upload is.
    UploadProgress(RepositoryName, UploadId),
    /// To add to an upload.
    Append(RepositoryName, UploadId),
    /// To make an upload a blob.
    FinishUpload(RepositoryName, UploadId, Digest),
    /// To forget an upload.
    CancelUpload(RepositoryName, UploadId),
    /// A manifest; without its bytes for HEAD.
    GetManifest(RepositoryName, Reference),
    /// To keep a manifest, under these tags besides.
    PutManifest(RepositoryName, Reference, Vec<Tag>),
    /// To take a manifest or a tag away.
    DeleteManifest(RepositoryName, Reference),
    /// The tags behind one, at most so many.
    Tags(RepositoryName, Option<String>, Option<usize>),
    /// What refers to a manifest: of one kind, behind one.
    Referrers(RepositoryName, Digest, Option<String>, Option<Digest>),
}

/// How an upload begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begin {
    /// With nothing; the hash that will be asked for may be known.
    Empty(Algorithm),
    /// With all of the content.
    Whole(Digest),
    /// Not at all, if another repository has it.
    Mount(Digest, Option<RepositoryName>),
}

/// Why a request asks for nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RouteError {
    /// The path or the query is not well encoded.
    #[error("the path or the query is not valid percent-encoded UTF-8")]
    Encoding,
    /// The path names nothing.
    #[error(transparent)]
    Path(#[from] InvalidPath),
    /// There is no such method here.
    #[error("the method is not allowed here: {allowed} are")]
    Method {
        /// Those that are.
        allowed: &'static str,
    },
    /// The upload's id is not one of ours.
    #[error("there is no such upload")]
    Upload,
    /// A digest in the query is missing or malformed.
    #[error("the query needs a digest: {0}")]
    Digest(#[from] InvalidDigest),
    /// A repository's name in the query is malformed.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// A tag in the query is malformed.
    #[error(transparent)]
    Tag(#[from] InvalidTag),
    /// Another parameter of the query cannot be understood, or stands there twice.
    #[error("the query's parameter {0} is malformed")]
    Query(&'static str),
}

impl Route {
    /// The repository that it is about.
    #[must_use]
    pub fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Self::Base => None,
            Self::GetBlob(name, _)
            | Self::DeleteBlob(name, _)
            | Self::BeginUpload(name, _)
            | Self::UploadProgress(name, _)
            | Self::Append(name, _)
            | Self::FinishUpload(name, ..)
            | Self::CancelUpload(name, _)
            | Self::GetManifest(name, _)
            | Self::PutManifest(name, ..)
            | Self::DeleteManifest(name, _)
            | Self::Tags(name, ..)
            | Self::Referrers(name, ..) => Some(name),
        }
    }

    /// What it takes to ask for it.
    #[must_use]
    pub fn needs(&self) -> Rights {
        match self {
            Self::Base | Self::GetBlob(..) | Self::GetManifest(..) | Self::Tags(..) | Self::Referrers(..) => {
                Rights::Read
            }
            Self::DeleteBlob(..)
            | Self::BeginUpload(..)
            | Self::UploadProgress(..)
            | Self::Append(..)
            | Self::FinishUpload(..)
            | Self::CancelUpload(..)
            | Self::PutManifest(..)
            | Self::DeleteManifest(..) => Rights::Write,
        }
    }
}

/// What a request asks for.
///
/// # Errors
/// When that is nothing, with what is wrong.
pub fn route(method: &Method, path: &str, query: &Query) -> Result<Route, RouteError> {
    let path = decode(path, false).ok_or(RouteError::Encoding)?;
    let reads = method == Method::GET || method == Method::HEAD;
    match path::parse(&path)? {
        Endpoint::Base if reads => Ok(Route::Base),
        Endpoint::Blob(name, digest) if reads => Ok(Route::GetBlob(name, digest)),
        Endpoint::Blob(name, digest) if method == Method::DELETE => Ok(Route::DeleteBlob(name, digest)),
        Endpoint::Uploads(name) if method == Method::POST => Ok(Route::BeginUpload(name, begin(query)?)),
        Endpoint::Upload(name, id) => upload(method, name, &id, query),
        Endpoint::Manifest(name, reference) if reads => Ok(Route::GetManifest(name, reference)),
        Endpoint::Manifest(name, reference) if method == Method::PUT => {
            let tags = query.all("tag").map(str::parse).collect::<Result<Vec<Tag>, _>>()?;
            if !tags.is_empty() && matches!(reference, Reference::Tag(_)) {
                return Err(RouteError::Query("tag"));
            }
            Ok(Route::PutManifest(name, reference, tags))
        }
        Endpoint::Manifest(name, reference) if method == Method::DELETE => Ok(Route::DeleteManifest(name, reference)),
        Endpoint::Tags(name) if reads => {
            let limit = query.one("n")?.map(|text| text.parse().map_err(|_| RouteError::Query("n"))).transpose()?;
            Ok(Route::Tags(name, query.one("last")?.map(str::to_owned), limit))
        }
        Endpoint::Referrers(name, digest) if reads => {
            let last = query.one("last")?.map(str::parse).transpose()?;
            Ok(Route::Referrers(name, digest, query.one("artifactType")?.map(str::to_owned), last))
        }
        endpoint => Err(RouteError::Method { allowed: allowed(&endpoint) }),
    }
}

fn upload(method: &Method, name: RepositoryName, id: &str, query: &Query) -> Result<Route, RouteError> {
    let id = UploadId::parse(id).ok_or(RouteError::Upload);
    match *method {
        Method::GET => Ok(Route::UploadProgress(name, id?)),
        Method::PATCH => Ok(Route::Append(name, id?)),
        Method::PUT => Ok(Route::FinishUpload(name, id?, query.one("digest")?.unwrap_or_default().parse()?)),
        Method::DELETE => Ok(Route::CancelUpload(name, id?)),
        _ => Err(RouteError::Method { allowed: "GET, PATCH, PUT, DELETE" }),
    }
}

fn begin(query: &Query) -> Result<Begin, RouteError> {
    if let Some(digest) = query.one("mount")? {
        let from = query.one("from")?.map(str::parse).transpose()?;
        return Ok(Begin::Mount(digest.parse()?, from));
    }
    if let Some(digest) = query.one("digest")? {
        return Ok(Begin::Whole(digest.parse()?));
    }
    let name = query.one("digest-algorithm")?.unwrap_or(Algorithm::Sha256.as_str());
    let algorithm = Algorithm::ALL.into_iter().find(|algorithm| algorithm.as_str() == name);
    Ok(Begin::Empty(algorithm.ok_or(InvalidDigest::Algorithm)?))
}

fn allowed(endpoint: &Endpoint) -> &'static str {
    match endpoint {
        Endpoint::Base | Endpoint::Tags(_) | Endpoint::Referrers(..) => "GET, HEAD",
        Endpoint::Blob(..) => "GET, HEAD, DELETE",
        Endpoint::Uploads(_) => "POST",
        Endpoint::Upload(..) => "GET, PATCH, PUT, DELETE",
        Endpoint::Manifest(..) => "GET, HEAD, PUT, DELETE",
    }
}

/// The parameters of a query, decoded.
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    /// When it is not well encoded.
    pub fn parse(query: &str) -> Result<Self, RouteError> {
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(key, true)?, decode(value, true)?))
        });
        pairs.collect::<Option<Vec<_>>>().map(Self).ok_or(RouteError::Encoding)
    }

    fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// A parameter that may stand there once; empty counts as absent.
    ///
    /// # Errors
    /// When it stands there twice.
    pub fn one(&self, key: &'static str) -> Result<Option<&str>, RouteError> {
        let mut values = self.all(key);
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(RouteError::Query(key)),
            (value, None) => Ok(value.filter(|value| !value.is_empty())),
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::Method;

    use super::{Begin, Query, Route, RouteError, route};
    use crate::oci::Algorithm;
    use crate::oci::path::InvalidPath;
    use crate::serve::access::Rights;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const ID: &str = "0123456789abcdef0123456789abcdef";

    fn ask(method: &str, target: &str) -> Result<Route, RouteError> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        route(&method.parse::<Method>().unwrap(), path, &Query::parse(query)?)
    }

    #[test]
    fn each_method_of_each_path_is_one_route() {
        let blob = format!("/v2/a/blobs/{DIGEST}");
        let upload = format!("/v2/a/blobs/uploads/{ID}");
        for (method, target, needs) in [
            ("GET", "/v2/", Rights::Read),
            ("HEAD", &blob, Rights::Read),
            ("DELETE", &blob, Rights::Write),
            ("POST", "/v2/a/blobs/uploads/", Rights::Write),
            ("GET", &upload, Rights::Write),
            ("PATCH", &upload, Rights::Write),
            ("PUT", &format!("{upload}?digest={DIGEST}"), Rights::Write),
            ("DELETE", &upload, Rights::Write),
            ("GET", "/v2/a/manifests/latest", Rights::Read),
            ("PUT", &format!("/v2/a/manifests/{DIGEST}?tag=a&tag=b"), Rights::Write),
            ("DELETE", "/v2/a/manifests/latest", Rights::Write),
            ("GET", "/v2/a/tags/list?n=3&last=x", Rights::Read),
            ("GET", &format!("/v2/a/referrers/{DIGEST}?artifactType=a%2Fb%2bjson"), Rights::Read),
        ] {
            let route = ask(method, target).unwrap_or_else(|error| panic!("{method} {target}: {error}"));
            assert_eq!(route.needs(), needs, "{method} {target}");
        }
        for (method, target, expected) in [
            ("POST", "/v2/", "GET, HEAD"),
            ("PUT", &blob, "GET, HEAD, DELETE"),
            ("GET", "/v2/a/blobs/uploads/", "POST"),
            ("HEAD", &upload, "GET, PATCH, PUT, DELETE"),
            ("PATCH", "/v2/a/manifests/latest", "GET, HEAD, PUT, DELETE"),
        ] {
            assert_eq!(ask(method, target), Err(RouteError::Method { allowed: expected }), "{method} {target}");
        }
    }

    #[test]
    fn an_upload_begins_as_its_query_says() {
        let begin = |query: &str| match ask("POST", &format!("/v2/a/blobs/uploads/?{query}")) {
            Ok(Route::BeginUpload(_, begin)) => Ok(begin),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error),
        };
        assert_eq!(begin(""), Ok(Begin::Empty(Algorithm::Sha256)));
        assert_eq!(begin("digest-algorithm=sha512"), Ok(Begin::Empty(Algorithm::Sha512)));
        assert_eq!(begin(&format!("digest={DIGEST}")), Ok(Begin::Whole(DIGEST.parse().unwrap())));
        let from =
            |name: Option<&str>| Ok(Begin::Mount(DIGEST.parse().unwrap(), name.map(|name| name.parse().unwrap())));
        assert_eq!(begin(&format!("mount={}&from=b%2Fc", DIGEST.replace(':', "%3A"))), from(Some("b/c")));
        assert_eq!(begin(&format!("mount={DIGEST}&from=")), from(None));
        assert!(matches!(begin("mount=x"), Err(RouteError::Digest(_))));
        assert!(matches!(begin(&format!("mount={DIGEST}&from=..%2F..")), Err(RouteError::Name(_))));
        assert!(matches!(begin("digest-algorithm=md5"), Err(RouteError::Digest(_))));
        assert_eq!(begin(&format!("digest={DIGEST}&digest={DIGEST}")), Err(RouteError::Query("digest")));
    }

    #[test]
    fn what_is_malformed_is_told_and_never_ignored() {
        let upload = format!("/v2/a/blobs/uploads/{ID}");
        for (method, target, expected) in [
            ("GET", "/v2/a/tags/list?n=-1", RouteError::Query("n")),
            ("GET", "/v2/a/tags/list?n=1&n=2", RouteError::Query("n")),
            ("GET", "/v2/a/tags/list?n=%zz", RouteError::Encoding),
            ("GET", "/v2/%ff/tags/list", RouteError::Encoding),
            ("GET", "/v2/a%", RouteError::Encoding),
            ("GET", "/etc/passwd", RouteError::Path(InvalidPath::Unknown)),
            ("PATCH", "/v2/a/blobs/uploads/..", RouteError::Upload),
            ("PATCH", "/v2/a/blobs/uploads/ABCDEF89abcdef0123456789abcdef01", RouteError::Upload),
            ("PUT", "/v2/a/manifests/latest?tag=b", RouteError::Query("tag")),
        ] {
            assert_eq!(ask(method, target), Err(expected), "{method} {target}");
        }
        for target in [&upload, &format!("{upload}?digest="), &format!("{upload}?digest=latest")] {
            assert!(matches!(ask("PUT", target), Err(RouteError::Digest(_))), "{target}");
        }
        for target in
            ["/v2/a/%2e%2e/b/tags/list", "/v2/..%2f..%2fetc/tags/list", "/v2/a%00/tags/list", "/v2/a%252fb/tags/list"]
        {
            assert!(matches!(ask("GET", target), Err(RouteError::Path(InvalidPath::Name(_)))), "{target}");
        }
    }
}
