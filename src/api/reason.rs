//! Every reason that a condition or event of Wharf can carry. They are part of the API: each has a heading in
//! docs/reasons.md, and a test keeps the two in step. A reason is never reused with another meaning.

/// All is as the spec asks.
pub const READY: &str = "Ready";
/// Nobody has looked at the resource yet (schema default).
pub const PENDING: &str = super::condition::PENDING;
/// Children are being written, or what they need is being made.
pub const PROGRESSING: &str = "Progressing";
/// `spec.suspend` is true: the registry's pod is stopped on purpose.
pub const SUSPENDED: &str = "Suspended";
/// The stored object does not match its schema and cannot be read.
pub const MALFORMED: &str = "Malformed";

/// An object that Wharf would have to write exists and belongs to somebody else.
pub const NAME_TAKEN: &str = "NameTaken";
/// Another writer keeps setting a child back; Wharf leaves it alone.
pub const CONTESTED: &str = "Contested";
/// The API server refused a child for a reason that only a change of the spec or the cluster's policy can mend.
pub const REFUSED: &str = "Refused";
/// The API server could not be asked, or answered with a passing error; Wharf tries again.
pub const RETRYING: &str = "Retrying";

/// The claim is bound.
pub const BOUND: &str = "Bound";
/// The claim is not bound yet.
pub const CLAIM_PENDING: &str = "ClaimPending";
/// The claim asks for a storage class that does not exist.
pub const STORAGE_CLASS_MISSING: &str = "StorageClassMissing";
/// The claim names no storage class and the cluster has no default one.
pub const NO_DEFAULT_STORAGE_CLASS: &str = "NoDefaultStorageClass";
/// A claim of that name exists and is not this Registry's.
pub const CLAIM_NOT_OURS: &str = "ClaimNotOurs";
/// The claim that the spec names does not exist.
pub const CLAIM_MISSING: &str = "ClaimMissing";
/// Another, older Registry keeps its images in the same place.
pub const STORAGE_TAKEN: &str = "StorageTaken";
/// The volume is growing.
pub const EXPANDING: &str = "Expanding";
/// The volume should grow, and its storage class does not allow it.
pub const EXPANSION_UNSUPPORTED: &str = "ExpansionUnsupported";
/// The storage system could not make the volume larger.
pub const EXPANSION_FAILED: &str = "ExpansionFailed";
/// The volume is nearly full.
pub const NEARLY_FULL: &str = "NearlyFull";
/// The volume is full: pushes fail.
pub const FULL: &str = "Full";
/// The images are kept in an object store.
pub const OBJECT_STORE: &str = "ObjectStore";
/// A claim left by an earlier Registry of this name is still mounted by another pod.
pub const CLAIM_IN_USE: &str = "ClaimInUse";
/// The claim is being deleted by somebody.
pub const CLAIM_DELETING: &str = "ClaimDeleting";
/// The volume behind the claim is lost.
pub const CLAIM_LOST: &str = "ClaimLost";

/// The Registry has every further name that it asks for, or the Mirror every host.
pub const HOSTS_GRANTED: &str = "HostsGranted";
/// The administrator does not allow a further name.
pub const HOST_NOT_ALLOWED: &str = "HostNotAllowed";
/// Every namespace that the Registry selects has the certificates.
pub const PUBLISHED: &str = "Published";
/// The namespace holds as many older Registries as it may.
pub const QUOTA_EXCEEDED: &str = "QuotaExceeded";

/// An endpoint of a Mirror leads back to a Mirror.
pub const LOOP: &str = "Loop";
/// What a Mirror says of a registry cannot be used.
pub const UPSTREAM_INVALID: &str = "UpstreamInvalid";
/// A Secret with a credential for a Mirror does not exist, or holds none.
pub const CREDENTIALS_MISSING: &str = "CredentialsMissing";
/// A credential is not for an endpoint that a Mirror names.
pub const ENDPOINT_NOT_ALLOWED: &str = "EndpointNotAllowed";
/// A Secret with authorities for a Mirror does not exist, or holds none.
pub const AUTHORITY_MISSING: &str = "AuthorityMissing";
/// A Mirror's pods report no trouble with any registry.
pub const REACHABLE: &str = "Reachable";
/// A registry refuses further requests of a Mirror for a while.
pub const RATE_LIMITED: &str = "RateLimited";
/// A registry does not answer a Mirror, or with errors of its own.
pub const FAILING: &str = "Failing";
/// A registry refuses the credential that a Mirror has for it.
pub const CREDENTIALS_REJECTED: &str = "CredentialsRejected";
/// No pod of a Mirror has told yet how it is.
pub const NOT_REPORTED: &str = "NotReported";
/// A Mirror keeps what it fetches.
pub const CACHING: &str = "Caching";
/// A Mirror keeps nothing for now: its disk is full or refuses.
pub const CACHE_FAILING: &str = "CacheFailing";
/// A blob is larger than a Mirror's cache: it is passed on and not kept.
pub const BLOB_TOO_LARGE: &str = "BlobTooLarge";
/// Pinned images, or those that pods run, do not fit into a Mirror's cache.
pub const CACHE_TOO_SMALL: &str = "CacheTooSmall";
/// Pods start with images of a Mirror's hosts on nodes whose runtime does not ask it.
pub const BYPASSED: &str = "Bypassed";

