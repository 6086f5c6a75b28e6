//! Certificates inside the cluster: one authority of Wharf's own, and a leaf for each registry.
//! No private key may leave this module but into the Secret it is for; nothing here logs or formats a key.
//!
//! Lifetimes: the authority ten years, a leaf one year, renewed in its last third. The engine `Distribution` reads its
//! certificate only at its start, so a renewal restarts its pod.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::X509Certificate;

const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const LEAF_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// A leaf with less than this left is issued anew.
const LEAF_RENEWAL: Duration = Duration::from_secs(365 * 24 * 3600 / 3);
/// Clocks differ; a certificate is valid from a little before it was made.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(3600);

/// A certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The certificate library refused.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// A stored certificate is not what it should be.
    #[error("cannot read the certificate in {place}: {cause}")]
    Read {
        /// Where it is stored.
        place: &'static str,
        /// What is wrong with it.
        cause: String,
    },
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
    set_validity(&mut parameters, now, AUTHORITY_LIFETIME);
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
    set_validity(&mut parameters, now, LEAF_LIFETIME);
    let certificate = parameters.signed_by(&key, &issuer)?;
    Ok(KeyedCertificate { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// Why a stored leaf must be issued anew; `None` when it is good.
#[must_use]
pub fn reissue_reason(leaf_pem: &str, names: &BTreeSet<String>, now: Timestamp) -> Option<&'static str> {
    let Ok(facts) = read_leaf(leaf_pem) else {
        return Some("the stored certificate cannot be read");
    };
    if facts.names != *names {
        return Some("the registry's names or addresses changed");
    }
    let renewal = i64::try_from(LEAF_RENEWAL.as_secs()).unwrap_or(i64::MAX);
    if facts.not_after - now.as_second() < renewal {
        return Some("the certificate is in the last third of its life");
    }
    None
}

struct LeafFacts {
    names: BTreeSet<String>,
    not_after: i64,
}

fn read_leaf(pem: &str) -> Result<LeafFacts, CertificateError> {
    let damaged = |cause: String| CertificateError::Read { place: "tls.crt", cause };
    let block = Pem::iter_from_buffer(pem.as_bytes())
        .next()
        .ok_or_else(|| damaged("there is no PEM block".to_owned()))?
        .map_err(|error| damaged(error.to_string()))?;
    let certificate = block.parse_x509().map_err(|error| damaged(error.to_string()))?;
    Ok(LeafFacts { names: names_of(&certificate), not_after: certificate.validity().not_after.timestamp() })
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

fn set_validity(parameters: &mut CertificateParams, now: Timestamp, lifetime: Duration) {
    let now = std::time::SystemTime::from(now);
    parameters.not_before = (now - CLOCK_TOLERANCE).into();
    parameters.not_after = (now + lifetime).into();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_fresh_leaf_is_good_until_its_last_third() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let authority = make_authority(now).unwrap();
        let wanted = names(&["team.platform.svc", "10.96.0.7", "::1", "localhost"]);
        let leaf = issue(&authority, &wanted, now).unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(reissue_reason(&leaf.certificate, &wanted, now), None);
        assert_eq!(reissue_reason(&leaf.certificate, &wanted, at("2026-08-30T00:00:00Z")), None);
        assert!(reissue_reason(&leaf.certificate, &wanted, at("2026-09-05T00:00:00Z")).unwrap().contains("last third"));
        assert!(reissue_reason(&leaf.certificate, &names(&["other"]), now).unwrap().contains("changed"));
        assert!(reissue_reason("not a certificate", &wanted, now).unwrap().contains("cannot be read"));
    }

    #[test]
    fn debug_output_holds_no_key() {
        let authority = make_authority(Timestamp::UNIX_EPOCH).unwrap();
        assert!(!format!("{authority:?}").contains("PRIVATE"));
    }
}
