# shellcheck shell=bash
# Paths, names, messages and waiting, shared by every script of the cluster.
# Reading this file must never change anything on the machine.

cluster_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
checkout=$(cd "$cluster_dir/../.." && pwd -P)
bin_dir=$checkout/target/dev/bin
state=$checkout/target/cluster
kubeconfig=$state/kubeconfig

# Two checkouts may run a cluster each: what the kernel names once a machine
# carries this.
# shellcheck disable=SC2034 # used by the files that source this one
instance=wharf-$(printf %s "$checkout" | sha256sum | cut -c1-6)

# The machine lacks something (root, Go, packages): tests may skip on it.
readonly exit_unable=3

say() { printf '%s\n' "$*" >&2; }

die() {
  say "cluster: $*"
  exit 1
}

unable() {
  say "cluster: $*"
  exit "$exit_unable"
}

need_root() {
  [[ $EUID -eq 0 ]] || unable "needs root: namespaces, mounts and cgroups are made"
}

# The value of a column in the list of versions.
version_of() {
  awk -v name="$1" '$1 == name { print $2 }' "$cluster_dir/versions"
}

# One at a time: descriptor 9 is held by up and down, 8 while tools or images
# are built. The lock files lie beside the folders, which come and go. Neither
# descriptor may reach a process that stays: launch closes both.
lock_cluster() { lock 9 cluster; }
lock_builds() { lock 8 dev; }

lock() {
  mkdir -p "$checkout/target"
  eval "exec $1>\"\$checkout/target/$2.lock\""
  flock -n "$1" || say "waiting for another run that holds $checkout/target/$2.lock"
  flock -w 3600 "$1" || die "another run has held $checkout/target/$2.lock for an hour"
}

# Milliseconds since boot, without a process.
now_ms() {
  local up
  read -r up _ </proc/uptime
  printf '%s\n' "$((10#${up/./} * 10))"
}

# await SECONDS CMD...: run CMD until it succeeds or the time is over.
await() {
  local deadline=$(($(now_ms) + $1 * 1000))
  shift
  until "$@"; do
    [[ $(now_ms) -lt $deadline ]] || return 1
    sleep 0.1
  done
}

# A recorded process still runs: the same pid, started at the same moment, and
# not merely waiting to be reaped. The file holds "PID START".
alive() {
  local pid start now
  [[ -r $1 ]] && read -r pid start <"$1" || return 1
  now=$(started "$pid") && [[ $now == "$start" ]]
}

# When a process started, in clock ticks since boot; fails for a dead one. The
# program's name, in parentheses, may hold anything, so it is cut off first.
started() {
  local line fields
  { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
  read -ra fields <<<"${line##*) }"
  [[ ${fields[0]} != [ZX] ]] || return 1
  printf '%s\n' "${fields[19]}"
}

recorded_pid() {
  local pid
  read -r pid _ <"$1" && printf '%s\n' "$pid"
}

kubectl() { "$bin_dir/kubectl" --kubeconfig "$kubeconfig" "$@"; }

running_nodes() { cat "$state/nodes" 2>/dev/null || echo 0; }

need_node() {
  [[ $1 =~ ^[0-9]+$ ]] || die "a node is a number, not '$1'"
  alive "$state/places/node$1" || die "node $1 does not run; dev/cluster/up starts the cluster"
}
