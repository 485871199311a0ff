#!/bin/sh
# Installs edgepose as a system service from this checkout, or removes it:
#   sh systemd/install.sh install     (`make install`; repeat it to upgrade)
#   sh systemd/install.sh uninstall   (`make uninstall`)
# Run it as root. With DESTDIR set, files are only copied to that folder: no service is started, no
# user and no virtual environment (which contains its own path) is created.
set -eu
umask 022

HERE=$(cd "$(dirname "$0")" && pwd)
DESTDIR=${DESTDIR:-}
PYTHON=${PYTHON:-/usr/bin/python3}
BOARD=${BOARD:-/proc/device-tree/model}

# The folders of systemd and udev for files that no package installed.
LIB=/usr/local/lib
UNITS=$LIB/systemd/system
RULES=$LIB/udev/rules.d/60-edgepose.rules
SYSUSERS=$LIB/sysusers.d/edgepose.conf
PROGRAM=/opt/edgepose
LINK=/usr/local/bin/edgepose
CONFIG=/etc/edgepose
STATE=/var/lib/edgepose
CREDENTIALS=/etc/credstore

log() { echo "== $*"; }
fail() { echo "edgepose: $*" >&2; exit 1; }

# $1: where in the system, $2: which file of this folder
put() {
  install -D -m 644 "$HERE/$2" "$DESTDIR$1"
}

apt_install() {
  log "installing Debian's $1"
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
    fail "python3-venv could not be installed; see the output of apt above"
}

install_picamera2() {
  "$PYTHON" -c 'import importlib.util as u; raise SystemExit(u.find_spec("picamera2") is None)' &&
    return
  grep -qs "Raspberry Pi" "$BOARD" || return 0
  apt_install python3-picamera2 ||
    log "picamera2 is not available, so cameras of the Pi cannot be used (USB and network cameras" \
      "can). On Raspberry Pi OS, install it with sudo apt install python3-picamera2, then" \
      "sudo systemctl restart edgepose"
}

# A virtual environment is for one Python version, and has picamera2 only with system packages.
venv_fits() {
  grep -qs 'include-system-site-packages = true' "$PROGRAM/pyvenv.cfg" &&
    [ "$("$PROGRAM/bin/python" -c "$1" 2>/dev/null)" = "$("$PYTHON" -c "$1")" ]
}

put_program() {
  if ! venv_fits 'import sys; print(sys.version_info[:2])'; then
    log "creating a virtual environment in $PROGRAM"
    "$PYTHON" -m venv --clear --system-site-packages "$PROGRAM"
  fi
  log "installing edgepose and the Python packages it needs into $PROGRAM (takes a while)"
  "$PROGRAM/bin/python" -m pip install --quiet --upgrade "$HERE/.." ||
    fail "pip could not install edgepose; see its output above"
  if [ -e "$LINK" ] && [ ! -L "$LINK" ]; then
    log "$LINK exists and was not replaced; the command is $PROGRAM/bin/edgepose"
  else
    ln -sfn "$PROGRAM/bin/edgepose" "$LINK"
  fi
}

put_files() {
  log "installing the service, its template, the udev rules and the system user in $LIB"
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
    log "keeping $CONFIG/config.yaml"
    return
  fi
  log "installing a configuration with the defaults as $CONFIG/config.yaml"
  put "$CONFIG/config.yaml" config.yaml
  [ -n "$DESTDIR" ] || {
    # The address of a network camera contains its password.
    chgrp edgepose "$CONFIG/config.yaml"
    chmod 640 "$CONFIG/config.yaml"
  }
}

make_user() {
  log "creating the system user edgepose, unless it exists"
  systemd-sysusers "$SYSUSERS"
  # With this owner from the start: systemd would otherwise change the owner of root's models too.
  install -d -m 755 -o edgepose -g edgepose "$STATE"
  install -d -m 755 -o root -g root "$STATE/models"
  [ -d "$CREDENTIALS" ] || install -d -m 700 "$CREDENTIALS"
}

reload_udev() {
  [ -S /run/udev/control ] || return 0
  udevadm control --reload
  udevadm trigger --subsystem-match=usb --subsystem-match=apex --subsystem-match=dma_heap
}

# A missing device, such as a camera, is logged only a moment after the start.
show_log() {
  sleep 3
  if systemctl is-active --quiet edgepose.service; then
    log "edgepose is running; its log so far:"
  else
    log "edgepose is installed but not running yet; its log so far:"
  fi
  journalctl -u edgepose.service --since "$1" -n 8 -o cat --no-pager SYSLOG_IDENTIFIER=edgepose ||
    true
  log "follow the log with journalctl -fu edgepose. A missing camera or Edge TPU is retried" \
    "automatically; after correcting an error in $CONFIG/config.yaml run" \
    "sudo systemctl restart edgepose"
}

start() {
  systemctl daemon-reload
  if [ "$1" = first ]; then
    log "starting the service, now and at every boot"
    systemctl enable --quiet edgepose.service
  else
    log "restarting the running services"
  fi
  systemctl try-restart 'edgepose@*.service' ||
    log "some edgepose@ services are not running; see journalctl -u 'edgepose@*'"
  if ! systemctl is-enabled --quiet edgepose.service; then
    systemctl try-restart edgepose.service || true
    log "edgepose.service stays disabled (to enable it: sudo systemctl enable --now edgepose)"
  else
    now=$(date '+%Y-%m-%d %H:%M:%S')
    systemctl restart edgepose.service 2>/dev/null || true
    show_log "$now"
  fi
}

install_all() {
  need_root
  upgrade=first
  [ ! -e "$DESTDIR$UNITS/edgepose.service" ] || upgrade=again
  if [ -z "$DESTDIR" ]; then
    check_python
    install_picamera2
    put_program
  fi
  put_files
  [ -n "$DESTDIR" ] || make_user
  put_config
  [ -n "$DESTDIR" ] || reload_udev
  if has_systemd; then
    start "$upgrade"
  elif [ -z "$DESTDIR" ]; then
    log "systemd is not running, so no service was started"
  fi
}

uninstall_all() {
  need_root
  if has_systemd; then
    log "stopping edgepose"
    systemctl disable --quiet --now edgepose.service 2>/dev/null || true
    systemctl stop 'edgepose@*.service'
    systemctl disable --quiet edgepose@.service 2>/dev/null || true
  fi
  log "removing the program, its services, udev rules and command"
  [ "$(readlink "$DESTDIR$LINK")" != "$PROGRAM/bin/edgepose" ] || rm -f "$DESTDIR$LINK"
  rm -rf "$DESTDIR$PROGRAM"
  rm -f "$DESTDIR$RULES" "$DESTDIR$SYSUSERS" \
    "$DESTDIR$UNITS/edgepose.service" "$DESTDIR$UNITS/edgepose@.service" \
    "$DESTDIR$UNITS/edgepose.service.d/sandbox.conf" \
    "$DESTDIR$UNITS/edgepose@.service.d/sandbox.conf"
  # Folders that contain other files stay.
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
  for name in mqtt-password camera-password; do
    [ ! -e "$DESTDIR$CREDENTIALS/edgepose.$name" ] || left="$left $CREDENTIALS/edgepose.$name"
  done
  log "the configuration and the state of edgepose ($left) and the user edgepose were kept. To" \
    "remove them:"
  echo "sudo rm -r $left && sudo userdel edgepose"
}

case "${1:-}" in
  install) install_all ;;
  uninstall) uninstall_all ;;
  *) fail "expected install or uninstall: sh systemd/install.sh install" ;;
esac
