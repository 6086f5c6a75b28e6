# shellcheck shell=bash
# Ends and removes what the cluster of this checkout has left anywhere, also
# after its own records are gone. It must only ever reach what is recorded by
# pid and starting time, what is in the instance's own control groups, and the
# state folder.

sweep() {
  local record left=0
  # Keepers first: the kernel takes down all in their places with them.
  for record in "$state"/places/* "$state"/pids/*; do
    if alive "$record"; then
      kill -KILL "$(recorded_pid "$record")" 2>/dev/null || true
    fi
  done
  kill_members || left=1
  remove_cgroups || left=1
  remove_state || left=1
  return "$left"
}

# Keeps the logs, and the port, so that a kubeconfig stays good.
remove_state() {
  [[ -d $state ]] || return 0
  # All mounts were made in places that are gone by now. If one is seen out
  # here after all, deleting through it would be worse than leaving it.
  # The kernel writes a space in a path as \\040.
  if grep -qF " ${state// /\\040}/" /proc/self/mountinfo; then
    say "still mounted below $state; nothing deleted"
    return 1
  fi
  find "$state" -mindepth 1 -maxdepth 1 ! -name logs ! -name port -exec rm -rf --one-file-system {} +
}
