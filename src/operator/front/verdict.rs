//! What became of a proof, in the words of the status: which step failed, what came back, and what to do. Pure.
//! It must never repeat what a front sent but its status code, its `Server` header and where it sends clients on.

use super::target::{Front, Way};
use crate::api::reason;

/// A part of a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `HEAD /v2/`.
    Look,
    /// The beginning of an upload.
    Begin,
    /// Two megabytes.
    Upload,
    /// The end of the upload.
    Finish,
}

impl Step {
    fn as_str(self) -> &'static str {
        match self {
            Self::Look => "HEAD /v2/",
            Self::Begin => "POST /v2/…/blobs/uploads/",
            Self::Upload => "an upload of 2 MiB",
            Self::Finish => "PUT /v2/…/blobs/uploads/…",
        }
    }
}

/// Why a proof ended before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The name does not resolve.
    Unresolved(String),
    /// No connection.
    Unreachable(String),
    /// A connection without TLS, or with one that fails for another reason than the certificate.
    NoTls(String),
    /// The certificate is not trusted.
    NotTrusted(String),
    /// The connection broke in a step.
    Broken(Step, String),
    /// The answer was another one than a registry's.
    Answer {
        /// The step that was answered.
        step: Step,
        /// The status code.
        code: u16,
        /// Whether it is a registry that answers.
        from_registry: bool,
        /// The `Server` header.
        server: Option<String>,
        /// Where the client was sent on.
        location: Option<String>,
    },
    /// The upload is to go on at an address that is not the front's.
    SentElsewhere(String),
    /// The registry itself does not end an upload of before.
    Unsettled(String),
}

/// What became of the last proof of a front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The documented reason.
    pub reason: &'static str,
    /// What came back and what to do.
    pub message: String,
}

impl Verdict {
    /// The upload went through.
    #[must_use]
    pub fn proven() -> Self {
        Self { reason: reason::PROVEN, message: "an upload of 2 MiB went through".to_owned() }
    }

    /// Whether the upload went through.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.reason == reason::PROVEN
    }

    /// What a failure means.
    #[must_use]
    pub fn of(front: &Front, failure: &Failure) -> Self {
        let name = front.authority();
        let (reason, message) = match failure {
            Failure::Unresolved(cause) => (
                reason::ADDRESS_PENDING,
                format!(
                    "the {} has no address in its status, and {} does not resolve ({cause}). Check that its controller runs, \
                     or make the name resolve in the cluster's DNS",
                    front.way.as_str(),
                    front.host
                ),
            ),
            Failure::Unreachable(cause) => (
                reason::FRONT_UNREACHABLE,
                format!(
                    "nothing answers for {name} {} ({cause}). Check the front's pods, and firewalls on the way",
                    at(front)
                ),
            ),
            Failure::NoTls(cause) => (
                reason::FRONT_UNREACHABLE,
                format!("what answers for {name} {} does not speak TLS as it should: {cause}", at(front)),
            ),
            Failure::NotTrusted(cause) => (reason::CERTIFICATE_NOT_TRUSTED, not_trusted(front, cause)),
            Failure::Broken(Step::Look, cause) => (
                reason::FRONT_UNREACHABLE,
                format!("the front of {name} took the connection and gave no answer ({cause})"),
            ),
            Failure::Broken(step, cause) => (
                reason::UPLOAD_REFUSED,
                format!(
                    "{} through {name} broke off: {cause}. Look for a limit on the size or the time of requests at the front",
                    step.as_str()
                ),
            ),
            Failure::SentElsewhere(location) => (
                reason::UPLOAD_REFUSED,
                format!(
                    "clients of {name} are told to go on with an upload at {location}: the front has to pass the Host header on as \
                     it came, and X-Forwarded-Proto must be https"
                ),
            ),
            Failure::Unsettled(cause) => (
                reason::UPLOAD_REFUSED,
                format!(
                    "the registry does not end the upload that was tried before through {name} ({cause}). It is tried again; \
                     StorageReady tells whether the registry can store"
                ),
            ),
            Failure::Answer { step, code, from_registry, server, location } => {
                let came = came_back(*code, server.as_deref());
                answered(&name, *step, *code, *from_registry, location.as_deref(), &came)
            }
        };
        Self { reason, message }
    }
}

fn at(front: &Front) -> String {
    if front.addresses.is_empty() {
        "where it resolves to".to_owned()
    } else {
        format!("at {}", front.addresses.join(", "))
    }
}

fn came_back(code: u16, server: Option<&str>) -> String {
    server.map_or_else(|| code.to_string(), |server| format!("{code} from {server}"))
}

fn not_trusted(front: &Front, cause: &str) -> String {
    let remedy = match front.way {
        Way::Service => "The registry's own certificate answers there; it is tried again".to_owned(),
        Way::Ingress | Way::Gateway => format!(
            "Give the host a certificate ({}), or, if clients know its authority, add that to key ca.crt of ConfigMap {} in \
             Wharf's namespace. The upload was not tried: the credential goes to nobody who is not verified",
            if front.way == Way::Ingress { "spec.expose.tls" } else { "at the Gateway's listener" },
            super::trust::TRUSTED
        ),
    };
    format!("the certificate shown for {} {} is not trusted: {cause}. {remedy}", front.host, at(front))
}

