# What people type; the work is in tools/.
.PHONY: run stop test bench

run:
	@tools/run.sh

stop:
	@tools/stop.sh

test:
	@tools/test.sh

bench:
	@tools/bench.sh
