"""Table 12 of the paper on the demo, suffix S1 against S2.

`python experiments/table12.py` writes figures/tables/table12.*
"""

from tables_common import script

INSTANCES, SEED = 54, 0

if __name__ == "__main__":
    script(__doc__, "table12", "--limit", str(INSTANCES), "--seed", str(SEED))
