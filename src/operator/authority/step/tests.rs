use super::super::state::Signer;
use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);
const OVERLAP: Duration = Duration::from_secs(14 * 24 * 3600);

fn start() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().unwrap()
}

fn day(number: u32) -> Timestamp {
    start() + DAY * number
}

fn first() -> Authority {
    Authority::new(Signer::make(start()).unwrap())
}

/// A rotation each of whose steps began on day 100; the next authority is of day 100 too.
fn rotating(steps: usize) -> Authority {
    let publishing = first().with_next(Signer::make(day(100)).unwrap(), day(100));
    match steps {
        1 => publishing,
        2 => publishing.overlapping(day(100)),
        3 => publishing.switched(day(100)),
        _ => publishing.switched(day(100)).retiring(day(100)),
    }
}

fn facts() -> Facts {
    Facts { in_plan: true, ..Facts::default() }
}

fn overlap_without(names: &[&str]) -> Step {
    Step::Overlap { without: names.iter().map(|name| (*name).to_owned()).collect() }
}

#[test]
fn each_state_and_fact_has_its_step() {
    let requested = || Facts { requested: true, ..facts() };
    let silent = || Facts { lagging: vec!["node a".into()], ..facts() };
    let unplanned = || Facts { in_plan: false, ..facts() };
    let unplanned_and_silent = || Facts { in_plan: false, ..silent() };
    let left = || Facts { by_outgoing: vec!["Secret platform/team".into()], ..facts() };
    let ten_years = 3650;
    let cases = [
        ("at rest, young", first(), facts(), 1, Step::Wait(Some(day(8 * 365)))),
        ("at rest, asked", first(), requested(), 1, Step::Prepare),
        ("at rest, a day before the last two years", first(), facts(), 8 * 365 - 1, Step::Wait(Some(day(8 * 365)))),
        ("at rest, the last two years", first(), facts(), 8 * 365, Step::Prepare),
        ("at rest, its last day", first(), facts(), ten_years - 1, Step::Prepare),
        ("at rest, ended", first(), facts(), ten_years, Step::Replace),
        ("at rest, ended and asked", first(), requested(), ten_years, Step::Replace),
        ("publishing, all have it", rotating(1), facts(), 100, overlap_without(&[])),
        ("publishing, not in the plan", rotating(1), unplanned(), 100, Step::Wait(None)),
        ("publishing, not in the plan for long", rotating(1), unplanned_and_silent(), 1000, Step::Wait(None)),
        ("publishing, a silent node", rotating(1), silent(), 113, Step::Wait(Some(day(114)))),
        ("publishing, a node silent for too long", rotating(1), silent(), 114, overlap_without(&["node a"])),
        (
            "publishing, asked again",
            rotating(1),
            Facts { lagging: vec!["x".into()], ..requested() },
            101,
            Step::Wait(Some(day(114))),
        ),
        ("publishing, the signer ended", rotating(1), unplanned_and_silent(), ten_years, Step::Switch),
        ("overlapping", rotating(2), facts(), 113, Step::Wait(Some(day(114)))),
        ("overlapping, done", rotating(2), facts(), 114, Step::Switch),
        ("overlapping, the plan was put back", rotating(2), unplanned(), 114, Step::Wait(None)),
        ("overlapping, a node joined late", rotating(2), silent(), 114, Step::Switch),
        ("overlapping, the signer ended", rotating(2), unplanned(), ten_years, Step::Switch),
        ("both ended while all slept", rotating(1), facts(), 2 * ten_years, Step::Replace),
        ("reissuing, some are left", rotating(3), left(), 1000, Step::Wait(None)),
        ("reissuing, none is left", rotating(3), facts(), 100, Step::Settle),
        ("reissuing, the previous ended", rotating(3), left(), ten_years, Step::Retire),
        ("retiring", rotating(4), facts(), 113, Step::Wait(Some(day(114)))),
        ("retiring, done", rotating(4), facts(), 114, Step::Retire),
        ("retiring, an old one came back", rotating(4), left(), 114, Step::Wait(None)),
        ("retiring, the previous ended", rotating(4), left(), ten_years, Step::Retire),
        ("retiring, asked again", rotating(4), requested(), 113, Step::Wait(Some(day(114)))),
        ("reissuing, the new one ended too", rotating(3), left(), ten_years + 100, Step::Replace),
    ];
    for (name, authority, facts, on, expected) in cases {
        assert_eq!(next(&authority, &facts, OVERLAP, day(on)), expected, "{name}");
    }
}

#[test]
fn a_next_authority_that_ended_is_made_anew() {
    let signer = Signer::make(day(3000)).unwrap();
    let authority = Authority::new(signer).with_next(Signer::make(start()).unwrap(), day(100));
    assert_eq!(next(&authority, &facts(), OVERLAP, day(3700)), Step::Prepare);
}

#[test]
fn a_silent_node_is_waited_for_a_day_at_least() {
    assert_eq!(patience(Duration::from_secs(10)), DAY);
    assert_eq!(patience(OVERLAP), OVERLAP);
}
