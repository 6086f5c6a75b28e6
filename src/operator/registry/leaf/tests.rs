use super::*;
use crate::operator::authority::Signer;
use crate::operator::certificate::issue;

const DAY: Duration = Duration::from_secs(24 * 3600);
const OVERLAP: Duration = Duration::from_secs(14 * 24 * 3600);

fn day(number: i32) -> Timestamp {
    let start: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
    if number < 0 { start - DAY * number.unsigned_abs() } else { start + DAY * number.unsigned_abs() }
}

fn names() -> BTreeSet<String> {
    ["team.platform.svc".to_owned()].into()
}

fn authority() -> Authority {
    Authority::new(Signer::make(day(0)).unwrap())
}

fn judged(leaf: &KeyedCertificate, authority: &Authority, on: i32) -> Verdict {
    judge(leaf, &Rule { names: &names(), uid: "3c9a", authority, overlap: OVERLAP }, day(on))
}

fn reason(verdict: Verdict) -> &'static str {
    if let Verdict::Reissue(reason) = verdict { reason } else { "" }
}

#[test]
fn a_fresh_leaf_is_kept_until_its_last_third_and_renewed_within_a_month() {
    let authority = authority();
    let leaf = issue(authority.signer.pair(), &names(), day(0)).unwrap();
    let Verdict::Keep(Some(due)) = judged(&leaf, &authority, 0) else { panic!("a fresh leaf") };
    assert!(due >= day(243) && due < day(274), "{due}");
    let on = |time: Timestamp| {
        judge(&leaf, &Rule { names: &names(), uid: "3c9a", authority: &authority, overlap: OVERLAP }, time)
    };
    assert_eq!(on(due - Duration::from_secs(1)), Verdict::Keep(Some(due)));
    assert_eq!(reason(on(due)), "the certificate is in the last third of its life");
}

#[test]
fn what_is_wrong_with_a_leaf_is_said() {
    let authority = authority();
    let leaf = issue(authority.signer.pair(), &names(), day(0)).unwrap();
    let other = issue(authority.signer.pair(), &names(), day(0)).unwrap();
    let cases = [
        (KeyedCertificate { certificate: "gone".into(), ..leaf.clone() }, 0, "cannot be read"),
        (KeyedCertificate { key: String::new(), ..leaf.clone() }, 0, "do not belong together"),
        (KeyedCertificate { key: other.key, ..leaf.clone() }, 0, "do not belong together"),
        (
            issue(authority.signer.pair(), &["other".to_owned()].into(), day(0)).unwrap(),
            0,
            "names or addresses changed",
        ),
        (issue(Signer::make(day(0)).unwrap().pair(), &names(), day(0)).unwrap(), 0, "the authority is another one"),
        (leaf.clone(), 500, "not valid at this time"),
        (leaf, -1, "not valid at this time"),
    ];
    for (leaf, on, expected) in cases {
        let reason = reason(judged(&leaf, &authority, on));
        assert!(reason.contains(expected), "{expected}: {reason:?}");
    }
}

#[test]
fn a_rotation_reissues_only_once_the_next_authority_signs_and_at_the_registrys_own_moment() {
    let first = authority();
    let leaf = issue(first.signer.pair(), &names(), day(0)).unwrap();
    let publishing = first.with_next(Signer::make(day(1)).unwrap(), day(1));
    let overlapping = publishing.clone().overlapping(day(1));
    for kept in [&publishing, &overlapping] {
        assert!(matches!(judged(&leaf, kept, 20), Verdict::Keep(Some(_))), "{:?}", kept.rotation);
    }
    let reissuing = overlapping.switched(day(20));
    let Verdict::Keep(Some(due)) = judged(&leaf, &reissuing, 20) else { panic!("not at once") };
    assert!(due > day(20) && due < day(34), "{due}");
    assert_eq!(reason(judged(&leaf, &reissuing, 34)), "the authority is being replaced");
    let retiring = reissuing.clone().retiring(day(21));
    assert_eq!(reason(judged(&leaf, &retiring, 21)), "the authority is being replaced", "a late one goes at once");
    assert_eq!(reason(judged(&leaf, &retiring.at_rest(), 21)), "the authority is another one");
    let new = issue(reissuing.signer.pair(), &names(), day(20)).unwrap();
    assert!(matches!(judged(&new, &reissuing, 34), Verdict::Keep(Some(due)) if due > day(200)));
}

#[test]
fn a_leaf_that_ends_with_its_authority_is_not_renewed_over_and_over() {
    let authority = authority();
    let leaf = issue(authority.signer.pair(), &names(), day(3600)).unwrap();
    assert_eq!(judged(&leaf, &authority, 3640), Verdict::Keep(None));
}

#[test]
fn three_hundred_registries_are_spread_over_the_window() {
    let moments: BTreeSet<u64> = (0..300).map(|number| place(&format!("uid-{number}"), OVERLAP).as_secs()).collect();
    assert!(moments.len() > 295);
    let window = OVERLAP.as_secs();
    assert!(moments.iter().all(|moment| *moment < window));
    for tenth in 0..10 {
        let inside = moments.range(window * tenth / 10..window * (tenth + 1) / 10).count();
        assert!((15..=50).contains(&inside), "{inside} in tenth {tenth}");
    }
}
