#!/bin/bash
# Makes a small Debian and writes it to standard output as a tar archive, for `docker import`: the base of the images
# where no registry can be reached. Needs root and debootstrap; `cargo xtask images` runs it in namespaces of its own, so
# that whatever debootstrap mounted or started ends with it.
set -euo pipefail
# The release that python:3.13-slim is made of, too.
suite=trixie

root=$(mktemp -d "${TMPDIR:-/tmp}/bay-base.XXXXXX")
trap 'umount -l "$root" || true; rmdir -- "$root"' EXIT
# In memory, in the mount namespace of this script: whoever kills it leaves an empty folder, not half of a Debian.
mount -t tmpfs -o mode=755,size=2g tmpfs "$root"

debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" >&2

# debootstrap knows the release as it came out; updates and security fixes are beside it.
read -r _ mirror _ <"$root/etc/apt/sources.list"
cat >"$root/etc/apt/sources.list" <<END
deb $mirror $suite main
deb $mirror $suite-updates main
deb $mirror-security $suite-security main
END
# What a container has no use for; the Dockerfile keeps it out of later layers.
mkdir -p "$root/etc/dpkg/dpkg.cfg.d"
printf 'path-exclude=/usr/share/%s/*\n' doc info locale man >"$root/etc/dpkg/dpkg.cfg.d/bay"
export DEBIAN_FRONTEND=noninteractive
chroot "$root" apt-get --quiet --quiet update >&2
chroot "$root" apt-get --quiet --quiet --yes upgrade >&2
chroot "$root" apt-get clean >&2
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/{apt,debconf}/* "$root"/var/log/*.log "$root"/var/log/apt
rm -rf "$root"/usr/share/{doc,info,locale,man}/*
# Nothing in a sandbox becomes somebody else.
find "$root" -xdev -type f -perm /6000 -exec chmod a-s {} +

tar --directory "$root" --numeric-owner --sort=name --create .
