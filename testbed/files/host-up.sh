#!/bin/sh
# Runs early at each boot of a test host: its link (nothing else manages it) and its control groups.
set -eu
. /etc/testbed/net
ip link set lo up
ip address replace "$ADDRESS" dev host0
ip link set host0 up
ip route replace default via "$GATEWAY"
while read -r net via; do ip route replace "$net" via "$via"; done < /etc/testbed/routes
echo 1 > /proc/sys/net/ipv4/ip_forward
mount --make-rshared /
# systemd-nspawn mounts the controllers of cgroup v1 read-only; containers need groups of their own
for group in /sys/fs/cgroup/*/; do
    [ "$group" = /sys/fs/cgroup/systemd/ ] || mount -o remount,bind,rw "$group" 2>/dev/null || true
done
