//! What the pods tell of the registries, taken together. Pure. While none tells, what was told before stands: an operator that
//! has just started knows no better.

use super::as_before;
use crate::api::condition::{self, Finding, Status};
use crate::api::mirror::{UpstreamState, UpstreamStatus};
use crate::api::{MirrorStatus, reason};
use crate::mirror_report::MirrorReport;
use crate::operator::mirror::reports::PodReport;

/// What pods answered, and why others did not.
pub(super) struct Answers<'a> {
    pub(super) reports: Vec<&'a MirrorReport>,
    pub(super) silence: Option<String>,
}

pub(super) fn answers(reports: Option<&[PodReport]>) -> Answers<'_> {
    let all = reports.unwrap_or_default();
    let silent = all.iter().find_map(|report| report.report.as_ref().err().map(|why| (&report.pod, why)));
    Answers {
        reports: all.iter().filter_map(|report| report.report.as_ref().ok()).collect(),
        silence: silent.map(|(pod, why)| format!("Pod {pod} does not tell how it is: {why}")),
    }
}

const REASONS: [&str; 4] = [reason::REACHABLE, reason::CREDENTIALS_REJECTED, reason::FAILING, reason::RATE_LIMITED];

/// The condition `UpstreamsReachable`, as far as it is the registries' doing.
pub(super) fn finding(upstreams: &[UpstreamStatus], answers: &Answers<'_>, old: &MirrorStatus) -> Finding {
    let kind = condition::UPSTREAMS_REACHABLE;
    if answers.reports.is_empty() {
        return as_before(&old.conditions, kind, &REASONS).unwrap_or_else(|| not_reported(kind, answers));
    }
    let troubled: Vec<&UpstreamStatus> = upstreams.iter().filter(|status| status.state != UpstreamState::Ok).collect();
    let Some(worst) = troubled.iter().max_by_key(|status| weight(status.state)) else {
        let message = "Every registry answered when it was last asked";
        return Finding::new(kind, Status::True, reason::REACHABLE, message);
    };
    let messages: Vec<String> = troubled.iter().map(|status| sentence(status)).collect();
    Finding::new(kind, Status::False, reason_of(worst.state), messages.join(". "))
}

/// What only a person can mend comes first.
fn weight(state: UpstreamState) -> u8 {
    match state {
        UpstreamState::Ok => 0,
        UpstreamState::RateLimited => 1,
        UpstreamState::Failing => 2,
        UpstreamState::CredentialsRejected => 3,
    }
}

fn reason_of(state: UpstreamState) -> &'static str {
    match state {
        UpstreamState::Ok => reason::REACHABLE,
        UpstreamState::RateLimited => reason::RATE_LIMITED,
        UpstreamState::Failing => reason::FAILING,
        UpstreamState::CredentialsRejected => reason::CREDENTIALS_REJECTED,
    }
}

fn sentence(status: &UpstreamStatus) -> String {
    let said =
        status.message.as_ref().map_or_else(String::new, |message| format!(" ({})", message.trim_end_matches('.')));
    let host = &status.host;
    match status.state {
        UpstreamState::Ok => format!("{host} answers"),
        UpstreamState::RateLimited => format!(
            "{host} refuses further requests for a while{said}; what is cached goes on. A credential of your own raises most \
             limits: credentialsSecretRef"
        ),
        UpstreamState::Failing => format!("{host} does not answer as it should{said}; what is cached goes on"),
        UpstreamState::CredentialsRejected => format!(
            "{host} refuses the credential that credentialsSecretRef names{said}; public images go on. Put one into that Secret \
             that is good"
        ),
    }
}

pub(super) fn not_reported(kind: &'static str, answers: &Answers<'_>) -> Finding {
    let message = answers.silence.clone().unwrap_or_else(|| "No pod has told yet how it is".to_owned());
    Finding::new(kind, Status::Unknown, reason::NOT_REPORTED, message)
}
