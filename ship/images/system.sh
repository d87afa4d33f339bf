#!/bin/sh
# The part of an image below the Python packages. `tidy`: only what follows any apt-get.
set -eu

tidy() {
    apt-get clean
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/debconf/*-old /var/log/*.log /var/log/apt
    # Nothing in a sandbox becomes somebody else.
    find / -xdev -type f -perm /6000 -exec chmod a-s {} +
}

if [ "${1-}" = tidy ]; then tidy; exit; fi

mkdir -p /etc/dpkg/dpkg.cfg.d
printf 'path-exclude=/usr/share/%s/*\n' doc info locale man >/etc/dpkg/dpkg.cfg.d/bay

extra_ca=
for file in /usr/local/share/ca-certificates/bay/*.crt; do
    if [ -e "$file" ]; then extra_ca=yes; fi
done
# Before anything is fetched through whoever signs with them.
# An image that has no certificates has no such command either: it fetches them below, by plain HTTP.
if [ -n "$extra_ca" ] && command -v update-ca-certificates >/dev/null; then update-ca-certificates >/dev/null; fi

if [ ! -x /usr/local/bin/python3 ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    apt-get -qq install --yes --no-install-recommends ca-certificates python3 python3-venv
    # Packages in the same place as in a Python image, apart from the system's own. With the system's, so that
    # `pip install` of a user who may not write there still installs into the home directory.
    python3 -m venv --system-site-packages /usr/local
fi

if [ -n "$extra_ca" ]; then
    # pip, curl, git and Python's ssl go by the system's certificates; requests brings its own unless told.
    printf '%s\n' "import os; os.environ.setdefault('REQUESTS_CA_BUNDLE', '/etc/ssl/certs/ca-certificates.crt')" \
        >"$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/bay-ca.pth"
fi

# Whom Ship runs code as, by name. In some images the number is somebody else's.
sed -i -e '/^[^:]*:[^:]*:1000:/d' -e '/^shipyard:/d' /etc/passwd /etc/group
echo 'shipyard:x:1000:1000::/workspace:/bin/bash' >>/etc/passwd
echo 'shipyard:x:1000:' >>/etc/group
mkdir -p /workspace
chown 1000:1000 /workspace

sh /usr/local/share/bay/compile.sh stdlib
tidy
