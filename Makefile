# On a fresh Debian or Raspberry Pi OS machine, as an ordinary user with sudo:
#   make demo        poses arriving at an MQTT subscriber, with nothing configured
#   make test        every check of CI
#   make test-fast   unit and contract tests, under a minute
# They install what they need and print what: a virtual environment in .venv, and Debian packages.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
RUN    := $(BIN)/python -m

# picamera2 comes from Debian's archive only and is seen through the system's site-packages.
SITE   := $(shell $(PYTHON) -c 'import importlib.util as u; print("--system-site-packages" if u.find_spec("picamera2") else "")' 2>/dev/null)
SUDO   := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
APT    := DEBIAN_FRONTEND=noninteractive apt-get

.PHONY: demo test test-fast test-latest test-oldest test-convert test-systemd test-camera test-arm64 deb test-deb test-homeassistant test-dashboard chaos lint docs bench quality setup clean install uninstall

demo: $(VENV)/.demo
	$(BIN)/edgepose demo

test: $(VENV)/.dev /usr/sbin/mosquitto /usr/bin/mosquitto_sub /usr/bin/jq /usr/bin/ffmpeg /usr/bin/gcc \
  /usr/bin/systemd-analyze /usr/bin/chromedriver $(VENV)/.rtsp lint
	$(RUN) pytest

test-fast: $(VENV)/.dev
	$(RUN) pytest tests/unit tests/contract

# Not part of `test`: the newest versions that the ranges of pyproject.toml allow, and the lowest.
test-latest: .venv-latest/.done
	.venv-latest/bin/python -m pytest tests/unit tests/contract

test-oldest: .venv-oldest/.done
	.venv-oldest/bin/python -m pytest tests/unit tests/contract

.venv-latest/.done: pyproject.toml $(BIN)/python
	$(PYTHON) -m venv $(SITE) .venv-latest
	.venv-latest/bin/python -m pip install -q --upgrade -e '.[all,dev]'
	@touch $@

.venv-oldest/.done: pyproject.toml constraints/oldest.txt $(BIN)/python
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install -q -c constraints/oldest.txt -e '.[all]' \
	  hypothesis jinja2 jsonschema pytest pytest-timeout tflite-runtime
	@touch $@

# Not part of `test`: TensorFlow is half a gigabyte, and building a model takes a minute.
test-convert: $(VENV)/.convert
	$(RUN) pytest -m convert tests/convert

# Not part of `test`: it needs root, for a Debian of its own in a container (and debootstrap to make
# it). SUITES=bookworm tests only one.
test-systemd: $(VENV)/.dev /usr/sbin/debootstrap /usr/bin/systemd-nspawn
	$(SUDO) env PYTHONDONTWRITEBYTECODE=1 SUITES="$(SUITES)" $(RUN) pytest -p no:cacheprovider \
	  -m systemd tests/systemd

# Not part of `test`: it needs root, for a Debian of its own with libcamera and picamera2, which it
# makes once (1.3 GB in ~/.cache/edgepose-tests).
test-camera: $(VENV)/.dev /usr/sbin/mosquitto /usr/sbin/debootstrap
	$(SUDO) env PYTHONDONTWRITEBYTECODE=1 $(RUN) pytest -p no:cacheprovider -m camera tests/camera

# Not part of `test`: it needs root, and a processor is emulated, which takes half an hour. Two
# Debians for arm64 are made once (1 GB each in ~/.cache/edgepose-tests); SUITES=trixie makes one.
test-arm64: $(VENV)/.dev /usr/sbin/mosquitto /usr/sbin/debootstrap /usr/bin/qemu-aarch64-static
	$(SUDO) env PYTHONDONTWRITEBYTECODE=1 SUITES="$(SUITES)" $(RUN) pytest -p no:cacheprovider \
	  -m arm64 tests/arm64

# Not part of `test`: it needs root, for a Debian of its own with a real Home Assistant, which it
# makes once (1.7 GB each in ~/.cache/edgepose-tests). SUITES=testing runs only the newest release.
test-homeassistant: $(VENV)/.dev /usr/sbin/mosquitto /usr/bin/mosquitto_sub /usr/sbin/debootstrap
	$(SUDO) env PYTHONDONTWRITEBYTECODE=1 SUITES="$(SUITES)" $(RUN) pytest -p no:cacheprovider \
	  -m homeassistant tests/homeassistant

# Not part of `test`: ten minutes of five cameras on the live page in Chromium, and its figures. It
# needs a quiet machine.
test-dashboard: $(VENV)/.dev /usr/sbin/mosquitto /usr/bin/chromedriver
	$(RUN) tests.dashboard_load

# A Debian package of a suite and architecture, in dist/, cross-built without emulation. pip takes the
# wheels that packaging/SUITE.txt pins by hash: make deb SUITE=bookworm ARCH=arm64
SUITE ?= $(shell . /etc/os-release && echo $$VERSION_CODENAME)
ARCH  ?= $(shell dpkg --print-architecture)
deb: $(BIN)/python
	PYTHON=$(BIN)/python sh packaging/build.sh $(SUITE) $(ARCH) dist

