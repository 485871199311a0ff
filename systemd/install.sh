#!/bin/sh
# Installs edgepose as a system service from this checkout, or removes it again:
#   sh systemd/install.sh install     (`make install`; once more is an upgrade)
#   sh systemd/install.sh uninstall   (`make uninstall`)
# As root. With DESTDIR set, only files are put under that folder: nothing is started, no user is
# made, and the virtual environment is left out, since it holds its own path.
set -eu
umask 022

HERE=$(cd "$(dirname "$0")" && pwd)
DESTDIR=${DESTDIR:-}
PYTHON=${PYTHON:-/usr/bin/python3}
BOARD=${BOARD:-/proc/device-tree/model}

# systemd's and udev's folders for what no package manager put there.
LIB=/usr/local/lib
UNITS=$LIB/systemd/system
RULES=$LIB/udev/rules.d/60-edgepose.rules
SYSUSERS=$LIB/sysusers.d/edgepose.conf
PROGRAM=/opt/edgepose
LINK=/usr/local/bin/edgepose
CONFIG=/etc/edgepose
STATE=/var/lib/edgepose
PASSWORD=/etc/credstore/edgepose.mqtt-password

say() { echo "== $*"; }
fail() { echo "edgepose: $*" >&2; exit 1; }

# $1: where in the system, $2: which file of this folder
put() {
  install -D -m 644 "$HERE/$2" "$DESTDIR$1"
}

apt_install() {
  say "installing Debian's $1"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q && apt-get install -y -q --no-install-recommends "$1"
}

