# make install   environment in .venv (Python 3.11 to 3.13), and what the app can leave out of its torch
# make run       evaluate a real scan with the container, or without one where no engine answers
# make test      the quick tests: minutes
# make test-all  all tests; those that need a Docker engine, say, are skipped where none answers
# make lint      ruff and mypy; the docs' links
# make docs      the reference of all options anew, and the site in runs/site
# make sbom IMAGE=…      what an image holds: bills of materials and licences, in runs/sbom
# make gpu-check PART=…   what needs an NVIDIA GPU: masks, budgets, sizes; of the latter two a call does some
#                minutes' work, and the next call goes on; GPU_PYTHON=… where another Python has all it takes
# make gpu-pack  that, its packages and scans in runs/gpu-check.tar.xz, for a machine without a registry;
#                GPU_PACK='--python 3.12 --there numpy …' says what is there
# make lock      requirements/ anew after pyproject.toml, as far as it must; UPGRADE=--upgrade takes the newest
# make oracle    nnU-Net itself in .venv-nnunet: make test-all compares with it, training runs it
# make benchmark the README's tables; the last two need a Docker engine
# make benchmark-sizes  both published networks (on a CPU one), all published sizes: takes long

PYTHON ?= $(shell command -v python3.11 || command -v python3)

.PHONY: install lock oracle run test test-all lint docs sbom gpu-check gpu-pack benchmark benchmark-sizes

install: app/lean/left_out.json
oracle: .venv-nnunet/installed

# The torch that the tests run with.
TORCH = $(shell sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)

# Nothing is installed that the lock does not know, but for a torch for CPUs: an index that has one is the
# user's own. $(call install-locked,ENVIRONMENT,FILE)
define install-locked
$(1)/bin/python -m pip install --quiet --no-deps --requirement $(2)
$(1)/bin/python -m pip install --quiet --no-deps '$(TORCH)+cpu' 2>$(1)/no-torch-for-cpus \
    || $(1)/bin/python -m pip install --quiet --no-deps --requirement requirements/torch.txt
$(1)/bin/python -m pip check
endef

.venv/installed: pyproject.toml requirements/dev.txt requirements/torch.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13) and "needs Python 3.11 to 3.13: set PYTHON")'
	$(PYTHON) -m venv .venv
	$(call install-locked,.venv,requirements/dev.txt)
	.venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# Four files: of the extra `dev`, of nnU-Net, of what the image holds, of torch and what it brings where it is
# built for CUDA; hashes, and no index. It takes no prerequisite: what is to be installed is not known before.
UV ?= .venv/bin/uv
LOCK = $(UV) pip compile --quiet --generate-hashes --custom-compile-command 'make lock' $(UPGRADE)
AS_IMAGE = --python-version 3.11 --python-platform x86_64-unknown-linux-gnu --constraint requirements/dev.txt
lock:
	$(LOCK) pyproject.toml --extra dev --universal --python-version 3.11 --no-emit-package torch \
	    --output-file requirements/dev.txt
	$(LOCK) --group nnunet --universal --python-version 3.11 --constraint requirements/dev.txt \
	    --no-emit-package torch --output-file requirements/nnunet.txt
	echo '$(TORCH)' | $(LOCK) pyproject.toml - --extra app $(AS_IMAGE) --no-emit-package torch \
	    --output-file requirements/image.txt
	echo '$(TORCH)' | $(LOCK) - --no-config $(AS_IMAGE) --output-file requirements/torch.txt

# Without it (-: it may not be found) the app imports all of torch, which takes longer.
app/lean/left_out.json: .venv/installed
	-.venv/bin/python -m app.lean.find

.venv-nnunet/installed: requirements/nnunet.txt requirements/torch.txt
	$(PYTHON) -m venv .venv-nnunet
	$(call install-locked,.venv-nnunet,requirements/nnunet.txt)
	touch $@

