# Everything is plain cargo and a few scripts; this file only names the usual ways to call them.

TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
MODEL := models/smollm2-135m
ARCHS := 80,86,89,90a,100,120

.PHONY: help build toolkit browser sandbox mpi slurm archs dist model demo headline headline-full test test-long candle fuzz bench gpu-build gpu-check gpu-pack gpu-pack-check fmt lint clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

build: ## build the library and dg-run
	cargo build --release --locked

toolkit: ## get nvcc, with which build compiles the CUDA kernels
	scripts/get-cuda-toolkit.sh

browser: ## get a headless Chromium, with which the tests look at pages
	scripts/get-chromium.sh install

sandbox: ## get bubblewrap, in which evaluations run code
	scripts/get-bubblewrap.sh

mpi: ## get MPICH and Open MPI, with whose ranks the tests compute
	scripts/get-mpi.sh

slurm: ## get Slurm, in whose jobs the tests train
	scripts/get-slurm.sh

archs: toolkit ## build with machine code for all GPU architectures of note
	DG_CUDA_ARCHS=$(ARCHS) cargo build --release --locked

# Its archives have the lines of the source beside them, which take a fifth of the time that a build takes.
dist: export CARGO_PROFILE_RELEASE_DEBUG = line-tables-only
dist: archs ## pack that build into an archive that runs with nothing but a driver
	scripts/dist.sh

model: build ## get SmolLM2-135M, the small model of demo and tests
	scripts/get-smollm2.sh $(MODEL)

demo: model ## train, score and generate with it: some four minutes
	scripts/demo.sh $(MODEL)

headline: model sandbox ## compare ways of hardening: base, CE, DeepGuard, SVEN; some 45 minutes
	scripts/headline.sh $(MODEL) runs/headline

headline-full: model sandbox ## the whole comparison, hours: three seeds, learning rates by trial; goes on where it was stopped
	scripts/headline.sh $(MODEL) runs/headline-full full

# A build of its own would have other features of dependencies, so what the model is imported with is the tests'.
test: toolkit ## run all tests, examples and documentation included
	cargo test --release --workspace --locked --no-run
	scripts/get-smollm2.sh $(MODEL)
	scripts/test.sh

test-long: test slurm ## those, Slurm's jobs, all references of data/eval, a thousand kills, a thousand ranks, other systems, candle and an hour of fuzzing for each parser: most of a day
	DG_EVAL_ALL=1 cargo test --release --workspace --locked --test eval references
	cargo test --release --locked --test roofline --test cuda -- --ignored
	cargo test --release --locked --test dist -- --ignored _times _at_once slurm
	DG_KILLS=1000 cargo test --release --workspace --locked --test runs killed
	scripts/check-targets.sh
	$(MAKE) candle
	scripts/fuzz.sh 3600

candle: toolkit ## build beside candle, and run our kernels on its tensors
	cd tests/candle && CARGO_TARGET_DIR="$(TARGET)/candle" cargo test --release --locked

fuzz: ## fuzz every parser for FUZZ_SECONDS each, 60 if not set
	scripts/fuzz.sh $(or $(FUZZ_SECONDS),60)

bench: ## measure
	cargo bench --locked

gpu-build: toolkit ## build what gpu-check runs, for all GPU architectures of note
	DG_CUDA_ARCHS=$(ARCHS) scripts/gpu-check.sh build

gpu-check: ## run tests and benches of CUDA on this machine's GPU, and write docs/gpu-report.md
	scripts/gpu-check.sh

gpu-pack: gpu-build ## pack that into one file, with which scripts/gpu-first.sh needs nothing but a driver
	scripts/gpu-pack.sh

gpu-pack-check: toolkit ## pack what the tests built, and rehearse with it on the emulator, as another user
	scripts/gpu-check.sh build
	scripts/gpu-pack.sh
	scripts/gpu-pack-check.sh

fmt: ## format the code
	cargo fmt --all
	"$$(scripts/get-lint-tools.sh)/clang-format" -i kernels/*.cu kernels/*.h

# Clippy has a build of its own, for which nvcc would compile all kernels again: what it looks at is no other without.
lint: ## check format, lints, spelling, licences and locks of dependencies, data and documentation
	PATH="$$(scripts/get-lint-tools.sh):$$PATH" && typos && cargo deny --locked check licenses bans sources
	"$$(scripts/get-lint-tools.sh)/clang-format" --dry-run --Werror kernels/*.cu kernels/*.h
	for other in fuzz tests/candle; do cargo update --workspace --locked --quiet --manifest-path $$other/Cargo.toml || exit; done
	python3 data/check.py && python3 data/headline/check.py && python3 data/eval/disjoint.py
	cargo fmt --all --check
	NVCC= cargo clippy --release --workspace --all-targets --locked -- -D warnings
	scripts/check-features.sh
	RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps --locked

clean: ## remove what was built, not models and runs
	cargo clean
