# Two commands for a newcomer: `make demo` and `make test`. Both install what they need, or say what to install.

.PHONY: help demo demos test soak lint deny bench fuzz clean

help:
	@echo "make demo    five live databases into one, on throwaway servers, under writers, and back: freeze, parity, no write lost"
	@echo "make demos   that one and every other demonstration, for a nightly: what failed is named, and the others are shown nevertheless"
	@echo "make test    every test, on real servers"
	@echo "make soak    the cutover with accidents at random moments, 20 seeds (SEEDS=n), and all that is killed at every point; make test runs a part"
	@echo "make bench   side by side with peers; prints ratios"
	@echo "make fuzz    each fuzz target for half a minute"
	@echo "make lint    formatting and clippy, as CI runs them"
	@echo "make deny    licences, refused crates, sources"

demo:
	@scripts/need rust cc postgresql pgbouncer ssh-keygen age
	@examples/butlers/demo

demos:
	@scripts/need rust cc postgresql pgbouncer ssh-keygen age redis-server node git faketime
	@failed=; for demo in examples/*/demo*; do \
		printf '\n#### %s\n' "$$demo"; \
		"$$demo" || failed="$$failed $$demo"; \
	done; \
	[ -z "$$failed" ] || { echo "failed:$$failed" >&2; exit 1; }

# The program that ends is the one that the tests built: for `cargo run` it would be built again, with fewer features of what it rests on.
# On Debian psql and pg_dump in /usr/bin are a Perl program that looks for the real ones, which takes longer than they do.
test:
	@scripts/need rust cc postgresql pgbouncer ssh-keygen openssl nextest age redis-server node python3-yaml git faketime
	@which='all()'; scripts/need servers || which='not test(/(^|::)versions::|_1[4678](_|$$)/)'; \
	export TMPDIR="$$(scripts/tmp)"; \
	export PATH="$$(pg_config --bindir 2>/dev/null || echo /usr/bin):$$PATH"; \
	threads=$$(($$(nproc) * 2)); \
	echo "TMPDIR=$$TMPDIR cargo nextest run --workspace --test-threads $$threads -E '$$which'"; \
	cargo nextest run --workspace --test-threads $$threads -E "$$which" && "$${CARGO_TARGET_DIR:-target}/debug/pgrunbook" sandbox down --all

soak:
	@scripts/need rust cc postgresql nextest
	CUTOVER_SEEDS=$(or $(SEEDS),20) cargo nextest run --package pgrunbook --no-capture -E 'test(no_accepted_write_is_lost) or test(/(^|::)crash(_cutover)?::/) or test(killed_at_any_point) or test(kill_at_any_point)'

lint:
	@for script in $$(git grep -lE '^#!.*bash'); do bash -n "$$script" || exit 1; done
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	@for features in '' tokio-postgres sqlx open-feature; do \
		echo "cargo clippy --package pgrunbook-guard --lib --features '$$features' -- -D warnings"; \
		cargo clippy --package pgrunbook-guard --lib --features "$$features" -- -D warnings || exit 1; \
	done

deny:
	@cargo deny --version >/dev/null 2>&1 || cargo install --quiet --locked cargo-deny
	cargo deny check licenses bans sources

bench:
	@scripts/need rust cc postgresql npm age
	bench/run

fuzz:
	@scripts/need rust cc c++
	fuzz/run 30

clean:
	cargo clean
