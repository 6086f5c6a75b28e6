//! Notices another writer that keeps setting an object back, and decides when to leave it alone. Pure: times are arguments.
//! It must never count a cache that is behind: whoever asks has read the object afresh. What it knows lives in memory; a new
//! process begins to count anew, and may write three times more.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::intent;
use crate::api::labels;
use crate::operator::call::Target;

/// How many times an object is set right before it is left alone.
const ROUNDS: usize = 3;
/// The time within which they count. Somebody who edits now and then is no other manager; one that looks every ten minutes is.
const WINDOW: Duration = Duration::from_secs(3600);
/// How often an object that was left alone is set right all the same, to see whether the other has stopped.
const RETRY: Duration = Duration::from_secs(600);
/// How many fields a message names.
const NAMED_FIELDS: usize = 3;

/// An object that another writer keeps setting back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contest {
    /// The object.
    pub target: Target,
    /// The field managers that own the fields now, as the API server knows them.
    pub managers: Vec<String>,
    /// The fields in dispute.
    pub fields: Vec<String>,
}

impl Contest {
    /// A dispute over these fields of an object as it is now.
    pub(in crate::operator) fn over(target: &Target, fields: &[Vec<String>], live: &Value, ours: &str) -> Self {
        let entries = live.pointer("/metadata/managedFields").and_then(Value::as_array);
        let name = |entry: &Value| entry.get("manager").and_then(Value::as_str).map(str::to_owned);
        let others: Vec<&Value> = entries
            .into_iter()
            .flatten()
            .filter(|entry| entry.get("subresource").is_none())
            .filter(|entry| name(entry).is_some_and(|manager| manager != ours))
            .collect();
        let owners = others.iter().filter(|entry| fields.iter().any(|path| owns(entry, path)));
        let mut managers: Vec<String> = owners.filter_map(|entry| name(entry)).collect();
        if managers.is_empty() {
            // A field that was taken away has no owner: whoever wrote last is the likeliest.
            let last = others.iter().max_by_key(|entry| entry.get("time").and_then(Value::as_str));
            managers.extend(last.and_then(|entry| name(entry)));
        }
        managers.sort();
        managers.dedup();
        Contest { target: target.clone(), managers, fields: fields.iter().map(|path| path.join(".")).collect() }
    }
}

impl fmt::Display for Contest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let managers = if self.managers.is_empty() { "Somebody".to_owned() } else { self.managers.join(", ") };
        let more = self.fields.len().saturating_sub(NAMED_FIELDS);
        let fields = self.fields.iter().take(NAMED_FIELDS).cloned().collect::<Vec<_>>().join(", ");
        let suffix = if more > 0 { format!(" and {more} more") } else { String::new() };
        write!(
            formatter,
            "{managers} keeps changing {fields}{suffix} of {}. Wharf set it right {ROUNDS} times and leaves it alone now, but for \
             one try every {} minutes. End the other's management of these fields",
            self.target,
            RETRY.as_secs() / 60
        )
    }
}

/// What to do with an object that is not as intended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::operator) enum Verdict {
    /// Set it right.
    Write,
    /// Leave it alone.
    Stand,
}

/// What was written, by object. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Contests(Arc<Mutex<HashMap<String, Record>>>);

#[derive(Debug)]
struct Record {
    uid: String,
    intent: String,
    written: Instant,
    /// When it was found changed after a write of this intent.
    reverts: Vec<Instant>,
    /// Whether the last write was found undone already.
    undone: bool,
    contested: bool,
}

impl Contests {
    /// Notes that `intent` was written to the object.
    pub(in crate::operator) fn wrote(&self, target: &Target, uid: &str, intent: &str, now: Instant) {
        let mut records = self.records();
        // The fight goes on as long as it is written, so what was not written for so long is forgotten.
        records.retain(|_, record| now.duration_since(record.written) < WINDOW);
        let same = |record: &&mut Record| record.uid == uid && record.intent == intent;
        if let Some(record) = records.get_mut(&target.to_string()).filter(same) {
            (record.written, record.undone) = (now, false);
            return;
        }
        let record = Record {
            uid: uid.to_owned(),
            intent: intent.to_owned(),
            written: now,
            reverts: Vec::new(),
            undone: false,
            contested: false,
        };
        records.insert(target.to_string(), record);
    }

    /// Whether exactly this was written to exactly this object.
    pub(in crate::operator) fn has_written(&self, target: &Target, uid: &str, intent: &str) -> bool {
        self.records().get(&target.to_string()).is_some_and(|record| record.uid == uid && record.intent == intent)
    }

    /// The object, read afresh, is not as it was written.
    pub(in crate::operator) fn undone(&self, target: &Target, now: Instant) -> Verdict {
        let mut records = self.records();
        let Some(record) = records.get_mut(&target.to_string()) else {
            return Verdict::Write;
        };
        if !record.undone {
            record.undone = true;
            record.reverts.push(now);
        }
        record.reverts.retain(|revert| now.duration_since(*revert) < WINDOW);
        record.contested |= record.reverts.len() >= ROUNDS;
        if record.contested && now.duration_since(record.written) < RETRY { Verdict::Stand } else { Verdict::Write }
    }

