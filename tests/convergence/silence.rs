//! C5: after convergence, more passes and a restart write nothing, and the status stays as it is to the byte.

use serde_json::{Value, json};

use crate::apiserver::Server;
use crate::world::{Process, cluster, everybody_else, run_until_quiet};

/// The operator starts twice more and looks at everything several times, and has nothing to write.
pub async fn nothing_is_written(server: &Server, spec: &Value) {
    let before = server.mutations().len();
    for _restart in 0..2 {
        let process = Process::start(server.client());
        for _pass in 0..5 {
            process.round().await;
            everybody_else(server);
        }
    }
    let after = server.mutations();
    assert!(after.len() == before, "{spec}: {:#?}", &after[before..]);
}

#[tokio::test]
async fn c5_after_convergence_nothing_is_written() {
    for spec in [
        json!({}),
        json!({"suspend": true}),
        json!({"hosts": ["images.example.com", "images.example.org"], "networkPolicy": {"mode": "None"}}),
        json!({"caBundle": {"namespaceSelector": {}}}),
        json!({"storage": {"deletionPolicy": "Delete", "claim": {"size": "20480Mi", "storageClassName": "standard"}}}),
        json!({"podTemplate": {"resources": {"requests": {"cpu": "1000m", "memory": "1024Mi"}}, "labels": {"a": "b"}}}),
        json!({"storage": {"claim": {"storageClassName": "missing"}}}),
        json!({"pullSecrets": {"serviceAccounts": ["missing"]}}),
        json!({"expose": {"gateway": {"host": "images.example.com", "parentRefs": [{"name": "front", "namespace": "infra"}]}}}),
        json!({"expose": {"ingress": {"host": "images.example.com"}, "service": {"type": "NodePort", "annotations": {"a": "b"}}}}),
    ] {
        let server = cluster(&spec);
        run_until_quiet(&server, &server.connect()).await;
        let status = server.get("Registry", "platform", "team").unwrap()["status"].clone();
        nothing_is_written(&server, &spec).await;
        assert_eq!(server.get("Registry", "platform", "team").unwrap()["status"], status, "{spec}");
    }
}
