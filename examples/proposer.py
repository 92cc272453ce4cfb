"""A search algorithm of one's own: this file, and one line, with this file's folder on PYTHONPATH:

todm-sb search results/mini/1234 --algorithm proposer.Mutations
"""

from todm_sb.search.study import SEARCH


class Mutations:
    """Mutants of the subnets with the fewest errors.

    Args:
        task: what is searched for.
    """

    name = "mutations"

    def __init__(self, task):
        self.task = task

    def first(self):
        """Max and min."""
        return [self.task.space.max, self.task.space.min]

    def candidates(self, trial, rng):
        """For ever a mutant of one of the ten best so far."""
        finished = self.task.study.finished(SEARCH).values()
        best = [config for config, _ in sorted(finished, key=lambda found: found[1])[:10]]
        while best:
            yield self.task.space.mutate(rng.choice(best), rng)
