//! Certificates inside the cluster: one authority of Wharf's own, and a leaf for each registry.
//! No private key may leave this module but into the Secret it is for; nothing here logs or formats a key.
//!
//! Lifetimes: the authority ten years, a leaf one year, and never beyond its authority's end. When they are made anew is
//! decided elsewhere: here certificates are made, read and checked.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType,
};
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::X509Certificate;
use x509_parser::time::ASN1Time;

const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long a leaf is valid, unless its authority ends before.
pub const LEAF_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// Clocks differ; a certificate is valid from a little before it was made.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(3600);

/// A certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The certificate library refused.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// A stored certificate is not what it should be.
    #[error("cannot read a certificate: {0}")]
    Read(String),
}

/// A certificate and its key, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyedCertificate {
    /// The certificate.
    pub certificate: String,
    /// Its private key, PKCS #8.
    pub key: String,
}

/// Never shows the key.
impl std::fmt::Debug for KeyedCertificate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("KeyedCertificate").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// Makes a new authority that is valid from `now` on.
///
/// # Errors
/// When the library refuses.
pub fn make_authority(now: Timestamp) -> Result<KeyedCertificate, CertificateError> {
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = common_name("Wharf registry authority");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut parameters, now, now + AUTHORITY_LIFETIME);
    let certificate = parameters.self_signed(&key)?;
    Ok(KeyedCertificate { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// Issues a server certificate for the given names and addresses.
///
/// # Errors
/// When the authority's certificate or key is damaged, or the library refuses.
pub fn issue(
    authority: &KeyedCertificate,
    names: &BTreeSet<String>,
    now: Timestamp,
) -> Result<KeyedCertificate, CertificateError> {
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, KeyPair::from_pem(&authority.key)?)?;
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = common_name("Wharf registry");
    parameters.subject_alt_names = names.iter().map(|name| alternative_name(name)).collect::<Result<_, _>>()?;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    parameters.use_authority_key_identifier_extension = true;
    set_validity(&mut parameters, now, leaf_end(read(&authority.certificate)?.validity.end, now));
    let certificate = parameters.signed_by(&key, &issuer)?;
    Ok(KeyedCertificate { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// When a leaf that is issued now would end: nothing is trusted longer than what vouches for it.
#[must_use]
pub fn leaf_end(authority_end: Timestamp, now: Timestamp) -> Timestamp {
    authority_end.min(now + LEAF_LIFETIME)
}

/// The time in which a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Its first moment.
    pub start: Timestamp,
    /// Its last moment.
    pub end: Timestamp,
}

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The names and addresses that it is for; none for an authority.
    pub names: BTreeSet<String>,
    /// When it is valid.
    pub validity: Validity,
}

/// Reads the first certificate of a PEM text.
///
/// # Errors
/// When there is none, or it cannot be understood.
pub fn read(pem: &str) -> Result<Facts, CertificateError> {
    let block = first_block(pem)?;
    let certificate = parsed(&block)?;
    let time = |time: ASN1Time| Timestamp::from_second(time.timestamp()).map_err(unreadable);
    let validity =
        Validity { start: time(certificate.validity().not_before)?, end: time(certificate.validity().not_after)? };
    Ok(Facts { names: names_of(&certificate), validity })
}

/// Whether the key belongs to the certificate.
///
/// # Errors
/// When one of them cannot be read.
pub fn is_pair(pair: &KeyedCertificate) -> Result<bool, CertificateError> {
    let block = first_block(&pair.certificate)?;
    let key = KeyPair::from_pem(&pair.key)?;
    Ok(parsed(&block)?.public_key().raw == key.subject_public_key_info())
}

/// Whether the authority's key signed the certificate. Times are not looked at.
#[must_use]
pub fn is_signed_by(certificate: &str, authority: &str) -> bool {
    let (Ok(certificate), Ok(authority)) = (first_block(certificate), first_block(authority)) else {
        return false;
    };
    let (Ok(certificate), Ok(authority)) = (parsed(&certificate), parsed(&authority)) else {
        return false;
    };
    certificate.issuer() == authority.subject() && certificate.verify_signature(Some(authority.public_key())).is_ok()
}

fn first_block(pem: &str) -> Result<Pem, CertificateError> {
    let block = Pem::iter_from_buffer(pem.as_bytes()).next();
    block.ok_or_else(|| unreadable("there is no PEM block"))?.map_err(unreadable)
}

fn parsed(block: &Pem) -> Result<X509Certificate<'_>, CertificateError> {
    block.parse_x509().map_err(unreadable)
}

#[allow(clippy::needless_pass_by_value, reason = "it is given to map_err")]
fn unreadable(cause: impl ToString) -> CertificateError {
    CertificateError::Read(cause.to_string())
}

fn names_of(certificate: &X509Certificate<'_>) -> BTreeSet<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return BTreeSet::new();
    };
    extension
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(octets) => address_of(octets).map(|address| address.to_string()),
            _ => None,
        })
        .collect()
}

fn address_of(octets: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(octets) {
        return Some(IpAddr::from(four));
    }
    <[u8; 16]>::try_from(octets).ok().map(IpAddr::from)
}

fn alternative_name(name: &str) -> Result<SanType, rcgen::Error> {
    match name.parse::<IpAddr>() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) => Ok(SanType::DnsName(name.try_into()?)),
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn set_validity(parameters: &mut CertificateParams, now: Timestamp, end: Timestamp) {
    parameters.not_before = (std::time::SystemTime::from(now) - CLOCK_TOLERANCE).into();
    parameters.not_after = std::time::SystemTime::from(end).into();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn names() -> BTreeSet<String> {
        ["team.platform.svc", "10.96.0.7", "::1", "localhost"].map(str::to_owned).into()
    }

    #[test]
    fn a_leaf_says_what_was_asked_for_and_who_signed_it() {
        let now = at("2026-01-01T00:00:00Z");
        let (authority, other) = (make_authority(now).unwrap(), make_authority(now).unwrap());
        let leaf = issue(&authority, &names(), now).unwrap();
        let facts = read(&leaf.certificate).unwrap();
        assert_eq!(facts.names, names());
        assert_eq!(facts.validity, Validity { start: at("2025-12-31T23:00:00Z"), end: at("2027-01-01T00:00:00Z") });
        assert!(is_signed_by(&leaf.certificate, &authority.certificate));
        assert!(!is_signed_by(&leaf.certificate, &other.certificate), "the names are equal, the keys are not");
        assert!(is_pair(&leaf).unwrap());
        assert!(!is_pair(&KeyedCertificate { key: other.key, ..leaf }).unwrap());
    }

    #[test]
    fn a_leaf_never_outlives_its_authority() {
        let authority = make_authority(at("2026-01-01T00:00:00Z")).unwrap();
        let end = read(&authority.certificate).unwrap().validity.end;
        let leaf = issue(&authority, &names(), at("2035-10-01T00:00:00Z")).unwrap();
        assert_eq!(read(&leaf.certificate).unwrap().validity.end, end);
    }

    #[test]
    fn what_is_no_certificate_is_an_error_without_the_text() {
        let secret = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";
        for text in ["", "not a certificate", secret] {
            let said = read(text).unwrap_err().to_string();
            assert!(said.contains("cannot read a certificate") && !said.contains("c2VjcmV0"), "{said}");
        }
        assert!(!is_signed_by("", ""));
    }

    #[test]
    fn debug_output_holds_no_key() {
        let authority = make_authority(Timestamp::UNIX_EPOCH).unwrap();
        assert!(!format!("{authority:?}").contains("PRIVATE"));
    }
}
