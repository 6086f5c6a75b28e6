# shellcheck shell=bash
# What a usable cluster has besides Kubernetes itself: names and volumes. It
# must hold nothing of Wharf.

# The cluster is new, so plain create will do, and asks the server least.
create_addons() {
  local coredns provisioner file
  coredns=$(own_images | awk '$1 == "coredns" { print $2 }')
  provisioner=$(own_images | awk '$1 == "local-path-provisioner" { print $2 }')
  for file in "$cluster_dir"/manifests/*.yaml; do
    echo ---
    sed -e "s|COREDNS_IMAGE|$coredns|" -e "s|PROVISIONER_IMAGE|$provisioner|" \
      -e "s|INTERNET|$internet_ip $internet_names|" "$file"
  done >"$state/addons.yaml"
  kubectl create --validate=false -f "$state/addons.yaml" >/dev/null
}

addons_ready() {
  local ready
  ready=$(kubectl --request-timeout=5s get deployments -A -o jsonpath='{range .items[*]}{.metadata.name}={.status.availableReplicas} {end}') || return 1
  [[ " $ready" == *" coredns=1 "* && " $ready" == *" local-path-provisioner=1 "* ]]
}

# nodes_ready COUNT
nodes_ready() {
  local ready
  ready=$(kubectl --request-timeout=5s get nodes -o jsonpath='{range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}') || return 1
  [[ $(grep -cx True <<<"$ready") -eq $1 ]]
}
