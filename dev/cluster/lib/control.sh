# shellcheck shell=bash
# The control plane: one place with etcd, the API server, the controllers, the
# scheduler and the bridge that the nodes are plugged into. Each program has a
# start function of its own, so that one alone can be killed and started again.
# Data does not outlive the cluster, so etcd must never be trusted with any.

start_control_place() {
  start_place control control
  in_net control ip -batch - <<IP
link set lo up
link add br0 type bridge
addr add $control_ip/24 dev br0
addr add $internet_ip/32 dev br0
link set br0 up
IP
}

control_programs=(etcd apiserver controller-manager scheduler forward)

start_etcd() {
  # No fsync: what a power cut would lose is not wanted back.
  launch control etcd "$bin_dir/etcd" --name control --data-dir "$state/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380
}

# Who asked for what, so that a test can compare it with what a role allows.
# The cluster's own parts are left out: they would be most of it.
audit_policy() {
  cat <<'YAML'
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, userGroups: [system:nodes, system:masters, "system:serviceaccounts:kube-system", "system:serviceaccounts:local-path-storage"]}
- {level: None, users: [system:apiserver, system:kube-controller-manager, system:kube-scheduler, system:kube-proxy, system:anonymous]}
- {level: Metadata}
YAML
}

start_apiserver() {
  audit_policy >"$state/audit-policy.yaml"
  launch control apiserver "$bin_dir/kube-apiserver" --etcd-servers http://127.0.0.1:2379 \
    --advertise-address "$control_ip" --secure-port 6443 --allow-privileged=true \
    --tls-cert-file "$pki/apiserver.crt" --tls-private-key-file "$pki/apiserver.key" \
    --client-ca-file "$pki/ca.crt" --kubelet-certificate-authority "$pki/ca.crt" \
    --kubelet-client-certificate "$pki/kubelet-client.crt" --kubelet-client-key "$pki/kubelet-client.key" \
    --kubelet-preferred-address-types InternalIP \
    --service-account-issuer https://kubernetes.default.svc.cluster.local \
    --service-account-key-file "$pki/sa.pub" --service-account-signing-key-file "$pki/sa.key" \
    --service-cluster-ip-range "$service_range" \
    --audit-policy-file "$state/audit-policy.yaml" --audit-log-path "$state/logs/audit.log" \
    --audit-log-maxsize 100 --audit-log-maxbackup 9 \
    --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction
}

start_controller-manager() {
  launch control controller-manager "$bin_dir/kube-controller-manager" --leader-elect=false \
    --kubeconfig "$pki/controller-manager.kubeconfig" --use-service-account-credentials \
    --service-account-private-key-file "$pki/sa.key" --root-ca-file "$pki/ca.crt" \
    --cluster-signing-cert-file "$pki/ca.crt" --cluster-signing-key-file "$pki/ca.key" \
    --cluster-cidr "$pod_range" --allocate-node-cidrs=false \
    --node-monitor-grace-period 20s --flex-volume-plugin-dir "$state/control/flex"
}

start_scheduler() {
  launch control scheduler "$bin_dir/kube-scheduler" --leader-elect=false --kubeconfig "$pki/scheduler.kubeconfig"
}

# The one program on the host: a listener on loopback that connects inside.
# The port of the last run is asked for again: what has it written down goes on.
start_forward() {
  local last port_file=$state/port
  last=$(cat "$port_file" 2>/dev/null || echo 0)
  rm -f "$port_file"
  launch host forward "$bin_dir/forward" "/proc/$(recorded_pid "$state/places/control")/ns/net" \
    "$control_ip:6443" "$port_file" "$last"
  expect forward 20 test -s "$port_file"
  (umask 077 && make_kubeconfig admin "https://127.0.0.1:$(<"$port_file")" >"$kubeconfig.new")
  mv "$kubeconfig.new" "$kubeconfig"
}

api_ready() { kubectl --request-timeout=5s get --raw /readyz; }

# On a real control plane kube-proxy runs too, and webhooks are called by their
# Service's address; here the first node's rules do that for it.
route_services() {
  in_net control ip route replace "$service_range" via "$(node_ip 1)"
}
