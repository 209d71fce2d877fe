# Two commands do everything on a fresh machine: make demo, make test.
#   PYTHON=python3.10 make demo     another interpreter (3.8 to 3.11)
#   MXNET=cu117 make demo           mxnet for NVIDIA GPUs instead of the CPU build
#   EXTRAS='torch safetensors' make test   more to install: the tests of PyTorch's side need these

PYTHON ?= python3
MXNET ?= cpu
EXTRAS ?=
VENV := .venv
GPU_MXNET := $(if $(filter cpu,$(MXNET)),cu117,$(MXNET))
BIN := $(VENV)/bin
# Another interpreter or mxnet is another installation.
STAMP := $(VENV)/installed-$(MXNET)-$(subst /,_,$(PYTHON))
INSTALLED := $(STAMP)$(if $(EXTRAS),-$(shell echo '$(EXTRAS)' | tr -c 'a-zA-Z0-9.\n' _))

.PHONY: demo docs test test-long test-faults test-gpu-wheels lint clean

demo: $(STAMP)
	$(BIN)/python scripts/demo.py

# Two processes of one thread each: most tests wait for Python, not for arithmetic.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart 0

# Long checks: ONNX files of all published networks, torch.compile, two workers that are stopped,
# all commands of the pages with many trainings.
test-long: $(INSTALLED)
	$(BIN)/python -m pytest -m long

# Kills, full disks, damaged files, wrong commands; see tests/faults/__main__.py. FAULTS='--kills 5'
test-faults: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults $(FAULTS)

# Whether pip alone brings all that the GPU build is linked to (3 GB of downloads, no GPU needed).
test-gpu-wheels:
	$(PYTHON) -m venv $(VENV)-$(GPU_MXNET)
	$(VENV)-$(GPU_MXNET)/bin/python -m pip install --quiet --disable-pip-version-check \
	  -e '.[$(GPU_MXNET)]' pyelftools
	$(VENV)-$(GPU_MXNET)/bin/python tests/gpu_wheels.py

# The documentation as a site, in site/.
docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "written site/index.html; to look at it: $(BIN)/mkdocs serve"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) $(VENV)-cu* build dist site *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last: an interrupted installation is done again.  PYTHON may be the link in
# the .venv that is removed, where that is active: what it links to makes the new one.
$(STAMP): setup.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 8) <= sys.version_info[:2] <= (3, 11))' 2>/dev/null \
	  || { echo "error: '$(PYTHON)' is not Python 3.8 to 3.11 (mxnet needs numpy 1.23, which has no" \
	  "later wheels): name another one, as in PYTHON=python3.11 make ..." >&2; exit 1; }
	@case '$(MXNET)' in cpu|cu112|cu117) ;; \
	  *) echo "error: MXNET=$(MXNET): write cpu, cu112 or cu117" >&2; exit 1;; esac
	@base=$$($(PYTHON) -c 'import os, sys; print(os.path.realpath(sys.executable))'); \
	  rm -rf $(VENV); "$$base" -m venv $(VENV) \
	  || { echo "error: '$(PYTHON) -m venv' failed: on Debian, apt install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$(MXNET),onnx,openvino,demo,gluoncv,coco,dev]'
	@$(BIN)/python -c 'import openaff; openaff.AFF'
	@touch $@

ifneq ($(INSTALLED),$(STAMP))
$(INSTALLED): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(patsubst %,'%',$(EXTRAS))
	@touch $@
endif