    fn records(&self) -> std::sync::MutexGuard<'_, HashMap<String, Record>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who set the object back, and in which fields.
pub(super) fn describe(target: &Target, manifest: &Value, live: &Value, ours: &str) -> Contest {
    let mut paths = intent::differing(manifest, live);
    // The mark of the intent goes when somebody replaces the object as a whole; the other fields say more.
    if paths.len() > 1 {
        paths.retain(|path| path.last().is_none_or(|last| last != labels::INTENT));
    }
    Contest::over(target, &paths, live, ours)
}

/// Whether an entry of `managedFields` has the field, something in it, or all that it is a part of.
fn owns(entry: &Value, path: &[String]) -> bool {
    let Some(mut node) = entry.get("fieldsV1") else {
        return false;
    };
    for step in path {
        match node.get(format!("f:{step}")) {
            Some(child) => node = child,
            None => return node.as_object().is_some_and(serde_json::Map::is_empty),
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn target() -> Target {
        Target::new("Service", "platform", "team")
    }

    /// Writes and finds the write undone, once a `pause`, for as long as the verdict is to write.
    fn fight(contests: &Contests, now: &mut Instant, pause: Duration, most: usize) -> usize {
        for round in 0..most {
            contests.wrote(&target(), "uid", "intent", *now);
            *now += pause;
            if contests.undone(&target(), *now) == Verdict::Stand {
                return round + 1;
            }
        }
        most
    }

    #[test]
    fn three_rounds_and_then_one_try_every_ten_minutes() {
        let (contests, mut now) = (Contests::default(), Instant::now());
        assert_eq!(fight(&contests, &mut now, SECOND, 10), 3);
        // More looks at the same state count for nothing.
        for _ in 0..9 {
            now += 60 * SECOND;
            assert_eq!(contests.undone(&target(), now), Verdict::Stand);
        }
        now += 60 * SECOND;
        assert_eq!(contests.undone(&target(), now), Verdict::Write);
        assert_eq!(fight(&contests, &mut now, SECOND, 10), 1, "one try");
    }

    #[test]
    fn slow_reverts_count_and_rare_edits_do_not() {
        let (contests, mut now) = (Contests::default(), Instant::now());
        assert_eq!(fight(&contests, &mut now, 400 * SECOND, 10), 3);
        let (contests, mut now) = (Contests::default(), Instant::now());
        assert_eq!(fight(&contests, &mut now, 1300 * SECOND, 10), 10);
    }

    #[test]
    fn another_intent_or_another_object_begins_anew() {
        for (uid, intent) in [("uid", "other"), ("other", "intent")] {
            let (contests, mut now) = (Contests::default(), Instant::now());
            fight(&contests, &mut now, SECOND, 10);
            assert!(contests.has_written(&target(), "uid", "intent") && !contests.has_written(&target(), uid, intent));
            contests.wrote(&target(), uid, intent, now);
            assert_eq!(contests.undone(&target(), now), Verdict::Write);
        }
    }

    #[test]
    fn a_fight_that_ended_is_forgotten() {
        let (contests, mut now) = (Contests::default(), Instant::now());
        fight(&contests, &mut now, SECOND, 10);
        contests.wrote(&Target::new("Secret", "a", "b"), "uid", "intent", now + WINDOW);
        assert!(!contests.has_written(&target(), "uid", "intent"));
    }

    #[test]
    fn a_contest_names_who_and_what() {
        let manifest = json!({"spec": {"ports": [{"name": "registry", "port": 443}], "type": "ClusterIP"}});
        let live = json!({
            "metadata": {"managedFields": [
                {"manager": "wharf/registry", "operation": "Apply", "fieldsV1": {"f:spec": {"f:type": {}, "f:ports": {}}}},
                {"manager": "argocd", "operation": "Update", "fieldsV1": {"f:spec": {"f:ports": {"k:{\"port\":80}": {}}}}},
                {"manager": "helm", "operation": "Update", "fieldsV1": {"f:metadata": {}}},
                {"manager": "kubelet", "operation": "Update", "subresource": "status", "fieldsV1": {"f:spec": {"f:ports": {}}}},
            ]},
            "spec": {"ports": [{"name": "registry", "port": 80}], "type": "ClusterIP"},
        });
        let contest = describe(&target(), &manifest, &live, "wharf/registry");
        assert_eq!(contest.managers, ["argocd"]);
        assert_eq!(contest.fields, ["spec.ports"]);
        // An atomic map has one owner, and a field that was taken away has none.
        let manifest = json!({"spec": {"selector": {"app": "registry"}}});
        for (fields, expected) in
            [(json!({"f:spec": {"f:selector": {}}}), "argocd"), (json!({"f:spec": {"f:type": {}}}), "kubectl-edit")]
        {
            let entries = json!([
                {"manager": "argocd", "operation": "Update", "time": "2026-01-01T00:00:00Z", "fieldsV1": fields},
                {"manager": "kubectl-edit", "operation": "Update", "time": "2026-01-02T00:00:00Z", "fieldsV1": {"f:metadata": {"f:labels": {"f:a": {}}}}},
            ]);
            let live = json!({"metadata": {"managedFields": entries}, "spec": {"selector": {}}});
            assert_eq!(describe(&target(), &manifest, &live, "wharf/registry").managers, [expected]);
        }
        let said = contest.to_string();
        assert!(
            said.starts_with("argocd keeps changing spec.ports of Service platform/team. Wharf set it right 3 times"),
            "{said}"
        );
    }
}