/// The registry's pod answers.
pub const POD_READY: &str = "PodReady";
/// The node that has the registry's volume does not answer, and the volume cannot be used elsewhere.
pub const ATTACHED_ELSEWHERE: &str = "AttachedElsewhere";
/// The registry's pod is starting.
pub const POD_STARTING: &str = "PodStarting";
/// The registry's pod cannot start; the message says why.
pub const POD_FAILING: &str = "PodFailing";

/// The pull secret is in place at every named service account.
pub const ATTACHED: &str = "Attached";
/// A named service account does not exist.
pub const SERVICE_ACCOUNT_MISSING: &str = "ServiceAccountMissing";

/// Every node has its entry.
pub const ALL_NODES: &str = "AllNodes";
/// Some nodes have no entry yet, or report an exception.
pub const SOME_NODES: &str = "SomeNodes";
/// No node reports to Wharf: the agent is not running.
pub const NO_AGENTS: &str = "NoAgents";

/// An upload from beyond the cluster went through.
pub const PROVEN: &str = "Proven";
/// Another Ingress, or an older Registry or Mirror, has the host: a further name, that of a way in from beyond the cluster, or
/// that of a registry that a Mirror is to cache.
pub const HOST_TAKEN: &str = "HostTaken";
/// The ingress class that is asked for does not exist, or there is no default one.
pub const INGRESS_CLASS_MISSING: &str = "IngressClassMissing";
/// The cluster lacks the Gateway API, or a part of it.
pub const GATEWAY_API_MISSING: &str = "GatewayApiMissing";
/// A controller of a Gateway objects to the route or the policy, or none has accepted the route.
pub const ROUTE_NOT_ACCEPTED: &str = "RouteNotAccepted";
/// A certificate is to come from cert-manager, which the cluster does not have.
pub const CERT_MANAGER_MISSING: &str = "CertManagerMissing";
/// Nobody has given an address yet by which the registry could be reached.
pub const ADDRESS_PENDING: &str = "AddressPending";
/// The front does not answer at its address.
pub const FRONT_UNREACHABLE: &str = "FrontUnreachable";
/// The certificate that is shown for the host is not trusted.
pub const CERTIFICATE_NOT_TRUSTED: &str = "CertificateNotTrusted";
/// Something answers for the host, but it is not this registry.
pub const NOT_ROUTED: &str = "NotRouted";
/// The front answers, but does not reach the registry.
pub const BACKEND_UNREACHABLE: &str = "BackendUnreachable";
/// The front lets small requests through, and no upload.
pub const UPLOAD_REFUSED: &str = "UploadRefused";

/// Node: the runtime is configured as planned.
pub const CONFIGURED: &str = "Configured";
/// Node: some hosts of the plan are not in order; the exceptions say which.
pub const EXCEPTIONS: &str = "Exceptions";
/// Node: a file that Wharf did not write stands where the entry would go.
pub const CONFLICT: &str = "Conflict";
/// Node: this container runtime, or its version, is not supported.
pub const UNSUPPORTED: &str = "Unsupported";
/// Node: containerd has no `config_path`, so it reads no host files.
pub const CONFIG_PATH_UNSET: &str = "ConfigPathUnset";
/// Node: the runtime's configuration file cannot be read or understood.
pub const CONFIGURATION_UNREADABLE: &str = "ConfigurationUnreadable";
/// Node: the node's own endpoint answers on its port.
pub const SERVING: &str = "Serving";
/// Node: another process has the port of the node's own endpoint.
pub const PORT_IN_USE: &str = "PortInUse";
/// Node: the node's own endpoint is turned off.
pub const DISABLED: &str = "Disabled";
/// Node: the node's own endpoint could not be started; the message has the cause.
pub const ENDPOINT_FAILED: &str = "EndpointFailed";
/// Node: what serves a host cannot be reached through the node's own endpoint.
pub const UNREACHABLE: &str = "Unreachable";
/// Node: a file could not be written or removed; the message has the cause.
pub const WRITE_FAILED: &str = "WriteFailed";

/// Event: the claim and its images were deleted because the deletion policy said so.
pub const STORAGE_DELETED: &str = "StorageDeleted";
/// Event: a claim of an earlier Registry of this name was taken over.
pub const CLAIM_ADOPTED: &str = "ClaimAdopted";
/// Event: the registry's certificate was issued.
pub const CERTIFICATE_ISSUED: &str = "CertificateIssued";
/// Event: a rotation of the authority began, went a step further, or ended.
pub const AUTHORITY_ROTATION: &str = "AuthorityRotation";
/// Event: a certificate that is due, or the authority, could not be made anew.
pub const CERTIFICATE_NOT_RENEWED: &str = "CertificateNotRenewed";
/// Event: a Mirror was removed before some nodes confirmed that they no longer pull through it.
pub const NODES_NOT_CONFIRMED: &str = "NodesNotConfirmed";