has_systemd() { [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; }

need_root() {
  [ -n "$DESTDIR" ] || [ "$(id -u)" = 0 ] || fail "this changes the system; run it with sudo"
}

check_python() {
  command -v "$PYTHON" >/dev/null || apt_install python3
  "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "expected Python 3.11 or newer (Debian or Raspberry Pi OS from Bookworm on)," \
      "$PYTHON is $("$PYTHON" -V)"
  "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv ||
    fail "python3-venv could not be installed; see what apt says above"
}

see_to_picamera2() {
  "$PYTHON" -c 'import importlib.util as u; raise SystemExit(u.find_spec("picamera2") is None)' &&
    return
  grep -qs "Raspberry Pi" "$BOARD" || return 0
  apt_install python3-picamera2 ||
    say "picamera2 is not to be had here, and without it no camera of the Pi can be used (USB" \
      "and network cameras can). On Raspberry Pi OS, this gets it:" \
      "sudo apt install python3-picamera2, then sudo systemctl restart edgepose"
}

# A virtual environment belongs to one Python version and sees picamera2 only if it was told to.
venv_fits() {
  grep -qs 'include-system-site-packages = true' "$PROGRAM/pyvenv.cfg" &&
    [ "$("$PROGRAM/bin/python" -c "$1" 2>/dev/null)" = "$("$PYTHON" -c "$1")" ]
}

put_program() {
  if ! venv_fits 'import sys; print(sys.version_info[:2])'; then
    say "making a virtual environment in $PROGRAM"
    "$PYTHON" -m venv --clear --system-site-packages "$PROGRAM"
  fi
  say "installing edgepose and the Python packages it needs into $PROGRAM (takes a while)"
  "$PROGRAM/bin/python" -m pip install --quiet --upgrade "$HERE/.." ||
    fail "pip could not install edgepose; see what it says above"
  if [ -e "$LINK" ] && [ ! -L "$LINK" ]; then
    say "$LINK is a file of somebody else's and stays; the command is $PROGRAM/bin/edgepose"
  else
    ln -sfn "$PROGRAM/bin/edgepose" "$LINK"
  fi
}

put_files() {
  say "putting the service, its template, the udev rules and the system user under $LIB"
  put "$UNITS/edgepose.service" edgepose.service
  put "$UNITS/edgepose@.service" edgepose@.service
  put "$UNITS/edgepose.service.d/sandbox.conf" sandbox.conf
  put "$UNITS/edgepose@.service.d/sandbox.conf" sandbox.conf
  put "$RULES" 60-edgepose.rules
  put "$SYSUSERS" sysusers.conf
  put "$PROGRAM/manual.yaml" ../config.yaml
}

put_config() {
  if [ -e "$DESTDIR$CONFIG/config.yaml" ]; then
    say "keeping $CONFIG/config.yaml"
    return
  fi
  say "putting a configuration that changes nothing yet at $CONFIG/config.yaml"
  put "$CONFIG/config.yaml" config.yaml
  [ -n "$DESTDIR" ] || {
    # The address of a network camera has its password in it.
    chgrp edgepose "$CONFIG/config.yaml"
    chmod 640 "$CONFIG/config.yaml"
  }
}

make_user() {
  say "making the system user edgepose, unless there is one"
  systemd-sysusers "$SYSUSERS"
  # Owned rightly from the start: systemd would otherwise give away the models of root as well.
  install -d -m 755 -o edgepose -g edgepose "$STATE"
  install -d -m 755 -o root -g root "$STATE/models"
  [ -d "${PASSWORD%/*}" ] || install -d -m 700 "${PASSWORD%/*}"
}

reload_udev() {
  [ -S /run/udev/control ] || return 0
  udevadm control --reload
  udevadm trigger --subsystem-match=usb --subsystem-match=apex --subsystem-match=dma_heap
}

# What is missing, such as a camera, shows only a moment after the start.
say_how_it_goes() {
  sleep 3
  if systemctl is-active --quiet edgepose.service; then
    say "edgepose runs, and says so far:"
  else
    say "edgepose is installed but does not run yet. It says:"
  fi
  journalctl -u edgepose.service --since "$1" -n 8 -o cat --no-pager SYSLOG_IDENTIFIER=edgepose ||
    true
  say "more of it: journalctl -fu edgepose. A camera or an Edge TPU that is missing is tried again" \
    "by itself; a mistake in $CONFIG/config.yaml is yours to correct, and then:" \
    "sudo systemctl restart edgepose"
}

start() {
  systemctl daemon-reload
  if [ "$1" = first ]; then
    say "starting the service, now and at every boot"
    systemctl enable --quiet edgepose.service
  else
    say "restarting what runs"
  fi
  systemctl try-restart 'edgepose@*.service' ||
    say "some of the edgepose@ services do not run; journalctl -u 'edgepose@*' says why"
  if ! systemctl is-enabled --quiet edgepose.service; then
    systemctl try-restart edgepose.service || true
    say "edgepose.service is not enabled and stays so (sudo systemctl enable --now edgepose)"
  else
    now=$(date '+%Y-%m-%d %H:%M:%S')
    systemctl restart edgepose.service 2>/dev/null || true
    say_how_it_goes "$now"
  fi
}

install_all() {
  need_root
  upgrade=first
  [ ! -e "$DESTDIR$UNITS/edgepose.service" ] || upgrade=again
  if [ -z "$DESTDIR" ]; then
    check_python
    see_to_picamera2
    put_program
  fi
  put_files
  [ -n "$DESTDIR" ] || make_user
  put_config
  [ -n "$DESTDIR" ] || reload_udev
  if has_systemd; then
    start "$upgrade"
  elif [ -z "$DESTDIR" ]; then
    say "systemd does not run here, so nothing was started"
  fi
}

uninstall_all() {
  need_root
  if has_systemd; then
    say "stopping edgepose"
    systemctl disable --quiet --now edgepose.service 2>/dev/null || true
    systemctl stop 'edgepose@*.service'
    systemctl disable --quiet edgepose@.service 2>/dev/null || true
  fi
  say "removing the program, its services, udev rules and command"
  [ "$(readlink "$DESTDIR$LINK")" != "$PROGRAM/bin/edgepose" ] || rm -f "$DESTDIR$LINK"
  rm -rf "$DESTDIR$PROGRAM"
  rm -f "$DESTDIR$RULES" "$DESTDIR$SYSUSERS" \
    "$DESTDIR$UNITS/edgepose.service" "$DESTDIR$UNITS/edgepose@.service" \
    "$DESTDIR$UNITS/edgepose.service.d/sandbox.conf" \
    "$DESTDIR$UNITS/edgepose@.service.d/sandbox.conf"
  # Only where nobody else put something there.
  for folder in "$UNITS/edgepose.service.d" "$UNITS/edgepose@.service.d" \
    "$UNITS" "$LIB/systemd" "$LIB/udev/rules.d" "$LIB/udev" "$LIB/sysusers.d"; do
    rmdir "$DESTDIR$folder" 2>/dev/null || true
  done
  if has_systemd; then
    systemctl daemon-reload
    systemctl reset-failed 'edgepose.service' 'edgepose@*.service' 2>/dev/null || true
  fi
  [ -n "$DESTDIR" ] || reload_udev
  left="$CONFIG $STATE"
  [ ! -e "$DESTDIR$PASSWORD" ] || left="$left $PASSWORD"
  say "left are your configuration and what edgepose remembers ($left), and the user edgepose" \
    "who owns it. To remove them too:"
  echo "sudo rm -r $left && sudo userdel edgepose"
}

case "${1:-}" in
  install) install_all ;;
  uninstall) uninstall_all ;;
  *) fail "expected install or uninstall: sh systemd/install.sh install" ;;
esac
