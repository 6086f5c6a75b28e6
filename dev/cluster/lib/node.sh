# shellcheck shell=bash
# One node: a place with the standard folders, containerd, kubelet and
# kube-proxy. Odd nodes run containerd 2, even ones the distribution's 1.6 with
# the configuration of its time: what Wharf writes must work on both.
# A node's paths are the standard ones inside it and must never be the host's.

node_programs=(containerd kubelet proxy)

# Which containerd: its program and the PATH in which it finds its own shim.
node_path() {
  if (($1 % 2)); then
    echo /run/cluster/bin:/usr/sbin:/usr/bin:/sbin:/bin
  else
    echo /usr/sbin:/usr/bin:/sbin:/bin
  fi
}

# start_node N ALL: the place and containerd. kubelet wants the API server.
start_node() {
  seed_node "$1" "$2"
  boot_node "$1" "$2"
}

# As power returns to a machine: its disk is as it was, /run is new.
boot_node() {
  local n=$1
  make_cgroups "node$n"
  start_place "node$n" node
  plug_node "$n" "$2"
  start_containerd "$n"
}

# As power is cut: all processes at once, no goodbye to anyone.
stop_node() {
  local root
  stop_place "node$1"
  while read -r root; do
    await 10 remove_cgroup "$root/$instance/node$1" || die "node$1 leaves $root/$instance/node$1"
  done < <(cgroup_roots)
}

# The rest of a node's start, once the API server answers.
start_node_programs() {
  start_kubelet "$1"
  start_proxy "$1"
}

