# Short names for what people do with this repository. The real build is
# CMakeLists.txt.
BUILD  ?= build
PREFIX ?= /usr/local
JOBS   ?= $(shell getconf _NPROCESSORS_ONLN)
FUZZ_SECONDS ?= 60

.PHONY: all deps test demo demo-train eval-rag bench bench-engine bench-train bench-data bench-rag asan tsan neon fuzz lint format manifest install clean
all:
	@cmake -S . -B $(BUILD) > $(BUILD).log 2>&1 || { cat $(BUILD).log; echo "Missing libraries? Run: make deps"; exit 1; }
	@rm -f $(BUILD).log
	@cmake --build $(BUILD) -j$(JOBS)

deps:
	@scripts/deps.sh build

test: deps all
	ctest --test-dir $(BUILD) --output-on-failure -j$(JOBS)

demo: deps
	@$(MAKE) --no-print-directory all
	@scripts/demo.sh $(BUILD)

eval-rag: deps
	@$(MAKE) --no-print-directory all
	@scripts/eval_rag.sh $(BUILD)

demo-train: deps
	@$(MAKE) --no-print-directory all
	@scripts/demo_train.sh $(BUILD)

bench: deps
	@$(MAKE) --no-print-directory all
	@scripts/bench.sh $(BUILD)

bench-engine: deps
	@$(MAKE) --no-print-directory all
	@scripts/bench_engine.sh $(BUILD)

bench-train: deps
	@$(MAKE) --no-print-directory all
	@scripts/bench_train.sh $(BUILD)

bench-data: deps
	@$(MAKE) --no-print-directory all
	@scripts/bench_data.sh $(BUILD)

bench-rag: deps
	@$(MAKE) --no-print-directory all
	@scripts/bench_rag.sh $(BUILD)

# The suite again under the sanitizers; under TSan what has threads, at sizes
# that end in time.
THREADED = ^test_(base|core|io|ops|mx|nn|models|lm|data_parallel|tune_step|rag_index|rag_answer)
asan: deps
	cmake -S . -B $(BUILD)-asan -DSANITIZE=address -DCMAKE_BUILD_TYPE=RelWithDebInfo > /dev/null
	cmake --build $(BUILD)-asan -j$(JOBS)
	MLX_RAG_CPU=avx2 ctest --test-dir $(BUILD)-asan --output-on-failure -j$(JOBS)

tsan: deps
	cmake -S . -B $(BUILD)-tsan -DSANITIZE=thread -DCMAKE_BUILD_TYPE=RelWithDebInfo > /dev/null
	cmake --build $(BUILD)-tsan -j$(JOBS)
	TSAN_OPTIONS="halt_on_error=1 die_after_fork=0" MLX_RAG_CPU=avx2 MLX_RAG_THREADS=4 ctest --test-dir $(BUILD)-tsan --output-on-failure -R '$(THREADED)'

# The kernels of aarch64 on another machine (Debian).
neon:
	@scripts/deps.sh build neon
	@scripts/neon.sh $(BUILD)-neon $(JOBS)

fuzz:
	@scripts/deps.sh build tools
	@scripts/fuzz.sh $(BUILD)-clang $(FUZZ_SECONDS) $(JOBS)

lint:
	@scripts/deps.sh build tools
	@scripts/lint.sh $(BUILD)-clang $(JOBS)

format:
	git ls-files '*.c' '*.h' | xargs clang-format -i

manifest: all
	$(BUILD)/mlx-rag commands --markdown > docs/COMMANDS_MANIFEST.md

install: all
	cmake --install $(BUILD) --prefix $(PREFIX)

clean:
	rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-tsan $(BUILD)-neon $(BUILD)-clang
