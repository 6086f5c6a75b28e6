# shellcheck shell=bash
# What the commands that use running nodes need, in the right order. Reading
# this must change nothing.

. "$cluster_dir/lib/cgroups.sh"
. "$cluster_dir/lib/places.sh"
. "$cluster_dir/lib/certs.sh"
. "$cluster_dir/lib/node.sh"
