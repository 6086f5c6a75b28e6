# shellcheck shell=bash
# Finds the programs of the distribution that the cluster needs, and has them
# installed where that is possible. It must never replace what is installed:
# a program that is there, in any version, is taken as it is.

# missing_packages: one Debian package a line.
missing_packages() {
  local entry
  for entry in runc:runc containerd:containerd ip:iproute2 iptables:iptables \
    openssl:openssl flock:util-linux buildah:buildah skopeo:skopeo; do
    command -v "${entry%%:*}" >/dev/null || echo "${entry#*:}"
  done
  [[ -x /usr/lib/cni/ptp ]] || echo containernetworking-plugins
  # The static build is wanted, not whatever busybox is there: images are made of it.
  static_busybox >/dev/null || echo busybox-static
}

static_busybox() {
  local path
  for path in /bin/busybox /usr/bin/busybox; do
    # A static program needs no libraries.
    if [[ -x $path && $(ldd "$path" 2>/dev/null) != *'=>'* ]]; then
      echo "$path"
      return
    fi
  done
  return 1
}

need_packages() {
  local missing
  PATH=$PATH:/usr/sbin:/sbin
  mapfile -t missing < <(missing_packages)
  [[ ${#missing[@]} -eq 0 ]] || install_packages "${missing[@]}"
}

# install_packages PACKAGE...
install_packages() {
  local command=(apt-get install -y --no-install-recommends "$@")
  if [[ $EUID -ne 0 || ! -e /etc/debian_version ]]; then
    unable "missing packages; on Debian: ${command[*]}"
  fi
  say "installing Debian packages: $*"
  if ! DEBIAN_FRONTEND=noninteractive timeout 900 "${command[@]}" >&2; then
    say "once more, with fresh package lists"
    timeout 300 apt-get update >&2 || unable "apt-get update failed"
    DEBIAN_FRONTEND=noninteractive timeout 900 "${command[@]}" >&2 || unable "failed: ${command[*]}"
  fi
}

need_go() {
  PATH=$PATH:/usr/local/go/bin
  command -v go >/dev/null || unable "needs Go (https://go.dev/dl), 1.26 or newer"
}
