"""Fig. 7 of the paper on the demo, memory and seconds.

`python experiments/fig7.py` writes figures/tables/fig7.*
"""

from tables_common import script

PROCESSES, SEED = 3, 0

if __name__ == "__main__":
    script(__doc__, "fig7", "--repeats", str(PROCESSES), "--seed", str(SEED))
