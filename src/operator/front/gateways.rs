//! Where the Gateways answer that lead to a registry. They may be anybody's, in any namespace, so one is read only after its
//! controller took the registry's route, when the route is to be called, and only by name. Nothing of it is kept.

use kube::ResourceExt;
use kube::api::Api;

use super::target::{Front, Way};
use crate::api::Registry;
use crate::operator::call::{CallError, Target, read};
use crate::operator::context::Context;
use crate::operator::gateway_api::{self, Gateway};
use crate::operator::registry::names::Names;
use crate::operator::view::cached;

/// How many addresses of a Gateway are tried.
const TRIED: usize = 4;

/// The front with the addresses and the port of the first Gateway that has some. Without any it is called where its host resolves.
pub(super) async fn located(context: &Context, registry: &Registry, front: &Front) -> Result<Front, CallError> {
    let mut located = front.clone();
    let names = Names::new(registry.namespace().unwrap_or_default(), registry.name_any());
    let route = cached(&context.view.http_routes, names.namespace(), &names.front());
    let Some(route) = route.filter(|_| front.way == Way::Gateway) else {
        return Ok(located);
    };
    for parent in gateway_api::accepted(&route) {
        let namespace = parent.namespace.as_deref().unwrap_or(names.namespace());
        let api = Api::<Gateway>::namespaced(context.client.clone(), namespace);
        let target = Target::new("Gateway", namespace, &parent.name);
        let Some(gateway) = read(&context.metrics, target, api.get(&parent.name)).await? else { continue };
        located.addresses = gateway.addresses();
        located.addresses.truncate(TRIED);
        if !located.addresses.is_empty() {
            located.port = gateway.port(parent, &front.host).unwrap_or(front.port);
            break;
        }
    }
    Ok(located)
}
