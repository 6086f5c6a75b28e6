//! The condition `CaBundlesReady`: whether the selected namespaces have the certificates. Pure.
//! It must never make `Ready` false: what stands in a namespace of somebody else is not this registry's trouble.

use crate::api::condition::{self, Finding, Status};
use crate::api::reason;
use crate::operator::ca_bundle::{NAME, Standing};

/// How many namespaces a message names.
const NAMED: usize = 3;

/// The condition for what was found.
#[must_use]
pub fn finding(standing: &Standing) -> Finding {
    let (status, reason, message) = if !standing.foreign.is_empty() {
        let message = format!(
            "Config map {NAME} is not Wharf's and is left as it is in namespace {}. Remove or rename it there, and Wharf makes its \
             own",
            some_of(&standing.foreign, ", ")
        );
        (Status::False, reason::NAME_TAKEN, message)
    } else if !standing.refused.is_empty() {
        (Status::False, reason::REFUSED, some_of(&standing.refused, "; "))
    } else if standing.lacking {
        // No names: they would change from moment to moment while many namespaces are served.
        (Status::False, reason::PROGRESSING, format!("Config map {NAME} is being written to the selected namespaces"))
    } else {
        (Status::True, reason::PUBLISHED, format!("Every selected namespace has config map {NAME}"))
    };
    Finding::new(condition::CA_BUNDLES_READY, status, reason, message)
}

fn some_of(list: &[String], separator: &str) -> String {
    let first: Vec<&str> = list.iter().take(NAMED).map(String::as_str).collect();
    let more = list.len().saturating_sub(NAMED);
    let suffix = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{suffix}", first.join(separator))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_must_mend_is_said_first() {
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let all =
            Standing { foreign: list(&["a", "b", "c", "d"]), refused: list(&["cannot apply: no"]), lacking: true };
        let said = finding(&all);
        assert_eq!((said.status, said.reason), (Status::False, reason::NAME_TAKEN));
        assert!(said.message.contains("in namespace a, b, c and 1 more"), "{}", said.message);
        let refused = Standing { foreign: Vec::new(), ..all };
        assert_eq!(finding(&refused).reason, reason::REFUSED);
        assert_eq!(finding(&refused).message, "cannot apply: no");
        let lacking = Standing { refused: Vec::new(), ..refused };
        assert_eq!(finding(&lacking).reason, reason::PROGRESSING);
        assert_eq!(finding(&Standing::default()).status, Status::True);
    }
}
