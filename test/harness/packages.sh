#!/usr/bin/env bash
# Installs the Debian packages that are missing: as root, or through sudo where that asks for no
# password. Otherwise prints the one line to run and fails. What is there already is judged by what
# it can do, not by its package name, so a JDK or a compiler of your own is fine.
set -euo pipefail

missing=()
need() { # need PACKAGE TEST...
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}
header() { test -e "/usr/include/$1" || test -e "/usr/local/include/$1"; }

bindir=/usr/lib/postgresql/15/bin
need ca-certificates test -e /etc/ssl/certs/ca-certificates.crt
need make command -v make
need g++ command -v g++
if [ -z "${PG_CONFIG:-}" ]; then # with PG_CONFIG, the PostgreSQL is the caller's business
    need postgresql-15 test -x $bindir/postgres
    need postgresql-server-dev-15 test -e /usr/include/postgresql/15/server/postgres.h
fi
need librdkafka-dev header librdkafka/rdkafka.h
need rapidjson-dev header rapidjson/rapidjson.h
need libgtest-dev header gtest/gtest.h
need clang-format-14 command -v clang-format-14
need openjdk-17-jre-headless command -v java
need maven command -v mvn
need python3-venv "${PYTHON:-/usr/bin/python3}" -c 'import venv, ensurepip'
need libipc-run-perl perl -MIPC::Run -e 1
[ ${#missing[@]} -eq 0 ] && exit 0

install_line="apt-get install -y --no-install-recommends ${missing[*]}"
echo "== Missing Debian packages: ${missing[*]}"
if [ "$(id -u)" = 0 ]; then
    as_root=()
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root=(sudo -n)
else
    as_root=(false)
fi
if ! command -v apt-get >/dev/null || [ "${as_root[*]:-}" = false ]; then
    printf 'Please install them and try again. On Debian 12, as root:\n\n    %s\n\n' "$install_line" >&2
    exit 1
fi

# Debian's server package makes and starts a cluster "main" when first installed. Nobody asked for
# one, so it is told not to, for this installation only; clusters that exist are never touched.
"${as_root[@]}" bash -euo pipefail -c '
    export DEBIAN_FRONTEND=noninteractive
    directory=/etc/postgresql-common/createcluster.d
    dropin=$directory/pulse-no-main-cluster.conf
    had_directory=$(test -d $directory && echo yes || true)
    undo() { rm -f $dropin; }
    trap undo EXIT
    mkdir -p $directory
    echo "create_main_cluster = false" >$dropin
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null
' packages "${missing[@]}"