# Not part of `test`: it needs root, and builds a package for each suite, which takes minutes. With
# ARCH=arm64 on another machine, that package is installed and tried on an emulated processor.
FOREIGN = $(filter-out $(shell dpkg --print-architecture),$(ARCH))
test-deb: $(VENV)/.dev /usr/sbin/debootstrap /usr/bin/systemd-nspawn \
  $(if $(FOREIGN),/usr/bin/qemu-aarch64-static)
	for suite in $(or $(SUITES),bookworm trixie); do \
	  rm -f dist/*~$${suite}_$(ARCH).deb && $(MAKE) deb SUITE=$$suite ARCH=$(ARCH) || exit 1; done
	$(SUDO) env PYTHONDONTWRITEBYTECODE=1 SUITES="$(SUITES)" $(RUN) pytest -p no:cacheprovider \
	  -m deb tests/deb/$(if $(FOREIGN),test_package_emulated.py,test_package.py)

# The service of this machine; everything it does is in systemd/install.sh.
install uninstall:
	@$(if $(DESTDIR),,$(SUDO)) env DESTDIR="$(DESTDIR)" sh systemd/install.sh $@

lint: $(VENV)/.dev
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(BIN)/lint-imports

# The documents that are made from the code; a unit test fails while they are out of date.
docs: $(VENV)/.dev
	$(RUN) tools.generate_docs

# Not part of `test`: it takes minutes. Everything that goes wrong around the daemon, for real, and
# a table of what became of it; FAULTS="tpu-abort killed" tries only these, FAULTS=--hour all with an
# hour of video at the end.
chaos: $(VENV)/.dev /usr/sbin/mosquitto /usr/bin/ffmpeg /usr/bin/gcc $(VENV)/.rtsp
	$(RUN) tests.chaos $(FAULTS)

bench: $(VENV)/.dev /usr/sbin/mosquitto /usr/bin/gcc /usr/bin/valgrind
	$(RUN) tools.bench

# Not part of `test`: the first run takes a quarter of an hour. QUALITY="tracking --write" measures
# one part only and puts its table into its document.
quality: $(VENV)/.dev
	$(RUN) tests.quality $(QUALITY)

setup: $(VENV)/.dev

clean:
	rm -rf $(VENV) .venv-latest .venv-oldest .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@echo "== making a virtual environment in $(VENV)"
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "== installing Debian's python3-venv"; $(SUDO) $(APT) update -q; \
	  $(SUDO) $(APT) install -y -q python3-venv; }
	$(PYTHON) -m venv $(SITE) $(VENV)

$(VENV)/.demo: pyproject.toml $(BIN)/python
	@echo "== installing edgepose with the demo's embedded broker into $(VENV)"
	$(RUN) pip install -q -e '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints/dev.txt $(BIN)/python
	@echo "== installing edgepose with everything that developing needs into $(VENV)"
	$(RUN) pip install -q -c constraints/dev.txt -e '.[all,dev]'
	@touch $@ $(VENV)/.demo

$(VENV)/.convert: $(VENV)/.dev
	@echo "== installing TensorFlow and the quantizer, which building models needs"
	$(RUN) pip install -q -e '.[all,dev,convert]'
	@touch $@

/usr/sbin/mosquitto:
	@echo "== installing Debian's mosquitto, the broker that the tests talk to"
	$(SUDO) $(APT) update -q
	$(SUDO) $(APT) install -y -q --no-install-recommends mosquitto

/usr/bin/mosquitto_sub:
	@echo "== installing Debian's mosquitto-clients"
	$(SUDO) $(APT) update -q
	$(SUDO) $(APT) install -y -q --no-install-recommends mosquitto-clients

/usr/bin/jq:
	@echo "== installing Debian's jq, which examples of the documents use"
	$(SUDO) $(APT) update -q
	$(SUDO) $(APT) install -y -q --no-install-recommends jq

$(VENV)/.rtsp: $(BIN)/python
	@/usr/bin/python3 -c 'import gi; gi.require_version("GstRtspServer", "1.0")' 2>/dev/null || { \
	  echo "== installing Debian's GStreamer RTSP server, which the tests read a stream from"; \
	  $(SUDO) $(APT) update -q; \
	  $(SUDO) $(APT) install -y -q --no-install-recommends python3-gi \
	    gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good \
	    gstreamer1.0-plugins-bad; }
	@touch $@

/usr/bin/qemu-aarch64-static:
	@echo "== installing Debian's QEMU, which runs programs of other processors"
	$(SUDO) $(APT) update -q
	$(SUDO) $(APT) install -y -q --no-install-recommends qemu-user-static binfmt-support

/usr/sbin/debootstrap:
	@echo "== installing Debian's debootstrap, which makes the Debian that the service is tested in"
	$(SUDO) $(APT) update -q
	$(SUDO) $(APT) install -y -q --no-install-recommends debootstrap debian-archive-keyring

/usr/bin/systemd-analyze:
	@echo "== installing Debian's systemd, whose tools check the units"
	$(SUDO) $(APT) update -q
	$(SUDO) $(APT) install -y -q --no-install-recommends systemd

/usr/bin/systemd-nspawn:
	@echo "== installing Debian's systemd-container, which boots it"
	$(SUDO) $(APT) update -q
	$(SUDO) $(APT) install -y -q --no-install-recommends systemd-container

/usr/bin/ffmpeg:
	@echo "== installing Debian's ffmpeg, which makes the tests' videos"
	$(SUDO) $(APT) update -q
	$(SUDO) $(APT) install -y -q --no-install-recommends ffmpeg

/usr/bin/chromedriver:
	@echo "== installing Debian's Chromium, in which the live page is tested"
	$(SUDO) $(APT) update -q
	$(SUDO) $(APT) install -y -q --no-install-recommends chromium chromium-driver

/usr/bin/gcc:
	@echo "== installing Debian's gcc, which builds the fake Edge TPU of the tests"
	$(SUDO) $(APT) update -q
	$(SUDO) $(APT) install -y -q --no-install-recommends gcc libc6-dev

/usr/bin/valgrind:
	@echo "== installing Debian's valgrind, which counts the instructions of a frame"
	$(SUDO) $(APT) update -q
	$(SUDO) $(APT) install -y -q --no-install-recommends valgrind