/// The reason and message for an answer that is not what a registry would say.
fn answered(
    name: &str,
    step: Step,
    code: u16,
    from_registry: bool,
    location: Option<&str>,
    came: &str,
) -> (&'static str, String) {
    let what = step.as_str();
    match (step, code) {
        (_, 300..=399) => (
            reason::NOT_ROUTED,
            format!(
                "{what} at {name} is redirected ({came}) to {}; clients would not follow. Take the redirect off",
                location.unwrap_or("nowhere")
            ),
        ),
        (Step::Look, 401) if from_registry => (
            reason::NOT_ROUTED,
            format!(
                "a registry answers for {name}, but does not know this one's credential ({came}): the front leads to another \
                 registry, or takes off the Authorization header"
            ),
        ),
        (Step::Look | Step::Begin, 500 | 502..=504) => (
            reason::BACKEND_UNREACHABLE,
            format!(
                "{what} at {name} gave {came}: the front does not reach the registry's pods. It has to speak TLS to Service port \
                 443 and trust Wharf's authority, as the preset of an Ingress and a BackendTLSPolicy tell it; see the front's log"
            ),
        ),
        (Step::Look, _) => (
            reason::NOT_ROUTED,
            format!(
                "{what} at {name} gave {came}: nothing there leads to this registry. Check that a controller serves the class"
            ),
        ),
        (Step::Upload, 413) => (
            reason::UPLOAD_REFUSED,
            format!(
                "{what} through {name} gave {came}: the front limits the size of requests. Take the limit off (ingress-nginx: \
                 annotation nginx.ingress.kubernetes.io/proxy-body-size: \"0\")"
            ),
        ),
        (Step::Upload, 408 | 504) => (
            reason::UPLOAD_REFUSED,
            format!(
                "{what} through {name} gave {came}: the front gave up waiting. Turn off buffering and lengthen its timeouts"
            ),
        ),
        (Step::Begin | Step::Upload | Step::Finish, _) => (
            reason::UPLOAD_REFUSED,
            format!(
                "{what} through {name} gave {came}: the front refuses uploads, or the registry cannot store (StorageReady tells)"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn front() -> Front {
        let addresses = vec!["10.0.0.1".to_owned()];
        Front { way: Way::Ingress, host: "images.example.com".into(), port: 443, addresses, content: String::new() }
    }

    fn answer(step: Step, code: u16) -> Failure {
        Failure::Answer { step, code, from_registry: false, server: Some("nginx".into()), location: None }
    }

    #[test]
    fn each_failure_has_its_reason_and_says_what_came_back_and_what_to_do() {
        let another =
            Failure::Answer { step: Step::Look, code: 401, from_registry: true, server: None, location: None };
        for (failure, reason, words) in [
            (Failure::Unresolved("no such name".into()), "AddressPending", "no such name"),
            (Failure::Unreachable("connection refused".into()), "FrontUnreachable", "connection refused"),
            (Failure::NoTls("corrupt message".into()), "FrontUnreachable", "corrupt message"),
            (Failure::NotTrusted("unknown issuer".into()), "CertificateNotTrusted", "wharf-trusted-certificates"),
            (Failure::Broken(Step::Look, "closed".into()), "FrontUnreachable", "closed"),
            (Failure::Broken(Step::Upload, "closed".into()), "UploadRefused", "limit"),
            (Failure::SentElsewhere("http://inner/".into()), "UploadRefused", "http://inner/"),
            (Failure::Unsettled("GET: 500".into()), "UploadRefused", "GET: 500"),
            (answer(Step::Finish, 405), "UploadRefused", "PUT"),
            (answer(Step::Look, 404), "NotRouted", "404 from nginx"),
            (answer(Step::Look, 401), "NotRouted", "nothing there leads to this registry"),
            (another, "NotRouted", "Authorization header"),
            (answer(Step::Look, 308), "NotRouted", "redirect"),
            (answer(Step::Look, 500), "BackendUnreachable", "500 from nginx"),
            (answer(Step::Look, 502), "BackendUnreachable", "trust Wharf's authority"),
            (answer(Step::Begin, 503), "BackendUnreachable", "503"),
            (answer(Step::Begin, 405), "UploadRefused", "405"),
            (answer(Step::Upload, 413), "UploadRefused", "proxy-body-size"),
            (answer(Step::Upload, 504), "UploadRefused", "timeouts"),
            (answer(Step::Upload, 502), "UploadRefused", "502"),
        ] {
            let verdict = Verdict::of(&front(), &failure);
            assert_eq!(verdict.reason, reason, "{failure:?}");
            assert!(verdict.message.contains(words), "{failure:?}: {}", verdict.message);
            assert!(!verdict.is_proven());
        }
        assert!(Verdict::proven().is_proven());
    }
}
