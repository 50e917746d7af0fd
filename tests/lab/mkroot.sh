#!/bin/sh
# mkroot.sh SUITE [PACKAGE...] -- make (once) a clean Debian system to boot, and print its path.
#
# Root needed. Debian packages needed: mmdebstrap (with the archive's keyring). The result is a plain
# directory in $LAB_CACHE, named by a hash of what went into it, so that another list of packages
# makes another one; nodes only ever read it. It is made anew when older than $LAB_MAX_AGE days.
set -eu
suite=$1
shift
cache=${LAB_CACHE:-/var/cache/glorytun-lab}
# The archive that this host's own apt uses, unless told otherwise; it says none before it has lists.
# shellcheck disable=SC2016  # apt's variables, not the shell's
mirror=${LAB_MIRROR:-$(apt-get indextargets --format '$(LABEL)|$(REPO_URI)' 'Created-By: Packages' |
    sed -n 's/^Debian|//p' | head -n 1)}
mirror=${mirror:-http://deb.debian.org/debian}
# And its way there: proxies, certificates.
access=$(apt-config dump Acquire::http Acquire::https)

# usr-is-merged (with the hook below) spares usrmerge, and all of perl with it.
packages="usr-is-merged systemd systemd-sysv dbus udev iproute2 iputils-ping python3 $*"
# shellcheck disable=SC2086  # one word a package
key=$(printf '%s\n' "$suite" "$mirror" $packages | sort | cat - "$0" | sha256sum | cut -c1-12)
root=$cache/$suite-$key
mkdir -p "$cache"
exec 9> "$root.lock"
flock 9
if [ -e "$root/.made" ] && [ -n "$(find "$root/.made" -mtime "-${LAB_MAX_AGE:-30}")" ]; then
    echo "$root"
    exit 0
fi
rm -rf "$root" "$root.new"
trap 'rm -rf "$root.new"' EXIT

# Debian 12 needs the hook for a merged /usr; from Debian 13 on there is none and no need.
hook=/usr/share/mmdebstrap/hooks/maybe-merged-usr
if [ -d "$hook" ]; then hook=--hook-dir=$hook; else hook=--verbose; fi

# At the end, in the new system ($1): mmdebstrap leaves the host's name, which PID 1 would take, and
# its name servers, which no node can reach; an empty machine-id gives each boot its own, where
# "uninitialized" would make it a first boot with presets; networkd runs, and what only takes time
# doesn't. networkd's wait-online could hang a boot.
# shellcheck disable=SC2016  # a script for later
customize='
rm -f "$1/etc/hostname" "$1/etc/resolv.conf"
: > "$1/etc/machine-id"
chroot "$1" systemctl --quiet enable systemd-networkd
chroot "$1" systemctl --quiet mask systemd-networkd-wait-online apt-daily.timer \
    apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
    e2scrub_reap.service console-getty.service getty.target
'
mmdebstrap --quiet --variant=minbase --mode=root --format=directory "$hook" \
    --include="$(echo "$packages" | tr ' ' ,)" \
    --aptopt="Acquire::Retries \"3\"; $access" --aptopt='Acquire::Languages "none"' \
    --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt=force-unsafe-io \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --customize-hook="$customize" \
    "$suite" "$root.new" "$mirror" >&2
touch "$root.new/.made"
mv "$root.new" "$root"
echo "$root"
