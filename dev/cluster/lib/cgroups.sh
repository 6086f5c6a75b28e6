# shellcheck shell=bash
# The control groups of this cluster: one tree named after the instance in
# each hierarchy. All that the cluster starts is inside, which is how it is
# found again when nothing else is left of its records. Nothing outside that
# tree may ever be written or killed here.

# The root of each hierarchy: one on a v2 host, several on v1.
cgroup_roots() {
  awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 }' /proc/self/mounts
}

# The hierarchy that tells which processes are ours. On v1 it is the unified
# one where there is one: containers are never moved out of it.
cgroup_tracking() {
  local root
  for root in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/pids; do
    if [[ -e $root/cgroup.procs ]]; then
      echo "$root/$instance"
      return
    fi
  done
  die "no control group hierarchy that tracks processes is mounted"
}

# make_cgroups GROUP...: below the instance's own, e.g. run or node1.
make_cgroups() {
  local root group
  while read -r root; do
    for group in '' "${@/#//}"; do
      mkdir -p "$root/$instance$group"
      # A v1 cpuset starts empty, and nothing can join it so.
      if [[ -e $root/$instance$group/cpuset.cpus && $root == */cpuset* ]]; then
        cat "$root/cpuset.cpus" >"$root/$instance$group/cpuset.cpus"
        cat "$root/cpuset.mems" >"$root/$instance$group/cpuset.mems"
      fi
    done
    # On v2 children get a controller only when the parent passes it on.
    if [[ $root == /sys/fs/cgroup ]]; then
      pass_controllers "$root"
      pass_controllers "$root/$instance"
    fi
  done < <(cgroup_roots)
}

pass_controllers() {
  local names name
  read -ra names <"$1/cgroup.controllers"
  for name in "${names[@]}"; do
    grep -qw -- "$name" "$1/cgroup.subtree_control" ||
      { echo "+$name" >"$1/cgroup.subtree_control"; } 2>/dev/null || true
  done
}

# The calling shell, and all it starts, joins the cluster: it then also leaves
# the limits, and the end, of the session that called.
join_cgroup() {
  local root
  while read -r root; do
    { echo "$BASHPID" >"$root/$instance/run/cgroup.procs"; } 2>/dev/null || true
  done < <(cgroup_roots)
  grep -q "/$instance/run\$" "/proc/$BASHPID/cgroup" || die "cannot join the control group $instance/run"
}

cgroup_members() {
  local root
  while read -r root; do
    [[ -d $root/$instance ]] || continue
    # Groups vanish while they are read.
    find "$root/$instance" -name cgroup.procs -exec cat {} + 2>/dev/null || true
  done < <(cgroup_roots) | sort -un
}

# Ends all members, until none is left; new ones may be born meanwhile.
kill_members() {
  local deadline=$(($(now_ms) + 20000)) members
  while :; do
    members=$(cgroup_members)
    [[ -n $members ]] || return 0
    [[ $(now_ms) -lt $deadline ]] || {
      say "processes that do not end: ${members//$'\n'/ }"
      return 1
    }
    # shellcheck disable=SC2086 # one pid a word
    kill -KILL $members 2>/dev/null || true
    sleep 0.05
  done
}

remove_cgroups() {
  local root left=0
  while read -r root; do
    [[ -d $root/$instance ]] || continue
    # The kernel lets a group go a moment after its last process.
    await 5 remove_cgroup "$root/$instance" || {
      say "control group stays: $root/$instance"
      left=1
    }
  done < <(cgroup_roots)
  return "$left"
}

remove_cgroup() {
  find "$1" -depth -type d -exec rmdir {} + 2>/dev/null || true
  [[ ! -d $1 ]]
}
