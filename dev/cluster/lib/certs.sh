# shellcheck shell=bash
# Keys, certificates and kubeconfigs of one run of the cluster, made anew at
# each start. It writes only into the state folder and must never leave a key
# readable by others.

pki=$state/pki

# The network inside: the control plane, the nodes beside it, one /24 of pods
# a node. All of it exists only in the cluster's own namespaces.
control_ip=10.99.0.1
node_ip() { echo "10.99.0.$((10 + $1))"; }
pod_subnet() { echo "10.244.$1.0/24"; }
pod_range=10.244.0.0/16
service_range=10.96.0.0/16
dns_ip=10.96.0.10
internal_url=https://$control_ip:6443

# Where the Internet would be: registries of others, which only tests put up. The address is one of those that are of one
# place in the Internet, and is of the control plane's place; no packet leaves it.
internet_ip=44.0.0.2
internet_names='registry-1.docker.io auth.docker.io production.cloudflare.docker.com ghcr.io'

make_certs() {
  local n nodes=$1
  mkdir -p "$pki"
  chmod 700 "$pki"
  # Elliptic keys: a dozen of them cost a fraction of one RSA key's time.
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj /CN=kubernetes \
    -keyout "$pki/ca.key" -out "$pki/ca.crt" -addext keyUsage=critical,keyCertSign,digitalSignature 2>/dev/null
  # What stands in for the public authorities: nodes believe it, and tests sign with it.
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj /CN=internet \
    -keyout "$pki/internet.key" -out "$pki/internet.crt" -addext keyUsage=critical,keyCertSign,digitalSignature 2>/dev/null
  openssl ecparam -name prime256v1 -genkey -noout -out "$pki/sa.key"
  openssl ec -in "$pki/sa.key" -pubout -out "$pki/sa.pub" 2>/dev/null
  make_cert apiserver /CN=kube-apiserver serverAuth "IP:$control_ip,IP:127.0.0.1,IP:${service_range%.*.*}.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
  make_cert kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client clientAuth
  make_cert admin /O=system:masters/CN=admin clientAuth
  make_cert controller-manager /CN=system:kube-controller-manager clientAuth
  make_cert scheduler /CN=system:kube-scheduler clientAuth
  make_cert proxy /CN=system:kube-proxy clientAuth
  for n in controller-manager scheduler proxy; do
    make_kubeconfig "$n" "$internal_url" >"$pki/$n.kubeconfig"
  done
  for ((n = 1; n <= nodes; n++)); do
    make_node_certs "$n"
  done
  chmod 600 "$pki"/*.key "$pki"/*.kubeconfig
}

make_node_certs() {
  make_cert "node$1" "/O=system:nodes/CN=system:node:node$1" clientAuth,serverAuth "IP:$(node_ip "$1"),DNS:node$1"
  make_kubeconfig "node$1" "$internal_url" >"$pki/node$1.kubeconfig"
  chmod 600 "$pki/node$1".{key,kubeconfig}
}

# make_cert NAME SUBJECT USAGES [ALTERNATIVE-NAMES]
make_cert() {
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$2" \
    -keyout "$pki/$1.key" -out "$pki/$1.csr" 2>/dev/null
  openssl x509 -req -in "$pki/$1.csr" -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -CAcreateserial -days 365 \
    -out "$pki/$1.crt" 2>/dev/null \
    -extfile <(printf 'keyUsage=critical,digitalSignature\nextendedKeyUsage=%s\n%s\n' "$3" "${4:+subjectAltName=$4}")
  rm "$pki/$1.csr"
}

# Everything is inside the file, so it can be copied anywhere.
make_kubeconfig() {
  cat <<YAML
apiVersion: v1
kind: Config
current-context: wharf
contexts: [{name: wharf, context: {cluster: wharf, user: $1}}]
clusters:
- name: wharf
  cluster:
    server: $2
    certificate-authority-data: $(base64 -w0 "$pki/ca.crt")
users:
- name: $1
  user:
    client-certificate-data: $(base64 -w0 "$pki/$1.crt")
    client-key-data: $(base64 -w0 "$pki/$1.key")
YAML
}
