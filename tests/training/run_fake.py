"""A tiny training run in a process of its own, for tests that kill or join processes.

python -m tests.training.run_fake WORKDIR --steps=40 --slow_s=0.01
"""

import argparse
import json
import time

import jax
import numpy as np
import optax

from hmr_jax.training import loop, parallel
from tests.training import fakes


class Shard(fakes.Stream):
    """This process's rows of each batch."""

    def __init__(self, index, count, slow_s, late_step_s):
        super().__init__()
        self._late_step_s = late_step_s
        self._rows = slice(index * 8 // count, (index + 1) * 8 // count)
        self._slow_s = slow_s

    def __next__(self):
        time.sleep(self._slow_s + self._late_step_s * (self.index == 1))
        return {name: x[self._rows] for name, x in super().__next__().items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("workdir")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--slow_s", type=float, default=0.0)
    parser.add_argument("--late_s", type=float, default=0.0)
    parser.add_argument("--late_step_s", type=float, default=0.0)
    parser.add_argument("--checkpoint_every", type=int, default=3)
    parser.add_argument("--log_every", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--own_workdir")
    parser.add_argument("--tx", default="sgd")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--coordinator")
    parser.add_argument("--process", type=int)
    args = parser.parse_args()
    if args.coordinator:
        parallel.start_processes(args.coordinator, 2, args.process)
    time.sleep(args.late_s)
    index, count = jax.process_index(), jax.process_count()
    result = loop.train(
        fakes.make_task(dropout=args.dropout),
        lambda: Shard(index, count, args.slow_s, args.late_step_s),
        tx={"sgd": optax.sgd(0.1), "adam": optax.adam(1e-2)}[args.tx],
        options=loop.LoopOptions(
            num_steps=args.steps,
            checkpoint_every=args.checkpoint_every,
            log_every=args.log_every,
            seed=args.seed,
            evaluate_every=5,
            best_metric="value",
            progress=False,
        ),
        workdir=args.own_workdir or args.workdir,
        assets=fakes.ASSETS,
        evaluate=lambda variables, step: {"value": (step * 7) % 5},
    )
    params = jax.tree.map(lambda x: np.asarray(x).tolist(), result.state.params)
    with open(f"{args.workdir}/final.{index}.json", "w") as file:
        json.dump({"finished": result.finished, "params": params}, file)


if __name__ == "__main__":
    main()
