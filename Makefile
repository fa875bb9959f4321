# make demo        see it work: makes samples, trains four networks and a small search, prints the tables, and uses
#                  what was trained on a new photo and a new sentence; two minutes
# make test        linters, type checks and the tests, in two processes
# make test-all    then the slow ones too: real full disks, whole trainings, every command of the README
# Each sets up .venv first.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$p && break; done)
RUN := .venv/bin/python
IN_PARALLEL := -n 2 --dist worksteal

.PHONY: demo test test-all docs clean

demo: .venv/installed
	rm -rf experiments/demo
	$(RUN) build_dataset.py --sample --output_dir data/sample --overwrite
	$(RUN) train.py --model_dir experiments/demo/cnn --base experiments/base_model --data_dir data/sample
	$(RUN) evaluate.py --model_dir experiments/demo/cnn
	$(RUN) train.py --model_dir experiments/demo/resnet --base experiments/signs_resnet --data_dir data/sample \
		--set num_epochs=20 warmup_epochs=4
	$(RUN) evaluate.py --model_dir experiments/demo/resnet
	$(RUN) build_dataset.py --task sequence_tagging --sample --output_dir data/ner_sample --overwrite
	$(RUN) train.py --model_dir experiments/demo/ner --base experiments/ner_bilstm_crf --data_dir data/ner_sample \
		--set num_epochs=8
	$(RUN) evaluate.py --model_dir experiments/demo/ner
	$(RUN) build_dataset.py --task tabular_prediction --sample --output_dir data/table_sample --overwrite
	$(RUN) train.py --model_dir experiments/demo/table --base experiments/tabular_mlp --data_dir data/table_sample
	$(RUN) evaluate.py --model_dir experiments/demo/table
	mkdir experiments/demo/search
	cp experiments/ner_lstm/params.json experiments/demo/search
	$(RUN) search_hyperparams.py --parent_dir experiments/demo/search --data_dir data/ner_sample \
		--set learning_rate=3e-3,1e-2,3e-2 batch_size=32,64
	$(RUN) synthesize_results.py --parent_dir experiments/demo --html experiments/demo/report.html
	$(RUN) -c "import numpy; from model.image_classification.sample import draw_hand; \
		draw_hand(5, numpy.random.default_rng(1)).save('experiments/demo/new.jpg')"
	$(RUN) predict.py --model_dir experiments/demo/cnn experiments/demo/new.jpg --top 3
	$(RUN) predict.py --model_dir experiments/demo/ner \
		"Zolfi Welski said on Sunday that the University of Kentrom will leave San Kila."

test: .venv/installed-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy .
	$(RUN) -m pytest -m "not slow" $(IN_PARALLEL)

test-all: test
	$(RUN) -m pytest -m slow $(IN_PARALLEL)

docs: .venv/installed
	$(RUN) -m docs.generate

.venv/installed: requirements.txt
	@test -n "$(PYTHON)" || { echo "Python 3.10 or newer is needed: make demo PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv .venv
	@echo "Installing into .venv: a few minutes the first time"
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/installed-dev: .venv/installed $(wildcard requirements-*.txt)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis experiments/demo \
		data/sample data/ner_sample data/table_sample
