# shellcheck shell=bash
# Builds the programs in the list of versions from Go modules. It writes only
# under target/dev and Go's own caches, and must never touch a running cluster.

stamps=$checkout/target/dev/stamps

# One tool a line, of the given needs (up, tests); all without an argument.
tools_needed() {
  awk -v want="${1:-}" '!/^#/ && NF == 4 && $4 != "-" && (want == "" || $3 == want) { print $1 }' \
    "$cluster_dir/versions"
}

# build_tools NAME...: builds those that are not there in the listed version.
# One after the other: linking Kubernetes alone takes some gigabytes.
build_tools() {
  local name
  mkdir -p "$bin_dir" "$stamps"
  for name; do
    # A plain subshell, so that the lock goes with it and set -e holds in it.
    if ! built "$name"; then (
      lock_builds
      build_tool "$name"
    ); fi
  done
}

# Sets what the list says of a tool, and the stamp it gets once built so.
read_tool() {
  read -r version package < <(awk -v name="$1" '$1 == name { print $2, $4 }' "$cluster_dir/versions") ||
    die "no tool '$1' in the list of versions"
  stamp="$version $package"
  [[ $1 != kubernetes ]] || stamp+=" $(kube_inputs)"
}

built() {
  local version package stamp
  read_tool "$1"
  [[ -e $bin_dir/$(product_of "$1") && $(cat "$stamps/$1" 2>/dev/null) == "$stamp" ]]
}

build_tool() {
  local version package stamp
  # Another run may have built it while this one waited.
  ! built "$1" || return 0
  need_go
  read_tool "$1"
  say "building $1 $version"
  rm -f "$stamps/$1"
  if [[ $1 == kubernetes ]]; then
    build_kube "$version"
  else
    install_tool "$1" "$package@$version"
  fi
  echo "$stamp" >"$stamps/$1"
}

product_of() { if [[ $1 == kubernetes ]]; then echo kube; else echo "$1"; fi; }

# Static, so that the same program runs in an empty image.
install_tool() {
  local tags='' flags='-s -w'
  if [[ $2 == */containerd/v2/* ]]; then
    tags=no_btrfs,no_devmapper,no_zfs
    # Released programs name their version plainly; what reads a node's does so.
    flags+=" -X github.com/containerd/containerd/v2/version.Version=${2##*@v}"
  fi
  GOBIN=$bin_dir CGO_ENABLED=0 GOFLAGS='' \
    timeout 1800 go install -trimpath -ldflags "$flags" -tags "$tags" "$2" >&2 ||
    die "building $1 failed"
}

kube_inputs() {
  (cd "$cluster_dir/kube" && cat go.mod go.sum ./*.go | sha256sum | cut -c1-16)
}

kube_programs=(etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl forward)

build_kube() {
  local version=$1 minor name package=k8s.io/component-base/version
  minor=${version#v1.}
  (
    cd "$cluster_dir/kube" || exit
    [[ $(go list -m -f '{{.Version}}' k8s.io/kubernetes) == "$version" ]] ||
      die "kube/go.mod and the list of versions differ on kubernetes"
    [[ $(go list -m -f '{{.Version}}' go.etcd.io/etcd/server/v3) == "$(version_of etcd)" ]] ||
      die "kube/go.mod and the list of versions differ on etcd"
    # Written beside and renamed: a running cluster keeps the old program.
    CGO_ENABLED=0 GOFLAGS='' timeout 3600 go build -trimpath -o "$bin_dir/kube.new" -ldflags \
      "-s -w -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*}" . >&2 ||
      die "building kubernetes failed"
  )
  mv "$bin_dir/kube.new" "$bin_dir/kube"
  for name in "${kube_programs[@]}"; do
    ln -sfn kube "$bin_dir/$name"
  done
}
