use kube::api::ObjectMeta;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn now() -> Timestamp {
    at("2026-06-01T00:00:00Z")
}

fn secret(authority: &Authority) -> Secret {
    let annotations = authority.annotation().map(|text| [(labels::ROTATION.to_owned(), text)].into());
    Secret {
        metadata: ObjectMeta { annotations, ..ObjectMeta::default() },
        data: Some(authority.data()),
        ..Secret::default()
    }
}

fn at_rest() -> Authority {
    Authority::new(Signer::make(now()).unwrap())
}

/// Every state, in the order of a rotation.
fn states() -> Vec<Authority> {
    let first = at_rest();
    let publishing = first.clone().with_next(Signer::make(at("2026-07-01T00:00:00Z")).unwrap(), now());
    let overlapping = publishing.clone().overlapping(at("2026-07-02T00:00:00Z"));
    let reissuing = overlapping.clone().switched(at("2026-07-03T00:00:00Z"));
    let retiring = reissuing.clone().retiring(at("2026-07-04T00:00:00Z"));
    let last = retiring.clone().at_rest();
    vec![first, publishing, overlapping, reissuing, retiring, last]
}

#[test]
fn every_state_is_read_as_it_was_written() {
    for state in states() {
        assert_eq!(Authority::read(&secret(&state)).unwrap(), state);
        assert!(state.data().keys().all(|key| is_ours(key)), "{:?}", state.data().keys());
    }
}

#[test]
fn who_signs_is_always_trusted_and_the_bundle_changes_only_twice() {
    let states = states();
    for state in &states {
        assert!(state.bundle().contains(state.signer.pair().certificate.trim()), "{:?}", state.rotation);
    }
    let bundles: Vec<String> = states.iter().map(Authority::bundle).collect();
    assert!(bundles[0] != bundles[1] && bundles[1..5].windows(2).all(|pair| pair[0] == pair[1]));
    assert_ne!(bundles[4], bundles[5]);
    assert_eq!(bundles[0], states[0].signer.pair().certificate, "what an earlier version published stays as it is");
    assert_eq!(bundles[1].matches("-----BEGIN CERTIFICATE-----").count(), 2);
}

#[test]
fn a_key_that_signs_no_more_is_forgotten() {
    let states = states();
    let old_key = states[0].signer.pair().key.clone();
    for state in &states[3..] {
        assert!(state.data().values().all(|bytes| bytes.0 != old_key.as_bytes()), "{:?}", state.rotation);
    }
}

#[test]
fn without_its_annotation_a_step_begins_again() {
    let states = states();
    for text in [None, Some("Overlapping"), Some("Overlapping yesterday"), Some("")] {
        let mut secret = secret(&states[2]);
        secret.metadata.annotations = text.map(|text| [(labels::ROTATION.to_owned(), text.to_owned())].into());
        let Rotation::Publishing { since, .. } = Authority::read(&secret).unwrap().rotation else { panic!("{text:?}") };
        assert_eq!(since, at("2026-06-30T23:00:00Z"), "the next authority's first moment");
    }
    let mut secret = secret(&states[4]);
    secret.metadata.annotations = None;
    assert!(matches!(Authority::read(&secret).unwrap().rotation, Rotation::Reissuing { .. }));
}

type Change = Box<dyn Fn(&mut BTreeMap<String, ByteString>)>;

#[test]
fn half_a_secret_is_damaged_and_the_message_has_no_key() {
    let states = states();
    let other = Signer::make(now()).unwrap();
    let put = |key: &'static str, text: &str| -> Change {
        let text = text.as_bytes().to_vec();
        Box::new(move |data| {
            data.insert(key.into(), ByteString(text.clone()));
        })
    };
    let cases: Vec<(usize, Change, &str)> = vec![
        (0, Box::new(BTreeMap::clear), "`tls.crt` or `tls.key` is missing"),
        (0, Box::new(|data| drop(data.remove("tls.key"))), "only one of `tls.crt` and `tls.key`"),
        (0, put("tls.crt", "gone"), "`tls.crt` and `tls.key`"),
        (0, put("tls.key", &other.pair().key), "belongs to another certificate"),
        (1, Box::new(|data| drop(data.remove("next.key"))), "only one of `next.crt` and `next.key`"),
        (1, put("next.key", &other.pair().key), "belongs to another certificate"),
        (1, put("previous.crt", &other.pair().certificate), "both `next.crt` and `previous.crt`"),
        (3, put("previous.crt", "gone"), "`previous.crt`"),
    ];
    for (state, change, expected) in cases {
        let mut secret = secret(&states[state]);
        change(secret.data.as_mut().unwrap());
        let damage = Authority::read(&secret).unwrap_err();
        assert!(damage.0.contains(expected), "{expected}: {damage:?}");
        assert!(!damage.0.contains("BEGIN"), "{damage:?}");
    }
    let mut secret = secret(&states[0]);
    secret.data.as_mut().unwrap().insert("tls.crt".into(), ByteString(vec![0xff]));
    assert!(Authority::read(&secret).unwrap_err().0.contains("is no text"));
}
