# shellcheck shell=bash
# Paths, messages and tools, shared by the scripts of the charts. Reading this
# file must never change anything.

charts_dev=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
checkout=$(cd "$charts_dev/../.." && pwd -P)
bin_dir=$checkout/target/dev/bin
schemas=$checkout/target/dev/schemas
helm=$bin_dir/helm
kubectl=$bin_dir/kubectl
kubeconform=$bin_dir/kubeconform

# The machine lacks something: tests may skip on it, as with dev/cluster.
readonly exit_unable=3

say() { printf '%s\n' "$*" >&2; }

die() {
  say "charts: $*"
  exit 1
}

# need_tools NAME...: programs that dev/cluster/tools builds.
need_tools() {
  local tool missing=()
  for tool in "$@"; do
    [[ -x $bin_dir/$tool ]] || missing+=("$tool")
  done
  if [[ ${#missing[@]} -gt 0 ]]; then
    # kubectl is one of the names of the Kubernetes program.
    say "charts: missing ${missing[*]}; build with: dev/cluster/tools ${missing[*]/kubectl/kubernetes}"
    exit "$exit_unable"
  fi
}

# A folder that goes when the script ends, and the settings that keep Helm from
# reading or writing anything of the user's.
make_scratch() {
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  export HELM_CACHE_HOME=$scratch/helm HELM_CONFIG_HOME=$scratch/helm HELM_DATA_HOME=$scratch/helm
  export KUBECONFIG=/dev/null
}

# version_of NAME: from either list of versions.
version_of() {
  awk -v name="$1" '$1 == name { print $2; found = 1 } END { exit !found }' \
    "$charts_dev/versions" "$checkout/dev/cluster/versions" || die "no version of $1"
}

# same OLD NEW: whether two files, or two trees of files, are the same; prints
# the beginning of what differs.
same() {
  diff -ruN "$1" "$2" | head -n 40 >&2
}
