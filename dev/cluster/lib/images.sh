# shellcheck shell=bash
# Builds images from Containerfiles, without a container engine or a network.
# buildah's storage is under target/dev; nothing may be left in /var/lib.

images_dir=$checkout/target/dev/images

# The archive that holds an image.
archive_of() {
  local file=${1//[^a-zA-Z0-9.]/-}
  echo "$images_dir/$file.tar"
}

# build_image NAME CONTEXT [CONTAINERFILE]: skipped when nothing changed that
# goes in: every file's path, mode and content.
build_image() {
  local name=$1 context=$2 containerfile=${3:-$2/Containerfile} archive inputs
  archive=$(archive_of "$name")
  [[ -d $context && -r $containerfile ]] || die "image $name: no $containerfile"
  inputs=$(image_inputs "$name" "$context" "$containerfile")
  if ! baked "$archive" "$inputs"; then (
    lock_builds
    ! baked "$archive" "$inputs" || exit 0
    say "building image $name"
    mkdir -p "$images_dir"
    rm -f "$archive.inputs" "$images_dir/new.tar"
    bake "$name" "$context" "$containerfile"
    mv "$images_dir/new.tar" "$archive"
    echo "$inputs" >"$archive.inputs"
  ); fi
}

baked() { [[ -e $1 && $(cat "$1.inputs" 2>/dev/null) == "$2" ]]; }

image_inputs() {
  {
    echo "$1"
    sha256sum <"$3"
    cd "$2" || exit
    find . -mindepth 1 ! -type f -printf '%P %m %l\n' | LC_ALL=C sort
    find . -type f -printf '%P %m\n' | LC_ALL=C sort
    find . -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum
  } | sha256sum | cut -d' ' -f1
}

# In namespaces of its own, without a network, that go when it ends, with all
# it mounted. /run and /var/lib are covered: buildah keeps locks and caches
# there. The fixed time makes the same inputs the same image.
bake() {
  local storage=$checkout/target/dev/buildah log=$images_dir/build.log rc=0
  rm -rf --one-file-system "$storage"
  mkdir -p "$storage/tmp"
  # shellcheck disable=SC2016 # expanded by the inner shell
  timeout 900 unshare --mount --net --pid --fork --mount-proc --kill-child --propagation private bash -euc '
    mount -n -t tmpfs tmpfs /run
    mkdir /run/storage /run/context /run/out
    mount -n --bind "$1" /run/storage
    mount -n --bind "$3" /run/context
    mount -n --bind "$5" /run/out
    cp "$4" /run/Containerfile
    mount -n -t tmpfs tmpfs /var/lib
    export TMPDIR=/run/storage/tmp HOME=/run/storage/tmp XDG_RUNTIME_DIR=/run
    buildah() { command buildah --root /run/storage/root --runroot /run/buildah --storage-driver vfs "$@"; }
    buildah bud --isolation chroot --layers=false --pull-never --timestamp 0 --format oci \
      -t "$2" -f /run/Containerfile /run/context
    buildah push -q "$2" "oci-archive:/run/out/new.tar:$2"
  ' bake "$storage" "$1" "$(realpath "$2")" "$(realpath "$3")" "$images_dir" >"$log" 2>&1 </dev/null 8>&- 9>&- || rc=$?
  rm -rf --one-file-system "$storage"
  if [[ $rc -ne 0 ]]; then
    tail -n 25 "$log" >&2
    die "building image $1 failed ($rc); see $log"
  fi
}

# The cluster's own images: name of the folder in images/, and of the image.
own_images() {
  echo pause wharf.test/pause:1
  echo busybox wharf.test/busybox:1
  local name
  for name in coredns local-path-provisioner; do
    echo "$name wharf.test/$name:$(version_of "$name" | tr -d v)"
  done
  echo "registry wharf.test/distribution:$(version_of registry | tr -d v)"
}

own_archives() {
  local folder name
  own_images | while read -r folder name; do
    archive_of "$name"
  done
}

# Their contexts are the folder plus the program, which is linked, not copied.
build_own_images() {
  local folder name context busybox
  busybox=$(static_busybox)
  while read -r folder name; do
    context=$checkout/target/dev/context/$folder
    rm -rf "$context"
    mkdir -p "$context"
    cp -p "$cluster_dir/images/$folder"/* "$context/"
    case $folder in
    pause | busybox) cp -p "$busybox" "$context/busybox" ;;
    *) ln "$bin_dir/$folder" "$context/$folder" ;;
    esac
    build_image "$name" "$context"
  done < <(own_images)
}
