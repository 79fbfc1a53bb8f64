# Sourced by quickstart and check: installs the Debian packages that are missing, after saying which.
# Usage: need_packages PACKAGE...
say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$*"; exit 1; }

need_packages() {
    command -v apt-get >/dev/null || die "no apt-get here: install these by hand: $*"
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    local root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || die "packages are missing and there is no sudo: run as root: apt-get install ${missing[*]}"
        root=(sudo)
    fi
    say "installing with apt: ${missing[*]}"
    "${root[@]}" apt-get update -qq || die "apt-get update failed: check the network and /etc/apt"
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" \
        >/dev/null || die "apt-get install failed: run it by hand to see why: apt-get install ${missing[*]}"
}

build_packages=(gcc libc6-dev meson ninja-build pkg-config python3 python3-pip ca-certificates
    libcurl4-openssl-dev libcjson-dev libsqlite3-dev libsodium-dev libseccomp-dev libpcre2-dev libxml2-dev
    libmpfr-dev libgmp-dev libzstd-dev libxxhash-dev)
test_packages=(libcmocka-dev clang libclang-rt-14-dev zstd bubblewrap)
