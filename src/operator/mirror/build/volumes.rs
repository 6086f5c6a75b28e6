//! What a Mirror's pod mounts: its cache, its configuration and certificate, the digests of images that pods run, and users'
//! Secrets. The latter are mounted by the pod itself, by name, and may be missing: one registry's lack stops no other.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ConfigMapVolumeSource, KeyToPath, SecretVolumeSource, Volume, VolumeMount};

use super::Inputs;
use super::configuration::CONFIGURATION_KEY;
use crate::api::mirror::MirrorUpstream;
use crate::operator::mirror::names::CACHE;
use crate::operator::mirror::upstreams::{AUTHORITIES_FOLDER, AUTHORITY_KEY, CREDENTIALS_FOLDER};
use crate::operator::registry::build::volumes::{SECRET_MODE, mount};

/// Where the cache lies in the pod.
pub(super) const CACHE_FOLDER: &str = "/var/lib/mirror";
/// Where the server's configuration lies in the pod.
pub(super) const CONFIGURATION_FOLDER: &str = "/etc/wharf/serve";
/// Where the server certificate lies in the pod.
pub(super) const CERTIFICATE_FOLDER: &str = "/etc/wharf/certificate";
/// Where the digests of images that pods run lie in the pod.
pub(super) const IN_USE_FOLDER: &str = "/etc/wharf/in-use";

pub(super) fn volumes(inputs: &Inputs<'_>) -> Vec<Volume> {
    let names = inputs.names;
    let mut volumes = vec![
        config_map("configuration", names.object(), false),
        secret("certificate", &names.certificate(), &["tls.crt", "tls.key"], false),
        config_map("in-use", names.in_use(), true),
    ];
    for user in users(inputs) {
        let keys: &[&str] = if user.kind == Kind::Authorities { &[AUTHORITY_KEY] } else { &[] };
        volumes.push(secret(&user.volume(), user.secret, keys, true));
    }
    volumes
}

pub(super) fn mounts(inputs: &Inputs<'_>) -> Vec<VolumeMount> {
    let mut mounts = vec![
        mount(CACHE, CACHE_FOLDER, false),
        mount("configuration", CONFIGURATION_FOLDER, true),
        mount("certificate", CERTIFICATE_FOLDER, true),
        mount("in-use", IN_USE_FOLDER, true),
    ];
    mounts.extend(users(inputs).iter().map(|user| mount(&user.volume(), &user.folder(), true)));
    mounts
}

/// A user's Secret.
#[derive(Clone, Copy)]
struct User<'a> {
    kind: Kind,
    number: usize,
    secret: &'a str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Credentials,
    Authorities,
}

impl User<'_> {
    /// A Secret's name may be longer than that of a volume.
    fn volume(&self) -> String {
        match self.kind {
            Kind::Credentials => format!("credentials-{}", self.number),
            Kind::Authorities => format!("authorities-{}", self.number),
        }
    }

    fn folder(&self) -> String {
        match self.kind {
            Kind::Credentials => format!("{CREDENTIALS_FOLDER}/{}", self.secret),
            Kind::Authorities => format!("{AUTHORITIES_FOLDER}/{}", self.secret),
        }
    }
}

/// Each Secret that the spec names, once: an order of registries, or a host more, is no reason for another pod.
fn users<'a>(inputs: &Inputs<'a>) -> Vec<User<'a>> {
    let named = |of: fn(&MirrorUpstream) -> Option<&str>| -> BTreeSet<&'a str> {
        inputs.mirror.spec.upstreams.iter().filter_map(of).collect()
    };
    let credentials = named(|upstream| upstream.credentials_secret_ref.as_ref().map(|found| found.name.as_str()));
    let authorities = named(|upstream| upstream.ca_secret_ref.as_ref().map(|found| found.name.as_str()));
    let user = |kind| move |(number, secret)| User { kind, number, secret };
    let credentials = credentials.into_iter().enumerate().map(user(Kind::Credentials));
    credentials.chain(authorities.into_iter().enumerate().map(user(Kind::Authorities))).collect()
}

fn config_map(volume: &str, name: String, optional: bool) -> Volume {
    let items = (!optional).then(|| vec![key(CONFIGURATION_KEY)]);
    Volume {
        name: volume.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name,
            items,
            optional: optional.then_some(true),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn secret(volume: &str, name: &str, keys: &[&str], optional: bool) -> Volume {
    Volume {
        name: volume.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(name.to_owned()),
            items: (!keys.is_empty()).then(|| keys.iter().map(|name| key(name)).collect()),
            optional: optional.then_some(true),
            default_mode: Some(SECRET_MODE),
        }),
        ..Volume::default()
    }
}

fn key(name: &str) -> KeyToPath {
    KeyToPath { key: name.to_owned(), path: name.to_owned(), mode: None }
}
