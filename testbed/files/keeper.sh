#!/bin/sh
# Keeps one test host running: joins its control groups, starts it, and starts it again after a reboot inside
# (with --keep-unit systemd-nspawn then ends with status 133). Ends when the host is powered off.
# Usage: keeper.sh HOST_DIR NAME MACHINE BRIDGE
set -u
dir=$1 name=$2 machine=$3 bridge=$4
exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-
while read -r group; do
    echo $$ > "$group/cgroup.procs" || exit 1
done < "$dir/cgroups"
echo $$ > "$dir/keeper.pid"
status=133
while [ $status -eq 133 ]; do
    systemd-nspawn --quiet --boot --directory="$dir/root" --machine="$machine" --hostname="$name" \
        --register=no --keep-unit --network-bridge="$bridge" --capability=all \
        --system-call-filter="@keyring bpf" --bind=/dev/kmsg --resolv-conf=off --timezone=off --link-journal=no
    status=$?
    echo "ended with status $status"
done
