#!/bin/sh
# Installs the Debian packages that demo, tests and benchmarks need, and only those that are missing.
set -eu

missing=""
need() { # need PACKAGE TEST...: the package is missing if the test fails
	package=$1
	shift
	"$@" >/dev/null 2>&1 || missing="$missing $package"
}

need python3 test -x /usr/bin/python3
need python3-venv /usr/bin/python3 -c 'import ensurepip, venv'
need python3-pip /usr/bin/python3 -m pip --version
need nodejs sh -c 'test -x /usr/bin/node || command -v node'
need e2fsprogs sh -c 'PATH=$PATH:/sbin:/usr/sbin command -v mke2fs'
need gcc command -v gcc # for the race detector
need libc6-dev test -e /usr/include/stdio.h
need zip command -v zip
need ca-certificates test -e /etc/ssl/certs/ca-certificates.crt

[ -z "$missing" ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	echo "install these packages first:$missing" >&2
	exit 1
fi
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # one word per package
apt-get install -y -qq --no-install-recommends $missing >/dev/null
