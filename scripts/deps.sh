#!/bin/sh
# Installs what is missing and nothing else: deps.sh build [tools] [demo] [neon].
# On Debian and Ubuntu through apt-get (with sudo only when needed), on macOS
# through brew. Silent and quick when everything is there.
set -eu

debian_build="gcc make cmake pkg-config libjansson-dev libyaml-dev libpng-dev libpcre2-dev libutf8proc-dev libsqlite3-dev libpq-dev
              libxml2-dev libarchive-dev libedit-dev libssl-dev libcurl4-openssl-dev libcmocka-dev
              libjpeg-dev libsndfile1-dev libsamplerate0-dev poppler-utils"
debian_tools="clang libclang-rt-14-dev clang-tidy clang-format cppcheck"
debian_demo="python3-pip unzip"
debian_neon="gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user libjansson-dev:arm64 libcmocka-dev:arm64"
brew_build="cmake pkg-config jansson libyaml libpng pcre2 utf8proc sqlite libxml2 libarchive libedit openssl@3 curl cmocka jpeg-turbo libsndfile libsamplerate poppler"
brew_tools="llvm cppcheck"
brew_demo="python3"
brew_neon=

wanted() {
    for group in "$@"; do eval "echo \$$group"; done
}

if command -v apt-get > /dev/null; then
    missing=
    for package in $(for set in "$@"; do wanted "debian_$set"; done); do
        dpkg-query -W -f='${Status}' "$package" 2> /dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || exit 0
    echo "Installing:$missing"
    sudo=
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo > /dev/null || { echo "Run this as root: apt-get install$missing" >&2; exit 1; }
        sudo=sudo
    fi
    case "$missing" in *:arm64*)
        grep -qx 'ID=debian' /etc/os-release || { echo "Libraries for arm64 come from Debian's archive; this is another system's." >&2; exit 1; }
        $sudo dpkg --add-architecture arm64 ;;
    esac
    export DEBIAN_FRONTEND=noninteractive
    $sudo apt-get update -qq
    # shellcheck disable=SC2086
    $sudo apt-get install -y -qq --no-install-recommends $missing > /dev/null
elif command -v brew > /dev/null; then
    for package in $(for set in "$@"; do wanted "brew_$set"; done); do
        brew list "$package" > /dev/null 2>&1 || brew install "$package"
    done
else
    echo "Neither apt-get nor brew is here. Install these libraries yourself: $brew_build" >&2
    exit 1
fi