# The node's files, written from outside before it exists.
seed_node() {
  local n=$1 own=$state/node$1 other
  mkdir -p "$own"/etc/upper "$own"/etc-dirs/containerd/certs.d "$own"/etc-dirs/cni/net.d "$own/kubernetes" \
    "$own"/etc-dirs/containers/registries.conf.d \
    "$own"/var/lib/{kubelet,containerd,cni,wharf} "$own"/var/log/{pods,containers} \
    "$own"/opt/{cni,local-path-provisioner}
  ln -sfn /usr/lib/cni "$own/opt/cni/bin"
  # Real nodes do not resolve the cluster's names. Nothing listens on this
  # address, so every name fails at once.
  echo 'nameserver 127.0.0.1' >"$own/etc/upper/resolv.conf"
  echo "node$n" >"$own/etc/upper/hostname"
  {
    echo '127.0.0.1 localhost'
    for ((other = 1; other <= $2; other++)); do
      echo "$(node_ip "$other") node$other"
    done
    echo "$internet_ip $internet_names"
  } >"$own/etc/upper/hosts"
  # Beside the machine's own, which every program reads too that reads these.
  mkdir -p "$own/etc/upper/ssl/certs"
  install -m 644 "$pki/internet.crt" "$own/etc/upper/ssl/certs/"
  echo '{"default":[{"type":"insecureAcceptAnything"}]}' >"$own/etc-dirs/containers/policy.json"
  : >"$own/etc-dirs/containers/registries.conf"
  containerd_config "$n" >"$own/etc-dirs/containerd/config.toml"
  # ptp: all traffic of pods is routed, so Services work without the kernel's
  # bridge filter, which not every machine has.
  cat >"$own/etc-dirs/cni/net.d/10-pods.conflist" <<JSON
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "ptp", "ipMasq": false, "ipam": {"type": "host-local",
    "ranges": [[{"subnet": "$(pod_subnet "$n")"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
  install -m 600 "$pki/node$n.crt" "$pki/node$n.key" "$pki/ca.crt" "$own/kubernetes/"
  install -m 600 "$pki/node$n.kubeconfig" "$own/kubernetes/kubelet.kubeconfig"
  install -m 600 "$pki/proxy.kubeconfig" "$own/kubernetes/"
  kubelet_config "$n" >"$own/kubernetes/kubelet.yaml"
  proxy_config "$n" >"$own/kubernetes/proxy.yaml"
}

# restrict_oom_score_adj: a machine may forbid to lower it, as containers do.
containerd_config() {
  if (($1 % 2)); then
    cat <<'TOML'
version = 3

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "wharf.test/pause:1"

[plugins."io.containerd.cri.v1.images".registry]
  config_path = "/etc/containerd/certs.d"

[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
TOML
  else
    cat <<'TOML'
version = 2

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "wharf.test/pause:1"
  restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "/etc/containerd/certs.d"
TOML
  fi
}

# The cgroup driver and root: there is no systemd in a node, and the tree is
# the instance's. Eviction off: the machine's disk is not the cluster's.
kubelet_config() {
  local keys=/run/cluster/own/kubernetes
  cat <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $keys/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $keys/node$1.crt
tlsPrivateKeyFile: $keys/node$1.key
clusterDNS: [$dns_ip]
clusterDomain: cluster.local
resolvConf: /etc/resolv.conf
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$instance/node$1
failCgroupV1: false
failSwapOn: false
enforceNodeAllocatable: []
evictionHard: {memory.available: 50Mi, nodefs.available: 0%, imagefs.available: 0%, nodefs.inodesFree: 0%, imagefs.inodesFree: 0%}
imageGCHighThresholdPercent: 100
serializeImagePulls: false
# Tests end programs again and again, and take power away: neither is waited out for minutes.
crashLoopBackOff: {maxContainerRestartPeriod: 2s}
nodeLeaseDurationSeconds: 20
# Pods get a changed Secret within some seconds, because the tests' overlaps of certificates are as short.
syncFrequency: 2s
volumePluginDir: /var/lib/kubelet/volumeplugins
YAML
}

# The zeros leave the kernel's connection tracking as the host has it.
proxy_config() {
  cat <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: /run/cluster/own/kubernetes/proxy.kubeconfig}
mode: iptables
clusterCIDR: $pod_range
hostnameOverride: node$1
iptables: {minSyncPeriod: 100ms}
conntrack: {maxPerCore: 0, min: 0, tcpCloseWaitTimeout: 0s, tcpEstablishedTimeout: 0s}
YAML
}

# Plugs the node into the control plane's bridge and lets all find its pods.
# Every node gets the routes to all others, also to those not started yet.
plug_node() {
  local n=$1 other
  # The kernel takes an interface back a moment after the node it was for.
  await 10 unplugged "$n" || die "node$n: its old interface stays"
  in_net control ip link add "node$n" type veth peer name eth0 netns "$(recorded_pid "$state/places/node$n")"
  in_net control ip -batch - <<IP
link set node$n master br0 up
route replace $(pod_subnet "$n") via $(node_ip "$n")
IP
  {
    echo "link set lo up"
    echo "addr add $(node_ip "$n")/24 dev eth0"
    echo "link set eth0 up"
    echo "route add default via $control_ip"
    for ((other = 1; other <= $2; other++)); do
      [[ $other -eq $n ]] || echo "route add $(pod_subnet "$other") via $(node_ip "$other")"
    done
  } | in_net "node$n" ip -batch -
  # What kube-proxy has not sent elsewhere by now is no port of a Service. It
  # is refused, where it would be lost: clients that try https first would wait
  # for half a minute each time.
  # shellcheck disable=SC2016 # expanded in the node
  in_node "$n" sh -ec 'for chain in OUTPUT FORWARD; do
    iptables -w 10 -A "$chain" -d "$0" -p tcp -j REJECT --reject-with tcp-reset
    iptables -w 10 -A "$chain" -d "$0" -j REJECT
  done' "$service_range"
}

unplugged() {
  in_net control ip link del "node$1" 2>/dev/null || true
  ! in_net control ip link show "node$1" >/dev/null 2>&1
}

start_containerd() {
  place_path=$(node_path "$1") launch "node$1" "containerd$1" containerd
}

containerd_ready() {
  place_path=$(node_path "$1") in_node "$1" ctr --connect-timeout 2s version
}

start_kubelet() {
  place_path=$(node_path "$1") launch "node$1" "kubelet$1" /run/cluster/bin/kubelet \
    --config /run/cluster/own/kubernetes/kubelet.yaml --kubeconfig /run/cluster/own/kubernetes/kubelet.kubeconfig \
    --hostname-override "node$1" --node-ip "$(node_ip "$1")"
}

start_proxy() {
  launch "node$1" "proxy$1" /run/cluster/bin/kube-proxy --config /run/cluster/own/kubernetes/proxy.yaml
}

# in_node N CMD...: runs CMD as on the node. It belongs to the cluster and ends
# with it, and with its caller: entering a process namespace forks, and a
# signal that ends the outer half must end the inner.
in_node() (
  n=$1
  shift
  exec 8>&- 9>&-
  join_cgroup
  PATH=$(node_path "$n")
  enter_place "node$n" setpriv --pdeathsig KILL "$@"
)

# load_image N TAR: by standard input, as the node does not see every folder.
# Each node's own ctr; containerd 2's would ask for a newer service than 1.6 has.
load_image() {
  local said
  said=$(in_node "$1" ctr -n k8s.io images import - <"$2" 2>&1) || {
    say "$said"
    return 1
  }
}

# load_everywhere TAR...: all nodes at once.
load_everywhere() {
  local n tar jobs=() job failed=0
  for tar; do [[ -r $tar ]] || die "no archive $tar"; done
  for ((n = 1; n <= $(running_nodes); n++)); do
    load_images "$n" "$@" &
    jobs+=($!)
  done
  for job in "${jobs[@]}"; do wait "$job" || failed=1; done
  return "$failed"
}

load_images() {
  local n=$1 tar
  shift
  for tar; do
    load_image "$n" "$tar" || die "node $n does not take $tar"
  done
}
