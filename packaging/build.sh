#!/bin/sh
# Builds edgepose as a Debian package: sh packaging/build.sh SUITE ARCH OUT
# A virtual environment is three things: pyvenv.cfg, bin/python3 -> /usr/bin/python3, and
# site-packages. None of them needs the processor of the target, so nothing is emulated, compiled or
# fetched when the package is installed. The wheels are those of SUITE.txt, with their hashes.
set -eu
suite=$1 arch=$2 out=$3
HERE=$(cd "$(dirname "$0")" && pwd)
CHECKOUT=$(dirname "$HERE")
PYTHON=${PYTHON:-python3}
SYSTEMD=$CHECKOUT/systemd

fail() { echo "edgepose: $*" >&2; exit 1; }

case $suite in
  bookworm) py=3.11 next=3.12 ;;
  trixie) py=3.13 next=3.14 ;;
  *) fail "expected SUITE=bookworm or trixie, got '$suite'" ;;
esac
case $arch in
  amd64) platform=x86_64 ;;
  arm64) platform=aarch64 ;;
  *) fail "expected ARCH=amd64 or arm64, got '$arch'" ;;
esac
for tool in dpkg-deb zstd; do
  command -v $tool >/dev/null || [ $tool = zstd ] || fail "$tool is missing; apt install dpkg"
done

version=${VERSION:-$(sed -n 's/^version = "\(.*\)"/\1/p' "$CHECKOUT/pyproject.toml")}
# The same checkout gives the same package.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$CHECKOUT" log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
lib=$root/usr/lib/edgepose
site=$lib/lib/python$py/site-packages
doc=$root/usr/share/doc/edgepose
mkdir -p "$site" "$lib/bin" "$root/usr/bin" "$root/DEBIAN" "$doc/licences" "$root/etc/edgepose"
chmod 755 "$work" "$root"

pip() { "$PYTHON" -m pip "$@"; }

put_packages() {
  pip wheel -q --no-deps --wheel-dir "$work/wheel" "$CHECKOUT"
  for tag in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014; do
    set -- "$@" --platform "${tag}_$platform"
  done
  # The lock was made for that Python; pip compares with the one it runs on.
  pip install -q --no-deps --no-compile --only-binary :all: --require-hashes \
    --ignore-requires-python --target "$site" \
    --python-version $py --implementation cp --abi cp$(echo $py | tr -d .) --abi abi3 --abi none \
    "$@" -r "$HERE/$suite.txt"
  pip install -q --no-deps --no-compile --no-index --target "$site" "$work"/wheel/*.whl
  rm -rf "$site/bin"
  find "$site" -name __pycache__ -type d -prune -exec rm -rf {} +
  # What edgepose would only carry along: tests, headers, compilers, and accelerators of phones.
  find "$site" -type d \( -name tests -o -name _tests -o -name include \) -prune \
    -exec rm -rf {} +
  (cd "$site" && rm -rf ai_edge_litert/libLiteRtWebGpuAccelerator.so ai_edge_litert/vendors \
    ai_edge_litert/aot ai_edge_litert/tools cv2/data cv2/misc)
}

put_venv() {
  printf 'home = /usr/bin\ninclude-system-site-packages = true\nversion = %s\n' $py \
    >"$lib/pyvenv.cfg"
  ln -s "/usr/bin/python$py" "$lib/bin/python3"
  cat >"$lib/bin/edgepose" <<SCRIPT
#!/usr/lib/edgepose/bin/python3 -I
from edgepose.__main__ import main
raise SystemExit(main())
SCRIPT
  chmod 755 "$lib/bin/edgepose"
  ln -s ../lib/edgepose/bin/edgepose "$root/usr/bin/edgepose"
}

put_service() {
  install -D -m 644 "$SYSTEMD/60-edgepose.rules" "$root/usr/lib/udev/rules.d/60-edgepose.rules"
  install -D -m 644 "$SYSTEMD/sysusers.conf" "$root/usr/lib/sysusers.d/edgepose.conf"
  for unit in edgepose edgepose@; do
    folder=$root/usr/lib/systemd/system
    install -D -m 644 "$SYSTEMD/sandbox.conf" "$folder/$unit.service.d/sandbox.conf"
    sed 's#/opt/edgepose/bin#/usr/lib/edgepose/bin#' "$SYSTEMD/$unit.service" \
      >"$folder/$unit.service"
  done
  sed 's#/opt/edgepose/manual.yaml#/usr/share/doc/edgepose/manual.yaml#' "$SYSTEMD/config.yaml" \
    >"$root/etc/edgepose/config.yaml"
}

# Each bundled package, and the libraries inside its wheel, with their licences as they came.
put_documents() {
  cp "$CHECKOUT/config.yaml" "$doc/manual.yaml"
  cp "$CHECKOUT/CHANGELOG.md" "$doc/changelog.md"
  {
    echo "edgepose: Apache-2.0, see /usr/share/common-licenses/Apache-2.0."
    echo "The packages below are bundled in /usr/lib/edgepose; the texts of their licences, and of"
    echo "the libraries in their binaries, are in /usr/share/doc/edgepose/licences."
    echo
    for info in "$site"/*.dist-info; do
      sed -n -e '/^$/q' -e 's/^Name: //p' -e 's/^Version: //p' -e 's/^License: //p' \
        -e 's/^License-Expression: //p' "$info/METADATA" | cut -c1-80 | paste -sd' '
      name=$(basename "$info" .dist-info)
      find "$info" -type f \( -iname '*licen[cs]e*' -o -iname 'notice*' -o -iname 'copying*' \
        -o -iname 'authors*' \) | while read -r file; do
        install -D -m 644 "$file" "$doc/licences/$name/$(basename "$file")"
      done
    done
  } >"$doc/copyright"
  find "$site" -maxdepth 2 -iname 'LICENSE*' -path '*cv2*' -type f \
    -exec install -D -m 644 {} "$doc/licences/cv2/" \; 2>/dev/null || true
}

put_control() {
  for script in preinst postinst prerm postrm; do
    sed "s/@PYTHON@/python$py/g" "$HERE/debian/$script" >"$root/DEBIAN/$script"
    chmod 755 "$root/DEBIAN/$script"
  done
  echo /etc/edgepose/config.yaml >"$root/DEBIAN/conffiles"
  sed -e "s/@VERSION@/$version~$suite/" -e "s/@ARCH@/$arch/" -e "s/@PYTHON@/$py/" \
    -e "s/@NEXT@/$next/" -e "s/@SIZE@/$(du -sk "$root/usr" | cut -f1)/" \
    "$HERE/debian/control" >"$root/DEBIAN/control"
}

put_packages
put_venv
put_service
put_documents
put_control
find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
mkdir -p "$out"
package=$out/edgepose_$version~${suite}_$arch.deb
dpkg-deb --root-owner-group -Zxz -z"${LEVEL:-6}" --build "$root" "$package" >/dev/null
echo "$package: $(($(stat -c %s "$package") / 1000000)) MB, $(du -sm "$root/usr" | cut -f1) MB installed"
