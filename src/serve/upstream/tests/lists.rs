//! Lists in one part and in several.

use serde_json::{Value, json};

use super::server::{Reply, Request, Server};
use super::{blob, repository, upstream};
use crate::serve::upstream::{Failure, Identity, List, Listed};

async fn list(listed: Listed, script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Result<List, Failure> {
    let server = Server::new(script).await;
    upstream(&server).list(&repository(), &listed, &Identity::Own).await
}

fn tags() -> Listed {
    Listed::Tags(None, Some(2))
}

fn value(list: &List) -> Value {
    serde_json::from_slice(&list.bytes).unwrap()
}

#[tokio::test]
async fn a_list_in_one_part_is_passed_on_as_it_came() {
    let link = [("link", r#"</v2/a/b/tags/list?n=2&last=b>; rel="next""#)];
    let part = b"{ \"name\": \"a/b\", \"tags\": [\"a\", \"b\"] }";
    let found = list(tags(), move |_| Reply::new(200, &link, part)).await.unwrap();
    assert_eq!((&*found.bytes, found.more_behind.as_deref()), (&part[..], Some("b")));
    let found = list(tags(), |_| Reply::new(200, &[], br#"{"name":"a/b","tags":null}"#)).await.unwrap();
    assert_eq!(found.more_behind, None);
    let kind = Listed::Referrers(blob(), Some("application/x".into()));
    let found = list(kind, |request| {
        assert!(request.target.ends_with("?artifactType=application%2Fx"));
        Reply::new(200, &[("oci-filters-applied", "artifactType")], br#"{"manifests":[]}"#)
    });
    assert!(found.await.unwrap().filtered);
}

#[tokio::test]
async fn parts_that_a_client_could_not_ask_for_are_gathered() {
    // Behind a mark of the registry's own.
    let found = list(tags(), |request| match request.target.split_once('?') {
        Some((_, "n=2")) => Reply::new(200, &[("link", "<?mark=x>; rel=next")], br#"{"name":"a/b","tags":["a"]}"#),
        Some((_, "mark=x")) => Reply::new(200, &[("link", "<?mark=y>; rel=next")], br#"{"name":"a/b","tags":null}"#),
        _ => Reply::new(200, &[], br#"{"name":"a/b","tags":["b"]}"#),
    });
    assert_eq!(value(&found.await.unwrap()), json!({"name": "a/b", "tags": ["a", "b"]}));
    let found = list(Listed::Referrers(blob(), None), |request| match request.target.split_once('?') {
        None => {
            Reply::new(200, &[("link", "<https://other.example/x?last=y>; rel=next")], br#"{"manifests":[{"a":1}]}"#)
        }
        Some((_, query)) => Reply::new(200, &[], json!({"manifests": [query]}).to_string().as_bytes()),
    });
    assert_eq!(value(&found.await.unwrap()), json!({"manifests": [{"a": 1}, "last=y"]}));
}

#[tokio::test]
async fn what_is_no_list_or_never_ends_is_refused() {
    for body in ["", "[]", "{}", "<html>", r#"{"manifests":[]}"#, r#"{"tags":"a"}"#] {
        let found = list(tags(), move |_| Reply::new(200, &[], body.as_bytes())).await;
        assert!(matches!(found, Err(Failure::Wrong { .. })), "{body}");
    }
    let found = list(tags(), |_| Reply::new(200, &[("link", "<?mark=x>; rel=next")], br#"{"tags":["a"]}"#)).await;
    assert!(matches!(found, Err(Failure::Wrong { problem, .. }) if problem.contains("parts")));
    let long = format!(r#"{{"tags":["{}"]}}"#, "x".repeat(1024 * 1024));
    let found = list(tags(), move |_| Reply::new(200, &[("link", "<?mark=x>; rel=next")], long.as_bytes())).await;
    assert!(matches!(found, Err(Failure::Wrong { problem, .. }) if problem.contains("longer")));
}
