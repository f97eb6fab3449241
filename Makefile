# make demo       virtual environment, requirements, built-in example
# make annotate   the same set-up, then the page on which masks are made, with the built-in example
# make test       the same set-up, then the quick tests
# make test-all   the whole test suite
# make lint       ruff
# make pack       STATIC=static VIDEOS=DAVIS/2017/trainval: training images and videos as one small folder, pack
# make gpu-check  checks and measures what only a GPU can tell; DAVIS=FOLDER also scores, REHEARSE=1 needs no GPU
# make clean      removes what the others made
#
# TORCH_INDEX=URL   take torch and torchvision from this index (the small CPU build, another CUDA version)

PYTHON ?= python3
BIN := .venv/bin
TORCH_INDEX ?=
STATIC ?= static
VIDEOS ?= DAVIS/2017/trainval

.PHONY: demo annotate test test-all lint pack gpu-check clean

.venv/installed: requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	    || { echo "Python 3.10 or newer is needed; $(PYTHON) is older. Try: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
	    || { echo "This Python cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv
	$(if $(TORCH_INDEX),$(BIN)/pip install --index-url $(TORCH_INDEX) torch torchvision)
	$(BIN)/pip install --quiet -r requirements-dev.txt
	touch $@

demo: .venv/installed
	$(BIN)/python track.py --example

annotate: .venv/installed
	$(BIN)/python annotate.py --example

test: .venv/installed
	$(BIN)/python -m pytest -m "not slow"

test-all: .venv/installed
	$(BIN)/python -m pytest

lint: .venv/installed
	$(BIN)/ruff check .

pack: .venv/installed
	$(BIN)/python make_pack.py --static-root "$(STATIC)" --video-root "$(VIDEOS)" --output pack

gpu-check: .venv/installed
	$(BIN)/python gpu_check.py $(if $(DAVIS),--davis-path $(DAVIS)) $(if $(REHEARSE),--rehearse)

clean:
	rm -rf .venv out .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