# What an image holds: bills of materials of Debian's packages and of Python's, and the licences of the latter.
# Only lists and metadata leave the image.
SBOM = runs/sbom
LICENCES = $(SBOM)/licences.md
IN_IMAGE = var/lib/dpkg $$(ls -d usr/share/doc/*/copyright) opt/venv/lib/python3*/site-packages/*.dist-info
sbom: .venv/installed
	rm -rf $(SBOM) && mkdir -p $(SBOM)/root
	docker run --rm --network none $(or $(IMAGE),$(error IMAGE is the name of an image)) \
	    sh -c 'cd / && tar c $(IN_IMAGE)' | tar x -C $(SBOM)/root
	.venv/bin/debsbom generate --sbom-type cdx --with-licenses --root $(SBOM)/root --out $(SBOM)/debian
	.venv/bin/python -m venv --without-pip $(SBOM)/environment
	mv $(SBOM)/root/opt/venv/lib/*/site-packages/* $(SBOM)/environment/lib/*/site-packages/
	.venv/bin/cyclonedx-py environment $(SBOM)/environment/bin/python --output-file $(SBOM)/python.cdx.json
	{ printf '%s\n\n' '# Licences' \
	    'What the Python packages in the image state (UNKNOWN: nothing), written by `make sbom`.' \
	    'Their texts lie there in their `.dist-info` folders, those of Debian in `/usr/share/doc/*/copyright`.'; \
	    .venv/bin/pip-licenses --python $(SBOM)/environment/bin/python --with-system --format markdown; } \
	    >$(LICENCES)
	rm -r $(SBOM)/root $(SBOM)/environment

# Does not wait for what `install` finds out about torch: minutes, for half a second less a scan.
run: .venv/installed
	.venv/bin/python -m examples.demo --output runs/demo

# Files beside each other, the tests of a file one after the other: they share its fixtures.
IN_PARALLEL = --numprocesses logical --dist loadfile

test: install
	.venv/bin/python -m pytest $(IN_PARALLEL) -m 'not slow'

# What shares an engine or a Slurm, or measures time, has the machine to itself.
IN_TURN = engine or slurm or alone

test-all: install oracle
	.venv/bin/python -m pytest $(IN_PARALLEL) -m 'not ($(IN_TURN))'
	.venv/bin/python -m pytest -m '$(IN_TURN)'

# No prerequisite: a machine with a GPU may reach no registry, and has its own torch.
GPU_PYTHON ?= .venv/bin/python
PART ?= masks
# Only that folder: to collect all tests takes all packages of the extra `dev`.
gpu-masks = -m pytest --cuda tests/cuda
# A run that begins in these minutes ends before the eighth.
gpu-budgets = -m benchmarks.budgets --resume --minutes 6
gpu-sizes = -m benchmarks.sizes --device cuda --repeats 3 --resume --minutes 4
gpu-check:
	-$(GPU_PYTHON) -m app.lean.find --if-needed
	$(GPU_PYTHON) $(or $(gpu-$(PART)),$(error PART is one of masks, budgets, sizes))

gpu-pack: install
	.venv/bin/python -m benchmarks.pack $(GPU_PACK)

lint: install
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/mkdocs build --strict

docs: install
	.venv/bin/python docs/generate.py
	.venv/bin/mkdocs build --strict

benchmark: install oracle
	.venv/bin/python -m benchmarks.against_nnunet --output runs/benchmark
	.venv/bin/python -m benchmarks.shortcuts --output runs/benchmark
	.venv/bin/python -m benchmarks.scoring --output runs/benchmark
	.venv/bin/python -m benchmarks.ranking --output runs/benchmark
	.venv/bin/python -m benchmarks.start_up --output runs/benchmark
	.venv/bin/python -m benchmarks.memory --output runs/benchmark
	.venv/bin/python -m benchmarks.harness_overhead --output runs/benchmark
	.venv/bin/python -m benchmarks.scheduling --output runs/benchmark

benchmark-sizes: install oracle
	.venv/bin/python -m benchmarks.sizes --output runs/benchmark
